"""What is tested: a server that takes readings and shows them. A hub started here, or one that runs elsewhere.

Owns: producing numbered readings, and what can be done to the server beside. Place: after `adapter`, before
`scenarios`.
"""

import asyncio
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from device_sdk import Device, FlushTimeoutError
from hub.auth import Identities
from hub.roles import Role
from tests.conformance.adapter import Place
from tests.conformance.watch_v1 import time_ns_of
from tests.support.hub_process import ROOT, HubProcess

DEVICES = ("conformance-1", "conformance-2")
CHANNEL, PADDING = "n", "padding"
FLUSH_S, TRIES = 2.0, 30
# A hub that starts again on a busy machine takes the most of it.
ARRIVE_S = 60.0
# What a scenario may need beside producing and watching.
RESTART, RESTORE, EXPIRE, LATEST = "restart", "restore", "expire", "latest"


class Target(Protocol):
    """A server under test. ``produced``: so many readings of each series are stored, numbered from 0.

    ``device``: pattern of the devices that send them. ``place.token`` may watch those. ``arrive_s``: how long what is
    under way may take.
    """

    name: str
    can: frozenset[str]
    place: Place
    arrive_s: float
    device: str
    series: tuple[str, ...]
    produced: int

    async def produce(self, count: int, padding: int = 0) -> None:
        """Add ``count`` readings to each series; returns when the server has stored, or sent, them.

        Args:
            padding: characters of text beside each, which make it heavy.
        """

    async def kill(self) -> None:
        """End it at once (`RESTART`)."""

    async def start(self) -> None:
        """Start it again (`RESTART`)."""

    async def back_up(self) -> None:
        """Copy its data (`RESTORE`)."""

    async def restore(self) -> None:
        """Kill it, put the copy back, start it (`RESTORE`)."""

    def token(self, seconds: float) -> str:
        """Return a credential that ends by itself (`EXPIRE`)."""


class _Produced:
    """Readings by the real SDK: devices with a spool each, every chunk flushed.

    Args:
        makers: make one device each, with the same spool whenever called.
    """

    def __init__(self, makers: Sequence[Callable[[], Device]]) -> None:
        self._makers = makers
        self._devices: list[Device] = []
        self.arrive_s = ARRIVE_S
        self.produced = 0

    def open(self) -> None:
        """Begin to send."""
        for make in self._makers:
            self._devices.append(make())
            self._devices[-1].open()

    def close(self) -> None:
        """End all devices."""
        for device in self._devices:
            device.close()
        self._devices.clear()

    async def produce(self, count: int, padding: int = 0) -> None:
        """See `Target`."""
        await asyncio.to_thread(self._record, count, padding)

    def _record(self, count: int, padding: int) -> None:
        for number in range(self.produced, self.produced + count):
            values: dict[str, int | str] = {CHANNEL: number}
            if padding:
                values[PADDING] = f"{number:{padding}d}"
            for device in self._devices:
                device.record(values, time=time_ns_of(number))
        for _ in range(TRIES):
            try:
                for device in self._devices:
                    device.flush(FLUSH_S)
            except FlushTimeoutError:
                # Who found the server away waits up to a minute before the next try; who is started again does not.
                self.close()
                self.open()
            else:
                self.produced += count
                return
        raise AssertionError(f"not stored after {TRIES * FLUSH_S:g} s")


class OwnHub(_Produced):
    """A hub of this tree with a small ring, on a free port, in a folder of its own."""

    name = "hub"
    can = frozenset({RESTART, RESTORE, EXPIRE, LATEST})

    def __init__(self, folder: Path, hub: HubProcess, tokens: Mapping[str, str], token: str) -> None:
        super().__init__([partial(self._make, name, device_token) for name, device_token in tokens.items()])
        self._folder, self._hub = folder, hub
        self.place = Place("127.0.0.1", hub.port, token)
        self.device = "conformance-*"
        self.series = tuple(f"{name}/{CHANNEL}" for name in DEVICES)

    def _make(self, name: str, token: str) -> Device:
        return Device(name, self._hub.ws_url, token=token, spool=self._folder / name, close_timeout_s=0.0)

    async def kill(self) -> None:
        """See `Target`."""
        await asyncio.to_thread(self._hub.kill)

    async def start(self) -> None:
        """See `Target`."""
        await asyncio.to_thread(self._hub.start)

    async def back_up(self) -> None:
        """See `Target`."""
        command = [sys.executable, "-m", "hub", "backup", str(self._folder / "backup"), "--data", str(self._hub.data)]
        await asyncio.to_thread(subprocess.run, command, cwd=ROOT, check=True, capture_output=True)

    async def restore(self) -> None:
        """See `Target`."""
        await self.kill()
        shutil.rmtree(self._hub.data)
        shutil.copytree(self._folder / "backup", self._hub.data)
        await self.start()

    def token(self, seconds: float) -> str:
        """See `Target`."""
        identities = Identities(self._hub.data / "identities.sqlite3")
        try:
            return identities.add_session(Role.WATCHER, seconds)
        finally:
            identities.close()


@asynccontextmanager
async def own_hub(folder: Path, mutant: str = "") -> AsyncIterator[Target]:
    """Run a hub and its devices while in the block; ``mutant``: with a fault that must be found."""
    names = "+".join(filter(None, ("small_ring", mutant)))
    hub = HubProcess(folder / "data", program=("-m", "tests.support.mutants", names))
    hub.data.mkdir(parents=True)
    identities = Identities(hub.data / "identities.sqlite3")
    tokens = identities.add_devices(DEVICES)
    _, token = identities.add_token(Role.WATCHER, name="conformance")
    identities.close()
    target = OwnHub(folder, hub, tokens, token)
    try:
        await target.start()
        await asyncio.to_thread(target.open)
        yield target
    finally:
        await asyncio.to_thread(target.close)
        await target.kill()


class OtherHub(_Produced):
    """A hub that runs elsewhere: only what any client may do is done to it."""

    name = "hub"
    can = frozenset({LATEST})

    def __init__(self, place: Place, device: str, make: Callable[[], Device]) -> None:
        super().__init__([make])
        self.place = place
        self.device = device
        self.series: tuple[str, ...] = (f"{device}/{CHANNEL}",)

    async def kill(self) -> None:
        """Not here."""
        raise NotImplementedError

    start = back_up = restore = kill

    def token(self, seconds: float) -> str:
        """Not here."""
        raise NotImplementedError


@asynccontextmanager
async def other_hub(
    url: str, token: str | None, device: str, device_token: str, ca: Path | None
) -> AsyncIterator[Target]:
    """Watch the hub at ``url``, with one device of it that sends numbers."""
    parts = urlsplit(url if "//" in url else f"http://{url}")
    is_tls = parts.scheme in ("https", "wss")
    assert parts.hostname is not None, f"{url!r} is no address; use e.g. https://hub.local:8000"
    port = parts.port or (443 if is_tls else 80)
    found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    place = Place(
        str(found[0][4][0]), port, token,
        ssl.create_default_context(cafile=ca) if is_tls else None, parts.hostname,
    )  # fmt: skip
    address = f"{'wss' if is_tls else 'ws'}://{parts.netloc}"
    with tempfile.TemporaryDirectory(prefix="conformance-") as spool:
        make = partial(Device, device, address, token=device_token, spool=spool, ca=ca, close_timeout_s=0.0)
        target = OtherHub(place, device, make)
        try:
            await asyncio.to_thread(target.open)
            yield target
        finally:
            await asyncio.to_thread(target.close)
