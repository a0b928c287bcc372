"""Models of what devices say: each op has one, limits hold at their edges, and what is not known is passed over."""

import pytest
from pydantic import ValidationError

from hub.device_message import MODELS, TICKS, BatchModel, GapModel, HelloModel

HELLO = {
    "device": "d",
    "stream": "0" * 16,
    "boot": "b",
    "run": "r",
    "proto": 1,
    "acked": 0,
    "next": 1,
    "chain": "0" * 32,
}
BATCH = {"seq": 1, "count": 1, "t0": "0", "c": {"x": {"v": [1.0], "dt": [0]}}}


def test_each_op_has_a_model() -> None:
    """Of both kinds: those that are answered and those that are not."""
    assert set(MODELS) == {"hello", "schema", "batch", "gap", "reply", "reported", "bye"}


def test_what_is_not_known_is_passed_over() -> None:
    """A newer SDK may say more."""
    assert HelloModel.model_validate({**HELLO, "mood": "good"}) == HelloModel.model_validate(HELLO)


@pytest.mark.parametrize(
    "field",
    [{"stream": "0" * 15}, {"stream": "G" * 16}, {"proto": 2}, {"acked": -1}, {"next": 0}, {"chain": "0" * 31},
     {"device": "d" * 129}, {"wall_ns": "1" * 20}],
)  # fmt: skip
def test_a_field_beyond_its_limit_is_refused(field: dict[str, object]) -> None:
    """By the name of the field."""
    with pytest.raises(ValidationError, match=next(iter(field))):
        HelloModel.model_validate({**HELLO, **field})


def test_ticks_are_whole_numbers() -> None:
    """1000.0 and true would be taken for 1000 and 1, and times would come back as something else."""
    assert BatchModel.model_json_schema()["properties"]["tick"]["enum"] == sorted(TICKS)
    for tick in (1000.0, True, "1"):
        with pytest.raises(ValidationError, match="tick"):
            BatchModel.model_validate({**BATCH, "tick": tick})


def test_a_gap_may_not_know_how_many() -> None:
    """None is said, not left out."""
    assert GapModel.model_validate({"seq": 3, "count": None, "reason": "spool_full"}).count is None
    with pytest.raises(ValidationError, match="count"):
        GapModel.model_validate({"seq": 3, "reason": "spool_full"})
