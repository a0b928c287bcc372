"""The ring: contiguous, bounded, honest about what it no longer holds."""

import tracemalloc
from dataclasses import replace

import pytest

from hub.live.ring import Ring
from hub.model import Frame, Kind, StreamKey
from tests.support.frames import T0, FrameMaker

KEY = StreamKey("default", "d", "0" * 16)


def frames(first: int, last: int, size: int = 100) -> list[Frame]:
    """Return committed frames with bodies of ``size`` bytes."""
    return [Frame(KEY, n, Kind.BATCH, n * 10, b"x" * size, b"", readings=1, offset=n) for n in range(first, last + 1)]


def offsets(found: list[Frame] | None) -> list[int] | None:
    """Return the offsets of an answer."""
    return None if found is None else [f.offset for f in found]


def test_after_returns_frames_up_to_the_bound() -> None:
    """Frames come in order from behind the offset, at most upto, at most max_bytes of bodies, at least one."""
    ring = Ring(10)
    ring.extend(frames(11, 20))

    assert offsets(ring.after(10, 10**6, 20)) == list(range(11, 21))
    assert offsets(ring.after(12, 10**6, 15)) == [13, 14, 15]
    assert offsets(ring.after(12, 250, 20)) == [13, 14]
    assert offsets(ring.after(12, 1, 20)) == [13]
    assert offsets(ring.after(20, 10**6, 20)) == []


def test_frames_before_the_oldest_are_not_held() -> None:
    """None says that the journal has to be read; an empty ring holds nothing before its head."""
    ring = Ring(10)

    assert ring.after(9, 10**6, 10) is None
    assert offsets(ring.after(10, 10**6, 10)) == []


def test_bytes_are_bounded_and_the_newest_stay() -> None:
    """However many frames pass, the bytes held stay at the bound and the offsets stay right."""
    one = frames(1, 1)[0].memory_bytes
    ring = Ring(0, max_bytes=one * 50)

    for n in range(1, 2000, 7):
        ring.extend(frames(n, n + 6))

    assert len(ring) == 50
    assert ring.bytes == one * 50
    assert ring.first == ring.head - 49
    assert offsets(ring.after(ring.first - 1, 10**6, ring.head)) == list(range(ring.first, ring.head + 1))
    assert ring.after(ring.first - 2, 10**6, ring.head) is None


def test_one_frame_larger_than_the_bound_is_held() -> None:
    """The newest frame is always there: live watchers must get it."""
    ring = Ring(0, max_bytes=10)

    ring.extend(frames(1, 3, size=1000))

    assert offsets(ring.after(2, 1, 3)) == [3]


def test_hole_in_the_offsets_empties_the_ring() -> None:
    """After a hole nothing before it is served from memory: readers go to the journal, nothing is skipped."""
    ring = Ring(0)
    ring.extend(frames(1, 5))

    ring.extend(frames(8, 9))

    assert ring.head == 9
    assert ring.after(5, 10**6, 9) is None
    assert offsets(ring.after(8, 10**6, 9)) == [9]


def test_received_time_tells_how_old_the_first_owed_frame_is() -> None:
    """The time is that of the frame behind the offset, or of the oldest held."""
    ring = Ring(0)
    ring.extend(frames(1, 5))

    assert ring.received_ns(3) == 40
    assert ring.received_ns(5) is None
    assert Ring(7).received_ns(7) is None


@pytest.mark.parametrize(("channels", "readings"), [(1, 1), (5, 1), (2, 40), (1, 100)])
def test_bytes_counted_are_bytes_taken(channels: int, readings: int) -> None:
    """The bound is that of real memory, whatever the frames look like: small ones, many columns, long ones."""
    maker, ring = FrameMaker(), Ring(0)
    maker.batch("d", [(f"channel-{c}", T0, 0.5) for c in range(channels)])
    tracemalloc.start()
    for n in range(1, 201):
        times = [T0 + n * 10**9 + k * 7919 * k for k in range(readings)]
        made = [(f"channel-{c}", t, t / 3) for c in range(channels) for t in times]
        ring.extend([replace(maker.batch("d", made, received_ns=T0 + n), offset=n)])
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    # Frames of `FrameMaker` have channel names of their own, which the count leaves out.
    assert 0.8 < taken / ring.bytes < 1.35


def test_frame_that_left_is_not_held() -> None:
    """The first to leave are gone at once, also while they are few and large."""
    size = 256 * 1024
    ring = Ring(0, max_bytes=4 * size)
    tracemalloc.start()
    for n in range(1, 51):
        ring.extend(frames(n, n, size + n))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert taken < 1.35 * ring.bytes
