"""A write as a block: times, order and types, what is late, what comes when its time was dropped."""

import pytest

from device_sdk.columns import Column
from device_sdk.reading import Value
from device_sdk.wire import CHAIN_START
from hub.model import LATE_TOLERANCE_NS, Frame, Kind, Series, SeriesColumn, StreamKey
from hub.store.arrivals import Arrivals, gather, to_second
from hub.store.rollup import Overdue
from tests.support.columns import plain


def frame(columns: dict[int, list[tuple[int, Value]]], *, t0: int = 0, tick: int = 1, received_ns: int = 0) -> Frame:
    """Return a frame of (dt, value) by series."""
    found = tuple(
        SeriesColumn(
            Series(number, "default", "pump", str(number)), Column(str(number), [dt for dt, _ in c], [v for _, v in c])
        )
        for number, c in columns.items()
    )
    key = StreamKey("default", "pump", "0" * 16)
    return Frame(key, 1, Kind.BATCH, received_ns, b"", CHAIN_START, t0, tick, found)


def arrive(
    frames: list[Frame], known: dict[int, int] | None = None, raw_from: dict[int, int] | None = None
) -> Arrivals:
    """Return what frames bring; ``known``: the newest times before."""
    return gather(frames, lambda series: {number: (known or {}).get(number) for number in series}, raw_from)


def readings_of(arrivals: Arrivals) -> dict[int, list[tuple[int, str]]]:
    """Return series → (time, value as text)."""
    return {
        series: [(time_ns, repr(value)) for time_ns, value in plain(readings)]
        for series, (readings, _) in (arrivals.block.by_series() if arrivals.block else ())
    }


def late_of(arrivals: Arrivals, series: int = 1) -> int:
    """Return how many readings of a series are late."""
    found = arrivals.block.find(series) if arrivals.block else None
    return found[1] if found else 0


def test_readings_keep_order_and_type() -> None:
    """Of each series as they came, frame by frame; received in whole seconds."""
    frames = [
        frame({1: [(3, 1.0), (1, 2.0)], 2: [(0, 7)], 4: [(0, 1), (1, 2)]}, t0=10, tick=1000, received_ns=5 * 10**9),
        frame({2: [(0, True)], 1: [(2, 1.5)], 3: [(0, "x"), (1, -0.0)]}, t0=20, tick=1, received_ns=6 * 10**9),
    ]

    arrived = arrive(frames)

    assert readings_of(arrived) == {
        1: [(3010, "1.0"), (1010, "2.0"), (22, "1.5")],
        2: [(10, "7"), (20, "True")],
        3: [(20, "'x'"), (21, "-0.0")],
        4: [(10, "1"), (1010, "2")],
    }
    assert arrived.block is not None
    found = arrived.block.find(1)
    assert found is not None
    assert found[0].received.tolist() == [5, 5, 6]


def test_fixed_rate_needs_no_list() -> None:
    """A range of ticks is the times it stands for."""
    series = Series(1, "default", "pump", "t")
    made = frame({}, t0=5, tick=10)
    made.columns = (SeriesColumn(series, Column("t", range(0, 9, 3), [1.0, 2.0, 3.0])),)

    assert [time_ns for time_ns, _ in readings_of(arrive([made]))[1]] == [5, 35, 65]


def test_times_reach_both_ends() -> None:
    """Also where distance times tick is beyond 64 bits, and the sum with t0 is not."""
    made = frame({1: [(0, 1.0), (2**64 // 10**9, 1.0)]}, t0=-(2**63), tick=10**9)

    assert [time_ns for time_ns, _ in readings_of(arrive([made]))[1]] == [
        -(2**63), 2**64 // 10**9 * 10**9 - 2**63
    ]  # fmt: skip


def test_late_is_older_than_what_earlier_frames_brought() -> None:
    """By more than 10 ms, against earlier writes too, never against its own frame."""
    ms = 10**6
    frames = [frame({1: [(100, 1.0), (0, 2.0)]}, tick=ms), frame({1: [(90, 1.0), (89, 1.0), (300, 1.0)]}, tick=ms)]

    assert late_of(arrive(frames)) == 1
    assert late_of(arrive(frames, {1: 111 * ms})) == 2 + 2
    assert late_of(arrive(frames, {1: 10 * ms - 1 + LATE_TOLERANCE_NS})) == 1 + 1


def test_newest_is_of_all_writes() -> None:
    """The greatest time of a series, whichever write brought it."""
    arrived = arrive([frame({1: [(10, 1.0)], 2: [(10, 1.0)], 3: [(10, 1.0)]})], {1: 50, 2: 5})

    assert arrived.newest == {1: 50, 2: 10, 3: 10}


def test_overdue_readings_are_set_aside() -> None:
    """Those of a dropped time are in no block; all that is late of their column is counted with them."""
    second = 10**9
    frames = [
        frame({1: [(9, 1.5), (10, 2.5)], 2: [(1, 7.5)], 3: [(1, True)]}, tick=second),
        frame({1: [(8, "x")]}, tick=second),
    ]

    arrived = arrive(frames, {1: 100 * second}, {1: 10 * second, 3: 0})

    assert readings_of(arrived) == {1: [(10 * second, "2.5")], 2: [(second, "7.5")], 3: [(second, "True")]}
    assert (late_of(arrived), arrived.newest[1]) == (0, 100 * second)
    assert arrived.overdue == {1: Overdue([(9 * second, 1.5), (8 * second, "x")], late=3)}
    assert arrive(frames[1:], {}, {1: 10 * second}).block is None
    assert arrive([], {}) == (None, {}, {})


@pytest.mark.parametrize(
    ("received_ns", "second"), [(-5, 0), (0, 0), (10**9 - 1, 0), (10**18, 10**9), (2**63 - 1, 2**32 - 1)]
)
def test_receive_time_is_a_whole_second(received_ns: int, second: int) -> None:
    """Rounded down; what 32 bits cannot hold is the last that they can."""
    assert to_second(received_ns) == second
