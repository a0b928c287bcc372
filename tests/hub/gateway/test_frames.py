"""`hub.gateway.frames`: the fast path gives what the library gives, byte for byte."""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from websockets.frames import TEXT, Close, Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from device_sdk.wire import MAX_FRAME_BYTES
from hub.gateway.frames import PING_FRAME, FrameReader, binary_frame, text_frame

MAX_BYTES = 70_000


@dataclass
class Outcome:
    """What a stream led to; two outcomes must be equal."""

    messages: list[tuple[bytes, bool]] = field(default_factory=list)
    replies: bytes = b""
    is_ended: bool = False
    close_sent: Close | None = None
    close_received: Close | None = None
    state: int = 0


def masked(first: int, payload: bytes, *, mask: bytes = b"\x01\x82\xf3\x04", length_form: int | None = None) -> bytes:
    """A client's frame; ``length_form`` 126 or 127 forces a longer form than needed."""
    size = len(payload)
    form = length_form or (size if size < 126 else 126 if size < 65536 else 127)
    extended = size.to_bytes(2) if form == 126 else size.to_bytes(8) if form == 127 else b""
    key = (mask * (size // 4 + 1))[:size]
    body = (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(size)
    return bytes((first, 0x80 | form)) + extended + mask + body


def through_ours(chunks: list[bytes], close_after: int | None) -> Outcome:
    """Play a stream through `FrameReader`; close with 4100 at the n-th message when asked."""
    protocol = ServerProtocol(state=OPEN, max_size=MAX_BYTES)
    outcome, output = Outcome(), list[bytes]()

    def deliver(payload: bytes, is_text: bool) -> None:
        outcome.messages.append((payload, is_text))
        if len(outcome.messages) == close_after:
            reader.close(4100, "enough")

    reader = FrameReader(protocol, deliver, MAX_BYTES, output)
    for chunk in chunks:
        reader.feed(chunk)
    reader.feed_end()
    outcome.replies, outcome.is_ended = b"".join(output), reader.is_ended
    outcome.close_sent, outcome.close_received, outcome.state = protocol.close_sent, protocol.close_rcvd, protocol.state
    return outcome


def through_library(chunks: list[bytes], close_after: int | None) -> Outcome:
    """Play the same stream through `ServerProtocol` alone.

    Chunks go in as they came. Only when the owner itself closes (asked to, or for
    invalid text) it is played again two bytes at a time, too few to end one frame and
    judge the next: the library parses a whole chunk before its owner sees the first
    message, and answers pings behind that.
    """
    outcome, has_closed = _through_library(chunks, close_after)
    if has_closed:
        stream = b"".join(chunks)
        outcome, _ = _through_library([stream[i : i + 2] for i in range(0, len(stream), 2)], close_after)
    return outcome


def _through_library(chunks: list[bytes], close_after: int | None) -> tuple[Outcome, bool]:
    protocol = ServerProtocol(state=OPEN, max_size=MAX_BYTES)
    outcome, parts, has_closed = Outcome(), list[Frame](), False
    for chunk in chunks:
        if protocol.eof_sent:
            break
        protocol.receive_data(chunk)
        for frame in protocol.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode <= 2 and not has_closed:
                parts.append(frame)
                if frame.fin:
                    has_closed = _finish_message(protocol, parts, outcome, close_after)
                    parts = []
    protocol.receive_eof()
    writes = protocol.data_to_send()
    outcome.replies, outcome.is_ended = b"".join(writes), b"" in writes
    outcome.close_sent, outcome.close_received, outcome.state = protocol.close_sent, protocol.close_rcvd, protocol.state
    return outcome, has_closed


def _finish_message(protocol: ServerProtocol, parts: list[Frame], outcome: Outcome, close_after: int | None) -> bool:
    """Deliver a message; return whether the owner closed because of it."""
    payload, is_text = b"".join(frame.data for frame in parts), parts[0].opcode is TEXT
    try:
        if is_text:
            payload.decode()
    except UnicodeDecodeError as error:
        protocol.fail(1007, f"{error.reason} at position {error.start}")
        return True
    outcome.messages.append((payload, is_text))
    if len(outcome.messages) != close_after:
        return False
    if protocol.state is OPEN:
        protocol.send_close(4100, "enough")
    return True


# --- random streams -------------------------------------------------------------------------------


def random_payload(rng: random.Random) -> bytes:
    """Mostly short; the borders of the length forms and of the limit; ASCII, UTF-8 or noise."""
    size = rng.choice(
        (0, 1, rng.randrange(126), 125, 126, 127, rng.randrange(2000), rng.choice((65535, 65536, MAX_BYTES)))
    )
    kind = rng.randrange(12)
    if kind < 3:
        return ("grün ☀ " * (size // 8 + 1)).encode()[:size].decode(errors="ignore").encode()
    return rng.randbytes(size) if kind == 3 else b"x" * size


def random_mask(rng: random.Random) -> bytes:
    """Any mask, the empty one included."""
    return rng.choice((rng.randbytes(4), b"\0\0\0\0"))


def whole_frame(rng: random.Random) -> bytes:
    """A valid data frame, sometimes with a longer length form than needed (the library takes it)."""
    payload = random_payload(rng)
    form = rng.choice((None, None, None, 126 if len(payload) < 65536 else None, 127))
    return masked(rng.choice((0x81, 0x82)), payload, mask=random_mask(rng), length_form=form)


def fragmented(rng: random.Random) -> bytes:
    """A message in pieces with control frames in between."""
    out = masked(rng.choice((0x01, 0x02)), random_payload(rng)[:5000])
    for _ in range(rng.randrange(4)):
        out += masked(0x00, random_payload(rng)[:5000]) if rng.random() < 0.6 else control(rng)
    return out + masked(0x80, random_payload(rng)[:5000])


def control(rng: random.Random) -> bytes:
    """A ping or pong with a payload up to the limit."""
    return masked(rng.choice((0x89, 0x8A)), rng.randbytes(rng.choice((0, 4, 125))), mask=random_mask(rng))


def closing(rng: random.Random) -> bytes:
    """A close frame: none, valid, invalid code, too short, invalid reason."""
    payloads = (b"", b"\x03\xe8", b"\x03\xe8bye", b"\x11\x31", b"\x03\xed", b"\x03", b"\x03\xe8\xff\xfe", b"\0\0")
    return masked(0x88, rng.choice(payloads))


def wrong(rng: random.Random) -> bytes:
    """One of the ways to break the protocol."""
    payload = random_payload(rng)[:300]
    return rng.choice(
        (
            masked(0x81 | rng.choice((0x10, 0x20, 0x40, 0x70)), payload),
            masked(0x80 | rng.choice((3, 7, 11, 15)), payload),
            bytes((rng.choice((0x81, 0x82, 0x89)), len(payload[:100]))) + payload[:100],
            masked(0x09, b"fragmented ping"),
            masked(0x89, b"x" * rng.choice((126, 200))),
            masked(0x80, payload),
            masked(0x01, payload) + masked(0x81, payload),
            masked(0x82, b"x" * (MAX_BYTES + 1)),
            b"\x82\xff"
            + rng.choice((b"\xff" * 8, (1 << 40).to_bytes(8), (MAX_BYTES + 1).to_bytes(8)))
            + rng.randbytes(30),
            masked(0x01, b"y" * 40_000) + masked(0x00, b"y" * 40_000) + masked(0x80, b"y"),
            masked(0x81, "ü".encode()[:1] + payload),
            rng.randbytes(rng.randrange(1, 60)),
        )
    )


def random_stream(rng: random.Random) -> bytes:
    """Frames of all kinds, the plain ones most often; sometimes torn at the end."""
    makers: tuple[Callable[[random.Random], bytes], ...] = (
        *[whole_frame] * 8,
        control,
        control,
        fragmented,
        fragmented,
    )
    stream = b"".join(rng.choice(makers)(rng) for _ in range(rng.randrange(1, 14)))
    ending = rng.random()
    if ending < 0.3:
        stream += closing(rng)
    elif ending < 0.7:
        stream += wrong(rng)
    if rng.random() < 0.5:
        stream += whole_frame(rng) + control(rng)
    return stream if rng.random() < 0.8 else stream[: rng.randrange(len(stream) + 1)]


def cut(rng: random.Random, stream: bytes) -> list[bytes]:
    """Split at random bytes: one read, a few, or (for short ones) every byte alone."""
    way = rng.randrange(3)
    if way == 0 or len(stream) < 2:
        return [stream]
    if way == 1 and len(stream) < 3000:
        return [stream[i : i + 1] for i in range(len(stream))]
    edges = sorted({0, len(stream), *(rng.randrange(len(stream)) for _ in range(rng.randrange(1, 12)))})
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


def check_streams(first_seed: int, count: int) -> None:
    """Compare both ways over ``count`` streams; a failure names its seed."""
    for seed in range(first_seed, first_seed + count):
        rng = random.Random(seed)
        chunks = cut(rng, random_stream(rng))
        close_after = rng.randrange(1, 6) if rng.random() < 0.2 else None

        assert through_ours(chunks, close_after) == through_library(chunks, close_after), f"seed {seed}"


@pytest.mark.parametrize("first_seed", range(0, 400, 100))
def test_random_streams_equal_the_library(first_seed: int) -> None:
    """Over 400 random streams, messages, replies and close codes are those of the library alone."""
    check_streams(first_seed, 100)


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_many_random_streams_equal_the_library() -> None:
    """The same over 5,000 further streams."""
    check_streams(1_000_000, 5_000)


# --- single rules ---------------------------------------------------------------------------------


def test_frame_of_the_largest_size_is_delivered() -> None:
    """A frame of exactly the limit passes."""
    stream = masked(0x82, b"m" * MAX_BYTES)

    assert through_ours([stream], None).messages == [(b"m" * MAX_BYTES, False)]


def test_oversize_header_fails_before_its_body_arrives() -> None:
    """A length over the limit closes with 1009 at once; nothing of the body is waited for or kept."""
    protocol = ServerProtocol(state=OPEN, max_size=MAX_FRAME_BYTES)
    output = list[bytes]()
    reader = FrameReader(protocol, lambda payload, is_text: None, MAX_FRAME_BYTES, output)

    reader.feed(b"\x82\xff" + (1 << 62).to_bytes(8))

    assert protocol.close_sent is not None
    assert protocol.close_sent.code == 1009
    assert reader.is_ended


def test_text_that_is_not_utf8_closes_with_1007() -> None:
    """Invalid text is not delivered, and neither is what follows."""
    outcome = through_ours([masked(0x81, b"\xff\xfe") + masked(0x81, b"later")], None)

    assert outcome.messages == []
    assert outcome.close_sent is not None
    assert outcome.close_sent.code == 1007


def test_no_message_is_delivered_after_this_side_closed() -> None:
    """The handler's close is the end of messages, also for frames of the same read."""
    outcome = through_ours([masked(0x81, b"one") + masked(0x81, b"two") + masked(0x81, b"three")], 2)

    assert [payload for payload, _ in outcome.messages] == [b"one", b"two"]


def test_long_reason_is_cut_at_a_character() -> None:
    """A close reason over 123 bytes is shortened without splitting a character."""
    protocol = ServerProtocol(state=OPEN)
    output = list[bytes]()
    FrameReader(protocol, lambda payload, is_text: None, MAX_BYTES, output).close(4400, "ü" * 100)

    assert output == [b"\x88\x7c\x11\x30" + ("ü" * 61).encode()]


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536], ids=str)
def test_outgoing_frames_equal_the_library(size: int) -> None:
    """`text_frame`, `binary_frame` and the constant ping are the library's bytes at every length form."""
    payload = b"p" * size

    assert text_frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)
    assert binary_frame(payload) == Frame(Opcode.BINARY, payload).serialize(mask=False)
    assert Frame(Opcode.PING, b"").serialize(mask=False) == PING_FRAME
