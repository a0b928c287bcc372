"""The parts of a hub that the gateway reads: all real, on files of the test, without threads and without a port.

Readings go through a real device session; `feed` then does at once what the
writer and the consumer do in their threads.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from starlette.types import ASGIApp

from device_sdk import wire
from device_sdk.columns import encode_batch, to_columns
from device_sdk.reading import Channel, Value
from hub.auth import Identities
from hub.change_log import CHANGES, ChangeLog
from hub.children import CHILDREN, Children
from hub.commands import Commands
from hub.config import Config
from hub.decode.dispatch import decoders_of
from hub.desired import States
from hub.devices import Registry
from hub.disk_budget import DiskBudget
from hub.downlink import Downlink
from hub.foreign_replay import ForeignMessages
from hub.gateway.attempts import Attempts
from hub.hooks.grant import Grants
from hub.hooks.ingest import Ingest
from hub.hooks.runner import Hook
from hub.importing.intake import Imports
from hub.journal.sqlite import SqliteJournal
from hub.journal.writer import MAX_QUEUE_BYTES, WriterStatistics
from hub.live.rooms import Live
from hub.metadata import Metadata
from hub.model import Frame, Series, StreamKey
from hub.mqtt.clients import Figures
from hub.passwords import Passwords
from hub.posts import make_posts
from hub.query import Query
from hub.replay import Replays
from hub.retention import Policies, Retention
from hub.revocations import CERTIFICATES, Revocations
from hub.rollout import Rollout
from hub.selector import DeviceSelector
from hub.session import DeviceSession
from hub.sign_in import SignIn
from hub.store.consumer import ConsumerStatistics
from hub.store.embedded import EmbeddedStore
from hub.streams import Streams
from hub.users import USERS, Users


@dataclass
class FixedSettings:
    """How the hub listens."""

    data: Path = Path("no-such-folder")
    journal_hours: float = 24.0
    allow_origin: Sequence[str] = ()
    is_loopback: bool = True
    is_tls: bool = False


class StoreInStep:
    """The consumer's face of a store that `HubParts.feed` keeps up to date itself; ``is_behind`` makes it late."""

    is_behind = False

    def statistics(self) -> ConsumerStatistics:
        """Nothing waits."""
        return ConsumerStatistics(0, 0, 0, 1, 0, 0, "")

    async def applied(self, offset: int, timeout_s: float) -> bool:
        """Answer at once."""
        return not self.is_behind


class NoWriter:
    """The writer's face where `HubParts.feed` commits by itself: nothing waits."""

    def statistics(self) -> WriterStatistics:
        """Return the figures of now."""
        return WriterStatistics(0, 0, MAX_QUEUE_BYTES, 0, 0)


class NoMqtt:
    """The MQTT endpoint's face where nobody comes by MQTT."""

    def __init__(self) -> None:
        self._figures = Figures()

    def statistics(self) -> Figures:
        """Return figures that the test may set."""
        return self._figures


class NeverScheduler:
    """A scheduler that calls nothing: no watcher is in these tests."""

    def time(self) -> float:
        """The time stands still."""
        return 0.0

    def call_at(self, when: float, callback: object, /) -> "NeverScheduler":
        """Forget it."""
        return self

    def call_soon(self, callback: object, /) -> "NeverScheduler":
        """Forget it."""
        return self

    def cancel(self) -> None:
        """Nothing to cancel."""


class HubParts:
    """One hub's parts; use `hub_parts`."""

    def __init__(self, folder: Path) -> None:
        self.config = FixedSettings(folder)
        self.identities = Identities(folder / "identities.sqlite3")
        self.metadata = Metadata(folder / "metadata.sqlite3")
        self.revocations = Revocations(folder / CERTIFICATES)
        self.users = Users(folder / USERS)
        self.change_log = ChangeLog(folder / CHANGES)
        self.children = Children(folder / CHILDREN, self.identities)
        self._passwords = Passwords()
        self.sign_in = SignIn(self.users, self._passwords)
        self.downlink = Downlink()
        self.commands = Commands(folder / "commands.sqlite3", self.downlink)
        self.journal = SqliteJournal(folder / "journal.sqlite3")
        self.registry = Registry(self.journal.series(), described=self.metadata.channel)
        self.streams = Streams(self.journal.runs(), self.journal.head, self.journal.find_marks)
        self.store = EmbeddedStore(folder / "readings.sqlite3")
        self.retention = Retention(self.store, Policies(Config()), self.all_series)
        self.disk_budget = DiskBudget(self.store, lambda: self.journal.statistics().bytes, self.all_series, None)
        self.consumer = StoreInStep()
        self.query = Query(self.registry, self.store)
        self.messages = ForeignMessages(decoders_of((), None), self.identities, self.children)
        self.replays = Replays(
            self.streams, self.registry, self.journal, self.store_frames, time.time_ns, self.messages
        )
        self.imports = Imports(
            self.streams, self.registry, self.journal.find_marks, self.store_frames, lambda: True, time.time_ns
        )
        self.has_room = True
        self.grants = Grants((), _no_hook)
        self.writer = NoWriter()
        self.mqtt = NoMqtt()
        self.ingest = Ingest((), _no_call, self.streams, self.registry, self.store_frames)
        self.posts = make_posts(self, _soon)
        self.foreign = self.posts.foreign
        self.live = Live(
            self.journal, (), NeverScheduler(), newest=self.registry.latest,
            select=lambda selector: DeviceSelector(selector, self.metadata.device),
        )  # fmt: skip
        self.claim_attempts = Attempts()
        self.rollout = Rollout(States(folder / "states.sqlite3"), self.downlink)
        self.downlink.listen(self.rollout)
        self.started_ns = time.time_ns()
        self.failed: Exception | None = None
        self._keys: dict[int, StreamKey] = {}

    def connect(self, device: str, *, stream: str = "00000000000000aa", namespace: str = "default") -> DeviceSession:
        """Return a session that has said hello."""
        session = DeviceSession(namespace, device, self.streams, self.registry, downlink=self.downlink)
        self._keys[id(session)] = StreamKey(namespace, device, stream)
        mark = self.streams.get(StreamKey(namespace, device, stream)).mark
        hello = wire.Hello(device, stream, "0" * 16, "1" * 16, mark.stored, mark.stored + 1, mark.last_chain.hex())
        session.receive(wire.encode(hello), True, time.time_ns())
        return session

    def feed(
        self, session: DeviceSession, *readings: tuple[str, int, Value], channels: tuple[Channel, ...] = ()
    ) -> None:
        """Send one batch (after a schema, if channels are given) and carry it to journal, registry and store."""
        if channels:
            session.receive(wire.encode(wire.Schema(channels)), True, time.time_ns())
        if readings:
            self.send(session, encode_batch(to_columns(self.next_seq(session), readings)))

    def send(self, session: DeviceSession, body: bytes) -> None:
        """Send one numbered frame and commit it."""
        session.receive(body, body.startswith(b"{"), time.time_ns())
        frames, session.frames = session.frames, []
        self.store_frames(frames)

    def store_frames(self, frames: list[Frame]) -> None:
        """Commit frames and carry them everywhere."""
        changes = self.registry.take_changes()
        self.live.add_series(changes)
        self.registry.mark_late(frames)
        self.journal.append(frames, changes)
        self.streams.committed(frames)
        self.registry.apply(frames)
        self.live.publish(frames)
        if not self.consumer.is_behind:
            self.store.write(frames)
        self.replays.committed(frames)
        self.imports.committed(frames)

    def submit(self, frames: list[Frame]) -> None:
        """Commit frames, as the writer does."""
        self.store_frames(frames)

    def can_take(self) -> bool:
        """Tell whether there is room."""
        return self.has_room

    def next_seq(self, session: DeviceSession) -> int:
        """The number of the session's next frame."""
        return self.streams.get(self._keys[id(session)]).mark.stored + 1

    def all_series(self) -> list[Series]:
        """Return every series."""
        return list(self.registry.by_id.values())

    def describe(self) -> None:
        """Bring what people set to the registry and to watchers."""
        subjects = self.metadata.take_changes()
        self.live.add_series(self.registry.describe(subjects))
        self.live.decide_again(self.registry.series_of(subjects))

    def pause(self, seconds: float) -> None:
        """Nothing else wants the disk."""

    def close(self) -> None:
        """Close all files."""
        self.store.close()
        self.journal.close()
        self.commands.close()
        self.rollout.states.close()
        self.metadata.close()
        self._passwords.close()
        self.change_log.close()
        self.users.close()
        self.revocations.close()
        self.children.close()
        self.identities.close()


def _soon(call: Callable[[], None]) -> None:
    """Call it in the loop's next turn, as a hub does."""
    asyncio.get_running_loop().call_soon(call)


async def _no_hook(hook: Hook, *arguments: object) -> object:
    """Answer for hooks where there are none."""
    raise AssertionError("no hook is loaded")


def _no_call(hook: Hook, arguments: tuple[object, ...], answered: object, /) -> None:
    """Call a hook where there are none."""
    raise AssertionError("no hook is loaded")


@contextmanager
def hub_parts(folder: Path) -> Iterator[HubParts]:
    """Give the parts on files in ``folder``."""
    parts = HubParts(folder)
    try:
        yield parts
    finally:
        parts.close()


def http_client(
    app: ASGIApp, *, token: str | None = None, peer: str = "127.0.0.1", base_url: str = "http://127.0.0.1:8000"
) -> httpx.AsyncClient:
    """Return a client that calls the application directly, as if connected from ``peer``."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(app=app, client=(peer, 50000), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=base_url, headers=headers)
