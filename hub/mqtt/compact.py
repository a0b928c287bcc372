"""Rows of numbers as `micro.py` sends them → an ordinary batch.

Owns: the form ``{"s":stream,"q":seq,"t":"ms","f":[channels],"r":[[offset_ms, value, …], …]}`` (null: no value), with
``"again":true`` where a batch was numbered anew. Place: after `validate`; a message on ``up`` that begins with
``{"s":`` is one. Pure.

A row costs 28 bytes, as in CBOR, and MicroPython's JSON is written in C. Values are checked with their channels, as
those of every batch are; here only the form is.
"""

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.types import AllowInfNan, Strict

from device_sdk.columns import Batch, Column
from device_sdk.reading import INT_MAX, Value
from device_sdk.wire import MAX_CHANNELS, MAX_FRAME_READINGS
from hub.validate import MalformedError

PREFIX = b'{"s":'
TICK_NS = 1_000_000
# A year on both sides of ``t``: a batch is of minutes.
_MOST_MS = 366 * 86_400_000
# What is no JSON, a text that is not Unicode for one, still has stream and number in front.
_HEAD = re.compile(rb'\{"s":"([0-9a-f]{1,16})","q":([1-9][0-9]{0,18}),"')

_Value = Annotated[int, Strict()] | Annotated[float, Strict(), AllowInfNan(False)] | bool | str | None


class RowsModel(BaseModel):
    """What a message of rows is."""

    model_config = ConfigDict(extra="ignore")

    s: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,16}$")]
    q: Annotated[int, Strict(), Field(ge=1, le=INT_MAX)]
    t: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,13}$")]
    f: Annotated[list[Annotated[str, StringConstraints(max_length=128)]], Field(min_length=1, max_length=MAX_CHANNELS)]
    again: bool = False
    r: Annotated[list[list[_Value]], Field(min_length=1, max_length=MAX_FRAME_READINGS, fail_fast=True)]


def is_rows(data: bytes) -> bool:
    """Say whether a message of ``up`` has this form."""
    return data.startswith(PREFIX)


def read_rows(data: bytes, stream: str) -> Batch:
    """Return the batch.

    Args:
        stream: that the hello named: rows of another are of a connection before.

    Raises:
        MalformedError: it has another form, another stream, or a row has more or less than the channels say.
    """
    try:
        rows = RowsModel.model_validate_json(data)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        where = ".".join(str(part)[:40] for part in found["loc"][:3])
        why = f"rows: {where or 'message'}: {found['msg']}"[:300]
        raise MalformedError(why, *_seq_and_count(data, stream)) from error
    count = sum(value is not None for row in rows.r for value in row[1:])
    if rows.s.rjust(16, "0") != stream:
        raise MalformedError(f"rows of stream {rows.s}, but hello named {stream}: say hello first")
    try:
        if count > MAX_FRAME_READINGS:
            raise ValueError(f"{count} readings in one frame; the limit is {MAX_FRAME_READINGS}")
        return Batch(rows.q, count, int(rows.t) * TICK_NS, TICK_NS, _columns(rows), rows.again)
    except ValueError as error:
        raise MalformedError(f"rows {rows.q}: {error}", rows.q, count) from error


def _columns(rows: RowsModel) -> tuple[Column, ...]:
    width = len(rows.f) + 1
    found: dict[str, tuple[list[int], list[Value]]] = {name: ([], []) for name in rows.f}
    if len(found) < len(rows.f):
        raise ValueError("a channel is named twice")
    for row in rows.r:
        offset = row[0] if len(row) == width else None
        if type(offset) is not int or abs(offset) > _MOST_MS:
            raise ValueError(f"a row is an offset in ms and a value or null for each of the {width - 1} channels")
        for (times, values), value in zip(found.values(), row[1:], strict=True):
            if value is not None:
                times.append(offset)
                values.append(value)
    columns = tuple(Column(name, times, values) for name, (times, values) in found.items() if times)
    if not columns:
        raise ValueError("no row has a value")
    return columns


def _seq_and_count(data: bytes, stream: str) -> tuple[int | None, int]:
    """Return the number of a message of this stream that has another form, and how many values it has."""
    try:
        head = _HeadModel.model_validate_json(data)
    except ValidationError:
        found = _HEAD.match(data)
        if found is None or found[1].decode().rjust(16, "0") != stream or int(found[2]) > INT_MAX:
            return None, 0
        # Commas divide values, rows and names: what is no JSON cannot be counted better.
        rows = data.rpartition(b'"r":[')[2]
        return int(found[2]), min(max(rows.count(b",") - rows.count(b"],["), 0), MAX_FRAME_READINGS)
    if head.s.rjust(16, "0") != stream:
        return None, 0
    return head.q, sum(value is not None for row in head.r if isinstance(row, list) for value in row[1:])


class _HeadModel(BaseModel):
    s: str
    q: Annotated[int, Strict(), Field(ge=1, le=INT_MAX)]
    r: Annotated[list[object], Field(max_length=MAX_FRAME_READINGS)] = []
