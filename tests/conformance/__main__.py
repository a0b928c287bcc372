"""Check a server's watching side: no gap, no duplicate, order kept, whatever happens to connections and server.

    python -m tests.conformance --aborts 50
    python -m tests.conformance --url https://hub.local:8000 --token T --device D --device-token T

Without ``--url`` it starts a hub of its own, in a temporary folder, and devices by the SDK. With it,
what needs a hold on the server (restart, restore, expire) is left out; the device should be a new one, and its
numbers stay in that hub. Prints a Markdown table and the seed; exit code 1 when anything was wrong (of ours: rows of
a ``--peer`` are for comparison).
"""

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.conformance.adapter import CONNECT_S, Adapter, LostError, MissingError, RefusedError, Wish
from tests.conformance.poll import PollAdapter
from tests.conformance.scenarios import SCENARIOS, Job, Row
from tests.conformance.socketio import SocketIoAdapter, socketio_server
from tests.conformance.sse import SseAdapter
from tests.conformance.target import CHANNEL, Target, other_hub, own_hub
from tests.conformance.websocket import WebSocketAdapter

ADAPTERS: dict[str, Adapter] = {a.name: a for a in (WebSocketAdapter(), SseAdapter(), PollAdapter())}
# One connection in so many: the server is killed that often in `restart`.
ABORTS_PER_KILL = 50
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "telemetry-bench"
COLUMNS = ("scenario", "transport", "readings", "aborts", "gaps", "duplicates", "out of order", "resumed", "reset", "")


async def run(options: argparse.Namespace, seed: int) -> list[Row]:
    """Run the scenarios asked for and return their rows."""
    job = Job(options.aborts, options.readings, max(2, options.aborts // ABORTS_PER_KILL), seed)
    async with _target(options) as target:
        adapters, rows = [], []
        for adapter in (ADAPTERS[name] for name in options.transports):
            try:
                if await _is_there(adapter, target):
                    adapters.append(adapter)
            except (LostError, RefusedError, TimeoutError) as error:
                rows.append(_failed("connect", adapter.name, error))
        return [*rows, *(await _scenarios(options, target, adapters, job) if adapters else [])]


async def run_peer(options: argparse.Namespace, seed: int) -> list[Row]:
    """Do the same to Node Socket.IO with connection state recovery."""
    job = Job(options.aborts, options.readings, max(2, options.aborts // ABORTS_PER_KILL), seed)
    try:
        async with socketio_server(options.cache) as target:
            return await _scenarios(options, target, [SocketIoAdapter()], job)
    except (OSError, subprocess.SubprocessError) as error:
        say(f"socket.io: left out, it could not be installed: {error}")
        return []


async def _scenarios(options: argparse.Namespace, target: Target, adapters: Sequence[Adapter], job: Job) -> list[Row]:
    rows: list[Row] = []
    for name in options.scenario or SCENARIOS:
        scenario, needs = SCENARIOS[name]
        if not needs <= target.can:
            say(f"{name}: left out, {target.name} here cannot {', '.join(sorted(needs - target.can))}")
            continue
        begun = time.monotonic()
        try:
            rows += await scenario(target, adapters, job)
        except Exception as error:
            # Who did not end it tells the others nothing either; what is known so far is shown.
            return [*rows, _failed(name, "all", error)]
        say(f"{name}: {time.monotonic() - begun:.1f} s")
    return rows


def _failed(scenario: str, transport: str, error: Exception) -> Row:
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    return Row(scenario, transport, 0, 0, None, 0, 0, 0, 0, [f"could not be carried out: {what}"])


async def _is_there(adapter: Adapter, target: Target) -> bool:
    connection = await adapter.connect(target.place, Wish((f"{target.device}/{CHANNEL}",)))
    try:
        # A poll may keep the question for a while.
        async with asyncio.timeout(2 * CONNECT_S):
            await connection.receive()
    except MissingError as error:
        say(f"{adapter.name}: left out, {error}")
        return False
    finally:
        connection.abort()
    return True


@asynccontextmanager
async def _target(options: argparse.Namespace) -> AsyncIterator[Target]:
    if options.url is None:
        with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
            async with own_hub(Path(folder)) as target:
                yield target
        return
    async with other_hub(options.url, options.token, options.device, options.device_token, options.ca) as target:
        yield target


def say(text: str) -> None:
    """Tell a person how far the run is."""
    print(text, file=sys.stderr, flush=True)


def table(rows: Sequence[Row]) -> str:
    """Return rows as Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "| --- | --- |" + " ---: |" * 7 + " --- |"]
    for row in rows:
        gaps = "–" if row.gaps is None else f"{row.gaps:,}"
        counts = [f"{n:,}" for n in (row.duplicates, row.disordered, row.resumed, row.resets)]
        result = "; ".join(row.faults) or "ok"
        cells = [row.scenario, row.transport, f"{row.readings:,}", f"{row.aborts:,}", gaps, *counts, result]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__.partition("\n")[0])
    parser.add_argument("--url", help="a hub that runs; without it one is started")
    parser.add_argument("--token", help="of a watcher, with --url")
    parser.add_argument("--device", help="a device of that hub that sends the numbers")
    parser.add_argument("--device-token", help="its token")
    parser.add_argument("--ca", type=Path, help="certificate authority of that hub (PEM)")
    parser.add_argument("--aborts", type=int, default=50, help="connections cut for each transport")
    parser.add_argument("--readings", type=int, default=0, help="at least so many in the scenario `abort`")
    parser.add_argument("--transports", type=_transports, default=list(ADAPTERS), help="of ws,sse,poll")
    parser.add_argument("--scenario", choices=SCENARIOS, action="append", help="only this one")
    parser.add_argument("--peer", action="store_true", help="Node Socket.IO with state recovery in the table too")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the peer's packages")
    parser.add_argument("--seed", type=int, help="default: a new one, printed")
    options = parser.parse_args(arguments)
    if options.url is not None and not (options.device and options.device_token):
        parser.error("--url needs --device and --device-token: something must send the numbers")
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    say(f"seed {seed}")
    rows = asyncio.run(run(options, seed))
    peers = asyncio.run(run_peer(options, seed)) if options.peer else []
    print(f"{table([*rows, *peers])}\n\nseed {seed}, {options.aborts} aborts")
    return int(not rows or any(row.faults for row in rows))


def _transports(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(ADAPTERS):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(ADAPTERS)}")
    return names


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
