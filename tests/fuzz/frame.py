"""Frames that a hostile peer sends: the frames around messages, right in every legal way or wrong in every other.

Owns: RFC 6455 and its violations; what is inside is `tests.fuzz.message`.
"""

import zlib
from collections.abc import Callable
from random import Random

from tests.support.raw_socket import BINARY, CLOSE, FINAL, PING, PONG, TEXT, frame

CONTINUATION = 0x0
RSV1, RSV2, RSV3 = 0x40, 0x20, 0x10
# 64 MiB of zeros in 64 KiB: a peer may offer compression; the hub agreed to none.
_BOMB = zlib.compress(bytes(64 * 1024 * 1024), 9)


def framed(random: Random, payload: bytes) -> bytes:
    """Return a message as a legal client frames it: whole, or in fragments with control frames in between."""
    opcode = TEXT if payload[:1] in (b"{", b"[", b" ", b'"') else BINARY
    if len(payload) < 2 or random.random() < 0.8:
        return frame(payload, FINAL | opcode)
    cuts = sorted(random.randrange(len(payload)) for _ in range(random.randint(1, 4)))
    parts = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    out = [frame(parts[0], opcode)]
    for number, part in enumerate(parts[1:], 2):
        if random.random() < 0.3:
            out.append(frame(random.randbytes(random.randrange(126)), FINAL | random.choice((PING, PONG))))
        out.append(frame(part, (FINAL if number == len(parts) else 0) | CONTINUATION))
    return b"".join(out)


def broken(random: Random) -> bytes:
    """Return a frame, or a few bytes, that no legal client sends."""
    some = random.randbytes(random.randrange(1, 200))
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: random.randbytes(random.randrange(1, 2000)),
        lambda: frame(some, FINAL | TEXT, size=2**62),
        lambda: frame(some, FINAL | BINARY, size=2**64 - 1),
        lambda: frame(some, FINAL | BINARY, size=random.choice((256 * 1024 + 1, 2**31, 2**32, 2**40))),
        lambda: frame(some, FINAL | TEXT, is_masked=False),
        lambda: frame(some, FINAL | random.choice((RSV1, RSV2, RSV3, 0x70)) | random.choice((TEXT, BINARY, PING))),
        lambda: frame(_BOMB, FINAL | RSV1 | TEXT),
        lambda: frame(some, FINAL | random.choice((0x3, 0x7, 0xB, 0xF))),
        lambda: frame(some, CONTINUATION | FINAL),
        lambda: frame(some, TEXT) + frame(some, FINAL | TEXT),
        lambda: frame(some[:100], PING),
        lambda: frame(random.randbytes(126), FINAL | PING),
        lambda: frame(random.choice((b"\x03", b"\x03\xe8\xff\xff", b"\x00\x00", b"\xff\xffx")), FINAL | CLOSE),
        lambda: frame(b"{\xff\xfe\xc0}", FINAL | TEXT),
        lambda: frame(b'{"op":"\xed\xa0\x80"}', FINAL | TEXT),
        lambda: b"\x81\xfe\x00\x05" + bytes(4) + b"hello",  # a length that would have fitted into fewer bytes
        lambda: frame(some, TEXT) + frame(b"", CONTINUATION) * 3000,
        lambda: frame(bytes(200 * 1024), BINARY) + frame(bytes(100 * 1024), CONTINUATION | FINAL),
        lambda: frame(some, FINAL | TEXT)[: random.randrange(1, len(some) + 6)],
        lambda: b"GET / HTTP/1.1\r\n\r\n",
    )
    return random.choice(kinds)()


def opening(random: Random, head: bytes) -> bytes:
    """Return an upgrade request with something wrong in it."""
    at = random.randrange(len(head))
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: head[:at],
        lambda: head[:at] + bytes((random.randrange(256),)) + head[at + 1 :],
        lambda: head.replace(b"websocket", b"h2c"),
        lambda: head.replace(b"Version: 13", b"Version: 99"),
        lambda: head.replace(b"Sec-WebSocket-Key: ", b"Sec-WebSocket-Key: \xff"),
        lambda: head.replace(b" HTTP/1.1", b"?" + b"&a=%ff%00" * 50 + b" HTTP/1.1"),
        lambda: head.replace(b"/v1", b"/" + b"%2e%2e/" * 20 + b"v1"),
        lambda: head.replace(b"\r\n\r\n", b"\r\nX: " + b"y" * 70_000 + b"\r\n\r\n"),
        lambda: head.replace(b"\r\n\r\n", b"\r\nX: y" * 300 + b"\r\n\r\n"),
        lambda: head.replace(b"Host: 127.0.0.1", b"Host: evil.example\r\nOrigin: https://evil.example"),
        lambda: head.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello"),
        lambda: random.randbytes(random.randrange(1, 3000)),
    )
    return random.choice(kinds)()
