"""Many devices on one connection: whose each message is.

Owns: the envelope of a gateway's connection. Place: after `wire`; around every message there, on both ends. Pure. The
chain of a stream covers the message inside alone, so a frame is the same behind a gateway and without one.

A gateway numbers its devices as it likes, 1 to 65535, a new number for each hello (what is still on its way belongs to
the older one). A JSON message has its device's number in front of all else, without blanks: ``{"n":7,"op":"ack",…``. A
binary or deflated one has ``0x03`` and the number as u16, little-endian, in front. What the hub says without a number
(a ``bye`` when it stops) is for all of them; a gateway has nothing to say without one.

By MQTT a device that is alone may number its conversations in the same way, for there a broker may deliver what was
said in an older one: a new number for each hello, and both sides hear no other.

A device that may not speak is answered with ``bye``: ``code`` as of a close, ``reason`` a word, ``message`` for people,
``retry_ms`` when to ask again. So is whatever comes under a number that is not in use, but for ``bye`` itself.
"""

from __future__ import annotations

import re

from device_sdk.errors import ProtocolError, Reason

ENVELOPED = b"\x03"
# Two bytes on the wire; a connection has a thousand devices at most, and numbers are not used again soon.
MAX_NUMBER = 65_535
# The longest text envelope, `{"n":65535,` for `{`: a frame and its envelope must fit one message.
MAX_ENVELOPE_BYTES = 10
_JSON = re.compile(rb'\{"n":([1-9][0-9]{0,4}),')
_HEADER_BYTES = 3


def wrap(number: int, message: bytes) -> bytes:
    """Return a device's message as it travels on its gateway's connection."""
    if message[:1] == b"{":
        return b'{"n":%d,%b' % (number, message[1:])
    return ENVELOPED + number.to_bytes(2, "little") + message


def unwrap(data: bytes) -> tuple[int, bytes]:
    """Return the number of the device and its message, byte for byte.

    Raises:
        ProtocolError: there is no envelope, or one in the other, or a number that cannot be.
    """
    found = _JSON.match(data)
    if found is not None:
        number, message = int(found[1]), b"{" + data[found.end() :]
    elif data[:1] == ENVELOPED and len(data) > _HEADER_BYTES:
        number, message = int.from_bytes(data[1:_HEADER_BYTES], "little"), data[_HEADER_BYTES:]
    else:
        raise ProtocolError(f"a gateway's message begins with its device's number, not {data[:16]!r}", Reason.MALFORMED)
    if not 1 <= number <= MAX_NUMBER:
        raise ProtocolError(f"device number {number}: use 1 to {MAX_NUMBER}", Reason.MALFORMED)
    if message[:1] == ENVELOPED or message[:5] == b'{"n":':
        raise ProtocolError(f"a message of device {number} in two envelopes", Reason.MALFORMED)
    return number, message
