"""A witness counts gaps, duplicates and disorder exactly."""

from tests.conformance.witness import Witness


def taken(*numbers: int) -> Witness:
    """Return a witness that saw these numbers of one series."""
    witness = Witness()
    for number in numbers:
        witness.take("d/n", number)
    return witness


def counts(witness: Witness, count: int, first: int = 0) -> tuple[int, int, int]:
    """Return gaps, duplicates and what came out of order."""
    return witness.gaps(("d/n",), count, first), witness.duplicates, witness.disordered


def test_each_once_and_in_order_is_no_fault() -> None:
    """The whole promise."""
    assert counts(taken(0, 1, 2), 3) == (0, 0, 0)


def test_what_is_missing_is_a_gap() -> None:
    """In the middle, at the end, and of a series that was never seen."""
    assert counts(taken(0, 2), 5) == (3, 0, 0)
    assert taken(0).gaps(("d/n", "e/n"), 1) == 1


def test_what_comes_again_is_a_duplicate() -> None:
    """Each time, and it is not out of order too."""
    assert counts(taken(0, 1, 0, 0), 2) == (0, 2, 0)


def test_what_comes_behind_a_later_one_is_out_of_order() -> None:
    """It is no gap, though."""
    assert counts(taken(0, 2, 1), 3) == (0, 0, 1)


def test_numbers_before_the_first_are_not_asked_for() -> None:
    """A watcher that begins later is not owed them."""
    assert counts(taken(5, 6), 7, first=5) == (0, 0, 0)


def test_history_may_come_again() -> None:
    """Until live it is an upsert; what was seen then counts."""
    witness = Witness()
    for number in (0, 2, 1, 2):
        witness.take("d/n", number, is_exact=False)
    witness.take("d/n", 2)

    assert counts(witness, 3) == (0, 1, 0)
    assert (witness.seen, witness.last("d/n")) == (3, 2)


def test_starting_over_forgets_what_was_seen_but_no_fault() -> None:
    """A reset is no way out of a duplicate."""
    witness = taken(0, 0)

    witness.start_over()

    assert (witness.seen, witness.duplicates, witness.last("d/n")) == (0, 1, None)


def test_where_only_the_newest_counts_nothing_older_may_come() -> None:
    """Whether it came before or not."""
    assert [taken(*numbers).went_back for numbers in ((0, 5, 5, 9), (0, 5, 3), (0, 5, 9, 5))] == [0, 1, 1]
