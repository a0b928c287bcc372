"""JSON Schemas of what the hub says to devices: records are encoded, and what comes out is described.

Owns: `schema_of`. Place: below `asyncapi`. Pure. The encoder is the one truth of how a record stands in JSON (times as
decimal strings, limits in an object of their own, fields left out); a table of that beside it would age.
"""

import inspect
import itertools
import types
import typing
from collections.abc import Callable
from typing import Any

import orjson

JsonObject = dict[str, Any]

NANOSECONDS = r"^-?[0-9]{1,19}$"


def schema_of(kind: type[Any], encode: Callable[[Any], bytes]) -> JsonObject:
    """Return the schema of a record's JSON.

    Args:
        kind: a record with annotated fields (`device_sdk.frozen.Frozen`); fields with a default may be left out.
        encode: makes JSON of one, with its ``op``.
    """
    probes = _Probes()
    shown: JsonObject = orjson.loads(encode(probes.record(kind)))
    least: JsonObject = orjson.loads(encode(probes.record(kind, is_least=True)))
    schema = probes.shape(shown)
    schema["properties"]["op"] = {"const": shown["op"]}
    schema["required"] = [name for name in shown if name in least]
    return {"description": inspect.getdoc(kind) or "", **schema}


class _Probes:
    """Values that are known again in JSON, made by the annotations of the fields they stand in."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1_000_001)
        self._integers: set[int] = set()
        # Anything, or any object: what stands in its place says which.
        self._free: dict[int, JsonObject] = {}

    def record(self, kind: type[Any], *, is_least: bool = False) -> Any:
        """Return a record with all fields, or with those alone that have no default."""
        hints, defaults = typing.get_type_hints(kind), kind._field_defaults
        return kind(**{name: self._value(hints[name]) for name in kind._fields if not (is_least and name in defaults)})

    def shape(self, found: Any) -> JsonObject:
        """Return the schema of what was encoded."""
        match found:
            case {"probe": number}:
                return dict(self._free[number])
            case dict():
                fields = {name: self.shape(value) for name, value in found.items()}
                return {"type": "object", "properties": fields, "required": list(fields)}
            case list():
                return {"type": "array", "items": self.shape(found[0])}
            case bool():
                return {"type": "boolean"}
            case int():
                return {"type": "integer"}
            case str():
                is_integer = found.isdigit() and int(found) in self._integers
                return {"type": "string", **({"pattern": NANOSECONDS} if is_integer else {})}
        raise TypeError(f"no schema for {found!r}")

    def _value(self, hint: Any) -> Any:
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
            hint = next(option for option in typing.get_args(hint) if option is not type(None))
        number = next(self._numbers)
        origin = typing.get_origin(hint)
        if hint is Any or origin is dict:
            self._free[number] = {} if hint is Any else {"type": "object"}
            return {"probe": number}
        if origin is tuple:
            return (self._value(typing.get_args(hint)[0]),)
        if hasattr(hint, "_fields"):
            return self.record(hint)
        if hint is bool:
            return True
        if hint is int:
            self._integers.add(number)
            return number
        if hint is str:
            return f"text {number}"
        raise TypeError(f"no probe for a field of type {hint!r}")
