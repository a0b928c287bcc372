"""What all watchers hold unsent is bounded: shares fall as holders grow, the largest are closed beyond it."""

from collections.abc import Callable

import pytest

from hub.live.budget import LEAST_BYTES, MOST_BYTES, UnsentBudget

BUDGET = 4 * MOST_BYTES


class Held:
    """A connection that holds some bytes."""

    def __init__(self, buffered_bytes: int) -> None:
        self.buffered_bytes = buffered_bytes


class Budget:
    """A budget with its holders, the calls that wait for a turn, and who was closed."""

    def __init__(self, *sizes: int) -> None:
        self.holders = [Held(size) for size in sizes]
        self.due: list[Callable[[], object]] = []
        self.evicted: list[int] = []
        self.unsent = UnsentBudget(self.due.append, lambda: self.holders, self._evict, BUDGET)

    def _evict(self, holder: Held) -> None:
        self.evicted.append(holder.buffered_bytes)


@pytest.mark.parametrize(
    ("sizes", "mark"),
    [
        ((), MOST_BYTES),
        ((MOST_BYTES // 4,), MOST_BYTES),
        ((MOST_BYTES, 1), (MOST_BYTES - 1) // 2),
        ((15_000,) * 20, (BUDGET // 2 - 300_000) // 20),
        ((15_000,) * 20 + (0,) * 1000, (BUDGET // 2 - 300_000) // 20),
        ((4000,) * 200, LEAST_BYTES),
    ],
    ids=["nobody", "one", "two", "twenty", "idle ones take no share", "too many for the least"],
)
def test_share_falls_with_the_number_of_holders(sizes: tuple[int, ...], mark: int) -> None:
    """While little is held each may hold the most; then those who hold something share what half has left."""
    budget = Budget(*sizes)

    budget.unsent.look()

    assert budget.unsent.mark == mark
    assert budget.unsent.unsent_bytes == sum(sizes)
    assert budget.evicted == []


def test_beyond_the_budget_the_largest_are_closed() -> None:
    """The largest go until a quarter of the budget is free; those that hold little stay."""
    budget = Budget(1000, *[MOST_BYTES] * 5, 200)

    budget.unsent.look()

    assert budget.evicted == [MOST_BYTES] * 3
    assert (budget.unsent.unsent_bytes, budget.unsent.evicted) == (2 * MOST_BYTES + 1200, 3)
    assert budget.unsent.mark == LEAST_BYTES


def test_who_is_being_closed_is_not_closed_twice_nor_counted() -> None:
    """A stalled peer's memory goes with its connection, seconds later; nobody else must go for it meanwhile."""
    budget = Budget(*[MOST_BYTES] * 5)
    budget.unsent.look()
    gone = list(budget.evicted)

    budget.unsent.look()
    kept = budget.unsent.unsent_bytes
    for holder in budget.holders:
        budget.unsent.left(holder)
    budget.unsent.look()

    assert gone == [MOST_BYTES] * 2
    assert kept == 3 * MOST_BYTES
    assert len(budget.evicted) == 4


def test_share_grows_again_when_they_read() -> None:
    """A look after they took it gives each the most again."""
    budget = Budget(*[100_000] * 4)
    budget.unsent.look()
    low = budget.unsent.mark

    for holder in budget.holders:
        holder.buffered_bytes = 0
    budget.unsent.look()

    assert (low, budget.unsent.mark) == ((BUDGET // 2 - 400_000) // 4, MOST_BYTES)


def test_a_look_follows_a_quarter_of_the_budget_once() -> None:
    """Writing schedules one look in a later turn, however much more is written before it."""
    budget = Budget(5)
    budget.unsent.wrote(BUDGET // 4 - 1)
    before = len(budget.due)
    for _ in range(3):
        budget.unsent.wrote(1000)

    budget.due.pop()()

    assert (before, budget.due, budget.unsent.unsent_bytes) == (0, [], 5)
    budget.unsent.wrote(BUDGET // 4)
    assert len(budget.due) == 1


def test_before_the_look_all_share() -> None:
    """What was written in one turn cannot be asked for yet: until the look everybody counts as a holder."""
    budget = Budget(*[0] * 16)

    budget.unsent.wrote(BUDGET // 4)
    meanwhile = budget.unsent.mark
    budget.due.pop()()

    assert (meanwhile, budget.unsent.mark) == (BUDGET // 2 // 16, MOST_BYTES)


@pytest.mark.parametrize(("count", "size"), [(0, MOST_BYTES), (2, BUDGET // 8), (1000, LEAST_BYTES)])
def test_chunks_are_smaller_for_many(count: int, size: int) -> None:
    """A chunk for each connection takes a quarter of the budget at most, down to the least share."""
    assert Budget(*[0] * count).unsent.chunk_bytes() == size
