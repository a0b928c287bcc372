"""Frames and rows → the messages watchers read, encoded once for all who share them.

Owns: the ``data`` and ``series`` payloads of ``watch.v1``. Place: after `cursor`,
before `room`. Pure.

A message is everything behind the opening brace except ``op`` and ``sub``
(those differ per connection), so its bytes are shared:
    "o":"<cursor>","t0":"<ns>","tick":1000000,"u":[[series,dt,value],…]}
When some rows are late, ``"late":[[begin,end],…]`` comes before ``u``: the rows begin … end - 1 are older than what the
hub had of their series when they came, so a chart inserts them instead of appending. Other rows may be older by 10 ms
at most, or out of order among rows of the same frame. History has no marks: it is ordered by time.
The time of a row is t0 + dt * tick ns, exact. Integers beyond 2**53 (values,
and dt where one frame spans more than 104 days in ns) are decimal strings,
because JavaScript would round them.
With ``agg:"minmax"``, where more than one value came of a series since the message before, up to three of its rows
follow one another in order of time: the least and the greatest reading of that while, named as runs of rows by
``"least"`` and ``"greatest"``, and as the last row the newest. A line through all of them shows every spike. Late
readings are left out, as of all that ``latest`` tells. Where only one row of a series is there, it had no other value.
The first message after ``live`` may reach back before it, to the message that others got before; one who was behind
gets a message for each page of what it missed.
With mode ``sample`` one of ``every`` readings of each series is sent. Which one follows from its place in its frame and
the frame's number in its stream alone: the same for every watcher, after a reconnection and a restart too. Of a channel
that each frame has as many readings of it is every n-th exactly, 16 times, then another of the n; where the number
varies (a device that records faster than it sends), one of n on average, not evenly apart. History (``since`` a time)
and the newest values (``last``) are sent whole in every mode.
With a ``selector`` membership follows what is said of devices: a series whose device gains the tag comes with a
``series`` message and its data from then on; of one that loses it, ``{"op":"series","sub":"s1","s":{},"gone":[12]}``
tells the id, and nothing of it comes until it is named again.
Values are as they are shown: a channel's scale and offset are applied. A ``series`` message that comes again says what
changed; where ``scale`` or ``offset`` (absent: 1 and 0) did, values from before are in the old one.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from math import gcd

import orjson

from device_sdk.reading import Value
from hub.model import Frame, Series, SeriesColumn
from hub.store.base import Row
from hub.unit import unit_shown

TICKS = (10**9, 10**6, 10**3, 1)
# A shift of more ticks than this makes every dt longer than the 70 bytes that another message costs.
_MAX_SHIFT = 2**36
_EXACT = 2**53 - 1
# Pages are cut into messages here, about 8 KB: each is applied, and its cursor stored, in a few milliseconds. In one
# message of a whole page a watcher whose line breaks every 50 KB would begin again and again, and never come forward.
MESSAGE_ROWS = 500

_Row = tuple[int, int, Value]
# Series, time, value shown; whether it is the least, whether the greatest.
Extreme = tuple[int, int, Value, bool, bool]
_Item = tuple[Frame, list[SeriesColumn]]
# Marks of rows by name: [begin, end) each.
_Runs = Mapping[str, Sequence[Sequence[int]]]
_NO_RUNS: _Runs = {}


@dataclass(frozen=True, slots=True)
class Message:
    """One ``data`` message without its head; ``cursor`` is what a client stores after applying it."""

    tail: bytes
    cursor: str


def encode_frames(
    frames: Sequence[Frame], members: Collection[int], upto: int, cursor: Callable[[int], str]
) -> list[Message]:
    """Return the messages of the readings whose series are members, each offset once and in order.

    Args:
        members: series ids (a set: one look-up per column is all the hot path does).
        upto: the last message's cursor stands here, though the last frames may hold nothing that matches.
        cursor: offset → cursor text.
    """
    messages: list[Message] = []
    group: list[_Item] = []
    t0 = tick = rows = 0
    for frame in frames:
        columns = [c for c in frame.columns if c.series.id in members]
        if not columns:
            continue
        if group:
            joined = _join_tick(tick, frame, t0)
            if rows >= MESSAGE_ROWS or abs(frame.t0 - t0) // joined > _MAX_SHIFT:
                late = {"late": _late_runs(group, members)}
                messages.append(_message(_rows(group, t0, tick), t0, tick, cursor(frame.offset - 1), late))
                group, t0, tick, rows = [], frame.t0, frame.tick, 0
            else:
                tick = joined
        else:
            t0, tick = frame.t0, frame.tick
        group.append((frame, columns))
        rows += sum([len(c.column.values) for c in columns])
    if group:
        messages.append(_message(_rows(group, t0, tick), t0, tick, cursor(upto), {"late": _late_runs(group, members)}))
    return messages


def encode_rows(rows: Sequence[Row], cursor: Callable[[int], str]) -> list[Message]:
    """Return messages of stored rows ordered by time, cut only where the time changes.

    ``cursor``: time_ns → cursor text that means "everything up to this time was sent".
    """
    messages: list[Message] = []
    begin = 0
    for at in range(1, len(rows) + 1):
        if at == len(rows) or _is_cut(rows, begin, at):
            messages.append(_rows_message(rows[begin:at], cursor(rows[at - 1].time_ns)))
            begin = at
    return messages


def encode_values(values: Iterable[_Row], cursor: str) -> list[Message]:
    """Return one message of (series, time_ns, value), in any order of time; none when there are no values."""
    rows = [Row(*value) for value in values]
    return [_rows_message(rows, cursor)] if rows else []


def encode_extremes(extremes: Iterable[Extreme], cursor: str) -> list[Message]:
    """Return one message, with marks for the rows that are a least or a greatest reading; none without rows."""
    rows: list[Row] = []
    runs: dict[str, list[list[int]]] = {"least": [], "greatest": []}
    for at, (series, time_ns, value, *marks) in enumerate(extremes):
        rows.append(Row(series, time_ns, value))
        for name, is_marked in zip(runs, marks, strict=True):
            if is_marked:
                _extend(runs[name], at)
    return [_rows_message(rows, cursor, runs)] if rows else []


def encode_series(series: Iterable[Series], gone: Sequence[int] = ()) -> bytes:
    """Return the tail of a ``series`` message: what clients need to name and decode the ids in ``data``.

    ``gone``: ids of which no more will come, until they are named again.
    """
    told = b'"s":' + orjson.dumps({str(s.id): _series_object(s) for s in series})
    return told + (b',"gone":%s}' % orjson.dumps(gone) if gone else b"}")


def scaled(series: Series, values: Sequence[Value]) -> Sequence[Value]:
    """Return values as they are shown; those of a series without a scale are the same object."""
    scaling = series.scaling
    return values if scaling is None else scaling.values(values)


def scaled_rows(rows: Iterable[_Row], members: Mapping[int, Series]) -> Iterable[_Row]:
    """Return (series, time_ns, value) with values as they are shown."""
    for number, time_ns, value in rows:
        yield number, time_ns, scaled(members[number], (value,))[0]


def _series_object(series: Series) -> dict[str, object]:
    effective, kind = series.effective(), series.shown_type
    out: dict[str, object] = {"device": series.device, "channel": series.channel, "unit": effective.unit}
    out["type"] = None if kind is None else kind.value
    out["label"] = effective.label
    shown = unit_shown(effective.unit)
    told = (("unit_shown", None if shown == effective.unit else shown), ("decimals", effective.decimals),
            ("kind", effective.kind), ("scale", effective.scale), ("offset", effective.offset))  # fmt: skip
    out.update((name, value) for name, value in told if value is not None)
    return out


def _join_tick(tick: int, frame: Frame, t0: int) -> int:
    """Return the largest tick in which both the group's and the frame's times are exact."""
    tick = min(tick, frame.tick)
    shift = frame.t0 - t0
    while shift % tick:
        tick //= 1000
    return tick


def _rows(group: list[_Item], t0: int, tick: int) -> list[_Row]:
    rows: list[_Row] = []
    for frame, columns in group:
        shift, factor = (frame.t0 - t0) // tick, frame.tick // tick
        for series_column in columns:
            column = series_column.column
            times: Iterable[int] = column.dt
            if factor != 1:
                times = [dt * factor + shift for dt in times]
            elif shift:
                times = map(shift.__add__, times)
            series, values = series_column.series, column.values
            if series.described.scaling is not None:
                values = scaled(series, values)
            # zip and repeat stay in C: about 0.04 µs a reading, a third of a loop.
            rows += zip(repeat(series.id), times, values, strict=False)
    return rows


def _late_runs(group: list[_Item], members: Collection[int]) -> list[list[int]]:
    """Return [begin, end) of the rows of `_rows` that are late; costs a look at each frame when there are none."""
    runs: list[list[int]] = []
    if not any(frame.late for frame, _ in group):
        return runs
    row = 0
    for frame, columns in group:
        if not frame.late:
            row += sum(len(c.column.values) for c in columns)
            continue
        edges = dict(frame.late)
        for at, series_column in enumerate(frame.columns):
            if series_column.series.id in members:
                edge_ns = edges.get(at)
                for dt in series_column.column.dt:
                    if edge_ns is not None and frame.t0 + dt * frame.tick < edge_ns:
                        _extend(runs, row)
                    row += 1
    return runs


def _extend(runs: list[list[int]], row: int) -> None:
    if runs and runs[-1][1] == row:
        runs[-1][1] = row + 1
    else:
        runs.append([row, row + 1])


def _is_cut(rows: Sequence[Row], begin: int, at: int) -> bool:
    time_ns = rows[at].time_ns
    if time_ns == rows[at - 1].time_ns:
        return False
    return at - begin >= MESSAGE_ROWS or time_ns - rows[begin].time_ns > _EXACT


def _rows_message(rows: Sequence[Row], cursor: str, runs: _Runs = _NO_RUNS) -> Message:
    t0 = min(row.time_ns for row in rows)
    common = gcd(*(row.time_ns - t0 for row in rows))
    tick = next(t for t in TICKS if common % t == 0)
    return _message([(s, (time_ns - t0) // tick, value) for s, time_ns, value, _ in rows], t0, tick, cursor, runs)


def _message(rows: list[_Row], t0: int, tick: int, cursor: str, runs: _Runs = _NO_RUNS) -> Message:
    try:
        body = orjson.dumps(rows, option=orjson.OPT_STRICT_INTEGER)
    except orjson.JSONEncodeError:
        body = orjson.dumps([(s, _exact(dt), _exact(value)) for s, dt, value in rows])
    marks = b"".join(b'"%s":%s,' % (name.encode(), orjson.dumps(of)) for name, of in runs.items() if of)
    return Message(b'"o":"%s","t0":"%d","tick":%d,%s"u":%s}' % (cursor.encode(), t0, tick, marks, body), cursor)


def _exact(value: Value) -> Value:
    if type(value) is int and not -_EXACT <= value <= _EXACT:
        return str(value)
    return value
