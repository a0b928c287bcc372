"""`hub.post_outcome`: each request is counted once, by what became of it."""

from dataclasses import dataclass

import pytest

from hub.errors import UnavailableError
from hub.post_outcome import IN_PART, MAX_NAMED, REFUSED, STORED, Figures, Outcome, Refused


@dataclass(frozen=True)
class Arrived:
    """The body of a request."""

    received: int


@pytest.mark.parametrize(
    ("accepted", "rejected", "outcome"), [(2, 0, STORED), (0, 0, STORED), (1, 1, IN_PART), (0, 3, REFUSED)]
)
def test_request_is_counted_by_its_answer(accepted: int, rejected: int, outcome: str) -> None:
    """Everything stored, a part, nothing; its bytes whatever became of it."""
    figures = Figures()
    with figures.request(Arrived(7)):
        figures.ended(accepted, rejected)

    assert figures.requests == {outcome: 1}
    assert (figures.bytes, figures.accepted, figures.rejected) == (7, 0, 0)


@pytest.mark.parametrize(("error", "reason"), [(UnavailableError("no room"), "unavailable"), (KeyError(), "internal")])
def test_request_that_fails_is_counted_by_its_reason(error: Exception, reason: str) -> None:
    """With what had arrived by then; a fault of the hub has the word of its answer."""
    figures = Figures()
    with pytest.raises(type(error)), figures.request(Arrived(3)):
        raise error

    assert figures.requests == {reason: 1}
    assert figures.bytes == 3


def test_the_first_are_named_and_all_are_counted() -> None:
    """In the order of the request, though faults are found before what the journal refuses."""
    outcome = Outcome()
    for at in (3, 1, *range(4, 4 + MAX_NAMED)):
        outcome.refuse(Refused(at, "d", "c", "r", "w"), 2)

    assert outcome.rejected == 2 * (MAX_NAMED + 2)
    assert [one.at for one in outcome.in_order()] == [1, 3, *range(4, 2 + MAX_NAMED)]
