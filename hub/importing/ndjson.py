"""Readings as one JSON object a line, as ``hub export --format ndjson`` writes them.

Owns: the names of an object's members. Place: after `lines`. Pure but for what it reads.
"""

import json
from typing import Any

import orjson

from hub.importing.lines import Lines
from hub.importing.row import Item, Items, Refused, RowError, checked, quoted
from hub.importing.table import ParseTime

_BEYOND_INTEGERS = 2.0**63
# Numbers are times too: an epoch in s, ms, µs or ns.
_TIMES = ("time", "time_ns", "time_unix_ms")


def read_ndjson(lines: Lines, parse_time: ParseTime) -> Items:
    """Yield what stands in the file: ``device``, ``channel``, ``value``, ``unit``, and ``time`` or ``time_ns``.

    Args:
        parse_time: raises ValueError for what is no time.
    """
    for text in lines:
        lines.mark()
        faults = lines.take_faults()
        yield from faults
        if text.strip() and not faults:
            yield _item(lines.number, text, parse_time)


def _item(line: int, text: str, parse_time: ParseTime) -> Item:
    try:
        found = orjson.loads(text)
        if not isinstance(found, dict):
            raise RowError("it is no JSON object")
        time = next((found[name] for name in _TIMES if found.get(name) is not None), None)
        if time is None:
            raise RowError("it has no time")
        device, channel, value = _text(found, "device"), _text(found, "channel"), found.get("value")
        if not (value is None or isinstance(value, float | int | str)):
            raise RowError("its value is no number, no text, no true or false")
        if isinstance(value, float) and abs(value) >= _BEYOND_INTEGERS:
            # Beyond 64 bits orjson makes a float of an integer; it must not change the type of its channel.
            value = json.loads(text)["value"]
        unit = found.get("unit")
        return checked(line, device, channel, parse_time(str(time)), value, None if unit is None else str(unit))
    except ValueError as error:
        return Refused(line, str(error), quoted(text))


def _text(found: dict[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str):
        raise RowError(f"it has no {name}")
    return value
