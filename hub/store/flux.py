"""InfluxDB 2.x as an engine: written to as 1.x is, asked in Flux.

Owns: questions in Flux and answers in annotated CSV. Place: after `store.influx`, whose connections it uses. A bucket
needs no mapping to a database then, and what InfluxQL cannot do on 2.x, deleting, has a request of its own.

Source: InfluxDB 2.7 documentation, "Query with the InfluxDB API", "Annotated CSV", "Delete data"; Flux standard library
0.x, ``pivot``, ``tail``, ``aggregateWindow``. Nothing of this was run against a server here:
`tests/hub/store/test_flux.py` holds the requests to the letter, and `tests/contract` asks a server where
``INFLUXDB_V2_URL`` names one.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from hub.errors import StoreError
from hub.store.influx import STATEMENTS, InfluxEngine, value_of
from hub.store.line_protocol import FIELDS, FLOAT, MEASUREMENT, SeriesName, tags_of
from hub.store.remote import Rows

# The first and last time that the server keeps; the last one is only the end of a range.
_FIRST_NS, _LAST_NS = -(2**63) + 2, 2**63 - 2
_FUNCTIONS = {"avg": "mean"}
_COLUMNS = ("_time", "kind", *FIELDS.values())
_DIALECT = {"header": True, "annotations": ["datatype", "group", "default"]}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Record = dict[str, Any]


class FluxEngine(InfluxEngine):
    """One InfluxDB 2.x server; arguments and errors as those of `InfluxEngine`."""

    def read(
        self, names: Sequence[SeriesName], start_ns: int, end_ns: int, limit: int, *, descending: bool = False
    ) -> list[Rows]:
        """Return of each series its first ``limit`` rows of [start_ns, end_ns), in order."""
        # Each field is cut before the fields of an instant are put together: the first rows need no later ones.
        first = "tail" if descending else "limit"
        columns = ", ".join(map(_text, _COLUMNS))
        asked = [
            f"{self._from(name, start_ns, end_ns)} |> {first}(n: {limit}) "
            '|> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value") '
            f"|> keep(columns: [{columns}]) "
            f'|> sort(columns: ["_time"], desc: {str(descending).lower()}) |> limit(n: {limit})'
            for name in names
        ]
        found = self._records(asked, start_ns, end_ns)
        return [
            [(r["_time"], value_of(r["kind"], *(r.get(field) for field in FIELDS.values()))) for r in records]
            for records in found
        ]

    def buckets(
        self, names: Sequence[SeriesName], start_ns: int, end_ns: int, step_ns: int, origin_ns: int,
        functions: Sequence[str],
    ) -> list[list[tuple[int, tuple[float | int, ...]]]]:  # fmt: skip
        """Return of each series of floats its non-empty buckets."""
        offset = origin_ns % step_ns
        asked = [
            f"{self._from(name, start_ns, end_ns, FIELDS[FLOAT])} |> aggregateWindow(every: {step_ns}ns, "
            f'offset: {offset}ns, fn: {_FUNCTIONS.get(f, f)}, createEmpty: false, timeSrc: "_start")'
            for name in names
            for f in functions
        ]
        found = self._records(asked, start_ns, end_ns)
        out = []
        for at in range(0, len(found), len(functions)):
            buckets: dict[int, list[float | int]] = {}
            for function, records in zip(functions, found[at : at + len(functions)], strict=True):
                for record in records:
                    # The first window begins where the range does: its bucket began before.
                    begin = (record["_time"] - offset) // step_ns * step_ns + offset
                    value = record["_value"]
                    buckets.setdefault(begin, []).append(value if function == "count" else float(value))
            out.append([(begin, tuple(values)) for begin, values in sorted(buckets.items())])
        return out

    def count(self, names: Sequence[SeriesName]) -> list[int]:
        """Return how many rows each series has."""
        found = self._records(
            [f"{self._from(name, _FIRST_NS, _LAST_NS, 'kind')} |> count()" for name in names], _FIRST_NS, _LAST_NS
        )
        return [records[0]["_value"] if records else 0 for records in found]

    def delete(self, name: SeriesName) -> None:
        """Delete a series."""
        predicate = " AND ".join(f"{key}={_text(value)}" for key, value in tags_of(name).items())
        body = {
            "start": "1677-09-21T00:12:43.145224194Z",
            "stop": "2262-04-11T23:47:16.854775806Z",
            "predicate": f'_measurement="{MEASUREMENT}" AND {predicate}',
        }
        where = {"org": self._address.organisation, "bucket": self._address.database}
        self._run(self._post("/api/v2/delete", params=where, json=body))

    def _from(self, name: SeriesName, start_ns: int, end_ns: int, field: str = "") -> str:
        tags = " and ".join(f"r.{key} == {_text(value)}" for key, value in tags_of(name).items())
        of_field = f" and r._field == {_text(field)}" if field else ""
        return (
            f"from(bucket: {_text(self._address.database)}) "
            f"|> range(start: time(v: {max(start_ns, _FIRST_NS)}), stop: time(v: {min(end_ns, _LAST_NS)})) "
            f'|> filter(fn: (r) => r._measurement == "{MEASUREMENT}" and {tags}{of_field})'
        )

    def _records(self, asked: Sequence[str], start_ns: int, end_ns: int) -> list[list[Record]]:
        """Return the records of each question; of an empty range the server would make an error."""
        found: list[list[Record]] = [[] for _ in asked]
        if max(start_ns, _FIRST_NS) >= min(end_ns, _LAST_NS):
            return found
        for begin in range(0, len(asked), STATEMENTS):
            part = asked[begin : begin + STATEMENTS]
            flux = "\n".join(f'{question} |> yield(name: "{begin + at}")' for at, question in enumerate(part))
            body = {"query": flux, "type": "flux", "dialect": _DIALECT}
            where = {"org": self._address.organisation}
            text = self._run(
                self._post("/api/v2/query", params=where, json=body, headers={"Accept": "application/csv"})
            )
            for record in records_of(text):
                found[int(record["result"])].append(record)
        return found


def records_of(text: str) -> Iterator[Record]:
    """Yield the records of annotated CSV, values by their column's type; empty ones are left out, but for texts.

    Raises:
        StoreError: the server put an error into its answer, or it is no annotated CSV.
    """
    kinds: list[str] = []
    defaults: list[str] = []
    header: list[str] = []
    for row in csv.reader(io.StringIO(text, newline="")):
        if not row or row == [""]:
            header = []
        elif row[0] == "#datatype":
            kinds, header = row, []
        elif row[0] == "#default":
            defaults = row
        elif row[0].startswith("#"):
            continue
        elif not header:
            header = row
        elif "error" in header and "reference" in header:
            raise StoreError(f"InfluxDB: {row[header.index('error')][:300]}")
        elif not len(row) == len(header) == len(kinds) == len(defaults):
            raise StoreError("InfluxDB: an answer that is no annotated CSV")
        else:
            yield {
                name: _parsed(kind, cell or default)
                for name, kind, cell, default in zip(header, kinds, row, defaults, strict=True)
                if name and (cell or default or kind == "string")
            }


def _parsed(kind: str, cell: str) -> Any:
    match kind:
        case "long" | "unsignedLong":
            return int(cell)
        case "double":
            return float(cell)
        case "boolean":
            return cell == "true"
        case "string":
            return cell
        case _:
            return _time_ns(cell)


def _time_ns(cell: str) -> int:
    """Return epoch ns of ``2026-01-31T12:00:00.123456789Z``."""
    whole, _, fraction = cell.removesuffix("Z").partition(".")
    since = datetime.fromisoformat(whole).replace(tzinfo=UTC) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 10**9 + int(fraction.ljust(9, "0") or 0)


def _text(text: str) -> str:
    """Return a text as Flux and predicates write it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${")
    return f'"{escaped}"'
