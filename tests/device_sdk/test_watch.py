"""The watcher's half of watch.v1: what is asked, what is decoded, where the cursor stands."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from device_sdk.errors import AuthenticationError, MisuseError, ProtocolError, ResetError
from device_sdk.watch import CONNECTION_ID, Subscription, WatchedReading

T0 = 1_795_376_000_000_000_000
SERIES = {
    "op": "series",
    "sub": "s1",
    "s": {
        "1": {"device": "pump-1", "channel": "flow", "unit": "L/min", "type": "float", "label": None},
        "2": {"device": "pump-1", "channel": "count", "unit": None, "type": "int", "label": None},
        "3": {"device": "pump-1", "channel": "state", "unit": None, "type": "str", "label": None},
    },
}


def feed(subscription: Subscription, *messages: object) -> list[WatchedReading]:
    """Receive messages; return all readings."""
    return [reading for message in messages for reading in subscription.receive(json.dumps(message))]


def data(cursor: str, *rows: list[Any], tick: int = 1_000_000) -> dict[str, Any]:
    """Return a data message."""
    return {"op": "data", "sub": "s1", "o": cursor, "t0": str(T0), "tick": tick, "u": list(rows)}


def test_readings_are_decoded_exactly() -> None:
    """Times are t0 + dt * tick in ns; integers beyond 2**53 come back whole; text stays text."""
    subscription = Subscription(["pump-*"])

    readings = feed(subscription, SERIES, data("r.1", [1, 5, 21.5], [2, "7", str(2**60)], [3, 9, "123"], [1, -1, True]))

    assert readings == [
        WatchedReading("pump-1", "flow", T0 + 5_000_000, 21.5, "L/min"),
        WatchedReading("pump-1", "count", T0 + 7_000_000, 2**60),
        WatchedReading("pump-1", "state", T0 + 9_000_000, "123"),
        WatchedReading("pump-1", "flow", T0 - 1_000_000, True, "L/min"),
    ]
    assert readings[0].time == datetime.fromtimestamp(T0 // 10**9, UTC).replace(microsecond=5000)


def test_late_readings_are_marked() -> None:
    """Runs [begin, end) of rows; what lies beyond the rows of a message is nothing."""
    message = {**data("r.1", [1, 0, 1.0], [1, 1, 2.0], [1, 2, 3.0], [1, 3, 4.0]), "late": [[0, 1], [2, 3], [3, 10**12]]}

    assert [r.late for r in feed(Subscription(["**"]), SERIES, message)] == [True, False, True, True]


def test_least_and_greatest_are_marked() -> None:
    """Of a watch with `agg="minmax"`, which asks for it."""
    subscription = Subscription(["**"], mode="latest", agg="minmax")
    message = {**data("r.1", [1, 0, 9.0], [1, 1, 1.0], [1, 2, 3.0]), "least": [[1, 2]], "greatest": [[0, 1]]}

    assert json.loads(subscription.request())["agg"] == "minmax"
    assert [(r.least, r.greatest) for r in feed(subscription, SERIES, message)] == [
        (False, True), (True, False), (False, False),
    ]  # fmt: skip


def test_series_come_and_go() -> None:
    """What belongs is what was named and is not gone; a new connection names all again."""
    subscription = Subscription(["**"], selector="tag:t")
    assert json.loads(subscription.request())["selector"] == "tag:t"

    feed(subscription, SERIES, {"op": "series", "sub": "s1", "s": {}, "gone": [2, 99]})
    assert subscription.series() == [("pump-1", "flow"), ("pump-1", "state")]
    feed(subscription, {"op": "ok", "sub": "s1", "from": "r.5"})

    assert subscription.series() == []


def test_cursor_moves_only_when_readings_were_taken() -> None:
    """Between receiving and taking, a new connection would ask for the same readings again."""
    subscription = Subscription(["**"], since="-15m")
    assert json.loads(subscription.request())["since"] == "-15m"

    feed(subscription, {"op": "ok", "sub": "s1", "from": "r.5.77"}, SERIES, data("r.5.99", [1, 0, 1.0]))
    assert json.loads(subscription.request())["since"] == "r.5.77"
    feed(subscription, data("r.5.99", [1, 0, 1.0]))
    subscription.taken()

    assert json.loads(subscription.request())["since"] == "r.5.99"


def test_position_without_data_moves_the_cursor() -> None:
    """`live` tells a position; the next connection starts there."""
    subscription = Subscription(["**"])

    feed(subscription, {"op": "live", "sub": "s1", "o": "r.42"})

    assert subscription.is_live
    assert subscription.cursor == "r.42"


def test_request_says_what_was_asked() -> None:
    """Patterns, mode and rate are in every request; what was left out is not."""
    request = json.loads(Subscription(["a", "b/c"], None, "latest", 5, ["**/debug"]).request())

    assert request == {
        "id": 1, "op": "sub", "sub": "s1", "match": ["a", "b/c"], "mode": "latest", "max_hz": 5, "not": ["**/debug"],
    }  # fmt: skip


def test_reset_is_raised_and_leaves_the_head_as_cursor() -> None:
    """The caller learns that something may be missing; looping on begins at the hub's head."""
    subscription = Subscription(["**"], since="r.9")

    with pytest.raises(ResetError, match="run") as caught:
        feed(subscription, {"op": "reset", "sub": "s1", "why": "run", "head": "q.3"})

    assert caught.value.why == "run"
    assert subscription.cursor == "q.3"


@pytest.mark.parametrize(
    ("reason", "kind"), [("forbidden", AuthenticationError), ("bad_request", MisuseError), ("conflict", MisuseError)]
)
def test_refusal_is_an_error_with_the_hubs_words(reason: str, kind: type[Exception]) -> None:
    """What the hub says is what the user reads."""
    with pytest.raises(kind, match="no such pattern"):
        feed(Subscription(["**"]), {"op": "error", "reason": reason, "message": "no such pattern"})


def test_lag_and_bye_are_noted() -> None:
    """How far behind, and when to come back."""
    subscription = Subscription(["**"])

    feed(subscription, {"op": "lag", "sub": "s1", "behind": 12, "secs": 1.5}, {"op": "bye", "retry_ms": 250})

    assert subscription.behind == 12
    assert subscription.retry_ms == 250


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"op":"data"}', '{"op":"data","o":"r.1","t0":"x","tick":1,"u":[]}', '{"op":"series"}']
)
def test_unreadable_message_is_a_protocol_error(text: str) -> None:
    """Whatever arrives, it is one kind of error."""
    with pytest.raises(ProtocolError):
        Subscription(["**"]).receive(text)


def test_unknown_op_is_left_alone() -> None:
    """A newer hub may say more."""
    assert feed(Subscription(["**"]), {"op": "news", "x": 1}) == []


def test_what_is_said_of_the_connection_is_not_the_subscriptions() -> None:
    """`welcome` and answers to `auth` go to who asked; also a refusal, which ends nothing here."""
    told: list[Any] = []
    subscription = Subscription(["pump-*"], since="r.1")
    subscription.told = told.append
    welcome = {"id": CONNECTION_ID, "op": "welcome", "ttl": 9.5}
    granted: dict[str, Any] = {"id": CONNECTION_ID, "op": "ok", "ttl": None, "subs": {"s1": {}}, "ended": []}
    refused = {"id": CONNECTION_ID, "op": "error", "reason": "unauthenticated", "message": "no"}

    readings = feed(subscription, welcome, SERIES, granted, refused, data("r.2", [1, 0, 1.0]))

    assert json.loads(subscription.hello()) == {"op": "hello", "id": CONNECTION_ID}
    assert told == [welcome, granted, refused]
    assert [reading.value for reading in readings] == [1.0]


def test_new_token_that_may_see_nothing_ends_it() -> None:
    """The hub has ended the subscription: waiting for its readings would be for ever."""
    with pytest.raises(AuthenticationError, match="nothing of what is watched"):
        feed(Subscription(["pump-*"]), {"id": CONNECTION_ID, "op": "ok", "ttl": None, "subs": {}, "ended": ["s1"]})
