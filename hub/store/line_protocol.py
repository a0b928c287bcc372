"""Readings as line protocol: what InfluxDB, VictoriaMetrics and others take.

Owns: which tags and fields a reading has. Place: after `model`. Pure.

A line is ``reading,channel=C,device=D,namespace=N kind=1i,value=21.5 TIME``, the time in ns. Each type has a field of
its own (``value``, ``value_int``, ``value_bool``, ``value_str``), because a field keeps the type it first had. ``kind``
says which of them counts: a server keeps the older field beside the newer one when a correction has another type.

Names of devices and channels are letters, digits, ``_``, ``.``, ``-`` and the hub's own ``$sys``; what others hold is
escaped, or stands as U+FFFD where no escape exists. Source: InfluxDB 1.8 documentation, "Line protocol", and its reader
(``models/points.go`` of 1.6), in which a backslash escapes the next of ``, =`` and space, but not another backslash.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from device_sdk.reading import Value

MEASUREMENT = "reading"
FLOAT, INT, BOOL, STR = 1, 2, 3, 4
# Kind → its field.
FIELDS = {FLOAT: "value", INT: "value_int", BOOL: "value_bool", STR: "value_str"}
_SPECIAL = re.compile(r"[,= ]")
# Control characters and the ends of lines, lone surrogates, and a backslash that would escape what follows.
_UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]|\\(?=[,= \\]|$)")
_KINDS: dict[type, int] = {float: FLOAT, int: INT, bool: BOOL, str: STR}


class SeriesName(NamedTuple):
    """What a series is called on a server."""

    namespace: str
    device: str
    channel: str


def kind_of(value: Value) -> int:
    """Return the kind of a value."""
    return _KINDS[type(value)]


def prefix_of(name: SeriesName) -> str:
    """Return the beginning of each line of a series."""
    tags = ",".join(f"{key}={_SPECIAL.sub(_escaped, text)}" for key, text in tags_of(name).items())
    return f"{MEASUREMENT},{tags} "


def tags_of(name: SeriesName) -> dict[str, str]:
    """Return the tags by which a series is found, as the server has them: not escaped."""
    return {key: _UNSPEAKABLE.sub("\ufffd", getattr(name, key)) for key in ("channel", "device", "namespace")}


def line(prefix: str, time_ns: int, value: Value) -> str:
    """Return a reading's line."""
    kind = _KINDS[type(value)]
    if kind == FLOAT:
        return f"{prefix}kind=1i,value={value!r} {time_ns}"
    if kind == INT:
        return f"{prefix}kind=2i,value_int={value}i {time_ns}"
    if kind == BOOL:
        return f"{prefix}kind=3i,value_bool={'t' if value else 'f'} {time_ns}"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'{prefix}kind=4i,value_str="{text}" {time_ns}'


def _escaped(found: re.Match[str]) -> str:
    return "\\" + found[0]


def body(lines: Iterable[str]) -> bytes:
    """Return a request's body."""
    return "\n".join(lines).encode()
