"""The composition root: builds the hub's parts, starts and stops them in order.

Owns: the parts and their life cycle; no rule of any protocol. Place: above
everything but the command line.

Start: identities → metadata → commands → journal (series, new streams) → store and its consumer →
live → listening socket. Stop: listeners → device sessions → writer (drains) →
consumer → store → journal → commands → metadata → identities.
"""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from device_sdk.wire import DEVICE_PATH, DEVICE_SUBPROTOCOL, WATCH_PATH, WATCH_SUBPROTOCOL, Bye, Close, encode
from hub.auth import Identities
from hub.backup import COMMANDS, IDENTITIES, JOURNAL, METADATA, READINGS, STATES, BackupError, remove_unsent
from hub.certificate import Certificate
from hub.change_log import CHANGES, FLUSH_EVERY_S, ChangeLog, Entry
from hub.child_sessions import ChildSessions
from hub.children import CHILDREN, Children
from hub.commands import Commands
from hub.config import Config
from hub.decode.dispatch import decoders_of
from hub.desired import States
from hub.devices import Registry
from hub.disk_budget import DiskBudget
from hub.downlink import Downlink
from hub.errors import DiskFailedError, ExpiredError, ForbiddenError, HubError, UnauthenticatedError
from hub.event_log import EVENTS, open_events
from hub.folder_lock import held
from hub.foreign_replay import ForeignMessages
from hub.gateway.access import identify, identify_again, with_offered_token
from hub.gateway.attempts import Attempts
from hub.gateway.certified import Certified, Ending
from hub.gateway.device_socket import DeviceSocket
from hub.gateway.gateways import Gateways
from hub.gateway.mqtt_door import MQTT_PATH, MqttDoor
from hub.gateway.watch_socket import WatchSocket
from hub.gateway.websocket import Accept, Refuse, UpgradeRequest
from hub.hooks.grant import Grants
from hub.hooks.ingest import Ingest
from hub.hooks.loading import load
from hub.hooks.runner import Runner
from hub.importing.intake import Imports
from hub.incident import Incident
from hub.journal.sqlite import SqliteJournal
from hub.journal.writer import JournalWriter
from hub.live.rooms import RECONNECTS_PER_S, Live
from hub.metadata import Metadata
from hub.model import Frame, Mark, Series, StreamKey
from hub.passwords import Passwords
from hub.posts import make_posts
from hub.query import Query
from hub.renewal import renew_if_suspect
from hub.replay import Replays
from hub.retention import Policies, Retention
from hub.revocations import CERTIFICATES, Revocations
from hub.roles import Identity, Role, Verb
from hub.rollout import Rollout
from hub.selector import DeviceSelector
from hub.session import DeviceSession
from hub.sign_in import SignIn
from hub.steady_clock import SteadyClock, known_span
from hub.store.base import RetainingStore, Store
from hub.store.consumer import StoreConsumer
from hub.store.opening import open_as
from hub.streams import NEW_STREAMS_NS, Streams
from hub.system_feed import SystemFeed
from hub.system_readings import SystemReadings
from hub.users import USERS, Users

_log = logging.getLogger("hub.app")

# Other processes' edits of identities must be seen within 1 s.
IDENTITIES_EVERY_S = 0.5
# And so those of metadata.
METADATA_EVERY_S = 0.5
# At full rate a minute of frames is about 100 MB, a tenth of what the journal keeps.
TRIM_EVERY_S = 60.0
# A hub that restarts is back in about a second; then 500 devices a second come, not all at once.
MIN_SPREAD_MS = 1000
_REPLAY_BYTES = 4 * 1024 * 1024
# Whichever of them a disk failed gets a fresh copy before it is opened.
_FILES = (
    JOURNAL, READINGS, IDENTITIES, METADATA, CERTIFICATES, USERS, CHANGES, COMMANDS, STATES, CHILDREN, EVENTS,
)  # fmt: skip


class Hub:
    """One running hub on one data directory.

    Use as ``async with Hub(config) as hub``. Everything public is a part that
    the gateway or a test may read; each part owns its own state.

    Raises:
        ConfigError: a hook or decoder cannot be loaded.
        JournalError, StoreError: on entering: the data directory cannot be used, or another hub does.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.started_ns = time.time_ns()
        self.failed: Exception | None = None
        self.on_failed = _nothing
        self.claim_attempts = Attempts()
        self._sockets: set[DeviceSocket] = set()
        self._socket_ids: dict[DeviceSocket, str] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._files = ExitStack()
        self._is_stopping = threading.Event()
        self._hooks = load(config.hook)
        self.make_decoders = decoders_of(config.decoder, config.device_zone)

    async def __aenter__(self) -> "Hub":
        with ExitStack() as files:
            await self._open(files)
            # Opened as a whole: from now on the end closes them, not this block.
            self._files = files.pop_all()
        self.consumer.start()
        self.writer.start()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._watch_identities(), name="hub identities")]
        self._tasks.append(loop.create_task(self._watch_metadata(), name="hub metadata"))
        self._tasks.append(loop.create_task(self._trim(), name="hub trim"))
        if self.retention is not None:
            self._tasks.append(loop.create_task(self.retention.run(), name="hub retention"))
        if self.disk_budget is not None:
            self._tasks.append(loop.create_task(self.disk_budget.run(), name="hub disk budget"))
        self._tasks.append(loop.create_task(self._write_refusals(), name="hub refusals"))
        self._tasks.append(loop.create_task(self.system.run(), name="hub system readings"))
        self._tasks.append(loop.create_task(self.commands.run(), name="hub commands"))
        self._tasks.append(loop.create_task(self.rollout.run(), name="hub rollout"))
        return self

    async def _open(self, files: ExitStack) -> None:
        """Open the files and build the parts; ``files`` closes what is open, in the opposite order."""
        data = Path(self.config.data)
        await asyncio.to_thread(data.mkdir, parents=True, exist_ok=True)
        files.enter_context(held(data))
        await asyncio.to_thread(remove_unsent, data)
        for name in _FILES:
            await asyncio.to_thread(renew_if_suspect, data / name)
        self.identities = files.enter_context(closing(Identities(data / "identities.sqlite3")))
        self.metadata = files.enter_context(closing(Metadata(data / "metadata.sqlite3")))
        self.revocations = files.enter_context(closing(Revocations(data / CERTIFICATES)))
        self.certified: Certified[Ending] = Certified(self.identities, self.revocations)
        self.users = files.enter_context(closing(Users(data / USERS)))
        self.change_log = files.enter_context(closing(ChangeLog(data / CHANGES)))
        self.children = files.enter_context(closing(Children(data / CHILDREN, self.identities)))
        call_soon = asyncio.get_running_loop().call_soon_threadsafe
        self.gateways: Gateways[object] = Gateways(self.identities, self.children, self.change_log, call_soon)
        self.sign_in = SignIn(self.users, files.enter_context(closing(Passwords())))
        self.downlink = Downlink()
        self.commands = files.enter_context(closing(Commands(data / "commands.sqlite3", self.downlink)))
        self.journal = files.enter_context(closing(SqliteJournal(data / "journal.sqlite3")))
        self.clock = SteadyClock(known_span(self.journal.received(), self.config.journal_hours))
        begun = self.journal.begun(time.time_ns() - NEW_STREAMS_NS)
        self.streams = Streams(self.journal.runs(), self.journal.head, self._find_marks, begun)
        self.store = files.enter_context(closing(await asyncio.to_thread(self._open_store, data)))
        self.registry = Registry(
            self.journal.series(), ids_from=self.store.largest_series() + 1, described=self.metadata.channel
        )
        self.journal.find_series = self.registry.by_key.get
        self.retention, self.disk_budget = await asyncio.to_thread(self._aging)
        self._replay()
        loop = asyncio.get_running_loop()

        def store_failed(error: Exception) -> None:
            loop.call_soon_threadsafe(self._disk_failed, error)

        self.consumer = StoreConsumer(self.store, self.journal, on_failed=store_failed)
        self.writer = JournalWriter(self.journal, loop, self._committed, self._disk_failed, self._refused)
        feed = partial(
            SystemFeed, streams=self.streams, registry=self.registry, submit=self.submit,
            can_submit=lambda: not self.writer.is_full, clock=time.time_ns,
        )  # fmt: skip
        events = files.enter_context(closing(open_events(data / EVENTS, self.clock)))
        system = SystemReadings(feed, self.change_log, events, self.journal, self.downlink, self._all_series())
        self.system = files.enter_context(closing(system))
        self.rollout = Rollout(files.enter_context(closing(States(data / "states.sqlite3"))), self.downlink)
        self.downlink.listen(self.rollout)
        self.live = self._make_live(loop)
        self.query = Query(self.registry, self.store)
        self._build_intakes(files)

    def _make_live(self, loop: asyncio.AbstractEventLoop) -> Live:
        def select(selector: str) -> DeviceSelector:
            return DeviceSelector(selector, self.metadata.device)

        return Live(self.journal, self.registry.by_id.values(), loop, newest=self.registry.latest, select=select)

    def _open_store(self, data: Path) -> Store:
        return open_as(data / READINGS, self.config.store, token=self.config.store_token.get_secret_value())

    def _build_intakes(self, files: ExitStack) -> None:
        """Build what gives frames to the journal: hooks, and those that no device sends now."""
        loop = asyncio.get_running_loop()
        runner = Runner(loop)
        files.callback(runner.stop)
        self.grants = Grants(self._hooks.authorize, runner.ask)
        self.ingest = Ingest(self._hooks.ingest, runner.call, self.streams, self.registry, self.submit)
        self.take = self.ingest.take if self.ingest.has_hooks else self.submit
        self.posts = make_posts(self, loop.call_soon)
        self.foreign = self.posts.foreign
        self.mqtt = MqttDoor(self, self.config.mqtt_prefix, loop.call_later)
        messages = ForeignMessages(self.make_decoders, self.identities, self.children)
        self.replays = Replays(self.streams, self.registry, self.journal, self.submit, time.time_ns, messages)
        self.imports = Imports(
            self.streams, self.registry, self.journal.find_marks, self.submit, self.can_take, time.time_ns
        )

    def _aging(self) -> tuple[Retention | None, DiskBudget | None]:
        """Return what drops old readings, which a server does itself, and what keeps the hub's files small enough."""
        journal = self.journal
        budget = DiskBudget(
            self.store, lambda: journal.statistics().bytes, self._all_series, self.config.disk_budget,
            trim=self._trim_journal,
        )  # fmt: skip
        if not isinstance(self.store, RetainingStore):
            given = {"keep_raw", "keep_rollups", "retention"} & self.config.model_fields_set
            if given:
                _log.warning("%s set, without effect: the store's server keeps readings", ", ".join(sorted(given)))
            return None, budget
        keeps_all = self.store.keeps_all
        if keeps_all and self.config.keep_raw is None:
            _log.warning("readings are kept for ever: this folder is of a hub that dropped none; set keep_raw to drop")
        policies = Policies(self.config, keeps_all=keeps_all)
        return Retention(self.store, policies, self._all_series, now_ns=self.clock), budget

    def _all_series(self) -> list[Series]:
        return list(self.registry.by_id.values())

    def can_take(self) -> bool:
        """Tell whether devices may send; else they are told ``slow`` and keep what they have."""
        is_full = self.writer.is_full or self.ingest.is_full
        return not is_full and not (self.disk_budget is not None and self.disk_budget.is_full)

    def pause(self, seconds: float) -> None:
        """Sleep in a thread; raise `BackupError` as soon as the hub stops, which must not wait for a long copy."""
        if self._is_stopping.wait(seconds):
            raise BackupError("no backup: the hub stops")

    async def __aexit__(self, *_: object) -> None:
        self._is_stopping.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.commands.stop()
        self.live.stop()
        await self.mqtt.stopped()
        for socket in list(self._sockets):
            socket.end(Close.GOING_AWAY, "the hub stops")
        self.ingest.stop()
        await asyncio.to_thread(self.writer.stop)
        await asyncio.to_thread(self.consumer.stop)
        self._files.close()

    def upgrade(self, request: UpgradeRequest) -> Accept | Refuse:
        """Decide a WebSocket upgrade: who may speak which protocol where."""
        doors = {DEVICE_PATH: self._upgrade_device, WATCH_PATH: self._upgrade_watcher, MQTT_PATH: self.mqtt.upgrade}
        if (door := doors.get(request.path)) is not None:
            return door(request)
        return Refuse(404, "not_found", f"no WebSocket here: use {' or '.join(doors)}")

    def goodbye(self) -> bytes:
        """Return the message that tells a connection when to come back: spread over all of them."""
        spread_ms = MIN_SPREAD_MS + len(self._sockets) * 1000 // RECONNECTS_PER_S
        return encode(Bye(random.randrange(spread_ms)))

    def submit(self, frames: list[Frame]) -> None:
        """Hand accepted frames and the registry's changes to the journal's writer."""
        changes = self.registry.take_changes()
        if changes:
            self.live.add_series(changes)
            self.system.describe(changes)
        self.registry.mark_late(frames)
        self.writer.submit(frames, changes)

    def describe(self) -> None:
        """On the loop: bring what people set of channels to the registry and to watchers."""
        subjects = self.metadata.take_changes()
        changed = self.registry.describe(subjects)
        if changed:
            self.live.add_series(changed)
            self.system.describe(changed)
        self.live.decide_again(self.registry.series_of(subjects))

    def _upgrade_device(self, request: UpgradeRequest) -> Accept | Refuse:
        identity = identify(self, request.headers, None)
        if identity is None and ("authorization" in request.headers or request.certificate is None):
            self._credential_refused(request)
            return Refuse(401, "unauthenticated", "send Authorization: Bearer with the device's token")
        if request.certificate is not None:
            identity = self._certified(request, request.certificate, identity)
        assert identity is not None, "by token or by certificate"
        if not identity.patterns(Verb.WRITE):
            return Refuse(403, "forbidden", "this is not a device's token: use the one `hub devices add` printed")
        if DEVICE_SUBPROTOCOL not in request.subprotocols:
            return Refuse(400, "bad_request", f"ask for the WebSocket subprotocol {DEVICE_SUBPROTOCOL}")
        begin = partial(self.begin, request.address, identity.namespace)
        is_gateway = identity.role is Role.GATEWAY
        session = ChildSessions(identity, self.children, begin) if is_gateway else begin(identity.name)
        socket = DeviceSocket(session, self.take, self.can_take, self._socket_closed)
        if isinstance(session, ChildSessions):
            self.gateways.enter(socket, session)
        self._sockets.add(socket)
        self._socket_ids[socket] = identity.id
        if request.certificate is not None:
            self.certified.enter(socket, request.certificate)
        return Accept(socket, DEVICE_SUBPROTOCOL)

    def begin(self, peer: str, namespace: str, device: str) -> DeviceSession:
        """Make the session of a device that an address speaks for."""
        return DeviceSession(
            namespace, device, self.streams, self.registry, downlink=self.downlink, peer=peer, report=self._incident,
            has_hooks=self.ingest.has_hooks,
        )  # fmt: skip

    def _upgrade_watcher(self, request: UpgradeRequest) -> Accept | Refuse:
        request = replace(request, headers=with_offered_token(self.config, request.headers, request.subprotocols))
        identity = identify(self, request.headers, request)
        if identity is None:
            self._credential_refused(request)
            return Refuse(401, "unauthenticated", "send a watcher token, or open the page's login link first")
        if not identity.patterns(Verb.READ):
            return Refuse(
                403, "forbidden", "this credential may not read: use one from `hub tokens add --role watcher`"
            )
        if WATCH_SUBPROTOCOL not in request.subprotocols:
            return Refuse(400, "bad_request", f"ask for the WebSocket subprotocol {WATCH_SUBPROTOCOL}")
        authenticate = partial(identify_again, self, request.address)
        socket = WatchSocket(self.live, self.store, self.consumer, identity, self.grants, authenticate)
        return Accept(socket, WATCH_SUBPROTOCOL)

    def _certified(self, request: UpgradeRequest, certificate: Certificate, by_token: Identity | None) -> Identity:
        try:
            return self.certified.identify(certificate, by_token)
        except (UnauthenticatedError, ForbiddenError):
            self._credential_refused(request)
            raise

    def _credential_refused(self, request: UpgradeRequest) -> None:
        if "authorization" in request.headers or "cookie" in request.headers or request.certificate is not None:
            entry = Entry(f"connect {request.path}", outcome=UnauthenticatedError.reason, peer=request.address)
            self.change_log.refused(entry)

    def _incident(self, incident: Incident) -> None:
        # Counted as refusals are: two devices may fight as often as they like.
        self.change_log.refused(
            Entry(
                incident.what, incident.device, incident.outcome, who=incident.device, role=Role.DEVICE.value,
                peer=incident.peers, namespace=incident.namespace,
            )
        )  # fmt: skip

    def _socket_closed(self, socket: DeviceSocket) -> None:
        self._sockets.discard(socket)
        self._socket_ids.pop(socket, None)
        self.certified.leave(socket)
        self.gateways.leave(socket)

    def _find_marks(self, keys: Iterable[StreamKey]) -> dict[StreamKey, Mark]:
        """On the loop: the one read of the journal that a device waits for; its disk may fail like the writer's."""
        try:
            return self.journal.find_marks(keys)
        except DiskFailedError as error:
            self._disk_failed(error)
            raise

    def _committed(self, frames: Sequence[Frame]) -> None:
        """On the loop, after the commit returned: acks first, then everybody else."""
        for session in self.streams.committed(frames):
            session.flush()
        self.registry.apply(frames)
        self.live.publish(frames)
        self.consumer.wake(frames)
        self.system.committed(frames)
        self.replays.committed(frames)
        self.imports.committed(frames)

    def _refused(self, frames: Sequence[Frame]) -> None:
        self.registry.forget_arriving()
        self.ingest.refused(frames)
        for session in self.streams.refused(frames):
            session.flush()
        self.replays.refused(frames)
        self.imports.refused(frames)

    def _disk_failed(self, error: Exception) -> None:
        """A file cannot be trusted any more: take nothing, say so, stop; `hub.server` starts again if that helps."""
        if self.failed is None:
            self.failed = error
            _log.error("hub failed reason=%s; it stops", error)
            self.replays.failed(error)
            self.imports.failed(error)
            self.posts.failed(error)
            self.on_failed()

    def _replay(self) -> None:
        """Bring latest values up to date: from the store, then from frames the store has not seen yet."""
        for row in self.store.latest(list(self.registry.by_id)):
            self.registry.load_latest(row.series, row.time_ns, row.value)
        for frames in self._unstored():
            self.registry.apply(frames)

    def _unstored(self) -> Iterator[list[Frame]]:
        after = self.store.applied
        while after < self.journal.head:
            try:
                frames = self.journal.read(after, _REPLAY_BYTES)
            except ExpiredError:
                # The store is an older copy than the journal keeps frames for: the consumer says what is missing.
                after = self.journal.statistics().first_offset - 1
                continue
            if not frames:
                return
            yield frames
            after = frames[-1].offset

    async def _watch_identities(self) -> None:
        level = logging.WARNING
        while True:
            await asyncio.sleep(IDENTITIES_EVERY_S)
            failed = None
            # Each for itself: who is told of an ended token is told once, and a file that fails must not lose it.
            for look in (self._end_tokens, self._end_sessions, self._end_certified, self._end_children):
                try:
                    await look()
                except HubError as error:
                    # Whatever is wrong with the file, revoked credentials must be noticed when it is well again.
                    _log.log(level, "identities not read reason=%s; trying again", error)
                    failed = error
            level = logging.WARNING if failed is None else logging.DEBUG

    async def _end_tokens(self) -> None:
        # In a thread, as the others: another process may hold the file's lock for seconds.
        self._end_identities(await asyncio.to_thread(self.identities.refresh))

    async def _end_sessions(self) -> None:
        self._end_identities(await asyncio.to_thread(self.users.refresh))

    def _end_identities(self, ended: Set[str]) -> None:
        if ended:
            for socket in [s for s, identity in self._socket_ids.items() if identity in ended]:
                socket.end(Close.UNAUTHENTICATED, "this credential was revoked")
            self.mqtt.clients.end_identities(ended)
            self.live.end_identities(ended)

    async def _end_certified(self) -> None:
        missing = await asyncio.to_thread(self.certified.refresh, self.certified.asked())
        for socket, why in self.certified.ended(missing):
            socket.end(Close.UNAUTHENTICATED, why)

    async def _end_children(self) -> None:
        self.gateways.ended(await asyncio.to_thread(self.gateways.refresh, self.gateways.asked()))

    async def _watch_metadata(self) -> None:
        level = logging.WARNING
        while True:
            await asyncio.sleep(METADATA_EVERY_S)
            try:
                # In a thread: another process may hold the file's lock for seconds.
                await asyncio.to_thread(self.metadata.refresh)
            except HubError as error:
                _log.log(level, "metadata not read reason=%s; trying again", error)
                level = logging.DEBUG
                continue
            level = logging.WARNING
            self.describe()

    async def _write_refusals(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            try:
                await asyncio.to_thread(self.change_log.flush)
            except HubError as error:
                _log.error("refusals not written reason=%s; trying again", error)

    def _trim_journal(self) -> None:
        self.journal.trim_expired(self.clock(), self.config.journal_hours, self.config.journal_limit)

    async def _trim(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._trim_journal)
            except Exception:  # the outer edge of this task: trimming must go on, whatever one trim met
                _log.exception("journal trim failed; tried again in %d s", TRIM_EVERY_S)
            await asyncio.sleep(TRIM_EVERY_S)


def _nothing() -> None:
    """Default of `Hub.on_failed`."""
