"""What a decoder is given, and what it makes of it.

Owns: the records between whoever receives foreign messages (MQTT endpoint, broker bridge, HTTP) and the decoders.
Place: leftmost of `hub.decode`. Pure.

A decoder knows one family of devices or one format. It says which readings a message holds, and what it has learnt of
their channels; whether the sender may speak for the device it names is decided elsewhere. What it remembers between two
messages (units, aliases) is bounded, and can be lost: then readings lack a unit, or wait for the next announcement.
"""

import json
from collections.abc import Generator
from typing import NamedTuple, Protocol, TypeVar, cast, runtime_checkable

from device_sdk.reading import Channel, Value
from device_sdk.wire import MAX_FRAME_BYTES
from hub.errors import HubError

# What may be written of a topic into a record; MQTT allows 64 KiB, no device uses 1.
MAX_TOPIC_BYTES = 1024
# Of a gateway and a broker a message may be larger, for what it announces; what is stored must fit into a frame.
TOO_LARGE = f"readings in a message of more than {MAX_FRAME_BYTES} bytes"

_Result = TypeVar("_Result")


class DecodeError(HubError):
    """A message that its decoder cannot read: it is put into quarantine with this reason."""

    status = 400
    reason = "undecodable"


class Publication(NamedTuple):
    """One message as it came.

    Args:
        topic: of MQTT; empty for HTTP.
        received_ns: wall time at which the hub had it, in ns.
        is_retained: the broker kept it from before: it tells of no new reading.
        content_type: of MQTT 5 or HTTP, empty when not said.
    """

    topic: str
    payload: bytes
    received_ns: int = 0
    is_retained: bool = False
    content_type: str = ""

    def to_bytes(self) -> bytes:
        """Return the record that the quarantine keeps: a line of JSON, then the payload as it came."""
        head = {"topic": self.topic}
        if self.content_type:
            head["content_type"] = self.content_type
        return json.dumps(head).encode() + b"\n" + self.payload

    @classmethod
    def from_bytes(cls, record: bytes, received_ns: int) -> "Publication":
        """Return what `to_bytes` wrote.

        Raises:
            ValueError: it is no such record.
        """
        line, newline, payload = record.partition(b"\n")
        head = json.loads(line) if newline else None
        if not isinstance(head, dict) or not isinstance(head.get("topic"), str):
            raise ValueError("not a record of a foreign message")
        return cls(head["topic"], payload, received_ns, content_type=str(head.get("content_type", "")))


class ForeignReading(NamedTuple):
    """One value; ``time_ns`` None: it happened when it came."""

    channel: str
    value: Value
    time_ns: int | None = None


class Said(NamedTuple):
    """What one message says of one device: readings, and what was learnt of channels. Names are valid ones."""

    device: str
    readings: tuple[ForeignReading, ...] = ()
    channels: tuple[Channel, ...] = ()


class Answer(NamedTuple):
    """What the sender expects to be told, as a message to publish."""

    topic: str
    payload: bytes
    qos: int = 0
    is_retained: bool = False


class Decoded(NamedTuple):
    """What became of a message.

    Args:
        decoder: the name of who read it.
        ignored: why it holds no readings, for people; empty where it holds some.
    """

    decoder: str
    said: tuple[Said, ...] = ()
    answers: tuple[Answer, ...] = ()
    ignored: str = ""


class Decoder(Protocol):
    """One family of devices, or one format."""

    @property
    def name(self) -> str:
        """A word for people, e.g. ``tasmota``."""

    def decode(self, publication: Publication) -> Decoded | None:
        """Return what the message says; None: it is of another kind.

        Raises:
            DecodeError: it is of this kind, and cannot be read.
        """


@runtime_checkable
class LongDecoder(Decoder, Protocol):
    """One whose messages may be long work."""

    def reading(self, publication: Publication) -> Generator[None, None, Decoded | None]:
        """Do as `decode`, and yield at times, so that others are heard."""


def at_once(work: Generator[None, None, _Result]) -> _Result:
    """Return what a work with pauses gives, without the pauses."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return cast(_Result, end.value)
