r"""InfluxDB's line protocol: one line → its point.

Owns: its grammar. Place: before `hub.decode.line` and `hub.importing.line_protocol`, which say what it means. Pure.

    measurement[,tag=value…] field=value[,field=value…] [time]

In names ``\,``, ``\=`` and ``\ `` are those characters; in a text, which stands in ``"``, so are ``\"`` and ``\\``, and
a text may go over several lines. Values: ``1`` and ``1.5e3`` are floats, ``1i`` and ``1u`` integers, ``t T true True
TRUE`` and so for false. Source: InfluxDB 1.8 documentation, "Line protocol".
"""

import re
import sys
from typing import NamedTuple

from device_sdk.reading import Value

PRECISIONS = {"ns": 1, "us": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
# Nothing of a name or a text is given back: each letter would be remembered, and one of a megabyte 160 MB.
_BARE = re.compile(r"(?:[^\\, =]++|\\.?)++")
# Only there "=" is a letter: nothing is assigned to it.
_MEASUREMENT = re.compile(r"(?:[^\\, ]++|\\.?)++")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_INTEGER = re.compile(r"([+-]?\d+)[iu]")
# Of an integer, leading zeros included; of 64 bits it has 19. Longer ones are work, and beyond 4,300 no number at all.
_MAX_DIGITS = 40
_TEXT = re.compile(r'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_PLAIN = re.compile(r'[^, "]+')
_TIME = re.compile(r" +(-?\d+)\s*")
_BOOLS = dict.fromkeys(("t", "T", "true", "True", "TRUE"), True) | dict.fromkeys(
    ("f", "F", "false", "False", "FALSE"), False
)


class LineError(ValueError):
    """It is no line protocol; the message says why, and where."""


class OpenTextError(LineError):
    """A text that does not end on its line."""


class WideError(LineError):
    """A point of more tags or fields than are taken."""


class Point(NamedTuple):
    """One line; ``time`` in the precision of the file, None where it has none."""

    measurement: str
    tags: dict[str, str]
    fields: list[tuple[str, Value]]
    time: int | None


def parse_point(text: str, most: int = sys.maxsize) -> Point:
    """Return the point of a line.

    Args:
        most: tags, and most fields, that it may have; no further one is read.

    Raises:
        OpenTextError: its last text goes on behind the line's end.
        WideError: it has more tags or fields.
        LineError: it is no line protocol.
    """
    measurement, at = _name(text, 0, "a measurement", _MEASUREMENT)
    tags: dict[str, str] = {}
    left = most
    while text[at : at + 1] == ",":
        if not left:
            raise WideError(f"more than {most} tags in one point")
        left -= 1
        name, at = _name(text, at + 1, "a tag")
        if text[at : at + 1] != "=":
            raise LineError(f"tag {name[:80]!r} has no value")
        tags[name], at = _name(text, at + 1, "a tag's value")
    fields: list[tuple[str, Value]] = []
    at = _skip(text, at, " ", "fields")
    while True:
        name, at = _name(text, at, "a field")
        value, at = _value(text, _skip(text, at, "=", f"a value of field {name[:80]!r}"))
        fields.append((name, value))
        if text[at : at + 1] != ",":
            break
        if len(fields) == most:
            raise WideError(f"more than {most} fields in one point")
        at += 1
    return Point(measurement, tags, fields, _time(text, at))


def _name(text: str, at: int, what: str, pattern: re.Pattern[str] = _BARE) -> tuple[str, int]:
    match = pattern.match(text, at)
    if match is None:
        raise LineError(f"{what} is missing at column {at + 1}")
    return _unescaped(match[0]) if "\\" in match[0] else match[0], match.end()


def _unescaped(name: str) -> str:
    # Not `re.sub`, which takes a microsecond for each. No replacement makes what the next one looks for.
    return name.replace("\\,", ",").replace("\\ ", " ").replace("\\=", "=")


def _unescaped_text(text: str) -> str:
    return "\\".join([part.replace('\\"', '"') for part in text.split(r"\\")])


def _skip(text: str, at: int, sign: str, what: str) -> int:
    if text[at : at + 1] != sign:
        raise LineError(f"{what} missing at column {at + 1}")
    at += 1
    while sign == " " and text[at : at + 1] == " ":
        at += 1
    return at


def _value(text: str, at: int) -> tuple[Value, int]:
    if text[at : at + 1] == '"':
        match = _TEXT.match(text, at)
        if match is None:
            raise OpenTextError("a text has no end")
        return _unescaped_text(match[1]) if "\\" in match[1] else match[1], match.end()
    match = _PLAIN.match(text, at)
    word = "" if match is None else match[0].rstrip("\r\n")
    end = at + len(word)
    if _NUMBER.fullmatch(word):
        return float(word), end
    integer = _INTEGER.fullmatch(word)
    if integer is not None and len(integer[1]) <= _MAX_DIGITS:
        return int(integer[1]), end
    if word in _BOOLS:
        return _BOOLS[word], end
    raise LineError(f"{word[:80]!r} is no value")


def _time(text: str, at: int) -> int | None:
    rest = text[at:]
    if not rest.strip():
        return None
    match = _TIME.fullmatch(rest)
    if match is None or len(match[1]) > 20:
        raise LineError(f"{rest.strip()[:80]!r} is no time")
    return int(match[1])
