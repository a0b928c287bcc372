"""The trust boundary: foreign bytes become trusted messages and columns, or reasons.

Owns: the per-reading rejections. Place: after `model` and `device_message`,
before `session`. Pure.

A batch is validated as whole columns (measured 0.06–0.1 µs a reading against
0.5–1 µs as rows); only a column that fails is looked at value by value.
Values are checked, never converted: the body stays the one truth.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Any

import orjson
from pydantic import Field, StringConstraints, TypeAdapter, ValidationError
from pydantic.types import AllowInfNan, Strict

from device_sdk import columns
from device_sdk.columns import Batch, Column
from device_sdk.errors import ProtocolError, Reason
from device_sdk.reading import INT_MAX, INT_MIN, MAX_STRING_BYTES, Channel, Value, ValueType, is_channel_name, type_of
from device_sdk.wire import (
    MAX_CONTROL_BYTES,
    MAX_CONTROL_DEPTH,
    MAX_FRAME_READINGS,
    MAX_TIME_NS,
    MIN_TIME_NS,
    PROTOCOL_VERSION,
    Bye,
    Earlier,
    Gap,
    Hello,
    Rejection,
    Reply,
    Reported,
    Schema,
    is_deeper,
    unpack,
)
from hub.device_message import TICKS, BatchModel, GapModel, HelloModel, ReplyModel, ReportedModel, SchemaModel
from hub.model import Series, SeriesColumn

# An ack names at most this many rejected readings; the rest are in `rejected_total` and the audit.
MAX_REJECTIONS_NAMED = 100

_SPACE = b" \t\r\n"
_NONE_REFUSED: Mapping[str, Mapping[int, str]] = {}
# "-9223372036854775808" has 20; more would only be work for `int`.
_INT_CHARS = 20

_VALUES: dict[ValueType, TypeAdapter[Any]] = {
    ValueType.FLOAT: TypeAdapter(list[Annotated[float, Strict(), AllowInfNan(False)]]),
    ValueType.INT: TypeAdapter(list[Annotated[int, Strict(), Field(ge=INT_MIN, le=INT_MAX)]]),
    ValueType.BOOL: TypeAdapter(list[Annotated[bool, Strict()]]),
    ValueType.STR: TypeAdapter(list[Annotated[str, Strict(), StringConstraints(max_length=MAX_STRING_BYTES)]]),
}
# Looked up once: through the enum it takes 80 ns (CPython 3.11).
_FLOAT = ValueType.FLOAT


class MalformedError(ProtocolError):
    """The message cannot be taken as a whole; ``seq`` and ``count`` are set when at least those could be read."""

    def __init__(self, message: str, seq: int | None = None, count: int = 0) -> None:
        super().__init__(message, Reason.MALFORMED)
        self.seq = seq
        self.count = count


@dataclass(frozen=True, slots=True)
class Checked:
    """A batch after validation: what is taken, what is refused, and the body that tells exactly that.

    ``reason`` is of all refused readings, "" when they differ: only `MAX_REJECTIONS_NAMED` of them are named.
    """

    columns: tuple[SeriesColumn, ...]
    readings: int
    rejected: tuple[Rejection, ...]
    body: bytes
    rejected_count: int = 0
    retyped: tuple[Series, ...] = ()
    reason: str = ""


def unpacked(data: bytes) -> bytes:
    """Return the message inside a deflated one; raise `MalformedError` for a bomb or broken bytes."""
    try:
        return unpack(data)
    except ProtocolError as error:
        raise MalformedError(str(error)) from error


def parse_message(data: bytes, is_text: bool) -> Hello | Schema | Gap | Bye | Reply | Reported | Batch:
    """Return the device's message with its structure checked (values of a batch are not yet).

    Raises:
        MalformedError: not JSON, an unknown op, a field missing or outside its limits.
    """
    if not is_text:
        return _binary(data)
    # A batch is by far the most frequent; its keys come in protocol order from every SDK of ours.
    if data.startswith(b'{"op":"batch"'):
        return _batch(data)
    try:
        obj = orjson.loads(data)
        op = obj["op"]
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedError(f"a message must be a JSON object with an op: {error!r}") from error
    if op == "batch":
        return _batch(data)
    parse = _OPS.get(op) if isinstance(op, str) else None
    if parse is None:
        raise MalformedError(f"op {str(op)[:40]!r} is not known in protocol {PROTOCOL_VERSION}")
    try:
        return parse(obj)
    except ValidationError as error:
        seq = obj.get("seq") if op == "gap" else None
        raise MalformedError(_first(error, op), seq if _is_seq(seq) else None) from error


def check_batch(
    batch: Batch,
    body: bytes,
    find: Callable[[str], Series | None],
    *,
    has_all_channels: bool = False,
    most_named: int = MAX_REJECTIONS_NAMED,
    refused: Mapping[str, Mapping[int, str]] = _NONE_REFUSED,
    is_changed: bool = False,
) -> Checked:
    """Check every reading of a batch against its series.

    Args:
        batch: structurally sound, from `parse_message`.
        body: the bytes as received.
        find: channel name → its declared series, or None.
        has_all_channels: the device has as many channels as it may; a further one is refused for that.
        most_named: at most so many refused readings are named, all are counted.
        refused: channel → index → why, of readings that are refused already; nothing else is looked at of them.
        is_changed: the body tells other values than the batch.

    Returns:
        Accepted columns in order. ``retyped`` names series whose type this batch settled: declared without one,
        or int until a float arrived.
    """
    good: list[SeriesColumn] = []
    bad: list[Rejection] = []
    retyped: list[Series] = []
    reasons: set[str] = set()
    unknown = Reason.CHANNEL_LIMIT if has_all_channels else Reason.UNKNOWN_CHANNEL
    count = readings = 0
    for column in batch.columns:
        series = find(column.channel)
        before = refused.get(column.channel)
        failed = _failed(batch, column, series, unknown, retyped) if not before else dict(before)
        kept = _without(column, failed)
        if before and kept is not None:
            at = [i for i in range(len(column.values)) if i not in before]
            failed.update((at[i], why) for i, why in _failed(batch, kept, series, unknown, retyped).items())
            kept = _without(column, failed)
        if kept is not None:
            assert series is not None, "of a series that is not known all readings failed"
            good.append(SeriesColumn(series, kept))
            readings += len(kept.values)
        if failed:
            count += len(failed)
            reasons.update(failed.values())
            room = most_named - len(bad)
            bad += [Rejection(batch.seq, column.channel[:128], i, r) for i, r in sorted(failed.items())[:room]]
    # Readers tell JSON from binary by the first byte; space in front of an object is legal JSON.
    body = _body_of(batch, good) if count or is_changed else body.lstrip(_SPACE)
    shared = str(next(iter(reasons))) if len(reasons) == 1 else ""
    return Checked(tuple(good), readings, tuple(bad), body, count, tuple(retyped), shared)


def _batch(data: bytes) -> Batch:
    try:
        model = BatchModel.model_validate_json(data)
    except ValidationError as error:
        found = columns.read_seq_and_count(data.lstrip(_SPACE))
        raise MalformedError(_first(error, "batch"), *(found or (None, 0))) from error
    try:
        if model.tick not in TICKS:
            raise ValueError(f"tick {model.tick}: use 1, 1000, 1000000 or 1000000000 ns")
        t0 = int(model.t0)
        batch = Batch(model.seq, model.count, t0, model.tick, _columns(model), model.again, model.time_estimated)
        _check_count(batch)
    except ValueError as error:
        raise MalformedError(f"batch {model.seq}: {error}", model.seq, model.count) from error
    return batch


def _columns(model: BatchModel) -> tuple[Column, ...]:
    found: list[Column] = []
    for name, column in model.c.items():
        n = len(column.v)
        dt = column.dt if column.step is None else range(0, n * column.step, column.step)
        if dt is None or len(dt) != n:
            raise ValueError(f"channel {name[:128]!r} needs one dt for each of its {n} values, or a step")
        values = [_big_int(v) for v in column.v] if column.type == "int" else column.v
        found.append(Column(name, dt, values))
    return tuple(found)


def _big_int(value: object) -> Value:
    """Read an int beyond 2**53, which travels as a decimal string; whoever reads the body again does the same."""
    if isinstance(value, str):
        if len(value) > _INT_CHARS:
            raise ValueError(f"{value[:_INT_CHARS]!r}…: a column of type int holds 64-bit integers")
        return int(value)
    return value  # type: ignore[return-value]  # checked with its column


def _binary(data: bytes) -> Batch:
    try:
        batch = columns.decode_binary(data)
        _check_count(batch)
    except (ProtocolError, ValueError) as error:
        found = columns.read_seq_and_count(data)
        raise MalformedError(str(error), *(found or (None, 0))) from error
    return batch


def _check_count(batch: Batch) -> None:
    found = sum([len(c.values) for c in batch.columns])
    if found != batch.count:
        raise ValueError(f"count says {batch.count}, the columns hold {found} readings")
    if found > MAX_FRAME_READINGS:
        raise ValueError(f"{found} readings in one frame; the limit is {MAX_FRAME_READINGS}: send more, smaller frames")


def _failed(
    batch: Batch, column: Column, series: Series | None, unknown: Reason, retyped: list[Series]
) -> dict[int, str]:
    if series is None:
        why = unknown if is_channel_name(column.channel) else Reason.BAD_NAME
        return dict.fromkeys(range(len(column.values)), why)
    values = _check_values(series, column.values, retyped)
    times = _check_times(batch, column)
    return {**values, **times} if values or times else {}


def _check_values(series: Series, values: Any, retyped: list[Series]) -> dict[int, Reason]:
    if series.type is None:
        known = next((type_of(v) for v in values if isinstance(v, float | int | str)), None)
        if known is None:
            # Nulls say nothing about what the channel will hold.
            return {i: _reason("", v) for i, v in enumerate(values)}
        series.type = known
        retyped.append(series)
    kind = series.type
    if kind is _FLOAT and len(values) == 1 and type(values[0]) is float and isfinite(values[0]):
        # A device that sends each reading at once: all that follows costs three times what this does.
        return {}
    try:
        _VALUES[kind].validate_python(values)
    except ValidationError as error:
        if kind is ValueType.INT and any(type(v) is float for v in values):
            retyped.append(series)
            series.type = ValueType.FLOAT
            return _check_values(series, values, retyped)
        return {int(e["loc"][0]): _reason(e["type"], values[int(e["loc"][0])]) for e in error.errors()}
    if kind is ValueType.STR:
        return {i: Reason.TOO_LONG for i, v in enumerate(values) if len(v.encode()) > MAX_STRING_BYTES}
    if kind is ValueType.FLOAT and int in set(map(type, values)):
        # A float channel takes integers as they are; beyond 64 bits no store can.
        return {i: Reason.OUT_OF_RANGE for i, v in enumerate(values) if type(v) is int and not INT_MIN <= v <= INT_MAX}
    return {}


def _reason(kind: str, value: object) -> Reason:
    if kind == "finite_number" or value is None:
        return Reason.NOT_FINITE
    if kind == "string_too_long":
        return Reason.TOO_LONG
    if kind in ("greater_than_equal", "less_than_equal"):
        return Reason.OUT_OF_RANGE
    return Reason.TYPE_CONFLICT


def _check_times(batch: Batch, column: Column) -> dict[int, Reason]:
    t0, tick = batch.t0, batch.tick
    if len(column.dt) == 1 and MIN_TIME_NS <= t0 + column.dt[0] * tick < MAX_TIME_NS:
        return {}
    if MIN_TIME_NS <= t0 + min(column.dt) * tick and t0 + max(column.dt) * tick < MAX_TIME_NS:
        return {}
    return {
        i: Reason.TIME_OUT_OF_RANGE for i, dt in enumerate(column.dt) if not MIN_TIME_NS <= t0 + dt * tick < MAX_TIME_NS
    }


def _without(column: Column, failed: Mapping[int, str]) -> Column | None:
    if not failed:
        return column
    kept = [i for i in range(len(column.values)) if i not in failed]
    if not kept:
        return None
    return Column(column.channel, [column.dt[i] for i in kept], [column.values[i] for i in kept])


def _body_of(batch: Batch, good: list[SeriesColumn]) -> bytes:
    kept = tuple(c.column for c in good)
    count = sum(len(c.values) for c in kept)
    # Binary where that is exact: a quarter of the time of JSON. A peer's t0 may be beyond what its header holds.
    encode = columns.encode_batch if INT_MIN <= batch.t0 <= INT_MAX else columns.encode_json
    return encode(batch._replace(count=count, columns=kept))


def _hello(obj: dict[str, Any]) -> Hello:
    m = HelloModel.model_validate(obj)
    earlier = tuple(Earlier(e.stream, e.acked, e.next, e.chain) for e in m.earlier)
    return Hello(
        m.device, m.stream, m.boot, m.run, m.acked, m.next, m.chain, m.sdk, m.proto, m.seen, earlier,
        int(m.mono_ns), int(m.wall_ns), m.clock, m.link,
    )  # fmt: skip


def _schema(obj: dict[str, Any]) -> Schema:
    model = SchemaModel.model_validate(obj)
    found = []
    for name, c in model.channels.items():
        low, high = c.range or (None, None)
        found.append(Channel(name, c.unit, c.type, c.every_s, low, high, c.label))
    commands = model.commands
    if commands is None:
        return Schema(tuple(found))
    told = {name: command.model_dump(exclude_unset=True) for name, command in commands.items()}
    _check_size("commands", told)
    return Schema(tuple(found), told)


def _gap(obj: dict[str, Any]) -> Gap:
    m = GapModel.model_validate(obj)
    return Gap(m.seq, m.count, m.reason, {name: (int(a), int(b)) for name, (a, b) in m.ranges.items()})


def _bye(obj: dict[str, Any]) -> Bye:
    return Bye()


def _reply(obj: dict[str, Any]) -> Reply:
    m = ReplyModel.model_validate(obj)
    _check_size("value", m.value)
    return Reply(m.id, m.ok, m.value, m.error)


def _reported(obj: dict[str, Any]) -> Reported:
    m = ReportedModel.model_validate(obj)
    _check_size("state", m.state)
    return Reported(m.version, m.state, m.mark)


def _check_size(what: str, value: object) -> None:
    # First: what is far deeper could be read as JSON and not be written again.
    if is_deeper(value, MAX_CONTROL_DEPTH):
        raise MalformedError(f"{what} is nested deeper than {MAX_CONTROL_DEPTH} levels")
    size = len(orjson.dumps(value))
    if size > MAX_CONTROL_BYTES:
        raise MalformedError(f"{what} takes {size} bytes as JSON; the limit is {MAX_CONTROL_BYTES}")


_OPS: dict[str, Callable[[dict[str, Any]], Hello | Schema | Gap | Bye | Reply | Reported]] = {
    "hello": _hello,
    "schema": _schema,
    "gap": _gap,
    "bye": _bye,
    "reply": _reply,
    "reported": _reported,
}


def _first(error: ValidationError, op: str) -> str:
    found = error.errors()[0]
    where = ".".join(str(part)[:40] for part in found["loc"])
    return f"{op}: {where or 'message'}: {found['msg']}"[:300]


def _is_seq(value: object) -> bool:
    return type(value) is int and 1 <= value <= INT_MAX
