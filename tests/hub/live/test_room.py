"""Rooms: bytes shared, membership decided once, series told before their data, newest values at a bounded rate."""

import tracemalloc
from collections.abc import Iterator

import orjson
import pytest

from hub.devices import Latest
from hub.live.cursor import RunTable
from hub.live.encode import Message
from hub.live.ring import Ring
from hub.live.room import SERIES_PER_MESSAGE, Chunk, ChunkCache, LatestRoom, LosslessRoom, Room, RoomKey, Sources
from hub.model import Series
from tests.support.live_world import NOW_NS, World


class RecordingOutlet:
    """Keeps what was written; full when told so."""

    def __init__(self, key: str = "s1") -> None:
        self.key = key
        self.is_full = False
        self.written: list[bytes] = []
        self.wraps = 0

    def wrap(self, op: str, tail: bytes, cursor: str | None) -> bytes:
        """Count and join."""
        self.wraps += 1
        return op.encode() + b" {" + tail + b"\n"

    def write(self, data: bytes) -> None:
        """Keep."""
        self.written.append(data)

    def ops(self) -> list[str]:
        """Return the op of each message."""
        return [line.split(b" ")[0].decode() for line in b"".join(self.written).splitlines()]


class RecordingListener:
    """Keeps where it fell behind."""

    def __init__(self, outlet: RecordingOutlet) -> None:
        self.outlet = outlet
        self.behind_at: list[int] = []

    def fell_behind(self, offset: int) -> None:
        """Keep."""
        self.behind_at.append(offset)


@pytest.fixture
def world() -> World:
    """A hub with one series."""
    world = World()
    world.add("d", "x")
    return world


def make(world: World, kind: type[Room], max_hz: float | None = None, ring: Ring | None = None) -> Room:
    """Return a room over the world's ring and newest values, with its series."""
    ring = world.live.ring if ring is None else ring
    sources = Sources(ring, RunTable(world.journal.runs()), world.newest, ChunkCache(), ring.head, world.live.unsent)
    room = kind(1, RoomKey("default", ("*/*",), (), ("*/*",), max_hz), sources)
    room.add(list(world.series.values()))
    return room


def listeners(room: Room, count: int, keys: Iterator[str] | None = None) -> list[RecordingListener]:
    """Return live listeners."""
    made = [RecordingListener(RecordingOutlet(next(keys) if keys else "s1")) for _ in range(count)]
    for listener in made:
        room.join(listener)
    return made


def test_watchers_of_a_room_share_the_very_same_bytes(world: World) -> None:
    """One flush encodes and frames once, however many watchers there are."""
    room = make(world, LosslessRoom)
    members = listeners(room, 100)

    world.record(1, NOW_NS, 1.0)
    room.advance(0)

    assert len({id(m.outlet.written[0]) for m in members}) == 1
    assert sum(m.outlet.wraps for m in members) == 1


def test_many_different_names_still_get_their_bytes(world: World) -> None:
    """Outlets with other keys are wrapped apart; beyond eight keys nothing is kept for sharing."""
    room = make(world, LosslessRoom)
    members = listeners(room, 20, iter([f"s{k}" for k in range(20)]))

    world.record(1, NOW_NS, 1.0)
    room.advance(0)

    assert all(m.outlet.ops() == ["data"] for m in members)


def test_full_listener_leaves_with_the_offset_it_reached(world: World) -> None:
    """Who is full is told where it stands and gets no more; the others go on."""
    room = make(world, LosslessRoom)
    slow, quick = listeners(room, 2)

    slow.outlet.is_full = True
    for k in range(3):
        world.record(1, NOW_NS + k, float(k))
        room.advance(0)

    assert slow.behind_at == [0]
    assert len(slow.outlet.written) == 0
    assert len(quick.outlet.written) == 3


def test_flush_larger_than_the_ring_sends_listeners_to_the_journal() -> None:
    """When more arrives in one tick than the ring holds, listeners fall behind instead of missing it."""
    world = World(ring_bytes=1_000)
    world.add("d", "x")
    room = make(world, LosslessRoom)
    (listener,) = listeners(room, 1)

    for k in range(100):
        world.publish(world.frame({1: [(NOW_NS + k, float(k))]}))
    room.advance(0)

    assert listener.behind_at == [0]
    assert room.head == 100


def test_new_series_is_told_before_its_data(world: World) -> None:
    """A live listener hears of a series before the first reading that uses its id; a changed one is told again."""
    room = make(world, LosslessRoom)
    (listener,) = listeners(room, 1)

    room.add([world.add("d", "y")])
    world.record(2, NOW_NS, 1.0)
    room.advance(0)
    room.add([world.series[1]])
    room.advance(0)

    assert listener.outlet.ops() == ["series", "data", "series"]


def test_full_listener_is_told_of_series_when_it_reads_on(world: World) -> None:
    """Thousands of new series are bytes too: who is full leaves with what it was told, the others share the bytes."""
    room = make(world, LosslessRoom)
    slow, quick, third = listeners(room, 3)

    for k in range(3 * SERIES_PER_MESSAGE):
        room.add([world.add(f"new-{k}", "x")])
    slow.outlet.is_full = True
    room.advance(0)

    assert (slow.behind_at, len(slow.outlet.written)) == ([0], 0)
    assert quick.outlet.ops() == ["series"] * 3
    assert all(one is other for one, other in zip(quick.outlet.written, third.outlet.written, strict=True))


def test_membership_is_decided_once_per_series(world: World) -> None:
    """A series that is not selected never gets in, also when it is told again."""
    room = make(world, LosslessRoom)
    other = Series(9, "other", "d", "x")

    room.add([other])
    room.add([other])

    assert set(room.members) == {1}
    assert room.catalog == [world.series[1]]


def test_catalog_is_rewritten_when_series_change_for_ever(world: World) -> None:
    """A device that changes its unit without end costs no memory: the list is rewritten and told again."""
    room = make(world, LosslessRoom)
    (listener,) = listeners(room, 1)

    for _ in range(3 * SERIES_PER_MESSAGE):
        room.add([world.series[1]])
    room.advance(0)

    assert len(room.catalog) <= SERIES_PER_MESSAGE + 2
    assert room.generation >= 2
    assert listener.outlet.ops()[-1] == "series"


def test_page_shares_what_was_encoded_before(world: World) -> None:
    """Two listeners behind at the same offset get the same chunk."""
    room = make(world, LosslessRoom)
    room.listeners = 2
    world.record(1, NOW_NS, 1.0)
    room.advance(0)

    assert room.page(0) is room.page(0)


def test_sole_listener_takes_no_room_in_the_cache(world: World) -> None:
    """Its chunks serve nobody else: only when a second one comes are those that follow kept."""
    key = RoomKey("default", ("*/*",), (), ("*/*",))
    room = world.live.enter_room(key)
    listeners(room, 1)
    world.record(1, NOW_NS, 1.0)
    world.live.flush()
    alone = world.live.statistics().cache_bytes

    world.live.enter_room(key)
    world.record(1, NOW_NS + 1, 2.0)
    world.live.flush()

    assert alone == 0
    assert world.live.statistics().cache_bytes > 0


def test_chunk_cache_is_bounded() -> None:
    """However many chunks rooms make, those kept stay within their bytes; the oldest leave first."""
    one = Chunk(0, 1, [Message(b"x" * 700, "c")]).size()
    cache = ChunkCache(max_bytes=10 * one)

    for k in range(100):
        for room in (1, 2):
            cache.add(room, Chunk(k, k + 1, [Message(b"x" * 700, "c")]))
            cache.add(room, Chunk(k, k + 2, [Message(b"x" * 700, "c")]))

    assert cache.bytes == 10 * one
    assert cache.get(1, 0) is None
    kept = cache.get(2, 99)
    assert kept is not None
    assert kept.upto == 101


def test_chunks_of_a_room_that_ended_are_dropped() -> None:
    """Those of other rooms stay."""
    cache = ChunkCache()
    for room in (1, 2, 11):
        for k in range(3):
            cache.add(room, Chunk(k, k + 1, [Message(b"x" * 100, "c")]))
    held = cache.bytes

    cache.drop(1)

    assert cache.bytes == held * 2 // 3
    assert [cache.get(room, 1) is None for room in (1, 2, 11)] == [True, False, False]


def test_chunk_cache_counts_the_bytes_it_takes() -> None:
    """The bound is that of real memory also for the smallest chunks, which a room makes at every flush."""
    cache = ChunkCache()
    tracemalloc.start()
    for k in range(1000, 3000):
        cache.add(1, Chunk(k, k + 1, [Message(b'"u":[[7,0,%d]]}' % k, f"7f3a0001.{k}")] if k % 2 else []))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert 0.8 < taken / cache.bytes < 1.25


def latest(outlet: RecordingOutlet) -> list[tuple[int, object]]:
    """Return (t0 in ns after NOW, value) of single-value data messages."""
    out = []
    for line in b"".join(outlet.written).splitlines():
        op, _, body = line.partition(b" ")
        if op == b"data":
            message = orjson.loads(body)
            out += [(int(message["t0"]) - NOW_NS + dt * message["tick"], value) for _, dt, value in message["u"]]
    return out


def test_latest_is_bounded_in_rate_and_ends_with_the_last_value(world: World) -> None:
    """At 10 Hz a burst gives its first value at once, then the newest after each tenth of a second."""
    room = make(world, LatestRoom, 10)
    (listener,) = listeners(room, 1)

    for k in range(100):
        world.record(1, NOW_NS + k, float(k))
        room.advance(k * 0.01)
    assert room.due is not None
    room.advance(room.due)

    assert len(listener.outlet.written) <= 11
    assert latest(listener.outlet)[0] == (0, 0.0)
    assert latest(listener.outlet)[-1] == (99, 99.0)
    assert room.due is None


def test_latest_is_newest_by_event_time(world: World) -> None:
    """A late reading does not replace a newer one, and nothing is sent for it."""
    room = make(world, LatestRoom, 50)
    (listener,) = listeners(room, 1)
    world.record(1, NOW_NS + 10, 10.0)
    room.advance(0)

    world.record(1, NOW_NS + 5, 5.0)
    room.advance(1)

    assert latest(listener.outlet) == [(10, 10.0)]


def test_latest_page_gives_what_changed_behind_the_cursor(world: World) -> None:
    """A resumed listener gets the newest value of each series that changed since, in one chunk, without the journal."""
    world.add("d", "y")
    world.newest[1] = Latest(NOW_NS, 1.0, 3)
    world.newest[2] = Latest(NOW_NS, 2.0, 7)
    room = make(world, LatestRoom, 10, Ring(9))

    assert room.newest_values(5) == [(2, NOW_NS, 2.0)]
    assert sorted(room.newest_values(2)) == [(1, NOW_NS, 1.0), (2, NOW_NS, 2.0)]
    assert room.newest_values(8) == []
    chunk = room.page(5)
    assert chunk is not None
    assert (chunk.after, chunk.upto, len(chunk.messages)) == (5, 9, 1)


def test_latest_counts_what_it_conflated(world: World) -> None:
    """Readings that were replaced before they were sent are counted."""
    room = make(world, LatestRoom, 1)
    listeners(room, 1)

    for k in range(10):
        world.record(1, NOW_NS + k, float(k))
    room.advance(0)

    assert room.conflated == 9
