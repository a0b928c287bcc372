"""Any CSV file → devices: each row's values are recorded at the row's own time.

Owns: reading rows, what is wrong with them, pacing, moving times. Place: after
`link`, `csv_map` and `local_time`. A file is read twice: all faults are known
before the first reading leaves, and nothing about a time is guessed.
"""

import asyncio
import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path

from device_sdk.reading import Value
from simulators.csv_map import CsvMap, parse_value
from simulators.ledger import Ledger
from simulators.link import Link, SimulatedLink, Summary, drain, open_devices, summarise
from simulators.local_time import TimeError, parse_time
from simulators.progress import NoProgress, Progress

DRAIN_S = 300.0
_DELIMITERS = ",;\t|"
# Asking for a status costs more than recording; a device gains at most this many rows between two checks.
_CHECK_ROWS = 20


@dataclass(frozen=True, slots=True)
class Row:
    """One good row: its line in the file, its instant, and values by device and channel."""

    line: int
    time_ns: int
    values: dict[str, dict[str, Value]]
    blanks: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row is not replayed. ``row`` counts data rows from 1, ``line`` lines of the file."""

    row: int
    line: int
    text: str

    def __str__(self) -> str:
        return f"row {self.row} (line {self.line}): {self.text}"


@dataclass(slots=True)
class Scan:
    """What a file holds: counts, the span of its times, and its faults."""

    rows: int = 0
    readings: int = 0
    blanks: int = 0
    first_ns: int = 0
    last_ns: int = 0
    faults: list[Fault] = field(default_factory=list)


def read_header(path: Path, delimiter: str | None = None) -> tuple[list[str], str]:
    """Return the column names and the delimiter (found in the header unless given).

    Raises:
        ValueError: the file is empty or no text.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        if not first.strip():
            raise ValueError(f"{path}: the first line is empty; it must hold the column names")
        delimiter = delimiter or max(_DELIMITERS, key=first.count)
        file.seek(0)
        return next(csv.reader(file, delimiter=delimiter)), delimiter


def read_rows(path: Path, csv_map: CsvMap, zone: tzinfo | None, delimiter: str = ",") -> Iterator[Row | Fault]:
    """Yield each row, or why it cannot be replayed: a time or a value that cannot be read, a wrong number of fields."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        header = next(reader)
        time_at = header.index(csv_map.time)
        columns = [(header.index(column.name), column) for column in csv_map.columns]
        number = 0
        for fields in reader:
            if not fields:
                continue
            number += 1
            try:
                if len(fields) != len(header):
                    raise ValueError(f"{len(fields)} fields; the header has {len(header)}")
                time_ns = parse_time(fields[time_at], zone)
                values: dict[str, dict[str, Value]] = {}
                blanks = 0
                for at, column in columns:
                    value = parse_value(fields[at], column.type)
                    if value is None:
                        blanks += 1
                    else:
                        values.setdefault(column.device, {})[column.channel] = value
                yield Row(reader.line_num, time_ns, values, blanks)
            except TimeError as error:
                yield Fault(number, reader.line_num, str(error))
            except ValueError as error:
                yield Fault(number, reader.line_num, f"a value cannot be read: {error}")


def scan(path: Path, csv_map: CsvMap, zone: tzinfo | None, delimiter: str = ",") -> Scan:
    """Read the whole file once and return what it holds."""
    result = Scan()
    for row in read_rows(path, csv_map, zone, delimiter):
        if isinstance(row, Fault):
            result.faults.append(row)
            continue
        result.first_ns = min(result.first_ns, row.time_ns) if result.rows else row.time_ns
        result.last_ns = max(result.last_ns, row.time_ns) if result.rows else row.time_ns
        result.rows += 1
        result.blanks += row.blanks
        result.readings += sum(len(values) for values in row.values.values())
    return result


def rebase_to_now(scanned: Scan, now_ns: int, speed: float | None) -> Callable[[int], int]:
    """Return the move of times for ``--rebase-time now``.

    As fast as acks allow: the file's last row becomes now, so all of it is
    history. With a speed: the first row becomes now and time runs ``speed``
    times faster, so every row's time is the time it is sent.
    """
    if speed is None:
        return lambda time_ns: time_ns + now_ns - scanned.last_ns
    return lambda time_ns: now_ns + round((time_ns - scanned.first_ns) / speed)


async def run_replay(
    link: Link,
    rows: Iterator[Row | Fault],
    csv_map: CsvMap,
    scanned: Scan,
    *,
    speed: float | None = None,
    move: Callable[[int], int] | None = None,
    ledger: Ledger | None = None,
    progress: Progress | None = None,
    drain_s: float = DRAIN_S,
) -> Summary:
    """Record every good row, then wait for the acks.

    Args:
        rows: of `read_rows`; faults are passed over (the scan has named them).
        speed: how many times faster than the file's times; None: as fast as acks allow.
        move: changes each time; None keeps the file's times.

    Cancellation: may be cancelled; what is un-acked stays in the spool, if there is one on disk.
    """
    started = time.monotonic()
    async with open_devices(link, csv_map.devices, ledger) as links:
        for column in csv_map.columns:
            links[column.device].device.channel(column.channel, unit=column.unit, type=column.type)
        pace = _Pace(scanned.first_ns, speed)
        await _record_rows(rows, links, pace, move or _unmoved, progress or NoProgress())
        opened = list(links.values())
        await drain(opened, drain_s)
        summary = summarise(opened, time.monotonic() - started)
    return summary


async def _record_rows(
    rows: Iterator[Row | Fault],
    links: dict[str, SimulatedLink],
    pace: "_Pace",
    move: Callable[[int], int],
    progress: Progress,
) -> None:
    done = 0
    for row in rows:
        if isinstance(row, Fault):
            continue
        await pace.wait_until_due(row.time_ns)
        time_ns = move(row.time_ns)
        for device, values in row.values.items():
            links[device].record(values, time_ns)
        done += 1
        progress.update(done, f"{done} rows")
        if done % _CHECK_ROWS == 0:
            for opened in links.values():
                await opened.wait_for_room()
            await asyncio.sleep(0)


class _Pace:
    """Waits until a row is due; without a speed every row is."""

    def __init__(self, first_ns: int, speed: float | None) -> None:
        self._first_ns, self._speed = first_ns, speed
        self._start = time.monotonic()

    async def wait_until_due(self, time_ns: int) -> None:
        if self._speed is None:
            return
        wait_s = self._start + (time_ns - self._first_ns) / 1e9 / self._speed - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)


def _unmoved(time_ns: int) -> int:
    return time_ns
