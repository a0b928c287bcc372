"""Fan-out side by side: this hub, Node socket.io and ws, python-socketio, websockets.broadcast, mosquitto, nats-server.

``python -m tests.bench.bench_fanout [--part P] [--server S] [--seconds 3]`` prints a Markdown table for each question;
all parts take about ten minutes. A delivery is one reading to one watcher. Every server runs alone, on one core; one
generator (`tests.bench.fanout_crowd`) is all watchers and the publisher, on the other. Ours is the whole hub, durable:
each reading is validated, in the journal with an fsync before its ack and before anybody sees it, and in the store; the
others keep nothing. What the generator itself can take shows the row of a server that only writes.
"""

import argparse
import gc
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.bench.fanout_crowd import Crowd, Delays, Rate, StuckError
from tests.bench.fanout_dialect import Bare
from tests.bench.fanout_side import GENERATOR_CORE, SERVERS, MissingError, Side, ours

FEW, MANY, ALL = 100, 1000, 10_000
# Of a message of several.
BATCH = 100
STALLED, STALLED_BYTES = 10, 13_000_000
# Connections before memory is first looked at: what a server loads with the first ones is not the price of one more.
FIRST = 50
FILES = 65_536
IDLE_S = 31.0


@dataclass
class Question:
    """A table: its title, its columns behind the first, what is aimed at."""

    title: str
    columns: Sequence[str]
    goal: str
    rows: list[Sequence[str]] = field(default_factory=list)


RATE = ("deliveries per server CPU s", "deliveries/s", "CPU server / generator", "batches of 100, per server CPU s")
QUESTIONS = {
    "few": Question("100 watchers, 32 readings outstanding", RATE, "≥ 2.1 M per server CPU s"),
    # Nothing waits, so nothing can leave together.
    "alone": Question("100 watchers, one reading outstanding", RATE, ""),
    "many": Question("1,000 watchers, 16 readings outstanding", RATE, "≥ 835 k deliveries/s"),
    "delay": Question("100 watchers, 100 readings/s", ("p50 ms", "p99 ms"), "≤ 0.9 / 2.4 ms"),
    "burst": Question("a reading to 1,000 watchers at once, 10 a second", ("p50 ms", "p99 ms"), "≤ 5.8 / 12.9 ms"),
    "memory": Question("an idle watcher with one subscription, of 1,000", ("RSS, KiB",), "≤ 12 KiB"),
    "stalled": Question(
        "10 watchers that stop reading, 13 MB due to each",
        ("RSS grows by", "came when they read on", "connections closed", "told"),
        "≤ 4 MiB, told `lag`",
    ),
    "bytes": Question("bytes per reading", ("a message each", "batches of 100"), "≤ 15 in batches"),
    "acks": Question(
        "a device's ack, 100 messages of 10 readings a second (ours)",
        ("p50 ms", "p99 ms", "p99 to none stalled"),
        "≤ 1.5 ×",
    ),
    "curve": Question(
        "server CPU from 1 to 10,000 watchers, 16 readings outstanding (ours)",
        ("one pattern: µs a reading", "deliveries per CPU s", "a pattern each: µs a reading", "deliveries per CPU s"),
        "",
    ),
    "idle": Question(
        "10,000 idle watchers (ours)",
        (
            "RSS a watcher, KiB",
            "connecting, CPU µs each",
            "CPU idle",
            "CPU of pings and positions, µs a watcher and minute",
        ),
        "≤ 12 KiB",
    ),
}


@dataclass(frozen=True)
class Run:
    """What was asked for."""

    seconds: float
    cache: Path
    servers: Sequence[str]


def main() -> int:
    """Measure what is asked for and print it; return 1 when ours could not be measured."""
    parser = argparse.ArgumentParser(description="Fan-out side by side.")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "telemetry-bench"
    parser.add_argument("--cache", type=Path, default=cache, help="folder of the peers' packages")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part")
    parser.add_argument("--server", choices=SERVERS, action="append", help="only this server")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each closed loop")
    options = parser.parse_args()
    run = Run(options.seconds, options.cache, options.server or list(SERVERS))
    _allow_files()
    os.sched_setaffinity(0, {GENERATOR_CORE})
    begun = time.monotonic()
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores, {_load()} before")
    try:
        for part in options.part or PARTS:
            print(f"{part} …", file=sys.stderr, flush=True)
            PARTS[part](run)
    finally:
        _print(run)
    print(f"\n{time.monotonic() - begun:.0f} s, {_load()} after")
    ours_name = SERVERS["ours"].name
    rows = [row for question in QUESTIONS.values() for row in question.rows if row[0] == ours_name]
    return int(any(row[1].startswith("not measured") for row in rows))


# --- parts with all servers ---------------------------------------------------------------------------------------


def few(run: Run) -> None:
    """100 watchers: how fast, how late, how large."""

    def measure(name: str, side: Side) -> None:
        with _crowd(side) as crowd:
            crowd.connect(FEW)
            crowd.connect_publisher()
            crowd.paced(20, 0.01)
            single = _bytes(crowd, lambda: _delays("delay", name, crowd.paced(300, 0.01)))
            if not _is_bare(side):
                batch = _bytes(crowd, lambda: crowd.paced(30, 0.02, BATCH))
                _row("bytes", name, f"{single:.1f}", f"{batch:.1f}")
            _rates("few", name, side, crowd, 32, run.seconds)
            _rates("alone", name, side, crowd, 1, run.seconds)

    _each(run, measure, "few", "alone", "delay", "bytes")


def many(run: Run) -> None:
    """1,000 watchers: what each costs, how late, how fast."""

    def measure(name: str, side: Side) -> None:
        with _crowd(side) as crowd:
            crowd.connect(FIRST)
            crowd.connect_publisher()
            crowd.paced(20, 0.02)
            before = _settled_rss(crowd, side)
            crowd.connect(MANY - FIRST)
            if not _is_bare(side):
                _row("memory", name, f"{(_settled_rss(crowd, side) - before) / (MANY - FIRST) / 1024:.1f}")
            _delays("burst", name, crowd.paced(40, 0.1))
            _rates("many", name, side, crowd, 16, run.seconds)

    _each(run, measure, "many", "burst", "memory")


def stalled(run: Run) -> None:
    """Ten that stop reading beside two that read; all that is due to them was sent twice before without them."""

    def measure(name: str, side: Side) -> None:
        if _is_bare(side):
            return
        with _crowd(side) as crowd, _crowd(side) as sleepers:
            crowd.connect(2)
            crowd.connect_publisher()
            size = _bytes(crowd, lambda: crowd.push(50, 16, BATCH, lambda: None)) * BATCH
            messages = int(STALLED_BYTES / size)
            for _ in range(2):
                crowd.push(messages, 16, BATCH, lambda: None)
            before = _settled_rss(crowd, side)
            sleepers.connect(STALLED, is_stalled=True)
            peak = Peak(side.pid)
            crowd.push(messages, 16, BATCH, peak.look)
            crowd.idle(1.0)
            peak.look()
            sleepers.is_looking = True
            sleepers.wake()
            sleepers.read_for(8.0, messages * BATCH, BATCH)
            came = sum(sleepers.counts) / (STALLED * messages * BATCH)
            told = "`lag`" if sleepers.lags else "nothing"
            grown = f"{(peak.bytes - before) / 2**20:+.1f} MiB"
            _row("stalled", name, grown, f"{came:.1%}", str(sleepers.closed), told)

    _each(run, measure, "stalled")


# --- parts of ours alone ------------------------------------------------------------------------------------------


def acks(run: Run) -> None:
    """What watchers cost the device."""
    p99: dict[tuple[int, int], float] = {}
    for count, asleep in ((0, 0), (MANY, 0), (MANY, FEW)):
        with _ours(run) as side, _crowd(side) as crowd, _crowd(side) as sleepers:
            crowd.connect(count - asleep)
            crowd.connect_publisher()
            sleepers.connect(asleep, is_stalled=True)
            # More than the kernel and the hub hold for one.
            crowd.paced(500, 0.004, BATCH)
            found = sorted(crowd.paced(600, 0.01, 10).acks_ms)
            p99[count, asleep] = _at(found, 0.99)
            name = f"{count:,} watchers, {asleep} of them stalled" if count else "no watcher"
            ratio = p99[count, asleep] / p99.get((MANY, 0), p99[count, asleep])
            _row("acks", name, f"{_at(found, 0.5):.2f}", f"{_at(found, 0.99):.2f}", f"{ratio:.2f} ×" if count else "–")


def curve(run: Run) -> None:
    """What a reading costs the more watch it."""
    rates: dict[int, list[Rate]] = {}
    for has_own in (False, True):
        with _ours(run, has_own) as side, _crowd(side) as crowd:
            crowd.connect_publisher()
            have = 0
            for count in (1, 10, FEW, MANY, ALL):
                crowd.connect(count - have)
                have = count
                crowd.paced(3, 0.1)
                rates.setdefault(count, []).append(crowd.closed_loop(16, min(run.seconds, 2.0)))
    for count, found in rates.items():
        cells = [cell for r in found for cell in (f"{r.server_s / max(r.messages, 1) * 1e6:,.0f}", _short(r.per_cpu_s))]
        _row("curve", f"{count:,}", *cells)


def idle(run: Run) -> None:
    """10,000 that wait: memory, and what it takes to keep them."""
    with _ours(run) as side, _crowd(side) as crowd:
        crowd.connect(FIRST)
        crowd.connect_publisher()
        crowd.paced(20, 0.02)
        alone = crowd.idle(5.0) / 5.0
        before = _settled_rss(crowd, side)
        server = psutil.Process(side.pid)
        begun = sum(server.cpu_times()[:2])
        crowd.connect(ALL - FIRST)
        cpu = sum(server.cpu_times()[:2]) - begun
        grown = _settled_rss(crowd, side) - before
        used = crowd.idle(IDLE_S)
        each = (used - alone * IDLE_S) / ALL / IDLE_S * 60 * 1e6
        count = ALL - FIRST
        _row(
            "idle", f"{ALL:,} ({crowd.pings:,} pings answered, {crowd.closed} closed)", f"{grown / count / 1024:.1f}",
            f"{cpu / count * 1e6:,.0f}", f"{used / IDLE_S:.1%} (with {FIRST}: {alone:.1%})", f"{each:,.0f}",
        )  # fmt: skip


PARTS: dict[str, Callable[[Run], None]] = {
    "few": few, "many": many, "stalled": stalled, "acks": acks, "curve": curve, "idle": idle,
}  # fmt: skip


# --- inside ---------------------------------------------------------------------------------------------------------


class Peak:
    """The largest resident memory of a process, looked at fifty times a second at most."""

    def __init__(self, pid: int) -> None:
        self.bytes, self._process, self._at = 0, psutil.Process(pid), 0.0

    def look(self) -> None:
        """Look, when it is time."""
        if time.monotonic() - self._at > 0.02:
            self._at = time.monotonic()
            self.bytes = max(self.bytes, self._process.memory_info().rss)


def _each(run: Run, measure: Callable[[str, Side], None], *questions: str) -> None:
    """Measure each server in its turn; one that cannot be measured has a row with the reason."""
    for key in run.servers:
        server = SERVERS[key]
        print(f"  {key} …", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="bench-fanout-") as folder:
            try:
                with server.running(Path(folder), run.cache) as side:
                    measure(server.name, side)
            except (MissingError, StuckError, OSError, psutil.Error) as error:
                for question in questions:
                    if not any(row[0] == server.name for row in QUESTIONS[question].rows):
                        _row(question, server.name, f"not measured: {error}")


@contextmanager
def _ours(run: Run, has_own_patterns: bool = False) -> Iterator[Side]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-fanout-") as folder,
        ours(Path(folder), run.cache, has_own_patterns=has_own_patterns) as side,
    ):
        yield side


@contextmanager
def _crowd(side: Side) -> Iterator[Crowd]:
    """Give a crowd; nothing is collected meanwhile."""
    with closing(Crowd(side.dialect, side.port, side.pid)) as crowd:
        gc.collect()
        gc.disable()
        try:
            yield crowd
        finally:
            gc.enable()


def _bytes(crowd: Crowd, act: Callable[[], object]) -> float:
    """Return the bytes of each delivery that an action makes."""
    size, count = crowd.bytes, crowd.total
    act()
    return (crowd.bytes - size) / (crowd.total - count)


def _settled_rss(crowd: Crowd, side: Side) -> int:
    crowd.idle(0.7)
    return int(psutil.Process(side.pid).memory_info().rss)


def _is_bare(side: Side) -> bool:
    return isinstance(side.dialect, Bare)


def _rates(question: str, name: str, side: Side, crowd: Crowd, outstanding: int, seconds: float) -> None:
    single = crowd.closed_loop(outstanding, seconds)
    cpu = f"{single.server_s / single.wall_s:.0%} / {single.own_s / single.wall_s:.0%}"
    # The server that only writes knows no batches.
    batches = (
        "–" if _is_bare(side) else _short(crowd.closed_loop(max(outstanding // 8, 1), seconds / 2, BATCH).per_cpu_s)
    )
    _row(question, name, _short(single.per_cpu_s), _short(single.per_s), cpu, batches)


def _delays(question: str, name: str, delays: Delays) -> None:
    found = sorted(delays.deliveries_ms)
    _row(question, name, f"{_at(found, 0.5):.2f}", f"{_at(found, 0.99):.2f}")


def _at(ordered: Sequence[float], part: float) -> float:
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)]


def _short(number: float) -> str:
    return f"{number / 1e6:,.2f} M" if number >= 1e6 else f"{number / 1e3:,.0f} k"


def _row(question: str, name: str, *cells: str) -> None:
    print(f"    {question}: {', '.join(cells)}", file=sys.stderr, flush=True)
    QUESTIONS[question].rows.append((name, *cells))


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f}"


def _allow_files() -> None:
    """Allow as many descriptors as 10,000 connections need, here and in every server."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, max(FILES, hard)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _print(run: Run) -> None:
    for question in QUESTIONS.values():
        if not question.rows:
            continue
        print(f"\n### {question.title[0].upper()}{question.title[1:]}\n")
        print(f"| | {' | '.join(question.columns)} |\n| --- |{' --- |' * len(question.columns)}")
        for row in question.rows:
            print(f"| {' | '.join([*row, *['–'] * (1 + len(question.columns) - len(row))])} |")
        if question.goal:
            print(f"\nGoal: {question.goal}.")
    versions = []
    for key in run.servers:
        try:
            versions.append(f"{SERVERS[key].name.strip('*')} {SERVERS[key].about(run.cache)}".strip())
        except (MissingError, OSError):
            continue
    print(f"\n{'; '.join(versions)}")


if __name__ == "__main__":
    sys.exit(main())
