"""What is not sealed: whole, in order of age, due when its time has come."""

from array import array

from device_sdk.reading import Value
from hub.store.arrivals import Numbers, Piece
from hub.store.head import Heads
from tests.support.columns import plain


def piece(*pairs: tuple[int, Value], late: int = 0) -> Piece:
    """Return a piece of (time, value)."""
    times = array("q", [time for time, _ in pairs])
    values: Numbers = [value for _, value in pairs]
    if all(type(value) is float for value in values):
        values = array("d", values)
    return Piece(times, array("I", [9] * len(pairs)), values, min(times), max(times), late)


def test_readings_keep_order_and_type() -> None:
    """Pieces follow one another; floats and others beside them stay what they are."""
    heads = Heads()
    heads.add(1, 5, piece((3, 1.0), (1, 2.0), late=1), 0.0)
    heads.add(2, 5, piece((2, 7), (3, True), late=2), 0.0)
    heads.add(3, 5, piece((0, 1.0)), 0.0)

    head = heads.get(5)

    assert head is not None
    assert [(time, repr(value)) for time, value in plain(head.readings())] == [
        (3, "1.0"), (1, "2.0"), (2, "7"), (3, "True"), (0, "1.0")
    ]  # fmt: skip
    assert (len(head), head.late, head.oldest_ns, head.newest_ns, head.newest_value) == (5, 3, 0, 3, True)


def test_copy_does_not_change() -> None:
    """What a reader took stays as it was when more comes."""
    heads = Heads()
    heads.add(1, 5, piece((1, 1.0)), 0.0)
    head = heads.get(5)
    assert head is not None
    taken = head.readings()
    heads.add(2, 5, piece((2, 2.0)), 0.0)

    assert plain(taken) == [(1, 1.0)]


def test_due_are_the_full_the_old_and_those_in_the_way() -> None:
    """A chunk's worth first; then by age, and by the log row that nothing but they need."""
    heads = Heads(full=3)
    for row, series in ((1, 10), (2, 11), (3, 12)):
        heads.add(row, series, piece((row, 1.0)), float(row))
    assert heads.due(9, 0.5, 0) == []
    assert heads.due(9, 2.0, 0) == [10, 11]
    assert heads.due(9, 0.5, 2) == [10]
    heads.add(4, 12, piece((5, 1.0), (6, 1.0)), 4.0)
    assert heads.due(9, 1.0, 0) == [12, 10]
    assert heads.due(1, 9.0, 0) == [12]

    heads.remove(12)

    assert heads.due(9, 0.5, 0) == []
    assert (len(heads), list(heads)) == (2, [10, 11])


def test_first_row_is_the_first_that_is_needed() -> None:
    """Log rows before it hold nothing that is not sealed; a series that comes again begins anew."""
    heads = Heads()
    for row, series in ((1, 10), (2, 11), (3, 10)):
        heads.add(row, series, piece((row, 1.0)), 0.0)

    assert heads.first_row(99, without=()) == 1
    assert heads.first_row(99, without={10}) == 2
    assert heads.first_row(99, without={10, 11}) == 99
    heads.remove(10)
    heads.add(7, 10, piece((1, 1.0)), 0.0)
    assert [heads.first_row(99, without=w) for w in ((), {11})] == [2, 7]
