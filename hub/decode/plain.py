"""Plain values: the topic says which channel of which device, the payload is a value or a JSON object of values.

Owns: how topics without a format of their own are understood. Place: the last of the decoders, for it takes all. Pure.

``home/bedroom/temperature`` is channel ``temperature`` of device ``home-bedroom``: all of the topic is in the names,
for ``sensor/temperature`` ends the topics of many devices. A client that is one device says it by its credential; then
all of the topic is of the channel, less what stands up to the device's own name.
"""

from hub.decode.base import Decoded, DecodeError, ForeignReading, Publication, Said
from hub.decode.moment import MAX_AHEAD_NS, time_ns_of
from hub.decode.scope import Scope
from hub.decode.value import flatten, load, text_of, word_value

# Ends of topics that are told to a device, by whoever; a bridge that subscribes to all sees them.
_COMMANDS = frozenset({"set", "get", "cmd", "command", "cmnd"})
_NO_VALUE = "no value"
_TIMES = ("ts", "timestamp", "time")
# Topics whose device and channel are remembered, in 60 KB of memory at most: a device that says single values has a
# few, a gateway more than these, and pays for it as it did with the first.
_MAX_KNOWN, _MAX_KNOWN_CHARS = 200, 100


class Plain:
    """Takes every message that is text or JSON."""

    __slots__ = ("_known", "_scope")
    name = "plain"

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        # Topic of a single value → its device and channel.
        self._known: dict[str, tuple[str, str]] = {}

    def decode(self, publication: Publication) -> Decoded:
        """Return the readings of any message; see `hub.decode.base.Decoder`."""
        topic, payload = publication.topic, publication.payload
        if not payload:
            return Decoded(self.name, ignored="an empty message")
        is_document = payload[0] in b'{["'
        if not is_document and (known := self._known.get(topic)) is not None:
            value = word_value(text_of(payload))
            if value is None:
                return Decoded(self.name, ignored=_NO_VALUE)
            device, channel = known
            return Decoded(self.name, (Said(device, (ForeignReading(channel, value),)),))
        head, _, tail = topic.strip("/").rpartition("/")
        if tail in _COMMANDS:
            return Decoded(self.name, ignored="a command to a device, not a reading")
        if is_document:
            document = load(payload)
            time_ns = self._take_time(document, publication.received_ns) if isinstance(document, dict) else None
            values = flatten(document)
        else:
            value = word_value(text_of(payload))
            values, time_ns = [] if value is None else [("", value)], None
        if not values:
            return Decoded(self.name, ignored=_NO_VALUE)
        device, prefix = self._place(head, tail)
        name_of = self._scope.names.channel
        readings = tuple(
            [ForeignReading(name_of(device, _joined(prefix, path)), value, time_ns) for path, value in values]
        )
        if not is_document and len(topic) <= _MAX_KNOWN_CHARS:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[topic] = device, readings[0].channel
        return Decoded(self.name, (Said(device, readings),))

    def _take_time(self, document: dict[str, object], received_ns: int) -> int | None:
        """Take the time out of a document that says one; what is no time stays, as a value."""
        for name in _TIMES:
            if name in document and (time_ns := time_ns_of(document[name], self._scope.zone)) is not None:
                del document[name]
                return time_ns if time_ns <= received_ns + MAX_AHEAD_NS else None
        return None

    def _place(self, head: str, tail: str) -> tuple[str, str]:
        """Return the device, and what its channels' names begin with."""
        own = self._scope.device
        if own:
            segments = [*head.split("/"), tail] if head else [tail]
            if own in segments:
                segments = segments[segments.index(own) + 1 :]
            return own, ".".join(segment for segment in segments if segment)
        if head:
            return self._scope.names.device(head), tail
        if not tail:
            raise DecodeError("neither a topic nor the credential says which device it is of")
        return self._scope.names.device(tail), ""


def _joined(prefix: str, path: str) -> str:
    return f"{prefix}.{path}" if prefix and path else prefix or path or "value"
