"""`device_sdk.envelope`: what comes out is what was put in, and nothing else is an envelope."""

import random

import pytest

from device_sdk import wire
from device_sdk.columns import Batch, Column, encode_binary
from device_sdk.envelope import MAX_ENVELOPE_BYTES, MAX_NUMBER, unwrap, wrap
from device_sdk.errors import ProtocolError

T0 = 1_795_376_000_000_000_000
_BINARY = encode_binary(Batch(1, 2, T0, 1, (Column("x", [0, 1], [1.5, 2.5]),)))
assert _BINARY is not None
MESSAGES = {
    "json": wire.encode(wire.Bye(5)),
    "binary": _BINARY,
    "deflated": wire.pack(wire.encode(wire.Desired(1, {"text": "a" * 1000}))),
}


@pytest.mark.parametrize("number", [1, 9, 10, 99_99, MAX_NUMBER])
@pytest.mark.parametrize("kind", MESSAGES)
def test_message_comes_out_as_it_went_in(kind: str, number: int) -> None:
    """Byte for byte, because a chain is over the message inside."""
    travelling = wrap(number, MESSAGES[kind])

    assert unwrap(travelling) == (number, MESSAGES[kind])
    assert len(travelling) - len(MESSAGES[kind]) <= MAX_ENVELOPE_BYTES
    assert (travelling[:1] == b"{") == (kind == "json")


def test_golden_bytes() -> None:
    """What other languages must write."""
    assert wrap(7, b'{"op":"bye"}') == b'{"n":7,"op":"bye"}'
    assert wrap(0x0102, b"\x01rest") == b"\x03\x02\x01\x01rest"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b'{"op":"hello"}', b'{"n":}', b'{"n":7}', b'{"n":0,"op":"bye"}', b'{"n":-1,"op":"bye"}',
        b'{"n":07,"op":"bye"}', b'{"n":7.0,"op":"bye"}', b'{"n":"7","op":"bye"}', b'{"n":true,"op":"bye"}',
        b'{"n":null,"op":"bye"}', b'{"n": 7,"op":"bye"}', b'{ "n":7,"op":"bye"}', b'{"op":"bye","n":7}',
        b'{"n":65536,"op":"bye"}', b'{"n":99999,"op":"bye"}', b'{"n":' + b"9" * 5000 + b',"op":"bye"}',
        b'{"n":1,"n":2,"op":"bye"}', b'{"n":1,"n":1,"op":"bye"}', b"\x03", b"\x03\x01", b"\x03\x01\x00",
        b"\x03\x00\x00{}", b'\x03\x01\x00{"n":2,"op":"bye"}', b"\x03\x01\x00\x03\x01\x00{}", b"\x01\x00", b"\x02\x00",
        b'{"n":\xd9\xa7,"op":"bye"}',
    ],
    ids=lambda data: repr(data[:24]),
)  # fmt: skip
def test_anything_else_is_refused(data: bytes) -> None:
    """No envelope, a number that cannot be, one envelope in the other."""
    with pytest.raises(ProtocolError):
        unwrap(data)


def test_random_bytes_do_nothing_worse() -> None:
    """Whatever comes: a number in range with a message, or `ProtocolError`."""
    dice = random.Random(4)
    taken = 0
    for _ in range(20_000):
        data = bytearray(wrap(dice.randrange(1, MAX_NUMBER + 1), dice.choice(list(MESSAGES.values()))))
        for _ in range(dice.randrange(3)):
            data[dice.randrange(min(len(data), 12))] = dice.randrange(256)
        try:
            number, message = unwrap(bytes(data))
        except ProtocolError:
            continue
        taken += 1
        assert 1 <= number <= MAX_NUMBER
        assert message
    assert 0 < taken < 20_000
