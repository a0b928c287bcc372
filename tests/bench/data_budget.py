"""Bytes on the wire of four channels a minute over TLS: ours, ours with ``link="metered"``, paho-mqtt.

``python -m tests.bench.data_budget`` takes half an hour and prints a Markdown table. It does not speed time up, since
batching, pings and delayed TCP acks depend on time: all clients run at once, each to its server through a proxy of its
own, record four values each minute, and are counted for ``--minutes`` minutes after the first one. Then each connection
is cut, and what the way back costs is counted by itself. A month is 30 days of both, with `RECONNECTIONS` a day.

* Counted by the proxy: the bytes of TLS, both ways. Counted by the kernel (TCP_INFO of the proxy's socket to the
  client): the segments, both ways, acks included; each stands for `HEADER_BYTES` more. Segments are as long as on a
  mobile link (`SEGMENT_BYTES`); nothing is lost or sent again.
* Ours: a real ``hub serve`` with TLS; one `record` of four values, its times and its durable ack included.
* paho-mqtt: QoS 1 to mosquitto with TLS. As one message a channel with the bare value, and as one JSON message with the
  time; with its default keepalive of a minute, and with one of 15 minutes as a metered link wants it.
"""

import argparse
import asyncio
import inspect
import json
import math
import platform
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion

from device_sdk import Device
from hub.auth import Identities
from tests.support.certificate import ServerCertificate, make_certificate
from tests.support.hub_process import HubProcess, free_port
from tests.support.mosquitto import PROGRAM, Mosquitto

MINUTES = 30
MINUTE_S = 60.0
# Counting begins and ends so long before the readings of a minute, when all is quiet.
QUIET_S = 5.0
# For the way back after a cut: the backoff, TLS, the greeting.
RECONNECT_LIMIT_S = 20.0
RECONNECTIONS = 4
DAYS = 30
GOAL_MB = 10.0
# IPv4 20, TCP 20, and the 12 of TCP's timestamps, which Linux sends in every segment.
HEADER_BYTES = 52
# Into the 1,400 bytes that mobile networks commonly carry, with 40 of headers (timestamps count as content here).
SEGMENT_BYTES = 1_360
# Offset of tcpi_segs_out and tcpi_segs_in in struct tcp_info. Source: linux/tcp.h, since Linux 4.2.
SEGMENTS = struct.Struct("136x2I")
PAHO: dict[str, dict[str, Any]] = {
    "a message a channel": {"name": "channels", "is_json": False},
    "one JSON message": {"name": "json", "is_json": True},
    "one JSON message, keepalive 15 min": {"name": "patient", "is_json": True, "keepalive_s": 900},
}
CONNECT_LIMIT_S = 10.0


@dataclass(frozen=True)
class Traffic:
    """What went over one link, both ways: bytes of TLS, TCP segments."""

    payload: float
    segments: float

    def __sub__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.payload - other.payload, self.segments - other.segments)

    @property
    def wire(self) -> float:
        """Bytes with the headers of TCP and IP."""
        return self.payload + HEADER_BYTES * self.segments

    def per(self, count: int) -> "Traffic":
        """A share of it."""
        return Traffic(self.payload / count, self.segments / count)


class Client(Protocol):
    """One client under test."""

    def record(self, values: dict[str, float]) -> None:
        """Send the values of a minute."""

    def close(self) -> None:
        """Disconnect; raise unless all that was recorded is acked: what is not sent costs nothing."""


class Ours:
    """`device_sdk`."""

    def __init__(self, port: int, ca: Path, name: str, token: str, **settings: Any) -> None:
        url, spool = f"wss://127.0.0.1:{port}", ca.parent / f"spool-{name}"
        self._device = Device(name, url, token=token, ca=str(ca), spool=spool, **settings)
        self._device.open()

    def record(self, values: dict[str, float]) -> None:
        """Record them at one instant."""
        self._device.record(values)

    def close(self) -> None:
        """Bring in what waits for a batch, then disconnect."""
        self._device.flush()
        self._device.close()


class Paho:
    """paho-mqtt."""

    def __init__(self, port: int, ca: Path, name: str, *, is_json: bool, keepalive_s: int = 60) -> None:
        self._name, self._is_json = name, is_json
        self._messages: list[MQTTMessageInfo] = []
        connected = threading.Event()
        self._client = PahoClient(CallbackAPIVersion.VERSION2, client_id=name, clean_session=False)
        self._client.tls_set(str(ca))
        self._client.on_connect = lambda *_: connected.set()
        self._client.connect("127.0.0.1", port, keepalive=keepalive_s)
        self._client.loop_start()
        assert connected.wait(CONNECT_LIMIT_S), "mosquitto takes the connection"

    def record(self, values: dict[str, float]) -> None:
        """Publish them."""
        if self._is_json:
            payloads = {self._name: json.dumps({"time": round(time.time(), 3), **values})}
        else:
            payloads = {f"{self._name}/{channel}": str(value) for channel, value in values.items()}
        for topic, payload in payloads.items():
            self._messages.append(self._client.publish(topic, payload, qos=1))

    def close(self) -> None:
        """Disconnect."""
        assert all(message.is_published() for message in self._messages), f"{self._name}: every message is acked"
        self._client.disconnect()
        self._client.loop_stop()


class CountingProxy:
    """A TCP proxy on a thread of its own that counts what passes between one client and its server."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._payload = 0
        # Of connections that are gone.
        self._segments = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="counting proxy", daemon=True)
        self.connections = 0

    def __enter__(self) -> "CountingProxy":
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
        self.port: int = listener.getsockname()[1]
        self._thread.start()
        self._server: asyncio.Server = self._run(asyncio.start_server(self._serve, sock=listener))
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def traffic(self) -> Traffic:
        """Return what has passed until now."""
        counted: Traffic = self._run(self._count())
        return counted

    def cut(self) -> None:
        """Abort every connection now."""
        self._run(self._abort_all())

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _count(self) -> Traffic:
        return Traffic(self._payload, self._segments + sum(_segments(writer) for writer in self._open))

    async def _abort_all(self) -> None:
        for writer in self._open:
            self._segments += _segments(writer)
            writer.transport.abort()
        self._open.clear()

    async def _end(self) -> None:
        self._server.close()
        await self._abort_all()
        # They end by themselves, now that their sockets are gone.
        if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(tasks, timeout=5)

    async def _serve(self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(client_writer)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            ways = [(client_reader, server_writer), (server_reader, client_writer)]
            pumps = [asyncio.create_task(self._pump(reader, writer)) for reader, writer in ways]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            if client_writer in self._open:
                self._segments += _segments(client_writer)
                self._open.discard(client_writer)
            client_writer.transport.abort()
            server_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self._payload += len(data)
            writer.write(data)
            await writer.drain()


def _segments(writer: asyncio.StreamWriter) -> int:
    """Segments out and in of a connection, with its handshake and all acks; 0 when the peer has reset it."""
    try:
        info = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, SEGMENTS.size)
    except OSError:
        return 0
    return sum(SEGMENTS.unpack(info))


@dataclass
class Row:
    """One client and what was counted of it."""

    name: str
    client: Client
    proxy: CountingProxy
    minute: Traffic = Traffic(0, 0)
    reconnection: Traffic = Traffic(0, 0)
    note: str = ""

    @property
    def month_mb(self) -> float:
        """Megabytes (10⁶) on the wire in a month."""
        return DAYS * (24 * 60 * self.minute.wire + RECONNECTIONS * self.reconnection.wire) / 1e6


def main() -> int:
    """Measure and print; return 1 when the metered link misses its goal."""
    parser = argparse.ArgumentParser(description="Bytes on the wire of four channels a minute over TLS.")
    parser.add_argument(
        "--minutes", type=int, default=MINUTES, help="how long to count; less hides what is done rarely"
    )
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory(prefix="bench-budget-") as folder, ExitStack() as ending:
        rows = list(_rows(Path(folder), ending))
        _run(rows, minutes)
    _print(rows, minutes)
    return int(any(row.month_mb > GOAL_MB for row in rows if "metered" in row.name))


def _run(rows: list[Row], minutes: int) -> None:
    """Record each minute, count; then cut, and count the way back."""
    begun = time.monotonic()
    before: list[Traffic] = []
    for minute in range(minutes + 1):
        values = _values(minute)
        for row in rows:
            row.client.record(values)
        _sleep_until(begun + (minute + 1) * MINUTE_S - QUIET_S)
        before = before or [row.proxy.traffic() for row in rows]
        print(f"minute {minute} of {minutes}", file=sys.stderr, flush=True)
        if minute < minutes:
            _sleep_until(begun + (minute + 1) * MINUTE_S)
    for row, start in zip(rows, before, strict=True):
        row.minute = (row.proxy.traffic() - start).per(minutes)
        if row.proxy.connections > 1:
            row.note = f"{row.proxy.connections - 1} reconnections meanwhile"
    before = [row.proxy.traffic() for row in rows]
    for row in rows:
        row.proxy.cut()
    time.sleep(RECONNECT_LIMIT_S)
    for row, start in zip(rows, before, strict=True):
        row.reconnection = row.proxy.traffic() - start


def _values(minute: int) -> dict[str, float]:
    """What a greenhouse reads, each channel to the digits its sensor has."""
    day = math.sin(minute / 1440 * 2 * math.pi)
    noise = [math.sin(minute * factor) for factor in (1.7, 2.3, 3.1, 4.9)]
    return {
        "temperature": round(21 + 6 * day + 0.1 * noise[0], 2),
        "humidity": round(55 - 15 * day + 0.4 * noise[1], 1),
        "pressure": round(1013 + 0.3 * noise[2], 1),
        "battery": round(3.9 + 0.01 * noise[3], 3),
    }


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


# --- clients and their servers ------------------------------------------------------------------


def _rows(folder: Path, ending: ExitStack) -> Iterator[Row]:
    made = make_certificate(folder)
    ca = made.ca

    def row(title: str, target_port: int, make: Callable[[int], Client]) -> Row:
        proxy = ending.enter_context(CountingProxy(target_port))
        client = make(proxy.port)
        ending.callback(client.close)
        return Row(title, client, proxy)

    hub, tokens = ending.enter_context(_hub(folder, made))
    yield row("ours", hub.port, lambda port: Ours(port, ca, "normal", tokens["normal"]))
    if "link" in inspect.signature(Device).parameters:
        make = partial(Ours, ca=ca, name="metered", token=tokens["metered"], link="metered")
        yield row('ours, `link="metered"`', hub.port, make)
    if PROGRAM is None:
        print("paho-mqtt: not measured, there is no mosquitto", file=sys.stderr)
        return
    broker = ending.enter_context(Mosquitto(folder, free_port(), f"certfile {made.cert}", f"keyfile {made.key}"))
    for title, options in PAHO.items():
        yield row(f"paho-mqtt, {title}", broker.port, partial(Paho, ca=ca, **options))


@contextmanager
def _hub(folder: Path, made: ServerCertificate) -> Iterator[tuple[HubProcess, dict[str, str]]]:
    data = folder / "data"
    data.mkdir()
    identities = Identities(data / "identities.sqlite3")
    tokens = {name: str(identities.add_device(name)) for name in ("normal", "metered")}
    identities.close()
    with HubProcess(data, "--tls-cert", str(made.cert), "--tls-key", str(made.key), ca=made.ca) as hub:
        yield hub, tokens


def _print(rows: list[Row], minutes: int) -> None:
    print(f"{platform.python_implementation()} {platform.python_version()}, {minutes} minutes\n")
    print("| client | TLS bytes a minute | segments a minute | on the wire a minute | a reconnection | MB a month |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        note = f" ({row.note})" if row.note else ""
        print(
            f"| {row.name}{note} | {row.minute.payload:,.0f} | {row.minute.segments:.1f} | {row.minute.wire:,.0f} "
            f"| {row.reconnection.wire:,.0f} | **{row.month_mb:.1f}** |"
        )
    print(
        f"\nBoth ways; on the wire: TLS bytes and {HEADER_BYTES} for the headers of each TCP segment. "
        f"A month is {DAYS} days, each with {RECONNECTIONS} reconnections. Goal: metered ≤ {GOAL_MB:.0f} MB."
    )


if __name__ == "__main__":
    sys.exit(main())
