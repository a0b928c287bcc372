r"""InfluxDB's line protocol, read from a file.

Owns: its grammar, and which reading a field is. Place: after `lines` and `naming`. Pure but for what it reads.

    measurement[,tag=value…] field=value[,field=value…] time

In names ``\,``, ``\=`` and ``\ `` are those characters; in a text, which stands in ``"``, so are ``\"`` and ``\\``, and
a text may go over several lines. Values: ``1`` and ``1.5e3`` are floats, ``1i`` and ``1u`` integers, ``t T true True
TRUE`` and so for false. Source: InfluxDB 1.8 documentation, "Line protocol".

What a hub has written to InfluxDB (`hub.store.line_protocol`) is known by its measurement and tags, and comes back as
it was.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from device_sdk.reading import Value
from hub.importing.lines import Lines
from hub.importing.naming import Names, Template
from hub.importing.row import Items, Refused, RowError, checked, quoted
from hub.store.line_protocol import FIELDS, MEASUREMENT

PRECISIONS = {"ns": 1, "us": 1000, "ms": 1_000_000, "s": 1_000_000_000}
# How far a text may go: it is 1 KiB at most, and what is longer has lost its quote.
_LINES_JOINED, _CHARS_JOINED = 100, 64 * 1024
_BARE = re.compile(r"(?:[^\\, =]|\\.?)+")
# Only there "=" is a letter: nothing is assigned to it.
_MEASUREMENT = re.compile(r"(?:[^\\, ]|\\.?)+")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_INTEGER = re.compile(r"([+-]?\d+)[iu]")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_PLAIN = re.compile(r'[^, "]+')
_TIME = re.compile(r" +(-?\d+)\s*")
_ESCAPED = re.compile(r"\\([, =])")
_ESCAPED_TEXT = re.compile(r'\\(["\\])')
_BOOLS = dict.fromkeys(("t", "T", "true", "True", "TRUE"), True) | dict.fromkeys(
    ("f", "F", "false", "False", "FALSE"), False
)
# `influx_inspect export` writes such lines above its points.
_NO_POINT = ("#", "CREATE DATABASE ")


class OpenTextError(RowError):
    """A text that does not end on its line."""


class Point(NamedTuple):
    """One line; ``time`` in the precision of the file, None where it has none."""

    measurement: str
    tags: dict[str, str]
    fields: list[tuple[str, Value]]
    time: int | None


def parse_point(text: str) -> Point:
    """Return the point of a line.

    Raises:
        OpenTextError: its last text goes on behind the line's end.
        RowError: it is no line protocol.
    """
    measurement, at = _name(text, 0, "a measurement", _MEASUREMENT)
    tags: dict[str, str] = {}
    while text[at : at + 1] == ",":
        name, at = _name(text, at + 1, "a tag")
        if text[at : at + 1] != "=":
            raise RowError(f"tag {name[:80]!r} has no value")
        tags[name], at = _name(text, at + 1, "a tag's value")
    fields: list[tuple[str, Value]] = []
    at = _skip(text, at, " ", "fields")
    while True:
        name, at = _name(text, at, "a field")
        value, at = _value(text, _skip(text, at, "=", f"a value of field {name[:80]!r}"))
        fields.append((name, value))
        if text[at : at + 1] != ",":
            break
        at += 1
    return Point(measurement, tags, fields, _time(text, at))


def read_line_protocol(lines: Lines, device: Template, channel: Template, precision: str) -> Items:
    """Yield a reading for each field of each point.

    Args:
        device, channel: what a reading's names are made of.
        precision: of the times, one of `PRECISIONS`.
    """
    names = Names()
    for line, text, point in _points(lines):
        if isinstance(point, Refused):
            yield point
        else:
            yield from _items(line, text, point, (device, channel, names), PRECISIONS[precision])


def _points(lines: Lines) -> Iterator[tuple[int, str, Point | Refused]]:
    for text in lines:
        line = lines.number
        for fault in lines.take_faults():
            yield line, text, fault
        if text.strip() and not text.startswith(_NO_POINT):
            try:
                yield line, text, _point(lines, text)
            except RowError as error:
                lines.give_back(lines.number - line)
                yield line, text, Refused(line, str(error), quoted(text))
                # Of lines that were taken and given back: they are handed on as empty ones now.
                for fault in lines.take_faults():
                    yield line, text, fault
        lines.mark()


def _point(lines: Lines, text: str) -> Point:
    """Return the point that begins with this line, with as many more as its texts go over."""
    while True:
        try:
            return parse_point(text)
        except OpenTextError:
            is_short = len(lines.taken) < _LINES_JOINED and len(text) < _CHARS_JOINED
            more = next(lines, None) if is_short else None
            if more is None or lines.has_faults:
                raise
            text += more


def _items(line: int, text: str, point: Point, naming: tuple[Template, Template, Names], factor: int) -> Items:
    known = {**point.tags, "measurement": point.measurement}
    is_ours = point.measurement == MEASUREMENT and {"device", "channel"} <= known.keys()
    for field, value in _own_fields(point) if is_ours else point.fields:
        try:
            if point.time is None:
                raise RowError("it has no time")
            device, channel = (known["device"], known["channel"]) if is_ours else _named(naming, known, field)
            yield checked(line, device, channel, point.time * factor, value)
        except RowError as error:
            yield Refused(line, f"{field}: {error}", quoted(text))


def _named(naming: tuple[Template, Template, Names], known: dict[str, str], field: str) -> tuple[str, str]:
    of_device, of_channel, names = naming
    known = {**known, "field": field}
    device = names.device(of_device.fill(known))
    return device, names.channel(device, of_channel.fill(known))


def _own_fields(point: Point) -> list[tuple[str, Value]]:
    """Return the one field that counts; a tool that writes a line for each field has lost which."""
    fields = dict(point.fields)
    kind = fields.get("kind")
    if isinstance(kind, int) and kind in FIELDS:
        return [(FIELDS[kind], fields[FIELDS[kind]])] if FIELDS[kind] in fields else []
    return [(name, value) for name, value in point.fields if name in FIELDS.values()]


def _name(text: str, at: int, what: str, pattern: re.Pattern[str] = _BARE) -> tuple[str, int]:
    match = pattern.match(text, at)
    if match is None:
        raise RowError(f"{what} is missing at column {at + 1}")
    return _ESCAPED.sub(r"\1", match[0]) if "\\" in match[0] else match[0], match.end()


def _skip(text: str, at: int, sign: str, what: str) -> int:
    if text[at : at + 1] != sign:
        raise RowError(f"{what} missing at column {at + 1}")
    at += 1
    while sign == " " and text[at : at + 1] == " ":
        at += 1
    return at


def _value(text: str, at: int) -> tuple[Value, int]:
    if text[at : at + 1] == '"':
        match = _TEXT.match(text, at)
        if match is None:
            raise OpenTextError("a text has no end")
        return _ESCAPED_TEXT.sub(r"\1", match[1]), match.end()
    match = _PLAIN.match(text, at)
    word = "" if match is None else match[0].rstrip("\r\n")
    end = at + len(word)
    if _NUMBER.fullmatch(word):
        return float(word), end
    integer = _INTEGER.fullmatch(word)
    if integer is not None:
        return int(integer[1]), end
    if word in _BOOLS:
        return _BOOLS[word], end
    raise RowError(f"{word[:80]!r} is no value")


def _time(text: str, at: int) -> int | None:
    rest = text[at:]
    if not rest.strip():
        return None
    match = _TIME.fullmatch(rest)
    if match is None or len(match[1]) > 20:
        raise RowError(f"{rest.strip()[:80]!r} is no time")
    return int(match[1])
