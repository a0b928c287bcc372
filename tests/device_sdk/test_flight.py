"""Frames in flight: the window, what is sent again, and a frame that the hub cannot read."""

from device_sdk.flight import UNREADABLE_TRIES, Flight
from device_sdk.outbox import CutFrame


def frame(seq: int, readings: int = 10) -> CutFrame:
    return CutFrame(seq, b"{}", b"", "batch", readings)


def flying(count: int, window: int = 4) -> Flight:
    flight = Flight()
    flight.window = window
    flight.begin(())
    for seq in range(1, count + 1):
        flight.add(frame(seq))
    return flight


def test_window_limits_what_may_be_sent_and_cut() -> None:
    """Frames beyond the window wait for acks; an ack moves both."""
    flight = flying(4)
    assert (flight.limit(0), flight.is_full) == (4, True)

    assert flight.settle(3) == [10, 10, 10]
    flight.add(frame(5))
    assert (flight.limit(3), flight.is_full) == (5, False)


def test_first_transmission_is_told_from_later_ones() -> None:
    """Also after a rewind, and over connections, until another stream begins."""
    flight = flying(2)
    assert [flight.note_sent(1), flight.note_sent(2)] == [True, True]
    flight.begin([frame(1), frame(2)])
    flight.sent = 0

    assert [flight.note_sent(1), flight.note_sent(2)] == [False, False]


def test_ack_of_what_was_not_sent_here_moves_sent_along() -> None:
    """What an earlier connection brought need not be sent again."""
    flight = flying(3)
    flight.settle(2)

    assert flight.sent == 2
    assert flight.settle(1) == []


def test_second_rewind_to_one_place_does_not_help() -> None:
    """A hub that repeats itself is not followed for ever; a new connection may try again."""
    flight = flying(3)
    flight.note_sent(3)
    assert flight.rewind(1)
    assert flight.sent == 1
    assert not flight.rewind(1)
    flight.begin([frame(2), frame(3)])

    assert flight.rewind(1)


def test_suspect_goes_alone_and_is_given_up_the_third_time() -> None:
    """Until then nothing else is sent or cut; an ack clears it."""
    flight = flying(3, window=9)
    blamed = [flight.blame("a", 2) for _ in range(UNREADABLE_TRIES)]

    assert blamed == [False, False, True]
    assert (flight.sent, flight.limit(1), flight.is_full) == (1, 2, True)
    assert flight.rewind(1), "out_of_order behind a suspect is expected"
    flight.settle(2)
    assert not flight.is_full


def test_suspicion_does_not_outlive_its_frame_or_stream() -> None:
    """Another frame begins to count at one; another stream is not suspected."""
    flight = flying(3)
    flight.blame("a", 1)
    flight.blame("a", 1)
    assert not flight.blame("a", 2)
    flight.keep_suspect_in("a")
    assert flight.suspect == 2
    flight.keep_suspect_in("b")
    assert flight.suspect == 0
