"""What a watcher may say: defaults, and errors that name the field."""

import pytest

from hub.errors import BadRequestError
from hub.live.message import DEFAULT_HZ, Hello, Sub, check_message


def test_subscription_has_defaults() -> None:
    """Lossless from the head is what a subscription means unless it says otherwise."""
    message = check_message({"op": "sub", "sub": "s1", "match": ["a/b"], "not": ["c"]})

    assert isinstance(message, Sub)
    assert message.mode == "lossless"
    assert message.since is None
    assert message.exclude == ["c"]
    assert message.max_hz == DEFAULT_HZ


def test_unknown_fields_are_left_alone() -> None:
    """A newer page may say more than this hub knows."""
    assert isinstance(check_message({"op": "hello", "future": {"x": 1}}), Hello)


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ({"op": "sub", "match": ["a"]}, "sub"),
        ({"op": "sub", "sub": "s1", "match": "a"}, "match"),
        ({"op": "sub", "sub": "s1", "match": ["a", 5]}, "match.1"),
        (
            {"op": "sub", "sub": "s1", "match": ["a"], "agg": "minmax"},
            "message: agg belongs to mode latest",
        ),
        ({"op": "sub", "sub": "s1", "match": ["a"], "mode": "latest", "agg": "mean"}, "agg"),
        ({"op": "sub", "sub": "s1", "match": ["a"], "mode": "sample"}, "message: every belongs to mode sample"),
        ({"op": "sub", "sub": "s1", "match": ["a"], "every": 5}, "message: every belongs to mode sample"),
        ({"op": "sub", "sub": "s1", "match": ["a"], "mode": "sample", "every": 0}, "every"),
        ({"op": "set", "sub": "s1", "max_hz": 0}, "max_hz"),
        ({"op": "auth", "token": "x" * 129}, "token"),
        ({"op": "fly"}, "message"),
        ({}, "message"),
        ([], "message"),
    ],
)
def test_error_names_the_field(message: object, named: str) -> None:
    """The error says where the fault is and what would be right."""
    with pytest.raises(BadRequestError, match=f"^bad_message: {named}"):
        check_message(message)
