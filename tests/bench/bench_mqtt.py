"""MQTT side by side: the endpoint, durable, beside mosquitto, aedes and amqtt, which keep what they ack in memory.

``python -m tests.bench.bench_mqtt [--server S] [--seconds 3]`` prints a Markdown table. Every server runs alone on one
core, the same raw generator (`tests.bench.mqtt_load`) on the other: publications of QoS 1, so many in flight on each
connection that the server is never idle. aedes is installed by npm, amqtt by pip into an environment of its own, both
into a cache folder.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from hub.auth import Identities
from hub.children import CHILDREN, Children
from tests.bench.bench_frames import process
from tests.bench.fanout_side import GENERATOR_CORE, ON_SERVER_CORE, SERVER_CORE, MissingError
from tests.bench.mqtt_load import BATCH, Load, Result
from tests.support import mosquitto, node
from tests.support.hub_process import HubProcess, free_port
from tests.support.mosquitto import Mosquitto

HERE = Path(__file__).parent
# (connections, publications in flight on each)
RUNS = ((1, 64), (100, 16), (1000, 4))
BATCH_RUN = (100, 16)
IDLE, IDLE_S, FIRST = 1000, 1.0, 50
DEVICES = 1000
# The gateway behind which a broker's devices are.
BRIDGE, BRIDGE_S = "mqtt-bridge", 3.0
NODE_PACKAGE, PIP_PACKAGE = "aedes@1", "amqtt==0.11.3"
INSTALL_LIMIT_S = 300.0


@dataclass(frozen=True, slots=True)
class Side:
    """A server that runs; ``users``: names and tokens of those who may connect, empty: anybody."""

    port: int
    pid: int
    users: tuple[tuple[str, str], ...] = ()


@contextmanager
def ours(folder: Path, _cache: Path) -> Iterator[Side]:
    """The whole hub: validation, the journal with an fsync before each PUBACK, the store behind it."""
    data = folder / "hub"
    data.mkdir()
    identities = Identities(data / "identities.sqlite3")
    users = tuple(identities.add_devices([f"bench-{i}" for i in range(DEVICES)]).items())
    identities.close()
    port = free_port()
    with HubProcess(data, "--mqtt-port", str(port), runner=ON_SERVER_CORE) as hub:
        yield Side(port, hub.pid, tuple((name, str(token)) for name, token in users))


@contextmanager
def of_mosquitto(folder: Path, _cache: Path) -> Iterator[Side]:
    """mosquitto as it comes."""
    if mosquitto.PROGRAM is None:
        raise MissingError("there is no mosquitto on this machine")
    with Mosquitto(folder, free_port()) as broker:
        os.sched_setaffinity(broker.pid, {SERVER_CORE})
        yield Side(broker.port, broker.pid)


@contextmanager
def of_aedes(_folder: Path, cache: Path) -> Iterator[Side]:
    """aedes in Node."""
    folder = cache / f"node-{NODE_PACKAGE}"
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        if node.install(folder, NODE_PACKAGE) is None:
            raise MissingError("npm could not install it")
        (folder / "installed").touch()
    environment = {**os.environ, "NODE_PATH": str(folder / "node_modules")}
    command = [*ON_SERVER_CORE, node.find("node") or "node", str(HERE / "mqtt_server.cjs")]
    with process(command, environment) as (port, pid):
        yield Side(port, pid)


@contextmanager
def of_amqtt(_folder: Path, cache: Path) -> Iterator[Side]:
    """amqtt in Python."""
    folder = cache / PIP_PACKAGE
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PIP_PACKAGE]
        try:
            for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], pip):
                subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_LIMIT_S)
        except (OSError, subprocess.SubprocessError) as error:
            raise MissingError(f"pip could not install it: {error}") from error
        (folder / "installed").touch()
    with process([*ON_SERVER_CORE, str(python), str(HERE / "mqtt_server.py")]) as (port, pid):
        yield Side(port, pid)


SERVERS: dict[str, tuple[str, Callable[[Path, Path], AbstractContextManager[Side]]]] = {
    "ours": ("**ours, durable**", ours),
    "mosquitto": ("mosquitto, in memory", of_mosquitto),
    "aedes": ("aedes, in memory", of_aedes),
    "amqtt": ("amqtt, in memory", of_amqtt),
}


def through_broker(folder: Path) -> str:
    """Say how fast the hub takes what waits for it at a broker: each acknowledged there after the hub's commit."""
    if mosquitto.PROGRAM is None:
        raise MissingError("there is no mosquitto on this machine")
    lines = ("max_queued_messages 0", "max_inflight_messages 1000")
    with Mosquitto(folder, free_port(), *lines) as broker:
        os.sched_setaffinity(broker.pid, {GENERATOR_CORE})
        hub = HubProcess(folder / "hub", "--mqtt-url", f"mqtt://127.0.0.1:{broker.port}", runner=ON_SERVER_CORE)
        # Once there, so that the broker keeps its session.
        with hub:
            with (
                closing(Identities(hub.data / "identities.sqlite3")) as identities,
                closing(Children(hub.data / CHILDREN, identities)) as children,
            ):
                children.set_rules(BRIDGE, auto_accept=["*"])
            wait_until(lambda: "broker connected" in hub.log.read_text(encoding="utf-8"))
        measure(Load(broker.port, broker.pid, 10, 20, 1.0))
        with hub:
            wait_until(lambda: _stored(hub) > 0)
            first, begun, cpu = _stored(hub), time.monotonic(), _cpu(hub)
            time.sleep(BRIDGE_S)
            taken, took, used = _stored(hub) - first, time.monotonic() - begun, _cpu(hub) - cpu
    rate, cost = taken / took / 1000, used / taken * 1e6
    return f"Through mosquitto into the hub: {rate:,.1f} k messages/s, {cost:,.0f} µs of CPU each."


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait, ten seconds at most, until something holds."""
    end = time.monotonic() + 10
    while not condition():
        if time.monotonic() > end:
            raise MissingError("waited for ten seconds in vain")
        time.sleep(0.02)


def _stored(hub: HubProcess) -> int:
    return sum(stream["accepted"] for stream in hub.get("/v1/audit?device=bench")["streams"])


def _cpu(hub: HubProcess) -> float:
    return float(sum(psutil.Process(hub.pid).cpu_times()[:2]))


def main() -> int:
    """Measure what is asked for; return 1 when ours could not be measured."""
    parser = argparse.ArgumentParser(description="MQTT ingest side by side.")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "telemetry-bench"
    parser.add_argument("--cache", type=Path, default=cache, help="folder of the peers' packages")
    parser.add_argument("--server", choices=SERVERS, action="append", help="only this server")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run")
    options = parser.parse_args()
    begun, failed = time.monotonic(), False
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores, {_load()} before\n")
    columns = [f"{connections:,} × {window}" for connections, window in RUNS]
    head = ["server", *columns, f"batches of {BATCH}: readings/s", "KiB an idle connection"]
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for key in options.server or SERVERS:
        name, running = SERVERS[key]
        with tempfile.TemporaryDirectory(prefix="bench-mqtt-") as folder:
            try:
                with running(Path(folder), options.cache) as side:
                    cells = list(_cells(side, options.seconds))
            except (MissingError, OSError, subprocess.SubprocessError, ValueError) as error:
                cells, failed = [f"not measured: {error}", "", "", "", ""], failed or key == "ours"
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print("\nPublications of QoS 1 acked a second, connections × in flight; in brackets µs of server CPU each.")
    if not options.server:
        with tempfile.TemporaryDirectory(prefix="bench-mqtt-") as folder:
            print(through_broker(Path(folder)))
    print(f"{time.monotonic() - begun:.0f} s, {_load()} after")
    return int(failed)


def _cells(side: Side, seconds: float) -> Iterator[str]:
    # First: what a server has once taken for a load it does not give back.
    measure(Load(side.port, side.pid, FIRST, 1, idle_s=IDLE_S, users=side.users))
    idle = measure(Load(side.port, side.pid, IDLE, 1, idle_s=IDLE_S, users=side.users))
    for connections, window in RUNS:
        result = measure(Load(side.port, side.pid, connections, window, seconds, users=side.users))
        yield f"{result.per_s / 1000:,.1f} k ({result.server_us:.1f})"
    if side.users:
        result = measure(Load(side.port, side.pid, *BATCH_RUN, seconds, is_native=True, users=side.users))
        yield f"{result.per_s * BATCH / 1000:,.0f} k ({result.server_us:.1f})"
    else:
        yield "–"
    yield f"{idle.idle_bytes / 1024:.1f}"


def measure(load: Load) -> Result:
    """Run the generator in a process of its own, on its core."""
    command = ["taskset", "-c", str(GENERATOR_CORE), sys.executable, "-m", "tests.bench.mqtt_load"]
    done = subprocess.run(
        command, input=json.dumps(load.__dict__), check=True,
        stdout=subprocess.PIPE, text=True, timeout=120,
    )  # fmt: skip
    return Result(**json.loads(done.stdout))


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    sys.exit(main())
