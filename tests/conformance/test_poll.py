"""An answer to a poll is applied as a whole, and its cursor stands behind all of it."""

from tests.conformance.adapter import Got, Value
from tests.conformance.poll import whole
from tests.conformance.watch_v1 import START_NS, STEP_NS


def data(*numbers: int) -> dict[str, object]:
    """Return a message with readings of one series."""
    return {"op": "data", "o": "r.1", "t0": str(START_NS), "tick": STEP_NS, "u": [[1, n, n] for n in numbers]}


SERIES = {"op": "series", "s": {"1": {"device": "d", "channel": "n", "type": "int"}}}


def test_an_answer_is_one_step() -> None:
    """Its messages in order, and the cursor of the answer, not of a message."""
    answer = {"o": "r.9", "messages": [SERIES, data(0, 1), data(2), {"op": "live", "o": "r.9"}]}

    assert whole(answer) == Got([Value("d/n", 0), Value("d/n", 1), Value("d/n", 2)], "r.9", is_live=True)


def test_a_reset_in_an_answer_is_seen() -> None:
    """It comes before what the server goes on with."""
    answer = {"o": "r.9", "messages": [{"op": "reset", "why": "run", "head": "r.8"}, SERIES, data(0)]}

    assert whole(answer).reset == "run"


def test_an_answer_of_a_server_that_stops_is_applied() -> None:
    """Its ``bye`` says only when to come back."""
    assert whole({"o": "r.9", "messages": [{"op": "bye", "retry_ms": 5}]}) == Got([], "r.9")
