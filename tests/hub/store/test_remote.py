"""What a store on a server makes of faults: nothing is lost, nothing counts twice, one bad line is one bad line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from device_sdk.reading import Value
from hub.errors import StoreError
from hub.model import Frame
from hub.store.base import Row, SeriesCounters
from hub.store.remote import RemoteStore
from hub.store.sidecar import Sidecar
from tests.support.frames import T0, FrameMaker, numbered
from tests.support.memory_engine import MemoryEngine

S = 10**9
FOREVER = (-(2**62), 2**62)


class World:
    """A store whose process may die, and its server."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "remote.sqlite3"
        self.engine = MemoryEngine()
        self.maker = FrameMaker()
        self.store = RemoteStore(self.engine, Sidecar(self._path))

    def restart(self) -> None:
        """Begin again with what is on the disk."""
        self.store.close()
        self.engine.is_down = self.engine.dies_after = False
        self.engine.loses_writes = self.engine.loses_deletes = False
        self.store = RemoteStore(self.engine, Sidecar(self._path))

    def frame(self, *readings: tuple[int, Value], channel: str = "t") -> Frame:
        """Return a frame of (seconds, value)."""
        return self.maker.batch("pump", [(channel, T0 + at * S, value) for at, value in readings])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An empty one."""
    world = World(tmp_path)
    yield world
    world.store.close()


def test_server_that_is_away_takes_nothing(world: World) -> None:
    """The same write again is right; newest values are known without the server."""
    first, second = numbered([world.frame((0, 1.0)), world.frame((1, 2.0))])
    world.store.write([first])
    world.engine.is_down = True
    with pytest.raises(StoreError, match="refused"):
        world.store.write([second])

    world.restart()

    assert (world.store.applied, world.store.latest([1])) == (1, [Row(1, T0, 1.0)])
    world.store.write([first, second])
    assert world.store.counters([1]) == [SeriesCounters(1, 2, 0, 2)]


@pytest.mark.parametrize("slices", [[4], [1, 3], [2, 1, 1]])
def test_write_whose_answer_was_lost_counts_once(world: World, slices: list[int]) -> None:
    """The server has it, and here nobody knows: after a restart it is written again, in whatever slices, and nothing of
    it is taken for a correction of itself; true corrections still are."""
    frames = numbered(
        [
            world.frame((0, 1.0), (10, 2.0)),
            world.frame((20, 3.0), (5, 4.0)),
            world.frame((6, 5.0), (10, 6.0), (20, 7.0)),
            world.frame((30, 8.0), (30, 9.0), (6, 10.0)),
        ]
    )
    world.engine.dies_after = True
    with pytest.raises(StoreError):
        world.store.write(frames)
    world.restart()
    at = 0
    for size in slices:
        world.store.write(frames[at : at + size])
        at += size

    assert world.store.counters([1]) == [SeriesCounters(1, 10, 4, 6, 0, 4)]
    assert [row.value for row in world.store.read([1], 0, 2**62, 99)] == [1.0, 4.0, 10.0, 6.0, 7.0, 9.0]


def test_poison_is_one_reading(world: World) -> None:
    """It is found among the others, kept with the reason, and never in the way again."""
    world.engine.poison = {13.0}
    world.store.write(numbered([world.frame(*((n, float(n)) for n in range(20))), world.frame((0, 1), channel="n")]))

    (refused,) = world.store.refusals()
    assert (refused.series, refused.time_ns, refused.value) == (1, T0 + 13 * S, 13.0)
    assert "cannot take 13.0" in refused.reason
    assert world.store.counters([1, 2]) == [SeriesCounters(1, 20, 0, 19, refused=1), SeriesCounters(2, 1, 0, 1)]
    assert world.store.statistics().rows == 20


def test_readings_that_are_all_refused(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """When the server says that it left out all of a request, nothing is halved; one line in the log says it."""
    world.engine.poison, world.engine.tells_dropped = {5.0}, True
    world.store.write(numbered([world.frame(*((n, 5.0 if n < 500 else 1.0) for n in range(1000)))]))

    assert world.store.counters([1]) == [SeriesCounters(1, 1000, 0, 500, refused=500)]
    assert world.engine.writes < 5
    assert len(caplog.records) == 1
    assert "readings refused count=500 the first: series=1" in caplog.text


def test_refused_reading_is_not_the_newest(world: World) -> None:
    """What is not stored is not shown."""
    world.store.write(numbered([world.frame((0, 1.0))]))
    world.engine.poison = {2.0}
    world.store.write(numbered([world.frame((1, 2.0))], 2))

    assert world.store.latest([1]) == [Row(1, T0, 1.0)]


def test_late_readings_far_apart_fetch_little(world: World) -> None:
    """Looking one up a year ago does not fetch the year."""
    asked: list[tuple[int, int]] = []
    read = world.engine.read

    def watched(names: object, start_ns: int, end_ns: int, limit: int, *, descending: bool = False) -> object:
        asked.append((start_ns, end_ns))
        return read(names, start_ns, end_ns, limit, descending=descending)  # type: ignore[arg-type]

    world.engine.read = watched  # type: ignore[method-assign, assignment]
    world.store.write(numbered([world.frame((10**7, 1.0))]))
    world.store.write(numbered([world.frame((5, 1.0), (6, 1.0), (9 * 10**6, 1.0))], 2))

    assert asked == [(T0 + 5 * S, T0 + 6 * S + 1), (T0 + 9 * 10**6 * S, T0 + 9 * 10**6 * S + 1)]


def test_page_of_a_fleet_fetches_little(world: World) -> None:
    """However many series there are, a page is made from some rows of each, and the one it is made of is not asked
    row by row."""
    fleet = world.maker.batch("fleet", [(f"c{n}", T0 + n * S, float(n)) for n in range(2000)])
    busy = world.maker.batch("busy", [("t", T0 + n, float(n)) for n in range(3000)])
    world.store.write(numbered([fleet, busy]))
    asked: list[int] = []
    read = world.engine.read

    def watched(names: list[object], *rest: int, descending: bool = False) -> object:
        asked.append(len(names) * rest[-1])
        return read(names, *rest, descending=descending)  # type: ignore[arg-type]

    world.engine.read = watched  # type: ignore[method-assign, assignment]
    rows = world.store.read(range(1, 2002), *FOREVER, 1000)

    assert [row.value for row in rows] == [0.0, 0.0, *map(float, range(1, 999))]
    assert max(asked) <= 100_000
    assert len(asked) < 10


def test_refused_correction_replaces_nothing(world: World) -> None:
    """The older value stays, so it is not counted as superseded."""
    world.store.write(numbered([world.frame((0, 1.0), (5, 3.0))]))
    world.engine.poison = {2.0}
    world.store.write(numbered([world.frame((0, 2.0))], 2))

    assert world.store.counters([1]) == [SeriesCounters(1, 3, 0, 2, late=1, refused=1)]
    assert world.store.read([1], *FOREVER, 9)[0] == Row(1, T0, 1.0)


@pytest.mark.parametrize("poison", [{1.0}, {2.0}, {2.0, 3.0}, {3.0}, {1.0, 2.0, 3.0}])
@pytest.mark.parametrize("slices", [[4], [1, 1, 1, 1], [2, 2]])
@pytest.mark.parametrize("is_cut_off", [False, True])
def test_refused_correction_in_the_same_write(
    world: World, poison: set[Value], slices: list[int], is_cut_off: bool
) -> None:
    """What it was to replace is stored in its stead, and counted so, in whatever slices the frames come."""
    world.store.write(numbered([world.frame((5, 0.0), (9, 0.0))]))
    frames = numbered([world.frame((6, 1.0)), world.frame((6, 2.0)), world.frame((6, 3.0), (5, 2.0)),
                       world.frame((10, 4.0), (5, 3.0))], 2)  # fmt: skip
    if is_cut_off:
        world.engine.loses_writes = True
        with pytest.raises(StoreError):
            world.store.write(frames)
        world.restart()
    world.engine.poison = poison
    at = 0
    for size in slices:
        world.store.write(frames[at : at + size])
        at += size

    values = {6: [value for value in (1.0, 2.0, 3.0) if value not in poison][-1:],
              5: [value for value in (0.0, 2.0, 3.0) if value not in poison][-1:]}  # fmt: skip
    rows = 3 + len(values[6])
    (ledger,) = world.store.counters([1])
    assert [row.value for row in world.store.read([1], *FOREVER, 9)] == [*values[5], *values[6], 0.0, 4.0]
    # One that was replaced in time was never sent, so nobody refused it.
    assert (ledger.accepted, ledger.accepted - ledger.superseded - ledger.refused, ledger.rows) == (8, rows, rows)
    assert len(world.store.refusals()) == ledger.refused
    assert world.store.latest([1]) == [Row(1, T0 + 10 * S, 4.0)]


@pytest.mark.parametrize("poison", [set(), {1.0}, {2.0}])
@pytest.mark.parametrize("slices", [[3], [1, 2], [2, 1], [1, 1, 1]])
def test_new_instant_that_came_twice_in_a_write_that_was_cut_off(
    world: World, poison: set[Value], slices: list[int]
) -> None:
    """Its second value finds none of its own first time there, whichever of them is refused."""
    world.engine.poison = poison
    frames = numbered([world.frame((1, 1.0)), world.frame((9, 5.0)), world.frame((1, 2.0))])
    world.engine.dies_after = True
    with pytest.raises(StoreError):
        world.store.write(frames)
    world.restart()
    at = 0
    for size in slices:
        world.store.write(frames[at : at + size])
        at += size

    (ledger,) = world.store.counters([1])
    assert (ledger.accepted, ledger.accepted - ledger.superseded - ledger.refused, ledger.rows) == (3, 2, 2)


def test_note_outlives_each_write_that_goes_by_it(world: World) -> None:
    """A refused reading left its instant empty, which is known of a write that was cut off; so is the next one."""
    world.engine.poison = {7.0}
    frames = numbered([world.frame((9, 1.0)), world.frame((1, 7.0)), world.frame((2, 2.0)), world.frame((1, 3.0))])
    world.store.write(frames[:1])
    world.engine.dies_after = True
    with pytest.raises(StoreError):
        world.store.write(frames[1:3])
    world.restart()
    world.store.write(frames[1:2])
    world.engine.dies_after = True
    with pytest.raises(StoreError):
        world.store.write(frames[2:])
    world.restart()
    world.store.write(frames[2:3])
    world.store.write(frames[3:])

    assert world.store.counters([1]) == [SeriesCounters(1, 4, 0, 3, late=3, refused=1)]


def test_newest_beside_a_refused_one(world: World) -> None:
    """Of the readings of a write the newest that is stored is the newest, and its instant again is a correction."""
    world.engine.poison = {9.0}
    world.store.write(numbered([world.frame((0, 1.0), (1, 2.0), (2, 9.0))]))
    world.store.write(numbered([world.frame((1, 3.0))], 2))

    assert world.store.latest([1]) == [Row(1, T0 + S, 3.0)]
    assert world.store.counters([1]) == [SeriesCounters(1, 4, 1, 2, refused=1)]


def test_account_waits_for_a_write_that_was_cut_off(world: World) -> None:
    """The server may hold what the ledger does not know: to compare them would cry wolf."""
    frames = numbered([world.frame((0, 1.0))])
    world.engine.dies_after = True
    with pytest.raises(StoreError):
        world.store.write(frames)
    world.engine.is_down = world.engine.dies_after = False

    for question in (world.store.account, world.store.counters, world.store.erase):
        with pytest.raises(StoreError, match="being repeated"):
            question([1])
    world.store.write(frames)
    assert world.store.counters([1]) == [SeriesCounters(1, 1, 0, 1)]


@pytest.mark.parametrize("is_deleted", [False, True])
def test_erasure_that_was_cut_off_is_ended(world: World, is_deleted: bool) -> None:
    """Its rows are counted once, whether the server had deleted them or not, before anything new is written."""
    world.store.write(numbered([world.frame((0, 1.0), (1, 2.0))]))
    world.engine.loses_deletes = True
    with pytest.raises(StoreError):
        world.store.erase([1])
    if is_deleted:
        world.engine.rows.clear()

    world.restart()
    world.store.write(numbered([world.frame((1, 5.0))], 2))

    assert world.store.counters([1]) == [SeriesCounters(1, 3, 0, 1, 2)]
    assert world.store.latest([1]) == [Row(1, T0 + S, 5.0)]


def test_revisions_ask_no_server(world: World) -> None:
    """They are of the ledger; a series that never was has zeros."""
    world.store.write(numbered([world.frame((0, 1.0), (0, 2.0))]))
    world.engine.is_down = True

    assert world.store.revisions([9, 1]) == [(0, 0, 0, 0, 0), (2, 1, 0, 0, 0)]
