"""A write by series: nothing is lost on the way into the log and back, and late is late."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.columns import Column
from device_sdk.reading import INT_MAX, INT_MIN, Value
from device_sdk.wire import CHAIN_START
from hub.errors import StoreError
from hub.model import LATE_TOLERANCE_NS, Frame, Kind, Series, SeriesColumn, StreamKey
from hub.store.arrivals import Arrivals, Piece, decode, encode, to_second

VALUES = st.one_of(st.floats(allow_nan=False), st.integers(INT_MIN, INT_MAX), st.booleans(), st.text(max_size=3))
COLUMNS = st.dictionaries(
    st.integers(1, 6),
    st.one_of(
        st.lists(st.tuples(st.integers(-50, 50), st.floats(allow_nan=False)), min_size=1, max_size=8),
        st.lists(st.tuples(st.integers(-50, 50), st.integers(INT_MIN, INT_MAX)), min_size=1, max_size=8),
        st.lists(st.tuples(st.integers(-50, 50), VALUES), min_size=1, max_size=8),
    ),
    min_size=1,
)


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


def gather(frames: list[Frame], known: dict[int, int] | None = None) -> dict[int, Piece]:
    """Return the pieces of one write."""
    arrivals = Arrivals((known or {}).get)
    for each in frames:
        arrivals.add(each)
    return arrivals.finish()


@given(writes=st.lists(COLUMNS, min_size=1, max_size=5))
def test_log_row_holds_the_write(writes: list[dict[int, list[tuple[int, Value]]]]) -> None:
    """Times, values with their types, receive times, late counts, in the order in which they came."""
    pieces = gather([frame(w, t0=i, tick=1000, received_ns=i * 10**9) for i, w in enumerate(writes, 1)])

    found = dict(decode(encode(pieces)))

    assert {s: (p.times, p.received, list(map(repr, p.values)), p.late) for s, p in found.items()} == {
        s: (p.times, p.received, list(map(repr, p.values)), p.late) for s, p in pieces.items()
    }
    expected: dict[int, list[tuple[int, str]]] = {}
    for i, write in enumerate(writes, 1):
        for series, column in write.items():
            expected.setdefault(series, []).extend((i + dt * 1000, repr(value)) for dt, value in column)
    assert {s: list(zip(p.times, map(repr, p.values), strict=True)) for s, p in found.items()} == expected
    assert all((p.oldest_ns, p.newest_ns) == (min(p.times), max(p.times)) for p in [*found.values(), *pieces.values()])


def test_fixed_rate_needs_no_list() -> None:
    """A range of ticks is the times it stands for."""
    series = Series(1, "default", "pump", "t")
    made = frame({}, t0=5, tick=10)
    made.columns = (SeriesColumn(series, Column("t", range(0, 9, 3), [1.0, 2.0, 3.0])),)

    assert gather([made])[1].times == array("q", [5, 35, 65])


def test_late_is_older_than_what_earlier_frames_brought() -> None:
    """By more than 10 ms, against earlier writes too, never against its own frame."""
    ms = 10**6
    frames = [frame({1: [(100, 1.0), (0, 2.0)]}, tick=ms), frame({1: [(90, 1.0), (89, 1.0), (300, 1.0)]}, tick=ms)]

    assert gather(frames)[1].late == 1
    assert gather(frames, {1: 111 * ms})[1].late == 2 + 2
    assert gather(frames, {1: 10 * ms - 1 + LATE_TOLERANCE_NS})[1].late == 1 + 1


def test_newest_is_of_all_writes() -> None:
    """The greatest time of a series, whichever write brought it."""
    arrivals = Arrivals({1: 50, 2: 5}.get)
    arrivals.add(frame({1: [(10, 1.0)], 2: [(10, 1.0)], 3: [(10, 1.0)]}))

    assert arrivals.newest == {1: 50, 2: 10, 3: 10}


@pytest.mark.parametrize(
    ("received_ns", "second"), [(-5, 0), (0, 0), (10**9 - 1, 0), (10**18, 10**9), (2**63 - 1, 2**32 - 1)]
)
def test_receive_time_is_a_whole_second(received_ns: int, second: int) -> None:
    """Rounded down; what 32 bits cannot hold is the last that they can."""
    assert to_second(received_ns) == second


def test_damaged_row_is_told() -> None:
    """A changed byte anywhere, or a missing end, is an error."""
    row = encode(gather([frame({1: [(0, 1.0)], 2: [(0, "x")]})]))
    for place in range(len(row)):
        changed = bytearray(row)
        changed[place] ^= 1
        for bad in (bytes(changed), row[:place]):
            with pytest.raises(StoreError, match="damaged"):
                list(decode(bad))
