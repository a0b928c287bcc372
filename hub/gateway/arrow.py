"""History for programs that compute: Arrow IPC streams and Parquet, in bounded memory.

Owns: the schema of readings and of buckets, and how pages become record batches. Place: below `export`, which knows
the formats that people read. The one door to ``pyarrow``, an extra of the hub: importing it takes 0.1 to 0.2 s and
50 MB, so that is done when such a format is asked for, and not before.

Columns: ``device``, ``channel``, ``unit`` (dictionaries), ``time`` (timestamp[ns, UTC]), then values, then
``received`` when asked for. ``value`` has the one type of all channels: int64, float64, bool or string. Where they have
several, ``value`` is float64 and null where there is no number, and the exact values of other types stand in
``value_int``, ``value_bool``, ``value_str``. Every bit comes back (integers beyond 2**53, -0.0), with one exception:
a channel that widened from int to float is float, and its integers beyond 2**53 become the nearest float there.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from device_sdk.reading import INT_MIN, Value, ValueType
from hub.errors import BadRequestError, UnavailableError
from hub.model import Series
from hub.query import Answer
from hub.store.base import Row

MEDIA = {"arrow": "application/vnd.apache.arrow.stream", "parquet": "application/vnd.apache.parquet"}
SUFFIX = {"arrow": "arrows", "parquet": "parquet"}
# Of a row group, 5 MB of numbers. The end of a Parquet file lists all its groups and is kept until then: with groups of
# this size a billion readings make some 10 MB of it.
GROUP_ROWS = 131_072
# What a channel of a type holds; one that widened has integers from before.
_HOLDS: Mapping[ValueType, set[type]] = {
    ValueType.INT: {int}, ValueType.FLOAT: {int, float}, ValueType.BOOL: {bool}, ValueType.STR: {str},
}  # fmt: skip
# Text is up to 1 KiB a reading.
GROUP_BYTES = 16 * 1024 * 1024


def load_arrow() -> Any:
    """Return ``pyarrow``; 0.2 s at first, so not on the event loop.

    Raises:
        BadRequestError: it is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise BadRequestError(
            "formats arrow and parquet need pyarrow at the hub: install telemetry-hub[arrow], or use csv or ndjson"
        ) from error
    return pyarrow


def reading_chunks(
    series: Sequence[Series],
    pages: Iterable[Sequence[Row]],
    form: str,
    *,
    received: bool = False,
    raw: bool = False,
    group_rows: int = GROUP_ROWS,
) -> Iterator[bytes]:
    """Return the file in pieces: one for each page, or for each row group of Parquet; no more is held.

    Raises: as `load_arrow`, at once. UnavailableError: while it is written, a channel widened or got its first type.
    """
    columns = _Columns(load_arrow(), series, received, raw)
    batches = (columns.batch(page) for page in pages)
    if form == "arrow":
        return _stream(columns.schema, batches)
    return _parquet(columns.schema, _grouped(batches, group_rows))


def answer_file(answer: Answer, form: str) -> bytes:
    """Return buckets as a file: the columns of readings, with one for each aggregate in the place of ``value``.

    An aggregate whose values are all integers is int64, else float64; without a value it is null.

    Raises: as `load_arrow`.
    """
    arrow = load_arrow()
    names = _Names(arrow, answer.series)
    aggregates = answer.columns[2:]
    arrays = names.arrays([int(row[1] or 0) for row in answer.rows])
    # The bucket in which time begins, in 1677, may begin before it.
    times = [max(int(row[0] or 0), INT_MIN) for row in answer.rows]
    arrays.append(arrow.array(times, arrow.timestamp("ns", "UTC")))
    arrays += [_numbers(arrow, [row[at] for row in answer.rows]) for at in range(2, len(answer.columns))]
    batch = arrow.record_batch(arrays, names=["device", "channel", "unit", "time", *aggregates])
    chunks = _stream(batch.schema, [batch]) if form == "arrow" else _parquet(batch.schema, [[batch]])
    return b"".join(chunks)


class _Names:
    """The columns that name a series, by its place in the answer."""

    def __init__(self, arrow: Any, series: Sequence[Series]) -> None:
        self._arrow = arrow
        named = ([s.device for s in series], [s.channel for s in series], [s.effective().unit for s in series])
        self._columns = [self._coded(names) for names in named]

    def arrays(self, at: Sequence[int]) -> list[Any]:
        """Return device, channel and unit of the series at these places; the dictionaries are the same each time."""
        arrow = self._arrow
        return [
            arrow.DictionaryArray.from_arrays(arrow.array([codes[i] for i in at], arrow.int32()), dictionary)
            for codes, dictionary in self._columns
        ]

    def _coded(self, names: Sequence[str | None]) -> tuple[list[int | None], Any]:
        known = {name: code for code, name in enumerate(dict.fromkeys(n for n in names if n is not None))}
        codes = [None if name is None else known[name] for name in names]
        return codes, self._arrow.array(list(known), self._arrow.string())


class _Columns:
    """Pages of rows → record batches of one schema."""

    def __init__(self, arrow: Any, series: Sequence[Series], received: bool, raw: bool) -> None:
        self._arrow = arrow
        self._names = _Names(arrow, series)
        self._at = {s.id: at for at, s in enumerate(series)}
        self._received = received
        self._kinds = {kind for s in series if (kind := s.type if raw else s.shown_type) is not None}
        self._holds = set[type]().union(*(_HOLDS[kind] for kind in self._kinds or (ValueType.FLOAT,)))
        self.schema = self.batch(()).schema

    def batch(self, page: Sequence[Row]) -> Any:
        """Return the rows as a record batch."""
        arrow, time = self._arrow, self._arrow.timestamp("ns", "UTC")
        columns = dict(
            zip(("device", "channel", "unit"), self._names.arrays([self._at[r.series] for r in page]), strict=True)
        )
        columns["time"] = arrow.array([row.time_ns for row in page], time)
        columns |= self._values([row.value for row in page])
        if self._received:
            columns["received"] = arrow.array([row.received_ns for row in page], time)
        return arrow.record_batch(list(columns.values()), names=list(columns))

    def _values(self, values: Sequence[Value]) -> dict[str, Any]:
        arrow, kinds = self._arrow, self._kinds
        if not self._holds.issuperset(map(type, values)):
            # Arrow would write 1.5 to a column of integers as 1, and text beside numbers as nothing.
            raise UnavailableError("a channel got a type that the columns have no place for meanwhile; export again")
        if len(kinds) > 1:
            columns = {"value": arrow.array([_float(value) for value in values], arrow.float64())}
            for kind, name, type_ in (
                (ValueType.INT, "value_int", int),
                (ValueType.BOOL, "value_bool", bool),
                (ValueType.STR, "value_str", str),
            ):
                if kind in kinds:
                    own = [value if type(value) is type_ else None for value in values]
                    columns[name] = arrow.array(own, self._type(kind))
            return columns
        kind = next(iter(kinds), ValueType.FLOAT)
        if kind is ValueType.FLOAT:
            values = [float(value) for value in values]
        return {"value": arrow.array(values, self._type(kind))}

    def _type(self, kind: ValueType) -> Any:
        arrow = self._arrow
        return {
            ValueType.INT: arrow.int64(), ValueType.FLOAT: arrow.float64(),
            ValueType.BOOL: arrow.bool_(), ValueType.STR: arrow.string(),
        }[kind]  # fmt: skip


class _Sink(io.RawIOBase):
    """The file that a writer writes to: what it wrote since it was last asked."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self._position += len(self._parts[-1])
        return len(self._parts[-1])

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _stream(schema: Any, batches: Iterable[Any]) -> Iterator[bytes]:
    from pyarrow import ipc

    sink = _Sink()
    with ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            yield sink.taken()
    yield sink.taken()


def _parquet(schema: Any, groups: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    import pyarrow
    from pyarrow import parquet

    sink = _Sink()
    with parquet.ParquetWriter(sink, schema, compression="zstd") as writer:
        for group in groups:
            writer.write_table(pyarrow.Table.from_batches(group, schema), row_group_size=GROUP_ROWS)
            yield sink.taken()
    yield sink.taken()


def _grouped(batches: Iterable[Any], group_rows: int) -> Iterator[list[Any]]:
    group: list[Any] = []
    rows = size = 0
    for batch in batches:
        group.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= group_rows or size >= GROUP_BYTES:
            yield group
            group, rows, size = [], 0, 0
    if group:
        yield group


def _float(value: Value) -> float | None:
    return float(value) if type(value) in (int, float) else None


def _numbers(arrow: Any, values: Sequence[Value | None]) -> Any:
    if values and all(value is None or type(value) is int for value in values):
        return arrow.array(values, arrow.int64())
    return arrow.array([None if value is None else float(value) for value in values], arrow.float64())
