"""Messages of watch.v1 come to what docs/reference/watch.md says of them."""

from typing import Any

import pytest

from tests.conformance.adapter import NOTHING, Got, RefusedError, Value
from tests.conformance.watch_v1 import START_NS, STEP_NS, Decoder

SERIES: dict[str, Any] = {
    "op": "series",
    "s": {"1": {"device": "d", "channel": "n", "type": "int"}, "2": {"device": "d", "channel": "t", "type": "str"}},
}


def decoder() -> Decoder:
    """Return one that was told the series."""
    found = Decoder()
    assert found.take(SERIES) == NOTHING
    return found


def data(*rows: list[Any], tick: int = STEP_NS) -> dict[str, Any]:
    """Return a message of rows."""
    return {"op": "data", "o": "r.5", "t0": str(START_NS), "tick": tick, "u": list(rows)}


def test_numbers_are_read_and_text_beside_them_is_not() -> None:
    """Padding makes a reading heavy; it counts nothing."""
    assert decoder().take(data([1, 7, 7], [2, 7, "   7"])) == Got([Value("d/n", 7)], "r.5")


def test_a_value_beside_a_wrong_time_is_refused() -> None:
    """Readings that were mixed up must not count as seen."""
    with pytest.raises(AssertionError, match="away from its time"):
        decoder().take(data([1, 7, 8]))


@pytest.mark.parametrize(
    ("message", "got"),
    [
        ({"op": "ok", "from": "r.1", "recovered": True}, Got(cursor="r.1", recovered=True)),
        ({"op": "live", "o": "r.2"}, Got(cursor="r.2", is_live=True)),
        ({"op": "reset", "why": "run", "head": "r.3"}, Got(cursor="r.3", reset="run")),
        ({"op": "lag", "behind": 3, "secs": 0.1}, NOTHING),
    ],
    ids=lambda value: value["op"] if isinstance(value, dict) else "",
)
def test_each_message_says_where_the_watcher_stands(message: dict[str, Any], got: Got) -> None:
    """A message without a cursor moves nothing."""
    assert decoder().take(message) == got


def test_a_refusal_is_told_from_a_wrong_question() -> None:
    """Only the first is a matter of the credential."""
    with pytest.raises(RefusedError):
        decoder().take({"op": "error", "reason": "forbidden", "message": "no"})
    with pytest.raises(AssertionError):
        decoder().take({"op": "error", "reason": "bad_request", "message": "no"})
