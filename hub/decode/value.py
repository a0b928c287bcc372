"""Foreign values → values: JSON with what devices make of it, words, documents as paths.

Owns: what of a payload can be a reading, and how deep and wide a document may be. Place: after `naming`, before
the decoders. Pure.
"""

import re
from collections.abc import Iterable, Sequence
from math import isfinite

import orjson

from device_sdk.reading import INT_MAX, INT_MIN, MAX_STRING_BYTES, Value
from device_sdk.wire import MAX_FRAME_BYTES
from hub.decode.base import DecodeError
from hub.decode.naming import APART

# A document that goes deeper or holds more is no report of a sensor. A device has at most 200 channels.
MAX_DEPTH = 8
MAX_VALUES = 1000
# What it lists, values or not: each null and each empty list in it is work too.
MAX_MEMBERS = 10_000
# Objects and lists of a message that is larger than a frame, which is one that announces; each has far more than 20
# bytes there.
MAX_CONTAINERS = 50_000
# Of a path such as ``ENERGY.Power``; a name has 128.
MAX_PATH_CHARS = 256

# No value, as devices, libraries and Home Assistant write it.
_NOTHING = frozenset({"", "nan", "-nan", "+nan", "inf", "-inf", "+inf", "null", "none", "unavailable", "unknown"})
# The group is an integer that every store can hold.
_NUMBER = re.compile(r"([+-]?[0-9]{1,18})|[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
# What printf makes of no number: no JSON, but frequent. More of it is looked for no further.
MAX_NO_NUMBERS = 10_000
_NO_NUMBER = re.compile(rb"(?<=[:\[,\s])[+-]?(?:nan|inf|infinity)(?=\s*[,\]}])", re.IGNORECASE)


def load(payload: bytes) -> object:
    """Return the JSON document; ``nan`` is null.

    Raises:
        DecodeError: it is none, or has too many parts.
    """
    if len(payload) > MAX_FRAME_BYTES and payload.count(b"{") + payload.count(b"[") > MAX_CONTAINERS:
        raise DecodeError(
            f"a document of more than {MAX_CONTAINERS} objects and lists in more than {MAX_FRAME_BYTES} bytes"
        )
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        mended, count = _NO_NUMBER.subn(b"null", payload, MAX_NO_NUMBERS + 1)
        if count > MAX_NO_NUMBERS:
            raise DecodeError(f"no JSON: more than {MAX_NO_NUMBERS} times nan or inf") from error
        if count:
            try:
                return orjson.loads(mended)
            except orjson.JSONDecodeError:
                pass
        raise DecodeError(f"no JSON: {error}") from error


def text_of(payload: bytes) -> str:
    """Return the payload as text, without the white space and NULs around it; raises `DecodeError` when it is none."""
    try:
        return payload.decode().strip(" \t\r\n\0")
    except UnicodeDecodeError as error:
        raise DecodeError("neither text nor a format that is known") from error


def word_value(text: str) -> Value | None:
    """Return what a bare text means: a number, a switch (``ON``, ``false``), text; None: no value.

    Raises:
        DecodeError: a document, not a reading.
    """
    found = _NUMBER.fullmatch(text)
    if found is not None:
        if found.lastindex:
            return int(text)
        number = float(text)
        return number if isfinite(number) else None
    word = text.lower()
    if word in _NOTHING:
        return None
    if word in ("on", "true"):
        return True
    if word in ("off", "false"):
        return False
    if _is_document(text):
        raise DecodeError(f"a text of more than {MAX_STRING_BYTES} bytes is no reading")
    return text


def json_value(value: object) -> Value | None:
    """Return a leaf of a JSON document as a value; None: it has none (null, a document as text)."""
    if type(value) is float:
        return value if isfinite(value) else None
    if type(value) is bool:
        return value
    if type(value) is int:
        return value if INT_MIN <= value <= INT_MAX else float(value)
    if type(value) is str:
        if value == "ON":
            return True
        if value == "OFF":
            return False
        return None if value.lower() in _NOTHING or _is_document(value) else value
    return None


def flatten(document: object, path: str = "") -> list[tuple[str, Value]]:
    """Return the values of a document by their paths, ``ENERGY.Power``; what is no value is left out.

    A key with a dot is one step, and reads like two: behind `hub.decode.naming.APART` stands which they are.

    Args:
        path: of the document itself.

    Raises:
        DecodeError: too deep, too many, or a name that is too long.
    """
    found: list[tuple[str, Value]] = []
    if isinstance(document, dict | list):
        _gather(document, path, "", 0, found, 0)
    elif (value := json_value(document)) is not None:
        found.append((path, value))
    return found


def path_of(steps: Sequence[str | int]) -> str:
    """Return the path that `flatten` gives a value, for who knows the way to it."""
    dotted = [_dotted(level, step) for level, step in enumerate(steps) if isinstance(step, str) and "." in step]
    return ".".join(map(str, steps)) + (APART if dotted else "") + "".join(dotted)


def _dotted(level: int, name: str) -> str:
    return f" {level}:{len(name)}"


def _gather(
    node: dict[str, object] | list[object],
    path: str,
    dotted: str,
    level: int,
    found: list[tuple[str, Value]],
    members: int,
) -> int:
    """Add the values of a node to those found; return how many members were seen, with those of before."""
    if level == MAX_DEPTH:
        raise DecodeError(f"a document of more than {MAX_DEPTH} levels")
    members += len(node)
    if members > MAX_MEMBERS:
        raise DecodeError(f"a document of more than {MAX_MEMBERS} members")
    items: Iterable[tuple[str, object]]
    items = node.items() if isinstance(node, dict) else ((str(at), child) for at, child in enumerate(node))
    for name, child in items:
        below = f"{path}.{name}" if path else name
        if len(below) > MAX_PATH_CHARS:
            raise DecodeError(f"a name of more than {MAX_PATH_CHARS} characters")
        apart = dotted
        if "." in name:
            apart = (dotted or APART) + _dotted(level, name)
        if (value := json_value(child)) is not None:
            found.append((below + apart, value))
        elif isinstance(child, dict | list):
            members = _gather(child, below, apart, level + 1, found, members)
        if len(found) > MAX_VALUES:
            raise DecodeError(f"a document of more than {MAX_VALUES} values")
    return members


def _is_document(text: str) -> bool:
    return len(text) > MAX_STRING_BYTES or (not text.isascii() and len(text.encode()) > MAX_STRING_BYTES)
