"""A server that forgets what it acknowledged, or is away, costs no reading and counts none twice.

What every store does is in `tests/contract/test_store_victoria.py`.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path

import pytest

from hub.errors import StoreError
from hub.model import Frame
from hub.store.accumulator import aggregate_rows
from hub.store.base import Row, SeriesCounters
from hub.store.consumer import StoreConsumer
from hub.store.victoria import HOLD_S, VictoriaStore
from tests.support.fake_victoria import FakeVictoria
from tests.support.frames import T0, FrameMaker, numbered
from tests.support.memory_journal import MemoryJournal

FOREVER = (-(2**62), 2**62)
MS = 10**6


class Place:
    """A server, a file and a clock, and the store on them."""

    def __init__(self, folder: Path) -> None:
        self.server = FakeVictoria()
        self.now_s = 100.0
        self.wall_ns = T0
        self.path = folder / "victoria.sqlite3"
        self.store = self.open()

    def open(self) -> VictoriaStore:
        """Open the store, as a hub does that starts."""
        self.store = VictoriaStore(self.path, self.server, clock=lambda: self.now_s, wall_ns=lambda: self.wall_ns)
        return self.store

    def wait(self, seconds: float) -> None:
        """Let time pass and look at the server each 5 s, as the consumer does."""
        while seconds > 0:
            step = min(seconds, 5.0)
            self.now_s += step
            seconds -= step
            self.store.sync()

    def rows(self) -> list[tuple[int, object]]:
        """Return (ms since T0, value) of all readings of series 1."""
        return [((row.time_ns - T0) // MS, row.value) for row in self.store.read([1], *FOREVER, 10**6)]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """An empty store."""
    place = Place(tmp_path)
    yield place
    place.store.close()


def frames(*values: float, first: int = 1, maker: FrameMaker | None = None) -> list[Frame]:
    """Return a frame for each value, one reading each, a millisecond apart."""
    maker = maker or FrameMaker()
    made = [maker.one("pump", value, T0 + (first + at) * MS) for at, value in enumerate(values)]
    return numbered(made, first)


def test_frames_are_kept_only_when_the_server_had_time(place: Place) -> None:
    """The journal may forget a frame `HOLD_S` after its acknowledgement, not before."""
    place.store.write(frames(1.0, 2.0))
    place.wait(5)
    place.store.write(frames(1.0, 2.0, 3.0))

    place.wait(HOLD_S - 5.5)
    assert place.store.sync() == 0
    place.wait(0.5)
    assert place.store.sync() == 2
    place.wait(5)
    assert place.store.sync() == 3


def test_time_in_which_the_server_may_have_stood_still_does_not_count(place: Place) -> None:
    """One that was frozen, or its machine, answers at once when it goes on, and has written nothing meanwhile."""
    place.store.write(frames(1.0))
    place.wait(HOLD_S - 20)
    place.now_s += 3600
    place.store.write(frames(1.0, 2.0))

    assert place.store.sync() == 0
    place.wait(5)
    assert place.store.sync() == 0
    place.wait(10)
    assert place.store.sync() == 1
    place.wait(10)
    assert place.store.sync() == 1
    place.wait(10)
    assert place.store.sync() == 2


def test_restarted_server_gets_again_what_it_lost(place: Place) -> None:
    """After its restart the store falls back to what was kept; sent again, all is there once, and counted once."""
    all_frames = frames(1.0, 2.0, 3.0, 4.0)
    place.store.write(all_frames[:1])
    place.wait(HOLD_S)
    assert place.store.sync() == 1
    place.store.write(all_frames[:3])
    place.server.restart(lost=1)
    place.store.write(all_frames)

    assert place.store.sync() == 1
    assert place.store.applied == 1
    place.store.write(all_frames)

    assert place.rows() == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    assert place.store.counters([1]) == [SeriesCounters(1, 4, 0, 4)]
    place.wait(HOLD_S)
    assert place.store.sync() == 4


def test_restart_within_the_same_second_is_seen(place: Place) -> None:
    """A server that stored fewer lines than it had is another one, whatever its start time says."""
    place.store.write(frames(1.0, 2.0))
    place.store.sync()
    place.server.restart(lost=1)
    place.server.started -= 1

    place.wait(HOLD_S)

    assert place.store.sync() == 0


def test_correction_of_what_a_restarted_server_lost(place: Place) -> None:
    """Whether an instant is there already is asked of a server that has all before it; another's is wrong."""
    maker = FrameMaker()
    lost = frames(1.0, 2.0, maker=maker)
    correction = numbered([maker.one("pump", 7.0, T0 + MS)], 3)
    place.store.write(lost)
    place.server.restart(lost=1)

    with pytest.raises(StoreError, match="comes first"):
        place.store.write(correction)
    place.store.write(lost + correction)

    assert place.rows() == [(1, 7.0), (2, 2.0)]
    assert place.store.counters([1]) == [SeriesCounters(1, 3, 1, 2)]


def test_history_with_a_hole_is_an_error(place: Place) -> None:
    """From a server's restart until all is there again nothing is answered without what was lost, nor counted."""
    some = frames(1.0, 2.0)
    place.store.write(some)
    place.server.restart(lost=1)
    questions: list[Callable[[], object]] = [
        place.rows,
        lambda: place.store.aggregate([1], *FOREVER, 2**40, ["count"]),
        lambda: list(place.store.dump([1], *FOREVER)),
        lambda: place.store.counters([1]),
        lambda: place.store.erase([1]),
    ]

    for ask in questions:
        with pytest.raises(StoreError, match="started anew"):
            ask()
    place.store.sync()
    for ask in questions:
        with pytest.raises(StoreError, match="started anew"):
            ask()
    place.store.write(some)

    assert place.rows() == [(1, 1.0), (2, 2.0)]
    assert place.store.counters([1]) == [SeriesCounters(1, 2, 0, 2)]
    assert place.store.erase([1]) == 2


def test_restart_costs_no_answer_when_all_was_kept(place: Place) -> None:
    """What the server has on its disk it has after a restart, too."""
    place.store.write(frames(1.0, 2.0))
    place.wait(HOLD_S)
    place.store.sync()
    place.server.restart(lost=0)

    assert place.rows() == [(1, 1.0), (2, 2.0)]
    assert place.store.counters([1]) == [SeriesCounters(1, 2, 0, 2)]


def test_nothing_is_counted_while_a_write_is_to_be_repeated(place: Place) -> None:
    """A server that answers, and takes nothing, has fewer readings than are counted: no account, and no erasure."""
    place.store.write(frames(1.0))
    place.server.is_read_only = True
    with pytest.raises(StoreError):
        place.store.write(frames(1.0, 2.0))

    with pytest.raises(StoreError, match="cut off"):
        place.store.counters([1])
    with pytest.raises(StoreError, match="cut off"):
        place.store.erase([1])
    place.server.is_read_only = False
    place.store.write(frames(1.0, 2.0))

    assert place.store.counters([1]) == [SeriesCounters(1, 2, 0, 2)]


def test_restarted_hub_sends_again_what_may_be_lost(place: Place) -> None:
    """A hub that starts cannot know what the server went through: it begins at what was kept, and counts once."""
    some = frames(1.0, 2.0, 3.0)
    place.store.write(some)
    place.store.close()
    place.server.restart(lost=1)

    place.open()

    assert place.store.applied == 0
    place.store.write(some)
    assert place.rows() == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert place.store.counters([1]) == [SeriesCounters(1, 3, 0, 3)]


def test_restored_journal(place: Place) -> None:
    """A journal that was restored to less than was counted has other frames there, and they are counted, too."""
    journal, maker = MemoryJournal(), FrameMaker()
    journal.append([maker.one("pump", float(at), T0 + at * MS) for at in range(6)], maker.all_series())
    place.store.write(journal.read(0, 10**6))
    journal.restore(4, "00000002")
    place.store.close()
    consumer = StoreConsumer(place.open(), journal)
    consumer.start()
    consumer.stop()
    journal.append([maker.one("pump", float(at), T0 + at * MS) for at in (10, 11, 12)], maker.all_series())

    place.store.write(journal.read(place.store.applied, 10**6))

    assert place.store.applied == 7
    assert [row[0] for row in place.rows()] == [0, 1, 2, 3, 4, 5, 10, 11, 12]
    assert place.store.counters([1]) == [SeriesCounters(1, 9, 0, 9)]


def test_server_away(place: Place) -> None:
    """While it does not answer a write fails and can be repeated, newest values are told, and a hub can start."""
    place.server.is_down = True
    with pytest.raises(StoreError):
        place.store.write(frames(1.0))
    with pytest.raises(StoreError):
        place.store.sync()
    assert place.store.latest([1]) == []
    place.store.close()
    place.open()

    place.server.is_down = False
    place.store.write(frames(1.0))

    assert place.store.latest([1]) == [Row(1, T0 + MS, 1.0)]
    assert place.store.counters([1]) == [SeriesCounters(1, 1, 0, 1)]


def test_corrections_win_also_when_sent_again(place: Place) -> None:
    """Whatever of two values the server keeps, and in whatever groups they are sent again, the last one stands."""
    maker = FrameMaker()
    made = [maker.one("pump", float(value), T0 + at * MS) for value, at in enumerate([0, 1, 2] * 5)]
    numbered(made)
    for group in (made[:2], made[2:7], made[7:]):
        place.store.write(group)
    for lost in (2, 1, 2):
        place.server.restart(lost)
        place.store.sync()
        for frame in made[:9]:
            place.store.write([frame])
        place.store.write(made)

    assert place.rows() == [(0, 12.0), (1, 13.0), (2, 14.0)]
    assert place.store.counters([1]) == [SeriesCounters(1, 15, 12, 3)]


def test_a_reading_that_only_the_file_has_is_not_doubled(place: Place) -> None:
    """A number that corrected a text stays where the text was, also when it is sent again."""
    maker = FrameMaker()
    made = numbered([maker.one("pump", "on", T0), maker.one("pump", 5, T0)])
    place.store.write(made[:1])
    place.store.write(made)
    place.server.restart(lost=0)
    place.store.sync()
    place.store.write(made)

    assert place.rows() == [(0, 5)]
    assert place.store.counters([1]) == [SeriesCounters(1, 2, 1, 1)]


def test_erased_readings_stay_away(place: Place) -> None:
    """A server that forgot the erasure, and readings that are sent again, bring nothing of it back."""
    maker = FrameMaker()
    some = frames(1.0, 2.0, maker=maker)
    place.store.write(some)
    assert place.store.erase([1]) == 2
    later = frames(3.0, first=3, maker=maker)
    place.store.write(later)
    place.server.restart(lost=1)
    place.store.sync()
    assert place.store.applied == 0
    place.store.write(some + later)

    assert place.rows() == [(3, 3.0)]
    assert place.store.counters([1]) == [SeriesCounters(1, 3, 0, 1, 2)]


def test_erasure_that_the_server_did_not_hear_is_said_again(place: Place) -> None:
    """An erase that failed at the server is finished before anything is written there."""
    place.store.write(frames(1.0))
    place.store.read([1], *FOREVER, 1)
    place.server.fails_to_delete = True
    with pytest.raises(StoreError):
        place.store.erase([1])
    place.server.fails_to_delete = False

    with pytest.raises(StoreError, match="comes first"):
        place.store.write(frames(1.0, 2.0))
    assert place.store.applied == 0
    place.store.write(frames(1.0, 2.0))

    assert place.store.counters([1]) == [SeriesCounters(1, 2, 0, 1, 1)]


def test_erasure_that_is_certain_is_not_said_again(place: Place) -> None:
    """Whatever is cut off: once later readings are kept, nothing may delete them with those that were erased."""
    maker = FrameMaker()
    place.store.write(frames(1.0, maker=maker))
    place.store.erase([1])
    place.store.write(frames(1.0) + frames(2.0, first=2, maker=maker))
    place.wait(HOLD_S - 5)
    place.now_s += 5
    with closing(sqlite3.connect(place.path)) as fault:
        fault.execute("CREATE TRIGGER t BEFORE DELETE ON erasing BEGIN SELECT RAISE(ABORT, 'no'); END")
        fault.commit()
        with pytest.raises(StoreError):
            place.store.sync()
        fault.execute("DROP TRIGGER t")
        fault.commit()
    place.store.close()
    place.open()

    place.store.write(frames(1.0, 2.0, 3.0)[place.store.applied :])

    assert place.rows() == [(2, 2.0), (3, 3.0)]


@pytest.mark.parametrize("jump_days", [-20_000, -2, 500_000])
def test_clock_that_was_set_before_frames_are_sent_again(place: Place, jump_days: int) -> None:
    """What the server would leave out by that clock, and lost, is kept here; all counts once."""
    maker = FrameMaker()
    made = [maker.one("pump", float(value), T0 + at * MS) for value, at in [(1, 1), (2, 2), (7, 1), (3, 3)]]
    made = numbered(made)
    for at in (1, 3, 4):
        place.store.write(made[:at])
    for lost in (1, 1):
        place.server.restart(lost)
        place.store.sync()
        place.wall_ns = T0 + jump_days * 86_400 * 10**9
        place.store.write(made)
        assert place.rows() == [(1, 7.0), (2, 2.0), (3, 3.0)]
        assert place.store.counters([1]) == [SeriesCounters(1, 4, 1, 3)]
        place.wall_ns = T0


def test_reading_that_is_older_than_the_server_keeps(place: Place) -> None:
    """A device that was away for longer loses nothing by it, nor does an import."""
    place.server.flags = place.server.flags.replace("100y", "1")
    maker = FrameMaker()
    days = 86_400 * 10**9

    place.store.write(numbered([maker.one("pump", 1.0, T0 - 31 * days), maker.one("pump", 2.0, T0 - 29 * days)]))

    assert [row.value for row in place.store.read([1], *FOREVER, 9)] == [1.0, 2.0]
    assert place.store.counters([1]) == [SeriesCounters(1, 2, 0, 2)]
    assert len(place.server.posts[0].splitlines()) == 1


def test_server_that_would_double(place: Place) -> None:
    """A server without deduplication is not written to; the error names the flag."""
    place.server.flags = ""

    with pytest.raises(StoreError, match=r"dedup\.minScrapeInterval=1ms"):
        place.store.write(frames(1.0))

    assert place.server.posts == []


def test_lines_left_out_are_said(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Lines that the server refused or ignored, which it acknowledged, are an error in the log."""
    place.store.write(frames(1.0))
    place.server.refused = 3

    place.store.sync()

    assert "server left lines out refused=3" in caplog.text


def test_rounded_readings_are_counted(place: Place) -> None:
    """Readings with more digits than the server keeps are counted by series."""
    place.store.write(frames(0.1 + 0.2, 21.5, 1 / 3))

    assert place.store.rounded([1]) == {1: 2}
    assert place.store.revisions([1, 2]) == [(3, 0, 0, 0, 0), (0, 0, 0, 0, 0)]


def test_series_of_more_readings_than_the_server_looks_at(place: Place) -> None:
    """One a second for a year is more than it takes into one question: it is asked in parts, and rows do the rest."""
    place.store.write(numbered([FrameMaker().batch("pump", [("t", T0 + at * MS, float(at)) for at in range(100)])]))
    place.server.most_samples = 7

    for step_ms in (3, 50):
        asked = ([1], *FOREVER, step_ms * MS, ["count", "max"])
        assert place.store.aggregate(*asked) == aggregate_rows(place.store, *asked)
    assert place.store.counters([1]) == [SeriesCounters(1, 100, 0, 100)]
    assert place.store.erase([1]) == 100
    place.server.most_samples = -1
    place.store.write(numbered([FrameMaker().one("pump", 1.0)], 2))
    with pytest.raises(StoreError, match="422"):
        place.store.counters([1])


def test_readings_are_made_visible_after_it_failed_once(place: Place) -> None:
    """What was acknowledged in the last second is seen only when the server was told to show it, and heard it."""
    maker = FrameMaker()
    first, again = numbered([maker.one("pump", 1.0, T0), maker.one("pump", 2.0, T0)])
    place.store.write([first])
    place.server.is_down = True
    for ask in (place.rows, lambda: place.store.write([again])):
        with pytest.raises(StoreError):
            ask()
    place.server.is_down = False
    place.store.write([again])

    assert place.rows() == [(0, 2.0)]
    assert place.store.counters([1]) == [SeriesCounters(1, 2, 1, 1)]


def test_readers_wait_until_readings_are_visible(place: Place) -> None:
    """Of two questions at once the second one does not overtake the request that makes all of it visible."""
    place.store.write(frames(1.0))
    is_asked, may_go, get = threading.Event(), threading.Event(), place.server.get

    def slow(path: str) -> bytes:
        if path == "/internal/force_flush":
            is_asked.set()
            assert may_go.wait(10)
        return get(path)

    place.server.get = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(place.rows)
        assert is_asked.wait(10)
        other = pool.submit(place.rows)
        # Overtaking, it is done at once; else it waits for the first one.
        wait([other], 0.2)
        may_go.set()

        assert (one.result(10), other.result(10)) == ([(1, 1.0)], [(1, 1.0)])


def test_large_writes_are_cut(place: Place) -> None:
    """A write of many readings is several requests."""
    maker = FrameMaker()
    frame = maker.batch("pump", [("t", T0 + at * MS, float(at)) for at in range(12_000)])

    place.store.write(numbered([frame]))

    assert [body.count("\n") for body in place.server.posts] == [5_000, 5_000, 2_000]
    assert len(place.rows()) == 12_000
