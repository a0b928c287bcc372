"""What a backup costs a hub under load: the delay of acks before, during a backup beside it, during one by REST.

``python -m tests.bench.bench_backup [--readings N] [--keep]`` prints a Markdown table. One device sends a frame of 10
readings each 5 ms to a real hub over a real socket; the delay is from send to ack. The data folder holds ``N``
readings (about 40 bytes each in journal and store together).
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from device_sdk import wire
from device_sdk.columns import encode_batch, to_columns
from device_sdk.reading import Channel, Reading
from hub.auth import Identities
from hub.journal.sqlite import SqliteJournal
from hub.roles import Role
from hub.store.embedded import EmbeddedStore
from tests.support.frames import T0, FrameMaker
from tests.support.hub_process import ROOT, HubProcess

PERIOD_S = 0.005
QUIET_S = 10.0


def fill(data: Path, readings: int) -> None:
    """Write journal and store as a hub that has taken ``readings``."""
    data.mkdir(parents=True)
    maker = FrameMaker()
    with (
        closing(SqliteJournal(data / "journal.sqlite3")) as journal,
        closing(EmbeddedStore(data / "readings.sqlite3")) as store,
    ):
        for at in range(0, readings, 20_000):
            frames = [
                maker.batch(f"old-{d}", [("t", T0 + (at + i) * 10**6, i * 0.37) for i in range(1000)])
                for d in range(20)
            ]
            journal.append(frames, maker.all_series())
            store.write(frames)


async def load(socket: ClientConnection, first: int, until: Callable[[], bool]) -> list[float]:
    """Send and wait for the ack, frame after frame, until told; return the delays in seconds."""
    delays: list[float] = []
    seq = first
    while not until():
        body = encode_batch(to_columns(seq, [Reading("x", T0 + seq * 10**9 + i, i * 0.5) for i in range(10)]))
        begun = time.perf_counter()
        await socket.send(body, text=body[:1] == b"{")
        while json.loads(await socket.recv())["stored"] < seq:
            pass
        delays.append(time.perf_counter() - begun)
        seq += 1
        await asyncio.sleep(max(0.0, PERIOD_S - delays[-1]))
    return delays


async def run(data: Path) -> list[tuple[str, float, list[float]]]:
    """Measure the three phases against one hub."""
    with closing(Identities(data / "identities.sqlite3")) as identities:
        token, (_, admin) = identities.add_device("d"), identities.add_token(Role.ADMIN)
    phases: list[tuple[str, float, list[float]]] = []
    with HubProcess(data) as hub:
        url, protocol = hub.ws_url + wire.DEVICE_PATH, Subprotocol(wire.DEVICE_SUBPROTOCOL)
        headers = {"Authorization": f"Bearer {token}"}
        async with connect(url, subprotocols=[protocol], additional_headers=headers, compression=None) as socket:
            hello = wire.Hello("d", "9f3a0000000000bb", "boot", "run", 0, 1, wire.CHAIN_START.hex())
            await socket.send(wire.encode(hello).decode())
            await socket.recv()
            await socket.send(wire.encode(wire.Schema((Channel("x"),))).decode())
            command = [sys.executable, "-m", "hub", "backup"]
            works: list[tuple[str, Callable[[], Awaitable[object]]]] = [
                ("no backup", lambda: asyncio.sleep(QUIET_S)),
                ("backup --data", lambda: backup([*command, str(data.parent / "a"), "--data", str(data)])),
                ("no backup", lambda: asyncio.sleep(QUIET_S)),
                ("backup --url", lambda: backup(
                    [*command, str(data.parent / "b"), "--url", hub.url, "--token", admin])),
            ]  # fmt: skip
            seq = 1
            for name, work in works:
                begun = time.perf_counter()
                task = asyncio.ensure_future(work())
                delays = await load(socket, seq, task.done)
                await task
                seq += len(delays)
                phases.append((name, time.perf_counter() - begun, delays))
    return phases


async def backup(command: list[str]) -> None:
    """Run a backup as its own process."""
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
    assert await process.wait() == 0, "the backup failed"


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readings", type=int, default=8_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        fill(data, options.readings)
        size = sum(path.stat().st_size for path in data.iterdir())
        phases = asyncio.run(run(data))
    print(
        f"{size / 1e6:.0f} MB of data\n\n"
        "| | s | acks | p50 ms | p99 ms | most ms |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name, seconds, delays in phases:
        delays.sort()
        p50, p99 = (delays[int(len(delays) * share)] * 1e3 for share in (0.5, 0.99))
        print(f"| {name} | {seconds:.1f} | {len(delays)} | {p50:.2f} | {p99:.2f} | {delays[-1] * 1e3:.1f} |")


if __name__ == "__main__":
    main()
