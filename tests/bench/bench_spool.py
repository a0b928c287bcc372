"""What one `record` and one `cut` cost: files, memory, and a SQLite commit beside them in the same run.

Run: ``python -m tests.bench.bench_spool [READINGS]``. Each figure is the best of five rounds: other
work on the machine only ever adds. The SQLite row is what an outbox in a database pays (WAL,
``synchronous=OFF``, so that neither side waits for the disk), one commit per reading.
"""

import sqlite3
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from device_sdk.memory_spool import MemorySpool
from device_sdk.reading import Value
from device_sdk.spool import FileSpool, Spool

T = 1_795_376_000_000_000_000
ROUNDS = 5
CUT_READINGS = 500
NUMERIC: list[tuple[str, Value]] = [("temperature", 21.53)]
FOUR: list[tuple[str, Value]] = [("temperature", 21.53), ("humidity", 47.1), ("battery", 3.91), ("door", True)]


def main(readings: int = 20_000) -> None:
    """Print the table."""
    print(f"{'':<28}{'µs per record':>16}{'ms per cut of 500':>20}")
    with tempfile.TemporaryDirectory(prefix="bench-spool-") as name:
        home = Path(name)
        spools: list[tuple[str, Callable[[int], Spool]]] = [
            ("FileSpool", lambda i: FileSpool(home / f"file-{i}", boot="bench")),
            (
                "FileSpool without fsync",
                lambda i: FileSpool(home / f"cut-{i}", boot="bench", sync_file=lambda fd: None),
            ),
            ("MemorySpool", lambda i: MemorySpool()),
        ]
        for label, make in spools:
            one = min(_record(make(i), NUMERIC, readings) for i in range(ROUNDS))
            cut = min(_cut(make(ROUNDS + i), readings) for i in range(ROUNDS))
            print(f"{label:<28}{one:>16.2f}{cut:>20.3f}")
        four = min(_record(FileSpool(home / f"four-{i}", boot="bench"), FOUR, readings // 4) for i in range(ROUNDS))
        print(f"{'FileSpool, 4 values at once':<28}{four:>16.2f}")
        sqlite = min(_sqlite(home / f"{i}.sqlite", readings) for i in range(ROUNDS))
        print(f"{'SQLite, a commit each':<28}{sqlite:>16.2f}")


def _record(spool: Spool, values: list[tuple[str, Value]], readings: int) -> float:
    """Return µs per call."""
    record = spool.record
    start = perf_counter()
    for now_ns in range(T, T + readings * 1_000_000, 1_000_000):
        record(values, None, now_ns)
    took = perf_counter() - start
    spool.close()
    return took / readings * 1e6


def _cut(spool: Spool, readings: int) -> float:
    """Return ms per frame of 500 readings, acks left out."""
    for now_ns in range(T, T + readings * 1_000_000, 1_000_000):
        spool.record(NUMERIC, None, now_ns)
    took = 0.0
    frames = 0
    while True:
        start = perf_counter()
        frame = spool.cut(CUT_READINGS)
        took += perf_counter() - start
        if frame is None:
            break
        frames += 1
        spool.acknowledge(frame.seq, frame.chain, "bench.1")
    spool.close()
    return took / frames * 1e3


def _sqlite(path: Path, readings: int) -> float:
    """Return µs per inserted and committed reading."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=OFF")
    database.execute("CREATE TABLE spool (id INTEGER PRIMARY KEY, channel TEXT, time_ns INTEGER, value)")
    start = perf_counter()
    for now_ns in range(T, T + readings * 1_000_000, 1_000_000):
        database.execute("INSERT INTO spool (channel, time_ns, value) VALUES (?, ?, ?)", ("temperature", now_ns, 21.53))
    took = perf_counter() - start
    database.close()
    return took / readings * 1e6


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
