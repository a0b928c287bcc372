"""What is not sealed: whole and in its order, due when its time has come, sealed series by series."""

import random

from device_sdk.reading import Value
from hub.store.block import Block
from hub.store.head import Heads, newest, spans, waiting
from tests.support.columns import block, plain


def held(blocks: tuple[Block, ...], *where: object) -> dict[int, list[tuple[int, Value]]]:
    """Return series → (time, value) as they came."""
    return {series: plain(one.readings) for series, one in waiting(blocks, *where).items()}  # type: ignore[arg-type]


def test_readings_keep_order_and_type() -> None:
    """Writes follow one another; floats and others beside them stay what they are."""
    heads = Heads()
    heads.add(block((5, [(3, 1.0), (1, 2.0)], 1)), 0.0)
    heads.add(block((5, [(2, 7), (3, True)], 2), (6, [(0, 1)], 0)), 0.0)
    heads.add(block((5, [(0, 1.0)], 0)), 0.0)

    found = waiting(heads.blocks(), [5, 9])

    assert list(found) == [5]
    assert [(time, repr(value)) for time, value in plain(found[5].readings)] == [
        (3, "1.0"), (1, "2.0"), (2, "7"), (3, "True"), (0, "1.0")
    ]  # fmt: skip
    assert found[5].late == 3
    assert spans(heads.blocks(), [5, 6, 9]) == {5: (0, 3), 6: (0, 0)}
    assert newest(heads.blocks(), [5, 6, 9]) == {5: (3, True), 6: (0, 1)}
    assert (spans(heads.blocks(), []), newest(heads.blocks(), []), held(heads.blocks(), [])) == ({}, {}, {})


def test_few_and_many_and_all_are_answered_alike() -> None:
    """However many series are asked for, and in whatever range; what a reader took stays as it was."""
    choice, heads = random.Random(3), Heads()
    expected: dict[int, list[tuple[int, Value]]] = {}
    for n in range(300):
        write: list[tuple[int, list[tuple[int, Value]], int]] = []
        for series in choice.sample(range(40), 5):
            pairs: list[tuple[int, Value]] = [(choice.randrange(100), choice.choice((1.5, n, "x"))) for _ in range(3)]
            write.append((series, pairs, 1))
            expected.setdefault(series, []).extend(pairs)
        heads.add(block(*write), 0.0)
    taken = heads.blocks()
    heads.add(block((1, [(0, 0.0)], 0)), 0.0)

    assert len(taken) < 30
    for numbers in (range(40), range(5), None):
        for start, end in ((-(2**63), 2**63), (10, 20), (100, 200), (0, 2**63)):
            wanted = {
                series: inside
                for series, pairs in expected.items()
                if (numbers is None or series in numbers) and (inside := [p for p in pairs if start <= p[0] < end])
            }
            assert held(taken, numbers, start, end) == wanted


def test_due_is_what_is_enough_or_old() -> None:
    """A chunk's worth of each series, or one that has waited; what is begun is not due again."""
    heads = Heads(full=3)
    heads.add(block((1, [(n, 1.0) for n in range(14)], 0)), 5.0)
    assert (heads.is_due(4.0), heads.is_due(5.0)) == (False, True)
    heads.add(block((1, [(0, 1.0)], 0)), 6.0)
    assert heads.is_due(0.0)

    heads.begin()

    assert (heads.is_due(9.0), heads.is_sealing) == (False, True)
    heads.add(block((1, [(0, 1.0)], 0)), 8.0)
    assert (heads.is_due(7.0), heads.is_due(8.0)) == (False, True)


def test_sealed_series_by_series() -> None:
    """All that a generation has of the least series first; what came behind it stays."""
    heads = Heads()
    heads.add(block((1, [(0, 1.0)], 0), (5, [(0, 5.0)], 0), (9, [(0, 9.0)], 0)), 0.0)
    heads.add(block((5, [(1, 5.5)], 0), (7, [(1, 7.5)], 0)), 0.0)
    heads.begin()
    heads.add(block((1, [(2, 2.0)], 0), (9, [(2, 2.5)], 0)), 0.0)

    first = heads.next(2, 100)
    assert held((first,)) == {1: [(0, 1.0)], 5: [(0, 5.0), (1, 5.5)]}
    assert not heads.ends_with(5)
    heads.sealed(5)
    assert held(heads.blocks()) == {7: [(1, 7.5)], 9: [(0, 9.0), (2, 2.5)], 1: [(2, 2.0)]}

    rest = heads.next(9, 100)
    assert held((rest,)) == {7: [(1, 7.5)], 9: [(0, 9.0)]}
    assert heads.ends_with(9)
    heads.sealed(9)
    assert (heads.is_sealing, bool(heads)) == (False, True)
    assert held(heads.blocks()) == {9: [(2, 2.5)], 1: [(2, 2.0)]}


def test_sealed_at_once_is_bounded_in_readings() -> None:
    """Fewer series where they have many readings; one at least, however many it has."""
    heads = Heads()
    heads.add(block(*((series, [(n, 1.0) for n in range(10)], 0) for series in (1, 2, 3))), 0.0)
    heads.begin()

    assert heads.next(9, 25).series.tolist() == [1, 2]
    assert heads.next(9, 5).series.tolist() == [1]
