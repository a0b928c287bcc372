"""`Rows`: what a query gives, as a sequence of dicts and as the data frames of other libraries.

Owns: the shape of those frames. Place: below `client`. Must not: import polars, pandas or pyarrow before one of them is
asked for; the SDK needs none.

The shape, the same for each library. *Long* (the default): one line for each row of the answer, in its order, with
``device``, ``channel``, ``unit`` (categories), ``time`` (nanoseconds, UTC, zone-aware), then ``value`` or one column
for each aggregate. *Wide*: one line for each time, ascending, and one column for each series, named
``device/channel``, or of several aggregates ``device/channel:aggregate``; units are left out.

*Gaps.* A null says that there is no value: in a bucket that was filled with null, and in a wide frame where another
series has that time. Buckets without readings are not there at all unless the query asked for ``fill``.

*Types.* A column of one type has it: integers of 64 bits, floats, booleans, text. Integers and floats of one column
become floats, which are exact up to 2**53. In a long frame ``value`` holds several channels: when they are of
several types, it is float and null where there is no number, and ``value_int``, ``value_bool`` and ``value_str`` hold
the values of their type exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from device_sdk.errors import MisuseError
from device_sdk.reading import Value

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

_NAMES = ("device", "channel", "unit")
# Of a row, before its values: the names, and the time.
_KEYS = 4


class _Column(NamedTuple):
    """A column of a frame; ``kind``: name, time, int, float, bool or str."""

    name: str
    kind: str
    values: list[Any]


class Rows(Sequence[dict[str, Value | None]]):
    """The answer of a query: a sequence of dicts; ``rows`` and ``columns`` hold the same as tuples.

    Columns: device, channel, unit, time_ns, then value, or one per aggregate. As a data frame: `to_polars`,
    `to_pandas`, `to_arrow`; the shape is told at the head of this module.
    """

    def __init__(self, columns: Sequence[str], rows: Sequence[tuple[Value | None, ...]]) -> None:
        self.columns = tuple(columns)
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> dict[str, Value | None]: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> dict[str, Value | None] | Rows:
        if isinstance(index, slice):
            return Rows(self.columns, self.rows[index])
        return dict(zip(self.columns, self.rows[index], strict=True))

    def __repr__(self) -> str:
        return f"<Rows: {len(self.rows)} × {', '.join(self.columns)}>"

    def to_polars(self, *, wide: bool = False) -> polars.DataFrame:
        """Return a polars frame: ``time`` is Datetime("ns", "UTC"), names are Categorical, gaps are null.

        Args:
            wide: one column for each series instead of one line for each reading.

        Raises:
            MisuseError: polars is not installed.
        """
        try:
            import polars
        except ImportError as error:
            raise MisuseError("to_polars needs polars: pip install polars") from error
        types: dict[str, Any] = {
            "name": polars.Categorical, "int": polars.Int64, "float": polars.Float64, "bool": polars.Boolean,
            "str": polars.String, "time": polars.Int64,
        }  # fmt: skip
        columns = [polars.Series(c.name, c.values, dtype=types[c.kind]) for c in self._columns(wide)]
        # From integers: through datetime they would lose their nanoseconds.
        return polars.DataFrame(columns).with_columns(polars.col("time").cast(polars.Datetime("ns", "UTC")))

    def to_pandas(self, *, wide: bool = False) -> pandas.DataFrame:
        """Return a pandas frame: ``time`` is datetime64[ns, UTC], names are category.

        Gaps are NaN in floats; integers and booleans with gaps have pandas' nullable types.

        Args:
            wide: one column for each series, and ``time`` as index, so that it can be plotted and resampled.

        Raises:
            MisuseError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MisuseError("to_pandas needs pandas: pip install pandas") from error
        whole = {"int": "int64", "bool": "bool"}
        types = {"name": "category", "int": "Int64", "float": "float64", "bool": "boolean", "str": "object"}
        columns: dict[str, Any] = {}
        for name, kind, values in self._columns(wide):
            if kind == "time":
                columns[name] = pandas.to_datetime(pandas.Series(values, dtype="int64"), unit="ns", utc=True)
            else:
                found = types[kind] if None in values else whole.get(kind, types[kind])
                columns[name] = pandas.Series(values, dtype=found)
        frame = pandas.DataFrame(columns)
        return frame.set_index("time") if wide else frame

    def to_arrow(self, *, wide: bool = False) -> pyarrow.Table:
        """Return an Arrow table: ``time`` is timestamp[ns, UTC], names are dictionaries, gaps are null.

        Args:
            wide: one column for each series instead of one line for each reading.

        Raises:
            MisuseError: pyarrow is not installed.
        """
        try:
            import pyarrow
        except ImportError as error:
            raise MisuseError("to_arrow needs pyarrow: pip install pyarrow") from error
        types = {
            "name": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()), "time": pyarrow.timestamp("ns", "UTC"),
            "int": pyarrow.int64(), "float": pyarrow.float64(), "bool": pyarrow.bool_(), "str": pyarrow.string(),
        }  # fmt: skip
        columns = self._columns(wide)
        return pyarrow.table([pyarrow.array(c.values, types[c.kind]) for c in columns], names=[c.name for c in columns])

    def _columns(self, wide: bool) -> list[_Column]:
        return self._wide() if wide else self._long()

    def _long(self) -> list[_Column]:
        names = self.columns[_KEYS:]
        keys = [[row[at] for row in self.rows] for at in range(_KEYS)]
        columns = [_Column(name, "name", values) for name, values in zip(_NAMES, keys, strict=False)]
        columns.append(_Column("time", "time", keys[-1]))
        for at, name in enumerate(names, _KEYS):
            values = [row[at] for row in self.rows]
            columns += _mixed(values) if name == "value" else [_typed(name, values)]
        return columns

    def _wide(self) -> list[_Column]:
        names = self.columns[_KEYS:]
        lines = {time_ns: at for at, time_ns in enumerate(sorted({int(row[3] or 0) for row in self.rows}))}
        found: dict[str, list[Value | None]] = {}
        for device, channel, _, time_ns, *values in self.rows:
            for name, value in zip(names, values, strict=True):
                title = f"{device}/{channel}" if len(names) == 1 else f"{device}/{channel}:{name}"
                found.setdefault(title, [None] * len(lines))[lines[int(time_ns or 0)]] = value
        return [_Column("time", "time", list(lines)), *(_typed(name, values) for name, values in found.items())]


def _kinds(values: Iterable[Value | None]) -> set[str]:
    return {type(value).__name__ for value in values if value is not None}


def _typed(name: str, values: list[Value | None]) -> _Column:
    """Return a column of one series, or of one aggregate: of one type, or of numbers."""
    kinds = _kinds(values)
    if len(kinds) == 1:
        return _Column(name, kinds.pop(), values)
    return _Column(name, "float", [None if value is None else float(value) for value in values])


def _mixed(values: list[Value | None]) -> list[_Column]:
    """Return the values of many series: one column, or one for each type beside the numbers."""
    kinds = _kinds(values)
    if len(kinds) < 2:
        return [_typed("value", values)]
    numbers = [float(value) if type(value) in (int, float) else None for value in values]  # type: ignore[arg-type]
    return [
        _Column("value", "float", numbers),
        *(
            _Column(f"value_{kind}", kind, [value if type(value).__name__ == kind else None for value in values])
            for kind in ("int", "bool", "str")
            if kind in kinds
        ),
    ]
