"""Acked frames: ours, ``websockets.serve``, Node Socket.IO and the hub with its journal, in the same run.

``python -m tests.bench.bench_frames [seconds]`` prints a Markdown table. Every
server runs alone, with the same raw generator (`tests.bench.load`) on the other
core: 50 connections, 1 or 16 frames in flight each. Socket.IO is installed from
npm into a temporary folder for the run, and measured with its own Node client as well.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hub.auth import Identities
from tests.bench.load import Load, Result
from tests.support.hub_process import HubProcess

HERE = Path(__file__).parent
CONNECTIONS = 50
RUNS = ((1, 1), (1, 16), (100, 1), (100, 16))


@dataclass(frozen=True)
class Server:
    """A running server under test."""

    name: str
    port: int
    pid: int
    dialect: str = "plain"
    tokens: tuple[str, ...] = ()


def main() -> None:
    """Measure all and print the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    machine = f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores"
    print(f"{machine}, load {os.getloadavg()[0]:.1f} before; {seconds:g} s each\n")
    print("| server | single, W=1 | single, W=16 | × 100, W=1 | × 100, W=16 |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="bench-frames-") as folder:
        for name in ("ours", "websockets"):
            with process([sys.executable, "-m", "tests.bench.frame_server", name]) as (port, pid):
                row(Server({"ours": "ours, journal off", "websockets": "websockets.serve"}[name], port, pid), seconds)
        node = install_socketio(Path(folder))
        if node is not None:
            environment = {**os.environ, "NODE_PATH": str(node)}
            with process(["node", str(HERE / "socketio_server.cjs")], environment) as (port, pid):
                row(Server("Node Socket.IO", port, pid, "socketio"), seconds)
                own_client_row(port, seconds, environment)
        hub_row(Path(folder) / "data", seconds)
    print("\nframes/s (single readings) and readings/s (× 100), acked; in brackets µs of server CPU per frame.")


def row(server: Server, seconds: float) -> None:
    """Measure one server in all runs and print its row."""
    cells = []
    for readings, window in RUNS:
        load = Load(server.port, server.pid, server.dialect, window, readings, CONNECTIONS, seconds, server.tokens)
        result = measure(load)
        cells.append(f"{result.frames_per_s * readings / 1000:,.0f} k ({result.server_us:.1f})")
    print(f"| {server.name} | " + " | ".join(cells) + " |", flush=True)


def measure(load: Load) -> Result:
    """Run the generator in a process of its own."""
    arguments = json.dumps(load.__dict__)
    output = subprocess.run(
        [sys.executable, "-m", "tests.bench.load"],
        input=arguments,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    ).stdout
    return Result(**json.loads(output))


def own_client_row(port: int, seconds: float, environment: dict[str, str]) -> None:
    """Measure Socket.IO with its own client, which costs more than the server."""
    cells = []
    for readings, window in RUNS:
        command = ["node", str(HERE / "socketio_load.cjs"), *map(str, (port, CONNECTIONS, window, readings, seconds))]
        output = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=environment, timeout=120
        ).stdout
        cells.append(f"{float(output) * readings / 1000:,.0f} k")
    print("| Node Socket.IO, its own client | " + " | ".join(cells) + " |", flush=True)


def hub_row(data: Path, seconds: float) -> None:
    """Measure the whole hub: validation, the journal's commit before each ack, store and live behind it."""
    data.mkdir()
    identities = Identities(data / "identities.sqlite3")
    tokens = tuple(identities.add_devices([f"bench-{i}" for i in range(CONNECTIONS)]).values())
    identities.close()
    hub = HubProcess(data).start()
    try:
        row(Server("hub, journal on (durable)", hub.port, hub.pid, "telemetry", tokens), seconds)
    finally:
        hub.stop()


def install_socketio(folder: Path) -> Path | None:
    """Install Socket.IO for this run; None, said aloud, where that cannot be."""
    packages = ["socket.io@4", "socket.io-client@4"]
    try:
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--silent", *packages],
            cwd=folder, check=True, timeout=180, capture_output=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        print(f"| Node Socket.IO | left out: {error} | | | |")
        return None
    return folder / "node_modules"


@contextmanager
def process(command: Sequence[str], environment: dict[str, str] | None = None) -> Iterator[tuple[int, int]]:
    """Run a server that prints its port; end it by closing its stdin."""
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        yield int(child.stdout.readline()), child.pid
    finally:
        child.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            child.wait(10)
        child.kill()
        child.wait()
        child.stdout.close()


if __name__ == "__main__":
    main()
