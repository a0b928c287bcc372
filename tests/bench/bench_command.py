"""Command → reply: this hub's commands beside Node Socket.IO's acks, in the same run.

``python -m tests.bench.bench_command [count]`` prints a Markdown table. One command at a time, a function that returns
its argument, asker, hub and device on loopback in processes of their own (Socket.IO: asker and server are one); the hub
knows `BYSTANDERS` other devices. A command of ours is a request over one kept connection, with four commits in a row
where the device's spool is on disk: at the hub before it is sent, at the device before it runs, at the hub before the
result is told and for the log of changes. A Socket.IO ack has none, and is lost with either process; "fsync" is what a
bare one costs on this disk.
"""

import http.client
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from device_sdk import Device
from hub.auth import Identities
from hub.roles import Role
from tests.bench.bench_frames import HERE, install_socketio, process
from tests.support.hub_process import HubProcess

COUNT = 1000
# A command to one device must not cost what a fleet does.
BYSTANDERS = 3000
# The first ones meet caches that are empty.
WARM_UP = 100
# A device that starts has declared its command within a second.
START_LIMIT_S = 20.0


def main(count: int) -> None:
    """Measure all and print the table."""
    machine = f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores"
    print(f"{machine}, load {os.getloadavg()[0]:.1f} before; {count} commands each, one at a time\n")
    print("| | p50 ms | p99 ms |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="bench-command-") as temporary:
        folder = Path(temporary)
        node = install_socketio(folder)
        if node is not None:
            row("Node Socket.IO, ack", socketio(node, count))
        with hub_in(folder) as (hub, device_token, admin):
            for name, spool in (("spool in memory", ":memory:"), ("spool on disk", str(folder / "spool"))):
                command = [
                    sys.executable,
                    "-m",
                    "tests.bench.bench_command",
                    "--device",
                    hub.ws_url,
                    device_token,
                    spool,
                ]
                with process(command):
                    row(f"command by REST, {name}", ask(hub, admin, count))
        row("fsync of one small record", fsyncs(folder / "file", count))


def row(name: str, took_ms: list[float]) -> None:
    """Print one row, without the first ones."""
    found = sorted(took_ms[WARM_UP:])
    print(f"| {name} | {found[len(found) // 2]:.2f} | {found[len(found) * 99 // 100]:.2f} |", flush=True)


def socketio(node: Path, count: int) -> list[float]:
    """Return the milliseconds of each ack."""
    environment = {**os.environ, "NODE_PATH": str(node)}
    script = str(HERE / "socketio_command.cjs")
    server = subprocess.Popen(
        ["node", script, "serve", str(WARM_UP + count)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert server.stdout is not None, "it is a pipe"
    assert server.stdin is not None, "it is a pipe"
    port = server.stdout.readline().strip()
    device = subprocess.Popen(["node", script, "device", port], stdin=subprocess.PIPE, env=environment)
    assert device.stdin is not None, "it is a pipe"
    try:
        took_ms: list[float] = json.loads(server.stdout.readline())
        return took_ms
    finally:
        for child in (device, server):
            child.kill()
            child.wait()
        for pipe in (server.stdout, server.stdin, device.stdin):
            pipe.close()


@contextmanager
def hub_in(folder: Path) -> Iterator[tuple[HubProcess, str, str]]:
    """Give a running hub, the token of its device and that of an admin."""
    with HubProcess(folder / "data") as hub:
        identities = Identities(hub.data / "identities.sqlite3")
        identities.add_devices(f"bystander-{number}" for number in range(BYSTANDERS))
        device_token, admin = identities.add_device("fan-1"), identities.add_token(Role.ADMIN, ["**"], "bench")[1]
        identities.close()
        yield hub, device_token, admin


def ask(hub: HubProcess, token: str, count: int) -> list[float]:
    """Return the milliseconds of each command, from the request to the answer that holds the result."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=30)
    took_ms: list[float] = []
    limit = time.monotonic() + START_LIMIT_S
    while len(took_ms) < WARM_UP + count:
        speed = len(took_ms)
        body = json.dumps({"match": "fan-1", "name": "fan", "args": {"speed": speed}, "wait": True})
        begun = time.perf_counter()
        connection.request("POST", "/v1/commands", body, {"Authorization": f"Bearer {token}"})
        answer = json.loads(connection.getresponse().read())
        took = time.perf_counter() - begun
        if answer["results"][0]["value"] == speed:
            took_ms.append(took * 1000)
        else:
            assert not took_ms, answer
            assert time.monotonic() < limit, answer
            time.sleep(0.05)
    connection.close()
    return took_ms


def fsyncs(path: Path, count: int) -> list[float]:
    """Return the milliseconds of each append with its fsync."""
    took_ms = []
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for _ in range(WARM_UP + count):
        begun = time.perf_counter()
        os.write(descriptor, bytes(100))
        os.fdatasync(descriptor)
        took_ms.append((time.perf_counter() - begun) * 1000)
    os.close(descriptor)
    return took_ms


def be_device(url: str, token: str, spool: str) -> None:
    """Answer until stdin is closed."""
    with Device("fan-1", url, token=token, spool=spool) as device:

        @device.command
        def fan(speed: int) -> int:
            return speed

        print(0, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--device"]:
        be_device(*sys.argv[2:5])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT)
