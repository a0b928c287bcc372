"""One suite for both spools: what `device_sdk.spool.Spool` promises, whoever keeps it."""

import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from device_sdk import wire
from device_sdk.columns import decode_batch
from device_sdk.errors import ChainConflictError, MisuseError
from device_sdk.memory_spool import MemorySpool
from device_sdk.outbox import MAX_LANES, WhenFull
from device_sdk.reading import Channel, ValueType
from device_sdk.spool import Copying, FileSpool, Spool
from device_sdk.spool_base import MIN_LIMIT_BYTES
from tests.support.spool_hub import SpoolHub, drain

T = 1_795_376_000_000_000_000
Make = Callable[..., Spool]


@pytest.fixture(params=["file", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Make spools of either kind; a file spool each time in its own directory."""
    made: list[Spool] = []

    def build(*, max_bytes: int = 64_000_000, when_full: WhenFull = "oldest", retain_bytes: int = 0) -> Spool:
        spool: Spool
        if request.param == "file":
            path = tmp_path / str(len(made))
            spool = FileSpool(path, boot="boot-1", max_bytes=max_bytes, when_full=when_full, retain_bytes=retain_bytes)
        else:
            spool = MemorySpool(max_bytes=max_bytes, when_full=when_full, retain_bytes=retain_bytes)
        made.append(spool)
        return spool

    yield build
    for spool in made:
        spool.close()


def test_new_spool_holds_nothing_and_knows_the_first_chain(make: Make) -> None:
    """A stream begins at seq 1 with a known chain(0) and 64 random bits."""
    spool, other = make(), make()

    assert (spool.acked, spool.next, spool.pos, spool.pending) == (0, 1, None, 0)
    assert spool.chain(0) == wire.CHAIN_START
    assert spool.chain(1) is None
    assert not spool.has_uncut
    assert spool.cut() is None
    assert len(spool.stream) == 16
    assert spool.stream != other.stream


def test_cut_numbers_all_readings_in_order(make: Make) -> None:
    """One frame holds the readings as recorded, with their types, and its chain covers its body."""
    spool = make()
    spool.record([("t", 21.5), ("n", 7), ("door", True), ("state", "öpen")], None, T)

    frame = spool.cut()

    assert frame is not None
    assert (frame.seq, frame.kind, frame.readings) == (1, "batch", 4)
    assert decode_batch(frame.body).readings() == [
        ("t", T, 21.5), ("n", T, 7), ("door", T, True), ("state", T, "öpen"),
    ]  # fmt: skip
    assert frame.chain == wire.next_chain(wire.CHAIN_START, frame.body) == spool.chain(1)
    assert spool.frames(0) == [frame]
    assert spool.frames(1) == []
    assert (spool.next, spool.unnumbered, spool.pending) == (2, 0, 4)


def test_one_reading_is_recorded_as_one_of_several(make: Make) -> None:
    """`record_one` is `record` for one reading, of every type, also when the clock stands or goes back."""
    one, several = make(), make()
    values = (21.5, 7, True, "öpen", -0.0, 2**63 - 1, "")
    for i, now_ns in enumerate((T, T, T - 10**9, T + 5, T + 6, T + 6, 2**63 - 1)):
        for spool in (one, several):
            spool.record([("t", values[i])], T + 2 * i, T)
        one.record_one("t", values[i], now_ns)
        several.record([("t", values[i])], None, now_ns)

    readings = drain(one).readings

    assert readings == drain(several).readings
    assert len(readings) == 14


def test_two_readings_of_one_instant_are_a_nanosecond_apart(make: Make) -> None:
    """Without an explicit time no reading overwrites another, even when the clock stands or goes back."""
    spool = make()
    for now_ns in (T, T, T - 5, T + 10):
        spool.record([("t", 1.0)], None, now_ns)
    spool.record([("other", 1.0)], None, T)

    frame = spool.cut()

    assert frame is not None
    times = [(r.channel, r.time_ns - T) for r in decode_batch(frame.body).readings()]
    assert times == [("t", 0), ("t", 1), ("t", 2), ("t", 10), ("other", 0)]


def test_explicit_time_is_kept_and_a_future_one_does_not_drag_the_channel(make: Make) -> None:
    """``time=`` is stored as given; the next reading without it takes its own now, not a wrong date."""
    spool = make()
    spool.record([("t", 1.0)], T + 10**15, T)
    spool.record([("t", 2.0)], None, T)
    spool.record([("t", 3.0)], T - 10**15, T)

    frame = spool.cut()

    assert frame is not None
    assert [r.time_ns - T for r in decode_batch(frame.body).readings()] == [10**15, 0, -(10**15)]


def test_cut_respects_the_number_of_readings_and_bytes(make: Make) -> None:
    """A frame takes from the front what fits; the rest waits, nothing is lost."""
    spool = make()
    for i in range(50):
        spool.record([("text", f"{i:04d}" + "x" * 996)], None, T + i)

    first, second = spool.cut(max_readings=10), spool.cut(max_bytes=20_000)

    assert first is not None
    assert second is not None
    assert first.readings == 10
    assert 1 <= second.readings < 40
    assert len(second.body) <= 20_000
    assert spool.unnumbered == 50 - 10 - second.readings
    assert [r.value for r in drain(spool).readings] == [f"{i:04d}" + "x" * 996 for i in range(50)]


def test_times_centuries_apart_go_into_different_frames(make: Make) -> None:
    """Every dt of a frame fits 64 bits, whatever times were given."""
    spool = make()
    spool.record([("t", 1.0)], -(2**63), T)
    spool.record([("t", 2.0)], 2**63 - 1, T)

    frame = spool.cut()

    assert frame is not None
    assert frame.readings == 1
    assert [r.time_ns for r in drain(spool).readings] == [-(2**63), 2**63 - 1]


def test_window_holds_back_the_33rd_frame(make: Make) -> None:
    """At most MAX_WINDOW frames are cut and unacked; an ack makes room."""
    spool = make()
    for i in range(40):
        spool.record([("t", float(i))], None, T + i)
        spool.cut()

    assert spool.next == wire.MAX_WINDOW + 1
    assert spool.unnumbered == 40 - wire.MAX_WINDOW

    spool.acknowledge(1, _chain(spool, 1), "r.1")

    frame = spool.cut()
    assert frame is not None
    assert frame.readings == 40 - wire.MAX_WINDOW


def test_acknowledge_deletes_frames_and_keeps_the_position(make: Make) -> None:
    """An ack is cumulative; an older one changes nothing."""
    spool = make()
    for i in range(5):
        spool.record([("t", float(i))], None, T + i)
        spool.cut()

    spool.acknowledge(3, _chain(spool, 3), "r.3")
    spool.acknowledge(2, b"whatever chain it is", "r.2")

    assert (spool.acked, spool.pos, spool.pending) == (3, "r.3", 2)
    assert [frame.seq for frame in spool.frames(0)] == [4, 5]


@pytest.mark.parametrize(
    ("stored", "chain"), [(1, bytes(16)), (2, bytes(16)), (9, bytes(16))], ids=["1", "2", "not cut"]
)
def test_acknowledge_refuses_a_chain_it_did_not_cut(make: Make, stored: int, chain: bytes) -> None:
    """A hub that stored something else under this number must not make the device delete anything."""
    spool = make()
    for i in range(2):
        spool.record([("t", float(i))], None, T + i)
        spool.cut()

    with pytest.raises(ChainConflictError):
        spool.acknowledge(stored, chain, "r.1")

    assert (spool.acked, spool.pos, len(spool.frames(0))) == (0, None, 2)


def test_chain_is_known_for_the_last_frames_only(make: Make) -> None:
    """Both ends can compare the last 64 chains; older ones are forgotten, chain(0) never is."""
    spool = make()
    for i in range(100):
        spool.record([("t", float(i))], None, T + i)
        frame = spool.cut()
        assert frame is not None
        spool.acknowledge(frame.seq, frame.chain, "p")

    assert spool.chain(100 - wire.CHAINS_KEPT - 1) is None
    assert spool.chain(100 - wire.CHAINS_KEPT) is not None
    assert spool.chain(100) is not None
    assert spool.chain(0) == wire.CHAIN_START


def test_restart_numbers_unacked_frames_again_on_a_new_stream(make: Make) -> None:
    """Frames ≤ stored count as acked; the others come first, in order, marked ``again``."""
    spool = make()
    for i in range(4):
        spool.record([("t", float(i))], None, T + i)
        spool.cut()
    spool.record([("t", 4.0)], None, T + 4)
    old = spool.stream

    spool.restart(2)

    assert spool.stream != old
    assert (spool.acked, spool.next, spool.chain(0)) == (0, 1, wire.CHAIN_START)
    assert (spool.frames(0), spool.unnumbered, spool.has_uncut) == ([], 3, True)
    cut = [spool.cut() for _ in range(3)]
    batches = [decode_batch(frame.body) for frame in cut if frame is not None]
    assert [(b.seq, b.again, b.readings()[0].value) for b in batches] == [
        (1, True, 2.0),
        (2, True, 3.0),
        (3, False, 4.0),
    ]


def test_restart_twice_keeps_the_order(make: Make) -> None:
    """Frames cut again and frames still waiting from an earlier restart stay in order."""
    spool = make()
    for i in range(4):
        spool.record([("t", float(i))], None, T + i)
        spool.cut()
    spool.restart(None)
    spool.cut()
    spool.cut()

    spool.restart(None)

    assert [r.value for r in drain(spool).readings] == [0.0, 1.0, 2.0, 3.0]


def test_restart_declares_what_the_hub_cannot_read(make: Make) -> None:
    """Readings of an unreadable frame leave as a leading gap with their count and range."""
    spool = make()
    spool.record([("t", 1.0)], None, T)
    spool.record([("t", 2.0)], None, T + 9)
    frame = spool.cut()
    assert frame is not None
    spool.record([("t", 3.0)], None, T + 10)

    spool.restart(1, decode_batch(frame.body).readings())

    hub = drain(spool)
    assert [(g["seq"], g["count"], g["reason"]) for g in hub.gaps] == [(1, 2, "unreadable")]
    assert hub.gaps[0]["ranges"] == {"t": [str(T), str(T + 9)]}
    assert [r.value for r in hub.readings] == [3.0]


@pytest.mark.parametrize("when_full", ["oldest", "newest"])
def test_full_spool_declares_every_dropped_reading(make: Make, when_full: WhenFull) -> None:
    """Dropped + delivered = produced; the limit holds; gaps name the channels; a cut frame is never dropped."""
    spool = make(max_bytes=MIN_LIMIT_BYTES, when_full=when_full)
    produced = 12_000
    spool.record([("t", -1.0)], None, T - 1)
    first = spool.cut()
    for i in range(produced):
        spool.record([("t" if i % 3 else "other", float(i))], None, T + i)

    statistics = spool.statistics()
    hub = drain(spool)

    assert 0 < statistics.dropped < produced
    assert statistics.peak_bytes <= statistics.limit_bytes == MIN_LIMIT_BYTES
    assert sum(int(gap["count"]) for gap in hub.gaps) == statistics.dropped
    assert {gap["reason"] for gap in hub.gaps} == {"spool_full"}
    assert set(hub.gaps[0]["ranges"]) == {"t", "other"}
    values = [r.value for r in hub.readings]
    assert first is not None
    assert values[0] == -1.0
    assert len(values) - 1 + statistics.dropped == produced
    kept = range(produced - len(values) + 1, produced) if when_full == "oldest" else range(len(values) - 1)
    assert sorted(float(v) for v in values[1:]) == [float(i) for i in kept]


@pytest.mark.slow  # 60,000 readings
def test_thin_leaves_a_coarser_picture_of_all_of_it(make: Make) -> None:
    """An outage 10 to 40 times longer than the spool leaves a part of it, evenly; every drop is declared, exactly."""
    spool = make(max_bytes=MIN_LIMIT_BYTES, when_full="thin")
    produced = 60_000
    spool.record([("t", -1.0)], None, T - 1)
    first = spool.cut()
    for i in range(produced):
        spool.record([("t" if i % 3 else "other", float(i))], None, T + i)
        if i % 500 == 0:
            spool.sync()

    statistics = spool.statistics()
    hub = drain(spool)

    assert first is not None
    assert [r.value for r in hub.readings[:1]] == [-1.0]
    found = sorted(int(r.value) for r in hub.readings[1:])
    assert len(found) + statistics.dropped == produced
    assert statistics.dropped_by == {"thinned": statistics.dropped}
    assert [(gap["reason"], gap["count"]) for gap in hub.gaps] == [("thinned", statistics.dropped)]
    assert set(hub.gaps[0]["ranges"]) == {"t", "other"}
    assert statistics.peak_bytes <= statistics.limit_bytes == MIN_LIMIT_BYTES
    tenths = [sum(tenth * 6_000 <= i < (tenth + 1) * 6_000 for i in found) for tenth in range(10)]
    assert min(tenths) * 5 > max(tenths), tenths
    assert max(b - a for a, b in pairwise(found)) <= 200


def test_thin_keeps_rare_channels(make: Make) -> None:
    """The last reading of each channel in a stretch survives: rare states are not lost between busy channels."""
    spool = make(max_bytes=MIN_LIMIT_BYTES, when_full="thin")
    for i in range(20_000):
        spool.record([("busy", float(i))], None, T + i)
        if i in (3_000, 9_000):
            spool.record([("door", i == 9_000), (f"state-{i}", "öpen")], None, T + i)
        if i % 500 == 0:
            spool.sync()

    hub = drain(spool)

    assert {r[:] for r in hub.readings if r.channel != "busy"} >= {
        ("door", T + 9_000, True), ("state-3000", T + 3_000, "öpen"), ("state-9000", T + 9_000, "öpen"),
    }  # fmt: skip
    assert {gap["reason"] for gap in hub.gaps} == {"thinned"}


def test_thin_drops_the_oldest_where_nothing_can_be_thinned(make: Make) -> None:
    """One large reading of each channel leaves no second one to leave out: the limit holds all the same."""
    spool = make(max_bytes=MIN_LIMIT_BYTES, when_full="thin")
    produced = 1_000
    for i in range(produced):
        spool.record([(f"c{i % 200}", f"{i:04d}" + "x" * 1_000)], None, T + i)

    statistics = spool.statistics()
    hub = drain(spool)

    assert statistics.peak_bytes <= statistics.limit_bytes
    assert len(hub.readings) + statistics.dropped == produced
    assert sum(gap["count"] for gap in hub.gaps) == statistics.dropped == sum(statistics.dropped_by.values())
    assert statistics.dropped_by["spool_full"] > 0


# --- the live lane ----------------------------------------------------------------------------


def live_values(spool: Spool, **cut: bool) -> list[float]:
    """Cut one frame and return its values."""
    frame = spool.cut(**cut)
    return [] if frame is None else [float(r.value) for r in decode_batch(frame.body).readings()]


def test_split_lets_new_readings_go_first(make: Make) -> None:
    """After a split the live lane is cut first, the backlog when asked for or when nothing is live; seq just counts."""
    spool = make()
    for i in range(2_000):
        spool.record([("t", float(i))], None, T + i)

    assert spool.split()
    for i in range(2_000, 2_003):
        spool.record([("t", float(i))], None, T + i)

    assert (spool.backlog, spool.unnumbered) == (2_000, 2_003)
    assert live_values(spool) == [2_000.0, 2_001.0, 2_002.0]
    spool.record([("t", 2_003.0)], None, T + 2_003)
    assert live_values(spool, from_backlog=True) == [float(i) for i in range(1_000)]
    assert live_values(spool) == [2_003.0]
    assert live_values(spool) == [float(i) for i in range(1_000, 2_000)]
    statistics = spool.statistics()
    assert (statistics.backlog, statistics.unnumbered, spool.next) == (0, 0, 5)
    assert sorted(r.value for r in drain(spool).readings) == [float(i) for i in range(2_004)]


def test_each_outage_adds_a_lane_and_the_oldest_drains_first(make: Make) -> None:
    """What was left of an earlier outage goes before what a later one added, and behind what is live."""
    spool = make()
    for lane in range(4):
        for i in range(10):
            spool.record([("t", float(10 * lane + i))], None, T + 10 * lane + i)
        assert spool.split()
    spool.record([("t", 99.0)], None, T + 99)

    values = [r.value for r in drain(spool).readings]

    assert values == [99.0, *(float(i) for i in range(40))]


def test_lanes_are_bounded(make: Make) -> None:
    """A link that flaps joins later outages to the last lane, in order; nothing is lost."""
    spool = make()
    splits = 0
    for i in range(30):
        spool.record([("t", float(i))], None, T + i)
        splits += spool.split()

    values = [r.value for r in drain(spool).readings]

    assert splits == MAX_LANES - 1
    assert values == [*(float(i) for i in range(splits, 30)), *(float(i) for i in range(splits))]


@pytest.mark.parametrize("first", [True, False], ids=["in the backlog", "in an earlier frame"])
def test_given_times_stay_in_order(make: Make, first: bool) -> None:
    """No lane opens while a reading with ``time=`` waits: the same time again is a correction, the last one wins."""
    spool = make()
    spool.record([("t", 1.0)], T, T)
    if not first:
        spool.cut()
    spool.record([("t", 2.0)], None, T + 5)

    is_split = spool.split()
    spool.record([("t", 3.0)], T, T + 6)

    assert is_split is not first
    values = [r.value for r in drain(spool).readings]
    assert values == ([1.0, 2.0, 3.0] if first else [1.0, 3.0, 2.0])
    assert not spool.split()


def test_full_spool_drops_from_the_oldest_backlog(make: Make) -> None:
    """Live readings are the last to go."""
    spool = make(max_bytes=MIN_LIMIT_BYTES)
    for i in range(1_000):
        spool.record([("t", float(i))], None, T + i)
    spool.split()
    for i in range(1_000, 9_000):
        spool.record([("t", float(i))], None, T + i)
        if i == 3_000:
            spool.split()

    dropped = spool.statistics().dropped
    hub = drain(spool)

    assert dropped > 0
    assert sorted(r.value for r in hub.readings) == [float(i) for i in range(dropped, 9_000)]


@pytest.mark.parametrize("when_full", ["oldest", "newest", "thin"])
def test_lanes_and_a_full_spool_lose_nothing_silently(make: Make, when_full: WhenFull) -> None:
    """Outage after outage with a full spool: delivered + dropped = produced, and no reading comes twice."""
    spool, hub, produced = make(max_bytes=MIN_LIMIT_BYTES, when_full=when_full), SpoolHub(), 0
    for outage in range(12):
        for _ in range(1_500):
            spool.record([("t", float(produced))], None, T + produced)
            produced += 1
        spool.sync()
        spool.split()
        for turn in range(2):
            spool.record([("t", float(produced))], None, T + produced)
            produced += 1
            spool.cut(300, from_backlog=bool((outage + turn) % 2))
        hub.take(spool)
        hub.acknowledge(spool)
    drain(spool, hub)

    statistics = spool.statistics()
    values = [r.value for r in hub.readings]
    assert len(set(values)) == len(values) == produced - statistics.dropped
    assert sum(gap["count"] for gap in hub.gaps) == statistics.dropped > 0
    assert statistics.peak_bytes <= statistics.limit_bytes


def test_full_spool_takes_readings_again_after_acks(make: Make) -> None:
    """After draining, a spool that was full works like a new one."""
    spool = make(max_bytes=MIN_LIMIT_BYTES, when_full="newest")
    for i in range(10_000):
        spool.record([("t", float(i))], None, T + i)
    hub = drain(spool)
    dropped, delivered = spool.statistics().dropped, len(hub.readings)

    for i in range(1_000):
        spool.record([("t", float(i))], None, T + 10**9 + i)

    assert spool.statistics().dropped == dropped
    assert len(drain(spool, hub).readings) == delivered + 1_000


def test_declared_channels_are_kept_in_order(make: Make) -> None:
    """A channel declared again replaces the old declaration."""
    spool = make()
    spool.declare(Channel("t", "Cel", ValueType.FLOAT, 1.0, -10.0, 40.0, "Temperature"))
    spool.declare(Channel("door", type=ValueType.BOOL))
    spool.declare(Channel("t", "K"))

    assert dict(spool.channels) == {"t": Channel("t", "K"), "door": Channel("door", type=ValueType.BOOL)}
    assert list(spool.channels) == ["t", "door"]


def test_statistics_count_what_is_held(make: Make) -> None:
    """Pending, un-numbered, frames, skipped values and the oldest time are exact."""
    spool = make()
    for i in range(3):
        spool.record([("t", float(i))], None, T + i)
    spool.cut(max_readings=2)
    spool.skip_no_value(4)

    statistics = spool.statistics()

    assert (statistics.pending, statistics.unnumbered, statistics.frames) == (3, 1, 1)
    assert (statistics.dropped, statistics.no_value, statistics.damaged) == (0, 4, 0)
    assert statistics.oldest_time_ns == T
    assert 0 < statistics.bytes <= statistics.peak_bytes <= statistics.limit_bytes
    drain(spool)
    assert spool.statistics().oldest_time_ns is None


def test_record_from_many_threads_loses_nothing(make: Make) -> None:
    """`record` is safe from any thread while another cuts and acknowledges."""
    spool, per_thread, names = make(), 2_000, ["a", "b", "c", "d"]
    hub = SpoolHub()

    def run(name: str) -> None:
        for i in range(per_thread):
            spool.record([(name, i), (f"{name}.2", float(i))], None, T)

    threads = [threading.Thread(target=run, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        spool.cut(max_readings=500)
        hub.take(spool)
        hub.acknowledge(spool)
        spool.sync()
    for thread in threads:
        thread.join()
    drain(spool, hub)

    for name in names:
        mine = [(r.time_ns, r.value) for r in hub.readings if r.channel == name]
        assert [value for _, value in mine] == list(range(per_thread))
        assert len({time_ns for time_ns, _ in mine}) == per_thread
    assert len(hub.readings) == 2 * per_thread * len(names)


def test_record_after_close_is_a_misuse(make: Make) -> None:
    """A closed spool says so instead of losing a reading; closing twice is fine."""
    spool = make()
    spool.close()
    spool.close()

    with pytest.raises(MisuseError):
        spool.record([("t", 1.0)], None, T)
    with pytest.raises(MisuseError):
        spool.record_one("t", 1.0, T)


def test_too_small_a_limit_is_a_misuse(make: Make) -> None:
    """A limit that cannot hold the spool's own state is refused."""
    with pytest.raises(MisuseError):
        make(max_bytes=1000)


def _chain(spool: Spool, seq: int) -> bytes:
    chain = spool.chain(seq)
    assert chain is not None
    return chain


def ack_frames(spool: Spool, count: int) -> list[bytes]:
    """Cut and ack frames of one reading each; return their bodies."""
    bodies = []
    for n in range(count):
        spool.record([("t", n)], None, T + n)
        frame = spool.cut()
        assert frame is not None
        spool.acknowledge(frame.seq, frame.chain, f"run.{frame.seq}")
        bodies.append(frame.body)
    return bodies


def test_acked_frames_are_kept_as_they_were(make: Make) -> None:
    """A hub restored from a backup gets the same bytes again, from the frame it asks for."""
    spool = make(retain_bytes=10**6)
    bodies = ack_frames(spool, 4)

    assert [frame.body for frame in spool.retained(spool.stream, 1)] == bodies[1:]
    assert list(spool.retained("0123456789abcdef", 0)) == []
    assert spool.pending == 0


def test_streams_that_ended_are_named_and_their_frames_kept(make: Make) -> None:
    """``earlier`` says how far each was acked; the frames that move to the new stream are not among those."""
    spool = make(retain_bytes=10**6)
    bodies = ack_frames(spool, 2)
    first, chain = spool.stream, spool.chain(2)
    assert chain is not None
    spool.record([("t", 9)], None, T + 9)
    spool.cut()
    spool.restart(None)

    assert spool.earlier == (wire.Earlier(first, 2, 3, chain.hex()),)
    assert [frame.body for frame in spool.retained(first, 0)][:2] == bodies
    assert spool.pending == 1


def test_stream_of_which_nothing_was_acked_is_not_named(make: Make) -> None:
    """No hub can miss anything of it."""
    spool = make(retain_bytes=10**6)
    spool.record([("t", 1)], None, T)
    spool.cut()
    spool.restart(None)

    assert spool.earlier == ()


def test_forgotten_stream_is_declared(make: Make) -> None:
    """What a restored hub misses and nobody keeps any more is a gap of unknown count, before anything else."""
    spool = make()
    ack_frames(spool, 1)
    first = spool.stream
    spool.restart(1)
    spool.record([("t", 5)], None, T + 5)
    spool.forget(first)

    gap = spool.cut()
    assert gap is not None
    assert b'"count":null,"reason":"hub_restored"' in gap.body
    assert spool.earlier == ()


def test_copy_of_what_is_kept_is_noted_with_the_loss(make: Make) -> None:
    """One step says both: nothing that can still be sent is forgotten. Others say how far it is, and that it ends."""
    spool = make()
    begun = Copying("0123456789abcdef", 2, 2, 9, "fedcba9876543210")
    spool.forget("0123456789abcdef", begun)
    assert spool.copying == begun

    further = begun._replace(after=5, seq=3, chain="07" * 16)
    spool.copied(further)
    spool.forget("aaaaaaaaaaaaaaaa")
    assert spool.copying == further

    spool.copied(None)
    assert spool.copying is None


def test_only_the_newest_earlier_streams_are_named(make: Make) -> None:
    """A hello stays small however often the power goes."""
    spool = make()
    ended = []
    for _ in range(wire.MAX_EARLIER + 3):
        ended.append(spool.stream)
        ack_frames(spool, 1)
        spool.restart(1)

    assert [e.stream for e in spool.earlier] == ended[3:]
