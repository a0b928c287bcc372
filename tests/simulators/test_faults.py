"""Which fault strikes at which byte: all of it computed, so all of it tested without a socket."""

from itertools import islice
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simulators.faults import (
    ACK_PREFIX,
    HOLD_S,
    MAX_ARMED,
    MAX_HEAD_BYTES,
    STRIKE_BYTES_DOWN,
    STRIKE_BYTES_UP,
    AckScanner,
    Effect,
    Fault,
    Line,
    Moment,
    Plan,
    Step,
    Way,
    draw_strikes,
)

HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


def frame(payload: bytes, first: int = 0x81) -> bytes:
    """Return a server's frame with the shortest length that fits."""
    size = len(payload)
    if size < 126:
        return bytes([first, size]) + payload
    if size < 2**16:
        return bytes([first, 126]) + size.to_bytes(2, "big") + payload
    return bytes([first, 127]) + size.to_bytes(8, "big") + payload


def ack(stored: int, size: int = 0) -> bytes:
    """Return an ack's frame, padded to hold ``size`` more bytes."""
    return frame(b'{"op":"ack","stored":%d%s}' % (stored, b" " * size))


WELCOME = frame(b'{"op":"welcome"}')
PING = frame(b"", 0x89)
DOWN = HEAD + WELCOME + ack(1) + PING + ack(2, 200) + frame(b"x" * 70_000, 0x82) + ack(3)


def cut_up(data: bytes, sizes: list[int]) -> list[bytes]:
    """Return the bytes in chunks of these sizes; the last one is the rest."""
    chunks, at = [], 0
    for size in sizes:
        chunks.append(data[at : at + size])
        at += size
    return [chunk for chunk in [*chunks, data[at:]] if chunk]


def feed(line: Line, way: Way, chunks: list[bytes]) -> list[Step]:
    """Return all steps of one way, to its end."""
    steps = [step for chunk in chunks for step in line.take(way, chunk)]
    return steps + line.end(way)


def passed(steps: list[Step]) -> bytes:
    """Return the bytes among the steps."""
    return b"".join(step for step in steps if isinstance(step, bytes))


sizes = st.lists(st.integers(1, 400), max_size=30)
ways = st.sampled_from(Way)


@given(data=st.binary(max_size=600), sizes=sizes, way=ways, after=st.integers(0, 700))
@example(data=b"", sizes=[], way=Way.DOWN, after=0)
def test_cut_comes_after_exactly_so_many_bytes(data: bytes, sizes: list[int], way: Way, after: int) -> None:
    """However TCP cuts the stream up: the first N bytes pass, unchanged, then the fault, then nothing."""
    fault = Fault(Effect.CUT, way, after)
    steps = feed(Line([fault]), way, cut_up(data, sizes))

    is_reached = len(data) > 0 and after <= len(data)
    assert passed(steps) == data[:after]
    assert [step for step in steps if isinstance(step, Fault)] == ([fault] if is_reached else [])
    assert not is_reached or steps[-1] is fault


@given(
    up=st.binary(max_size=300),
    sizes=sizes,
    faults=st.lists(
        st.builds(Fault, st.sampled_from([Effect.STALL]), st.just(Way.UP), st.integers(0, 400)), max_size=MAX_ARMED
    ),
)
def test_stalls_lose_nothing_and_strike_in_order(up: bytes, sizes: list[int], faults: list[Fault]) -> None:
    """Any number of stalls: all bytes pass in order, each fault whose byte came struck once, nearest first."""
    line = Line(faults)
    steps = feed(line, Way.UP, cut_up(up, sizes))

    struck = [step.after_bytes for step in steps if isinstance(step, Fault)]
    assert passed(steps) == up
    assert struck == sorted(fault.after_bytes for fault in faults if up and fault.after_bytes <= len(up))
    assert len(struck) + len(line.armed) == len(faults)


@given(sizes=sizes)
def test_acks_are_found_however_the_bytes_are_cut_up(sizes: list[int]) -> None:
    """Every byte comes out once and in order; each ack begins and ends where it does."""
    scanner, at, marks = AckScanner(), 0, []
    out = b""
    for chunk in cut_up(DOWN, sizes):
        for piece in scanner.split(chunk):
            marks += [("begin", at)] if piece.begins_ack else []
            at += len(piece.data)
            out += piece.data
            marks += [("end", at)] if piece.ends_ack else []

    expected = []
    for one in (ack(1), ack(2, 200), ack(3)):
        begin = DOWN.index(one)
        expected += [("begin", begin), ("end", begin + len(one))]
    assert out + scanner.rest() == DOWN
    assert marks == expected


@given(sizes=sizes, number=st.integers(0, 2), is_before=st.booleans())
def test_cut_at_an_ack_takes_it_whole_or_leaves_it_whole(sizes: list[int], number: int, is_before: bool) -> None:
    """Right before: not a byte of the ack passes. Right after: all of it, and nothing behind it."""
    wanted = (ack(1), ack(2, 200), ack(3))[number]
    begin = DOWN.index(wanted)
    moment = Moment.BEFORE_ACK if is_before else Moment.AFTER_ACK
    fault = Fault(Effect.RESET, Way.UP, begin, moment)

    steps = feed(Line([fault]), Way.DOWN, cut_up(DOWN, sizes))

    assert passed(steps) == DOWN[: begin if is_before else begin + len(wanted)]
    assert steps[-1] is fault


@pytest.mark.parametrize(
    "bytes_down",
    [
        pytest.param(b"\x16\x03\x03" + ack(1), id="tls"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + ack(1), id="rest"),
        pytest.param(HEAD[:-2] + b"x" * (MAX_HEAD_BYTES + 1), id="endless head"),
    ],
)
def test_fault_at_an_ack_strikes_at_its_byte_where_bytes_are_opaque(bytes_down: bytes) -> None:
    """Inside TLS nobody sees an ack: the fault comes after so many bytes down instead."""
    fault = Fault(Effect.CUT, Way.UP, 7, Moment.AFTER_ACK)

    assert Line([fault]).take(Way.DOWN, bytes_down) == [bytes_down[:7], fault]


def test_compressed_or_long_frames_are_no_acks_but_keep_the_place() -> None:
    """A frame that only looks like an ack from inside another, or is not plain text, does not count."""
    decoys = frame(b" " + ack(9)) + frame(ACK_PREFIX + b"}", 0x82) + frame(ACK_PREFIX, 0xC1) + frame(ACK_PREFIX, 0x01)
    line = Line([Fault(Effect.CUT, moment=Moment.BEFORE_ACK)])

    assert passed(line.take(Way.DOWN, HEAD + decoys + ack(1))) == HEAD + decoys
    assert line.is_over


def test_swallowed_way_is_dead_and_the_other_lives() -> None:
    """Bytes vanish one way only; what follows on the other way passes."""
    fault = Fault(Effect.SWALLOW, Way.UP, 2)
    line = Line([fault])

    assert line.take(Way.UP, b"abcd") == [b"ab", fault]
    assert line.take(Way.UP, b"efgh") == []
    assert line.take(Way.DOWN, b"wxyz") == [b"wxyz"]
    assert (line.is_dead(Way.UP), line.is_dead(Way.DOWN)) == (True, False)
    assert line.taken[Way.UP] == 8


def test_fault_on_a_dead_way_is_none() -> None:
    """Where nothing passes a stall changes nothing and does not count; a cut still does."""
    cut = Fault(Effect.CUT, Way.UP, 3)
    line = Line([Fault(Effect.SWALLOW, Way.UP, 1), Fault(Effect.STALL, Way.UP, 2), cut])

    assert line.take(Way.UP, b"abcd")[2:] == [cut]


def test_fault_armed_late_counts_from_now() -> None:
    """Bytes before it was armed do not count."""
    line = Line()
    line.take(Way.UP, b"before")
    fault = Fault(Effect.HALF_CLOSE, Way.UP, 1)
    line.arm(fault)

    assert line.take(Way.UP, b"xyz") == [b"x", fault]


def test_faults_that_wait_are_bounded() -> None:
    """One more than `MAX_ARMED` is refused, and so is one on a line that is over."""
    line = Line()
    results = [line.arm(Fault(Effect.CUT, after_bytes=1)) for _ in range(MAX_ARMED + 1)]
    line.take(Way.UP, b"x")

    assert results == [True] * MAX_ARMED + [False]
    assert line.is_over
    assert not line.arm(Fault(Effect.CUT))


def test_calm_line_has_no_faults_and_says_whether_bytes_are_missing() -> None:
    """A stall leaves the stream whole; a swallowed byte can only be mended by a new connection."""
    whole, broken = Line([Fault(Effect.STALL)] * 2), Line([Fault(Effect.SWALLOW)])
    whole.take(Way.UP, b"x")
    broken.take(Way.UP, b"x")
    whole.arm(Fault(Effect.CUT))

    assert (whole.disarm(), broken.disarm()) == (False, True)
    assert whole.take(Way.UP, b"yz") == [b"yz"]


def test_plan_gives_each_connection_a_fault_until_all_struck() -> None:
    """A fault whose connection ended before its byte goes to a later connection; without one left, none strikes."""
    first, second = Fault(Effect.CUT, after_bytes=1), Fault(Effect.CUT, after_bytes=2)
    plan = Plan([first, second])

    plan.end(plan.begin().armed)
    given = [plan.begin().armed for _ in range(3)]

    assert given == [(second,), (first,), ()]


@pytest.mark.parametrize("numbers", [{"after_bytes": -1}, {"hold_s": -0.1}])
def test_fault_cannot_strike_before_it_is_armed(numbers: dict[str, Any]) -> None:
    """Counts begin at 0."""
    with pytest.raises(ValueError, match="count from 0"):
        Fault(Effect.CUT, **numbers)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault(Effect.CUT, Way.UP, 1500), "cut after 1500 bytes up"),
        (Fault(Effect.RESET, moment=Moment.BEFORE_ACK), "reset before ack"),
        (Fault(Effect.SWALLOW, Way.DOWN, 3, hold_s=0.25), "swallow down for 0.25 s after 3 bytes down"),
        (Fault(Effect.HALF_CLOSE, Way.UP, 0), "half-close up after 0 bytes up"),
    ],
)
def test_fault_says_what_it_does(fault: Fault, text: str) -> None:
    """A log of faults reads as sentences."""
    assert str(fault) == text


@given(seed=st.integers(0, 2**64))
def test_random_faults_are_those_of_their_seed(seed: int) -> None:
    """The same seed draws the same faults, times and places in the same order; all stay within their bounds."""
    strikes = list(islice(draw_strikes(seed), 50))

    assert strikes == list(islice(draw_strikes(seed), 50))
    for strike in strikes:
        fault = strike.fault
        assert strike.wait >= 0
        assert 0 <= strike.pick < 1
        assert fault.after_bytes < (STRIKE_BYTES_UP if fault.way is Way.UP else STRIKE_BYTES_DOWN)
        assert (fault.hold_s == 0) == (fault.effect not in (Effect.STALL, Effect.SWALLOW))
        assert fault.hold_s <= HOLD_S[1]


def test_random_faults_are_of_all_kinds_at_the_stated_rate() -> None:
    """Each effect, way and moment comes up; the mean time between two is the unit."""
    strikes = list(islice(draw_strikes(1), 5_000))

    assert {s.fault.effect for s in strikes} == set(Effect)
    assert {s.fault.way for s in strikes} == set(Way)
    assert {s.fault.moment for s in strikes} == set(Moment)
    assert sum(s.wait for s in strikes) / len(strikes) == pytest.approx(1.0, rel=0.05)
