"""CPU of the device for 1,000 readings, acked: our `Device`, paho-mqtt and aiomqtt, in one run.

``python -m tests.bench.bench_device_cpu`` prints a Markdown table. Each client
runs in a process of its own and is measured there (user + system) from the first
reading to the last ack. Ours: spool on disk, to a real hub with its journal.
MQTT: QoS 1 to mosquitto, one reading a message, as their users send readings.
Pace 0: as fast as the client takes them.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hub.auth import Identities
from tests.support.hub_process import ROOT, HubProcess, free_port
from tests.support.mosquitto import PROGRAM, Mosquitto

# readings, readings per second
RUNS = ((20_000, 0), (5_000, 1_000), (500, 50))
LIMIT_S = 120.0


@dataclass(frozen=True)
class Client:
    """One client under test: its name in the table and the arguments of its process."""

    name: str
    kind: str
    address: str
    secret: str = ""


def main() -> None:
    """Measure all clients, or be one of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--client", nargs=5, metavar=("KIND", "ADDRESS", "SECRET", "READINGS", "PACE"))
    client = parser.parse_args().client
    if client is not None:
        kind, address, secret, readings, pace = client
        print(json.dumps(CLIENTS[kind](address, secret, int(readings), float(pace))))
        return
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores\n")
    print("| client | " + " | ".join("all at once" if pace == 0 else f"{pace}/s" for _, pace in RUNS) + " |")
    print("| --- |" + " --- |" * len(RUNS))
    with tempfile.TemporaryDirectory(prefix="bench-device-") as folder:
        for found in _clients(Path(folder)):
            cells = [_measured(found, readings, pace) for readings, pace in RUNS]
            print(f"| {found.name} | " + " | ".join(cells) + " |", flush=True)
    print("\nms of the device's CPU for 1,000 readings, each acked; in brackets readings/s.")


def _clients(folder: Path) -> Iterator[Client]:
    data = folder / "data"
    data.mkdir()
    identities = Identities(data / "identities.sqlite3")
    token = identities.add_device("bench")
    identities.close()
    with HubProcess(data) as hub:
        yield Client("ours, spool on disk", "disk", hub.ws_url, str(token))
        yield Client("ours, spool in memory", "memory", hub.ws_url, str(token))
        yield Client("ours, async with, on disk", "async", hub.ws_url, str(token))
    if PROGRAM is None:
        print("| paho-mqtt, aiomqtt: not measured, there is no mosquitto |")
        return
    with Mosquitto(folder, free_port()) as broker:
        yield Client("paho-mqtt, QoS 1", "paho", str(broker.port))
        yield Client("aiomqtt, QoS 1", "aiomqtt", str(broker.port))


def _measured(client: Client, readings: int, pace: float) -> str:
    command = [sys.executable, "-m", "tests.bench.bench_device_cpu", "--client"]
    arguments = [client.kind, client.address, client.secret, str(readings), str(pace)]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=LIMIT_S, cwd=ROOT, check=False
    )
    if done.returncode:
        return f"failed: {(done.stderr.strip().splitlines() or ['?'])[-1][:60]}"
    result = json.loads(done.stdout.splitlines()[-1])
    return f"**{result['cpu_s'] / readings * 1e6:.1f}** ({readings / result['wall_s']:,.0f})"


# --- the clients, each in its own process -------------------------------------------------------


class Watch:
    """CPU and wall time from its making to `result`."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def result(self) -> dict[str, float]:
        """Return what was used."""
        return {"cpu_s": time.process_time() - self._cpu, "wall_s": time.perf_counter() - self._wall}

    def wait(self, n: int, pace: float) -> float:
        """Return the seconds until reading ``n`` is due."""
        return self._wall + n / pace - time.perf_counter() if pace else 0.0


def _ours(place: str) -> Callable[[str, str, int, float], dict[str, float]]:
    def run(address: str, token: str, readings: int, pace: float) -> dict[str, float]:
        from device_sdk import Device

        folder = tempfile.mkdtemp(prefix="bench-spool-")
        try:
            with Device("bench", address, token=token, spool=":memory:" if place == "memory" else folder) as device:
                temperature = device.channel("temperature", unit="Cel")
                temperature.record(0.0)
                device.flush()
                watch = Watch()
                for n in range(readings):
                    temperature.record(20.0 + n * 0.001)
                    _sleep(watch.wait(n, pace))
                device.flush(LIMIT_S)
                return watch.result()
        finally:
            shutil.rmtree(folder)

    return run


async def _ours_async(address: str, token: str, readings: int, pace: float) -> dict[str, float]:
    from device_sdk import Device

    folder = tempfile.mkdtemp(prefix="bench-spool-")
    try:
        async with Device("bench", address, token=token, spool=folder) as device:
            temperature = device.channel("temperature", unit="Cel")
            temperature.record(0.0)
            await device.flush_async()
            watch = Watch()
            for n in range(readings):
                temperature.record(20.0 + n * 0.001)
                if pace:
                    await asyncio.sleep(max(0.0, watch.wait(n, pace)))
            await device.flush_async(LIMIT_S)
            return watch.result()
    finally:
        shutil.rmtree(folder)


def _paho(port: str, secret: str, readings: int, pace: float) -> dict[str, float]:
    from paho.mqtt.client import Client as Paho
    from paho.mqtt.enums import CallbackAPIVersion

    acked, connected = threading.Semaphore(0), threading.Event()
    client = Paho(CallbackAPIVersion.VERSION2)
    client.on_connect = lambda *_: connected.set()
    client.on_publish = lambda *_: acked.release()
    client.connect("127.0.0.1", int(port))
    client.loop_start()
    assert connected.wait(10), "mosquitto takes the connection"
    watch = Watch()
    for n in range(readings):
        client.publish("bench/temperature", f"{20.0 + n * 0.001:.3f}", qos=1)
        _sleep(watch.wait(n, pace))
    for _ in range(readings):
        assert acked.acquire(timeout=LIMIT_S), "every message is acked"
    result = watch.result()
    client.disconnect()
    client.loop_stop()
    return result


async def _aiomqtt(port: str, secret: str, readings: int, pace: float) -> dict[str, float]:
    from aiomqtt import Client as Aiomqtt

    async with Aiomqtt("127.0.0.1", int(port)) as client:
        watch = Watch()
        for n in range(readings):
            await client.publish("bench/temperature", f"{20.0 + n * 0.001:.3f}", qos=1)
            if pace:
                await asyncio.sleep(max(0.0, watch.wait(n, pace)))
        return watch.result()


def _sleep(seconds: float) -> None:
    if seconds > 0:
        time.sleep(seconds)


def _in_loop(
    run: Callable[[str, str, int, float], Awaitable[dict[str, float]]],
) -> Callable[[str, str, int, float], dict[str, float]]:
    async def call(address: str, secret: str, readings: int, pace: float) -> dict[str, float]:
        return await run(address, secret, readings, pace)

    return lambda *arguments: asyncio.run(call(*arguments))


CLIENTS: dict[str, Callable[[str, str, int, float], dict[str, float]]] = {
    "disk": _ours("disk"),
    "memory": _ours("memory"),
    "async": _in_loop(_ours_async),
    "paho": _paho,
    "aiomqtt": _in_loop(_aiomqtt),
}


if __name__ == "__main__":
    main()
