"""The stores and databases that `tests.bench.bench_store` compares, behind one interface.

Owns: how each is started, written to and asked, as a program that knows it well would do. What turns frames into a
request is not in a side's time: peers get their bodies for nothing, our stores the frames as the hub has them.
"""

import json
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import duckdb
import httpx
import psutil
import pyarrow as pa

from hub.model import Frame
from hub.store.base import Store
from hub.store.columns import ColumnStore
from hub.store.embedded import EmbeddedStore
from tests.support.hub_process import free_port

SECOND_NS = 10**9
_START_LIMIT_S = 30.0
# VictoriaMetrics computes at most so many points of a series by default.
_POINTS = 11_000


class Side(Protocol):
    """One store: filled by one thread, asked by others."""

    def prepare(self, frames: Sequence[Frame]) -> Any:
        """Return what `write` takes; not timed."""

    def write(self, prepared: Any) -> None:
        """Store it, as durable as the side ever makes it."""

    def settle(self) -> None:
        """Do what is still to be done with what was written."""

    def size(self) -> tuple[int, int]:
        """Return the number of readings that are there, and their bytes on disk."""

    def memory_bytes(self) -> int:
        """Return the resident memory of where the data are."""

    def latest(self, series: Sequence[int]) -> int:
        """Ask for the newest reading of each; return how many came."""

    def read(self, series: int, start_ns: int, end_ns: int) -> int:
        """Ask for the readings of one series; return how many came."""

    def minutes(self, series: int, start_ns: int, end_ns: int) -> int:
        """Ask for mean, least and greatest of one series by minute; return how many came."""

    def hours(self, start_ns: int, end_ns: int) -> int:
        """Ask for the hourly mean of every series; return how many came."""

    def kill(self) -> None:
        """End the server as a power cut would end the process; raises where there is none."""

    def start(self) -> None:
        """Start it (again)."""

    def close(self) -> None:
        """End it in order."""


class Own:
    """One of our stores, in this process."""

    def __init__(self, kind: type[ColumnStore] | type[EmbeddedStore], folder: Path, series: int) -> None:
        self._kind, self._path = kind, folder / "readings.sqlite3"
        self._numbers = list(range(1, series + 1))
        self.start()

    def start(self) -> None:
        """Open the file."""
        self.store: Store = self._kind(self._path)

    def prepare(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        """Frames as the hub has them."""
        return frames

    def write(self, prepared: Sequence[Frame]) -> None:
        """One transaction."""
        self.store.write(prepared)

    def settle(self) -> None:
        """Seal, and fsync."""
        if isinstance(self.store, ColumnStore):
            self.store.seal()
        self.store.sync()

    def size(self) -> tuple[int, int]:
        """As the store counts them."""
        found = self.store.statistics()
        return found.rows, found.bytes

    def memory_bytes(self) -> int:
        """Of this process."""
        return int(psutil.Process().memory_info().rss)

    def latest(self, series: Sequence[int]) -> int:
        """As the hub asks."""
        return len(self.store.latest(series))

    def read(self, series: int, start_ns: int, end_ns: int) -> int:
        """As the hub asks."""
        return len(self.store.read([series], start_ns, end_ns, 100_000))

    def minutes(self, series: int, start_ns: int, end_ns: int) -> int:
        """As the hub asks."""
        return len(self.store.aggregate([series], start_ns, end_ns, 60 * SECOND_NS, ["avg", "min", "max"]))

    def hours(self, start_ns: int, end_ns: int) -> int:
        """As the hub asks."""
        return len(self.store.aggregate(self._numbers, start_ns, end_ns, 3600 * SECOND_NS, ["avg"]))

    def kill(self) -> None:
        """It dies with its process."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the file."""
        self.store.close()


class Duck:
    """DuckDB in this process: no key, which takes most of its speed; what came twice is taken out when all is there."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "readings.duckdb"
        self.start()

    def start(self) -> None:
        """Open the file."""
        self._connection = duckdb.connect(str(self._path))
        self._connection.execute("CREATE TABLE IF NOT EXISTS reading(series INTEGER, time_ns BIGINT, value DOUBLE)")

    def prepare(self, frames: Sequence[Frame]) -> pa.Table:
        """An Arrow table, which it takes without a copy."""
        rows = [(series.id, time_ns, value) for frame in frames for series, time_ns, value in frame.rows()]
        series, times, values = zip(*rows, strict=True)
        return pa.table({"series": pa.array(series, pa.int32()), "time_ns": times, "value": pa.array(values)})

    def write(self, prepared: pa.Table) -> None:
        """One transaction, durable."""
        self._connection.register("fresh", prepared)
        self._connection.execute("INSERT INTO reading SELECT * FROM fresh")

    def settle(self) -> None:
        """Keep one row a series and time."""
        self._connection.execute("CREATE TABLE kept AS SELECT DISTINCT ON (series, time_ns) * FROM reading "
                                 "ORDER BY series, time_ns")  # fmt: skip
        self._connection.execute("DROP TABLE reading")
        self._connection.execute("ALTER TABLE kept RENAME TO reading")
        self._connection.execute("CHECKPOINT")

    def size(self) -> tuple[int, int]:
        """Rows, and the blocks in use: it gives no space back to the file."""
        (rows,) = self._asked("SELECT count(*) FROM reading")[0]
        block, used = self._asked("SELECT block_size, used_blocks FROM pragma_database_size()")[0]
        return int(rows), int(block) * int(used)

    def memory_bytes(self) -> int:
        """Of this process."""
        return int(psutil.Process().memory_info().rss)

    def latest(self, series: Sequence[int]) -> int:
        """By its own aggregate for that."""
        return len(self._asked(
            "SELECT series, max(time_ns), arg_max(value, time_ns) FROM reading WHERE series <= ? GROUP BY series",
            max(series),
        ))  # fmt: skip

    def read(self, series: int, start_ns: int, end_ns: int) -> int:
        """Rows as tuples, as ours are."""
        return len(self._asked(
            "SELECT time_ns, value FROM reading WHERE series = ? AND time_ns >= ? AND time_ns < ? ORDER BY time_ns",
            series, start_ns, end_ns,
        ))  # fmt: skip

    def minutes(self, series: int, start_ns: int, end_ns: int) -> int:
        """By groups."""
        return len(self._asked(
            "SELECT time_ns // 60000000000 AS b, avg(value), min(value), max(value) FROM reading "
            "WHERE series = ? AND time_ns >= ? AND time_ns < ? GROUP BY b ORDER BY b",
            series, start_ns, end_ns,
        ))  # fmt: skip

    def hours(self, start_ns: int, end_ns: int) -> int:
        """By groups."""
        return len(self._asked(
            "SELECT series, time_ns // 3600000000000 AS b, avg(value) FROM reading "
            "WHERE time_ns >= ? AND time_ns < ? GROUP BY series, b",
            start_ns, end_ns,
        ))  # fmt: skip

    def kill(self) -> None:
        """It dies with its process."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _asked(self, sql: str, *values: int) -> list[Any]:
        # A connection is of one thread.
        with self._connection.cursor() as cursor:
            return cursor.execute(sql, values).fetchall()


class _Server:
    """A database server as a child process, written to in line protocol over one kept connection."""

    _LINE = "reading,s=%d value=%r %d"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self.start()

    def start(self) -> None:
        """Start the process and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = psutil.Popen(self._command(), stdout=log, stderr=log)
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{self._port}", timeout=120)
        limit = time.monotonic() + _START_LIMIT_S
        while True:
            try:
                if self._http.get("/ping").status_code < 500:
                    return
            except httpx.TransportError:
                pass
            if time.monotonic() > limit or self._process.poll() is not None:
                raise RuntimeError(f"{self._command()[0]} did not start: see {self._folder / 'log'}")
            time.sleep(0.05)

    def prepare(self, frames: Sequence[Frame]) -> bytes:
        """The body."""
        line = self._LINE
        rows = (line % (series.id, value, time_ns) for frame in frames for series, time_ns, value in frame.rows())
        return "\n".join(rows).encode()

    def write(self, prepared: bytes) -> None:
        """One request."""
        self._checked(self._http.post("/write", params={"db": "bench", "precision": "ns"}, content=prepared))

    def memory_bytes(self) -> int:
        """Of the server."""
        return int(self._process.memory_info().rss)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(_START_LIMIT_S)

    def close(self) -> None:
        """Ask it to end."""
        self._process.terminate()
        self._process.wait(_START_LIMIT_S)
        self._http.close()

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _on_disk(self) -> int:
        # Blocks: InfluxDB makes its index files large and leaves them empty.
        return sum(
            512 * path.stat().st_blocks for path in self._folder.rglob("*") if path.is_file() and path.name != "log"
        )

    @staticmethod
    def _checked(answer: httpx.Response) -> httpx.Response:
        if answer.status_code >= 300:
            raise RuntimeError(f"{answer.request.url}: {answer.status_code} {answer.text[:200]}")
        return answer


class Influx(_Server):
    """InfluxDB 1.x over HTTP."""

    def start(self) -> None:
        """Start it, and make the database."""
        super().start()
        self._checked(self._http.post("/query", params={"q": "CREATE DATABASE bench"}))

    def settle(self) -> None:
        """It writes its cache to files when nothing came for ten minutes, or when it starts."""
        self._process.terminate()
        self._process.wait(_START_LIMIT_S)
        self.start()
        time.sleep(2)

    def size(self) -> tuple[int, int]:
        """By its own count, without its log."""
        (answer,) = self._asked("SELECT count(value) FROM reading")
        return int(answer["values"][0][1]), self._on_disk()

    def latest(self, series: Sequence[int]) -> int:
        """One value a group."""
        return len(self._asked("SELECT last(value) FROM reading GROUP BY s"))

    def read(self, series: int, start_ns: int, end_ns: int) -> int:
        """Times in ns."""
        return self._rows(f"SELECT value FROM reading WHERE s='{series}' AND time >= {start_ns} AND time < {end_ns}")

    def minutes(self, series: int, start_ns: int, end_ns: int) -> int:
        """By groups; empty ones left out."""
        return self._rows(
            f"SELECT mean(value), min(value), max(value) FROM reading WHERE s='{series}' AND time >= {start_ns} "
            f"AND time < {end_ns} GROUP BY time(1m) fill(none)"
        )

    def hours(self, start_ns: int, end_ns: int) -> int:
        """By groups."""
        return self._rows(
            f"SELECT mean(value) FROM reading WHERE time >= {start_ns} AND time < {end_ns} "
            "GROUP BY s, time(1h) fill(none)"
        )

    def _rows(self, question: str) -> int:
        return sum(len(series["values"]) for series in self._asked(question))

    def _asked(self, question: str) -> list[dict[str, Any]]:
        answer = self._checked(self._http.get("/query", params={"db": "bench", "epoch": "ns", "q": question}))
        found: list[dict[str, Any]] = answer.json()["results"][0].get("series", [])
        return found

    def _command(self) -> list[str]:
        configuration = self._folder / "influxdb.conf"
        # The second port is for its own backups.
        configuration.write_text(
            f"""reporting-disabled = true
bind-address = "127.0.0.1:{free_port()}"
[meta]
dir = "{self._folder}/meta"
[data]
dir = "{self._folder}/data"
wal-dir = "{self._folder}/wal"
query-log-enabled = false
max-series-per-database = 0
[monitor]
store-enabled = false
[http]
bind-address = "127.0.0.1:{self._port}"
log-enabled = false
"""
        )
        return [shutil.which("influxd") or "influxd", "-config", str(configuration)]


class Victoria(_Server):
    """VictoriaMetrics over HTTP; it keeps milliseconds, which is what the load has."""

    def settle(self) -> None:
        """Make all visible, and merge as it would by itself."""
        self._checked(self._http.get("/internal/force_flush"))
        self._checked(self._http.get("/internal/force_merge"))

    def size(self) -> tuple[int, int]:
        """By the points that it finds."""
        found = 0
        with self._http.stream("GET", "/api/v1/export", params={"match[]": "reading_value"}) as answer:
            for line in answer.iter_lines():
                found += len(json.loads(line)["timestamps"])
        return found, self._on_disk()

    def latest(self, series: Sequence[int]) -> int:
        """The last point, however old."""
        return len(self._asked("/api/v1/query", query="last_over_time(reading_value[10y])"))

    def read(self, series: int, start_ns: int, end_ns: int) -> int:
        """Raw points, which only its export gives."""
        answer = self._checked(
            self._http.get(
                "/api/v1/export",
                params={"match[]": f'reading_value{{s="{series}"}}', "start": start_ns / 1e9, "end": end_ns / 1e9},
            )
        )
        return sum(len(json.loads(line)["timestamps"]) for line in answer.text.splitlines())

    def minutes(self, series: int, start_ns: int, end_ns: int) -> int:
        """Mean, least and greatest: one question each, in one expression."""
        one = f'(reading_value{{s="{series}"}}[60s])'
        expression = ", ".join(f'label_set({name}_over_time{one}, "f", "{name}")' for name in ("avg", "min", "max"))
        step = 60 * max(1, -(-(end_ns - start_ns) // (60 * SECOND_NS * _POINTS)))
        found = self._asked(
            "/api/v1/query_range", query=f"union({expression})", start=start_ns / 1e9 + 60, end=end_ns / 1e9, step=step
        )
        return max((len(series["values"]) for series in found), default=0)

    def hours(self, start_ns: int, end_ns: int) -> int:
        """One expression."""
        found = self._asked(
            "/api/v1/query_range", query="avg_over_time(reading_value[1h])", start=start_ns / 1e9 + 3600,
            end=-(-end_ns // (3600 * SECOND_NS)) * 3600, step=3600,
        )  # fmt: skip
        return sum(len(series["values"]) for series in found)

    def _asked(self, path: str, **parameters: Any) -> list[dict[str, Any]]:
        # Without `nocache` a question that is asked twice is answered from memory the second time.
        answer = self._checked(self._http.get(path, params={**parameters, "nocache": 1}))
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def _command(self) -> list[str]:
        return [
            shutil.which("victoria-metrics") or "victoria-metrics",
            f"-storageDataPath={self._folder}/data",
            f"-httpListenAddr=127.0.0.1:{self._port}",
            "-retentionPeriod=100y",
            "-dedup.minScrapeInterval=1ms",
            "-search.latencyOffset=0s",
            "-search.maxUniqueTimeseries=1000000",
        ]


# Name → what makes it, given a folder of its own and the number of series.
SIDES: Mapping[str, Callable[[Path, int], Side]] = {
    "columns": lambda folder, series: Own(ColumnStore, folder, series),
    "rows": lambda folder, series: Own(EmbeddedStore, folder, series),
    "DuckDB": lambda folder, series: Duck(folder),
    "InfluxDB 1.6": lambda folder, series: Influx(folder),
    "VictoriaMetrics": lambda folder, series: Victoria(folder),
}
IN_PROCESS = ("columns", "rows", "DuckDB")
