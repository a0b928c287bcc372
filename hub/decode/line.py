"""InfluxDB's line protocol, as Telegraf and the clients of InfluxDB write it: points → readings.

Owns: which device and channel a field is. Place: after `point` (the grammar) and `rows`. Pure.

A tag ``host`` names the device, else one named ``device``, else ``device_id``: Telegraf says ``host`` always, and its
``device`` is a disk. The channel is the measurement, the values of all other tags in the order of their names, and the
field: ``disk.sda1.ext4.rw.used_percent``; leaving tags out would make one series of a processor's cores. Where no tag
names a device, measurement and tags are it, and the channel is the field. What cannot be read there, the names of the
tags and where each value ends, tells two things apart all the same (`hub.decode.naming.APART`). A sender that is one
device is the device of all its points: then ``host`` says nothing, and any other name than its own is a part of the
channel's.
"""

from collections.abc import Generator
from hashlib import blake2s

from device_sdk.errors import Reason
from device_sdk.wire import MAX_FRAME_BYTES
from hub.decode.base import TOO_LARGE, Decoded, DecodeError, Publication
from hub.decode.naming import APART
from hub.decode.point import PRECISIONS, LineError, OpenTextError, Point, WideError, parse_point
from hub.decode.rows import Rows, parts_of
from hub.decode.scope import Scope

# The first of them that a point has.
DEVICE_TAGS = ("host", "device", "device_id")
# Of a payload by MQTT; more is a file, and comes by `hub import` or HTTP.
MAX_LINES = 5_000
# Longer than any text that may be stored; what goes on for longer has lost its quote.
_LINES_JOINED, _CHARS_JOINED = 50, 8 * 1024
# Of one request, some 300 bytes each, 2 kB with the longest names.
_MOST_PLACES = 2_000
# Of a point, and as many tags; a device has 200 channels.
MAX_FIELDS = 1_000
_COMMENT = "#"
# Of what the names of a point's channels begin with. Longer ones are cut, with a hash of all behind: what is a name is
# made of it for each field, and a name has 128 characters anyhow.
_MAX_PREFIX = 512
# And of what tells them apart, which each of them has behind it.
_MAX_APART = 256

_Place = tuple[str, tuple[str, ...]]


class Line:
    """Takes messages whose first line is a point."""

    __slots__ = ("_scope",)
    name = "line-protocol"

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def decode(self, publication: Publication) -> Decoded | None:
        """Return the readings of a message; see `hub.decode.base.Decoder`."""
        lines = _lines(publication.payload)
        if lines is None:
            return None
        reader = LineReader(self._scope)
        for text in lines:
            reader.feed(text)
        return self._decoded(reader)

    def reading(self, publication: Publication) -> Generator[None, None, Decoded | None]:
        """Do as `decode`, with a pause after each line."""
        lines = _lines(publication.payload)
        if lines is None:
            return None
        if len(publication.payload) > MAX_FRAME_BYTES:
            raise DecodeError(TOO_LARGE)
        reader = LineReader(self._scope)
        for text in lines:
            reader.feed(text)
            yield
        return self._decoded(reader)

    def _decoded(self, reader: "LineReader") -> Decoded:
        reader.end()
        found = reader.rows
        if found.faults:
            raise DecodeError(f"line {found.faults[0].at}: {found.faults[0].why}")
        said = tuple(part.said for part in parts_of(found, self._scope.device))
        return Decoded(self.name, said, ignored="" if said else "no value")


class LineReader:
    """Reads lines one after the other; ``rows`` is what they hold, and what is wrong with them.

    Args:
        precision: of the times, one of `PRECISIONS`.
        fallback: the device of points that name none; empty: measurement and tags name it.
    """

    def __init__(self, scope: Scope, precision: str = "ns", fallback: str = "") -> None:
        self.rows = Rows()
        self.number = 0
        self._scope = scope
        self._factor = PRECISIONS[precision]
        self._fallback = fallback
        # Lines of a point whose text goes on behind their end.
        self._open: list[str] = []
        self._open_chars = 0
        # Of one request many points are alike.
        self._places: dict[_Place, tuple[str, str, str]] = {}

    def feed(self, text: str) -> None:
        """Take the next line, without its end; blank lines and comments hold nothing."""
        self.number += 1
        if self._open:
            self._go_on(text)
        elif text and not text.startswith(_COMMENT) and not text.isspace():
            try:
                self._read(self.number, text)
            except OpenTextError:
                self._open, self._open_chars = [text], len(text)
            except LineError as error:
                self.rows.fault(self.number, Reason.MALFORMED, str(error))

    def refuse(self, why: str) -> None:
        """Take the next line as one that cannot be read."""
        self.end()
        self.number += 1
        self.rows.fault(self.number, Reason.MALFORMED, why)

    def end(self) -> None:
        """Take what was fed as all there is; a text that is open then has no end."""
        while self._open:
            self._give_up("a text has no end")

    def take_rows(self) -> Rows:
        """Return what was read so far and begin anew; lines of an open text stay."""
        rows, self.rows = self.rows, Rows()
        if len(self._places) > _MOST_PLACES:
            self._places.clear()
        return rows

    def _go_on(self, text: str) -> None:
        self._open.append(text)
        self._open_chars += len(text)
        if len(self._open) > _LINES_JOINED or self._open_chars > _CHARS_JOINED:
            self._give_up("a text has no end")
            return
        try:
            self._read(self.number - len(self._open) + 1, "\n".join(self._open))
        except OpenTextError:
            return
        except LineError as error:
            self._give_up(str(error))
            return
        self._open = []

    def _give_up(self, why: str) -> None:
        """Refuse the first of the open lines alone, and take the others as lines of their own."""
        _, *others = self._open
        self.number -= len(others)
        self._open = []
        self.rows.fault(self.number, Reason.MALFORMED, why)
        for text in others:
            self.feed(text)

    def _read(self, at: int, text: str) -> None:
        point = parse_point(text, MAX_FIELDS)
        device, prefix, apart = self._place(point)
        name_of, add = self._scope.names.channel, self.rows.add
        time_ns = None if point.time is None else point.time * self._factor
        for field, value in point.fields:
            add(at, device, name_of(device, f"{prefix}{field}{apart}"), value, time_ns)

    def _place(self, point: Point) -> tuple[str, str, str]:
        """Return the device of a point, what its channels' names begin with, and what tells these apart."""
        key = (point.measurement, tuple(item for pair in point.tags.items() for item in pair))
        found = self._places.get(key)
        if found is None:
            device, prefix, apart = self._found(point)
            if len(prefix) > _MAX_PREFIX:
                tail = blake2s(prefix.encode(), digest_size=16).hexdigest()
                prefix = f"{prefix[: _MAX_PREFIX - len(tail) - 2]}-{tail}."
                return device, prefix, apart  # not remembered: it would be as much memory
            found = self._places[key] = device, prefix, apart
        return found

    def _found(self, point: Point) -> tuple[str, str, str]:
        own, tags = self._scope.device, point.tags
        named = next((tag for tag in DEVICE_TAGS if tag in tags), "")
        others = [tag for tag in sorted(tags) if not (_says_nothing(tag, tags, own) if own else tag == named)]
        parts = [point.measurement, *[tags[tag] for tag in others]]
        if own or named or self._fallback:
            device = own or (self._scope.names.device(tags[named]) if named else self._fallback)
            return device, ".".join([*parts, ""]), _apart(parts, others, ".")
        return self._scope.names.device("-".join(parts) + _apart(parts, others, "-")), "", ""


def _apart(parts: list[str], tags: list[str], sign: str) -> str:
    """Return what is not read in a measurement and values of tags that a sign joins: which tags, where each ends."""
    if not tags and sign not in parts[0]:
        return ""
    # No name has a line's end in it.
    found = "\n".join([str(len(parts[0])), *[f"{tag}={len(part)}" for tag, part in zip(tags, parts[1:], strict=True)]])
    if len(found) > _MAX_APART:
        found = blake2s(found.encode(), digest_size=16).hexdigest()
    return APART + found


def _says_nothing(tag: str, tags: dict[str, str], own: str) -> bool:
    """Return whether a tag says no more than that the sender is who it is."""
    return tag == "host" or (tag in DEVICE_TAGS and tags[tag] == own)


def _lines(payload: bytes) -> list[str] | None:
    """Return the lines when the first that says anything is a point with a field, else None."""
    if b"=" not in payload or payload[:1] in (b"{", b"["):
        return None
    try:
        # Not `splitlines`: texts and names may hold what that takes for the end of a line.
        lines = payload.decode().split("\n")
        first = next(line for line in lines if line.strip() and not line.startswith(_COMMENT))
    except (UnicodeDecodeError, StopIteration):
        return None
    try:
        parse_point(first, MAX_FIELDS)
    except LineError as error:
        if not isinstance(error, WideError):  # that one is said by whoever reads the line
            return None
    if len(lines) > MAX_LINES:
        raise DecodeError(f"{len(lines)} lines in one message; the limit is {MAX_LINES}")
    return lines
