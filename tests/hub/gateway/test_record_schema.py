"""`hub.gateway.record_schema`: the schema of a record is that of what its encoder makes of it."""

from typing import Any

import orjson
import pytest

from device_sdk.frozen import Frozen
from hub.gateway.record_schema import NANOSECONDS, schema_of


class Inner(Frozen):
    """A part."""

    seq: int


class Outer(Frozen):
    """A record."""

    name: str
    time_ns: int
    is_on: bool
    parts: tuple[Inner, ...] = ()
    code: int | None = None
    value: Any = None
    state: dict[str, Any] = {}  # noqa: RUF012 - as in the wire's records


def encode(outer: Outer) -> bytes:
    """Encode as a wire does: times as text, a limit in an object, what is empty left out."""
    out: dict[str, Any] = {
        "op": "outer",
        "limits": {"name": outer.name},
        "time_ns": str(outer.time_ns),
        "on": outer.is_on,
    }
    if outer.parts:
        out["parts"] = [{"seq": part.seq} for part in outer.parts]
    if outer.code is not None:
        out |= {"code": outer.code, "value": outer.value, "state": outer.state}
    return orjson.dumps(out)


def test_schema_follows_the_encoder() -> None:
    """Names, nesting and what may be missing are of the JSON, not of the record."""
    assert schema_of(Outer, encode) == {
        "description": "A record.",
        "type": "object",
        "properties": {
            "op": {"const": "outer"},
            "limits": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
            "time_ns": {"type": "string", "pattern": NANOSECONDS},
            "on": {"type": "boolean"},
            "parts": {
                "type": "array",
                "items": {"type": "object", "properties": {"seq": {"type": "integer"}}, "required": ["seq"]},
            },
            "code": {"type": "integer"},
            "value": {},
            "state": {"type": "object"},
        },
        "required": ["op", "limits", "time_ns", "on"],
    }


class Odd(Frozen):
    """A record with a field of a type that no message has."""

    data: bytes


def test_a_type_without_a_probe_is_an_error() -> None:
    """Better said at once than described wrongly."""
    with pytest.raises(TypeError, match="bytes"):
        schema_of(Odd, lambda odd: b"{}")
