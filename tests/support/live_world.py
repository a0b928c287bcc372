"""A hub's live side without threads or sockets: journal, store rows and newest values in memory, time by hand.

`World` publishes readings; `Client` is a watcher that keeps what it saw and
where it stood, can be cut off at any message, and comes back with its cursor.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from device_sdk.columns import encode_batch, to_columns
from device_sdk.reading import Reading, Value, ValueType
from hub.description import NO_DEVICE_DESCRIPTION, DeviceDescription
from hub.devices import Latest
from hub.errors import ExpiredError, UnauthenticatedError
from hub.gateway.frames import text_frame
from hub.live.budget import BUDGET_BYTES
from hub.live.rooms import Live, Scheduler
from hub.live.subscription import HistoryPage, Need, Subscription
from hub.live.watch import WatchSession
from hub.model import Frame, Kind, Series, SeriesColumn, StreamKey
from hub.query import parse_time
from hub.roles import Identity, Role, scopes_of
from hub.selector import DeviceSelector
from tests.support.fake_connection import FakeConnection
from tests.support.manual_scheduler import ManualScheduler
from tests.support.memory_journal import MemoryJournal
from tests.support.memory_store import MemoryStore

NOW_NS = 1_795_376_000_000_000_000
HIGH_WATER_BYTES = 256 * 1024


class World:
    """One hub's live side. ``expected`` lists (series, time_ns, value, offset) in the order of the journal.

    ``loop``: the real event loop, for tests of shells; else time stands still but for `settle`.
    """

    def __init__(
        self, *, ring_bytes: int = 1 << 24, unsent_bytes: int = BUDGET_BYTES, loop: Scheduler | None = None
    ) -> None:
        self.scheduler = ManualScheduler()
        self.journal = MemoryJournal()
        self.series: dict[int, Series] = {}
        self.newest: dict[int, Latest] = {}
        self.descriptions: dict[tuple[str, str], DeviceDescription] = {}
        self.store = MemoryStore()
        self.expected: list[tuple[int, int, Value, int]] = []
        self._ring_bytes = ring_bytes
        self._unsent_bytes = unsent_bytes
        self._loop: Scheduler = self.scheduler if loop is None else loop
        self.live = self._make_live()

    def add(self, device: str, channel: str, kind: ValueType = ValueType.FLOAT, namespace: str = "default") -> Series:
        """Add a series."""
        series = Series(len(self.series) + 1, namespace, device, channel, kind, "Cel")
        self.series[series.id] = series
        self.live.add_series([series])
        return series

    def describe(self, device: str, *tags: str, site: str | None = None, namespace: str = "default") -> None:
        """Say of a device where it is and which tags it has, as the hub does after an edit; flushes come with time."""
        self.descriptions[namespace, device] = DeviceDescription(site=site, tags=tags)
        of_device = [s for s in self.series.values() if (s.namespace, s.device) == (namespace, device)]
        self.live.decide_again(of_device)

    def rows(self) -> dict[tuple[int, int], Value]:
        """Return what must be stored: (series, time_ns) → value."""
        return {(i, time_ns): value for i, time_ns, value, _ in self.expected}

    def frame(self, readings: Mapping[int, Sequence[tuple[int, Value]]]) -> Frame:
        """Return an uncommitted frame of series id → (time_ns, value)s."""
        flat = [Reading(str(i), time_ns, value) for i, column in readings.items() for time_ns, value in column]
        batch = to_columns(1, flat)
        first = self.series[next(iter(readings))]
        columns = tuple(SeriesColumn(self.series[int(c.channel)], c) for c in batch.columns)
        key = StreamKey(first.namespace, first.device, "0" * 16)
        return Frame(
            key, 1, Kind.BATCH, NOW_NS, encode_batch(batch), b"", batch.t0, batch.tick, columns, batch.count
        )  # fmt: skip

    def publish(self, *frames: Frame) -> None:
        """Commit frames, bring store and registry up to date, publish them; the flush comes with `settle`."""
        self.journal.append(frames, [])
        for frame in frames:
            for series, time_ns, value in frame.rows():
                self.expected.append((series.id, time_ns, value, frame.offset))
                known = self.newest.get(series.id)
                if known is None or time_ns >= known.time_ns:
                    self.newest[series.id] = Latest(time_ns, value, frame.offset)
        self.store.write(frames)
        self.live.publish(frames)

    def record(self, series: int, time_ns: int, value: Value) -> None:
        """Publish one reading and flush."""
        self.publish(self.frame({series: [(time_ns, value)]}))
        self.settle()

    def settle(self, seconds: float = 0.02) -> None:
        """Let time pass until flushes are done."""
        self.scheduler.advance(seconds)

    def restart(self, run_id: str) -> None:
        """Stop and start the hub: a new run, an empty ring."""
        self.journal.restart(run_id)
        for newest in self.newest.values():
            newest.offset = 0
        self.live = self._make_live()

    def restore(self, head: int, run_id: str) -> None:
        """Start the hub from the backup made at ``head``."""
        self.journal.restore(head, run_id)
        self.expected = [e for e in self.expected if e[3] <= head]
        self.live = self._make_live()

    def serve(self, subscription: Subscription, need: Need) -> None:
        """Read a page for a subscription, as the shell does in a thread."""
        if isinstance(need, HistoryPage):
            subscription.supply_rows(self.store.read(need.series, need.start_ns, need.end_ns, need.limit))
            return
        try:
            frames = self.journal.read(need.after, need.max_bytes, need.upto)
        except ExpiredError:
            subscription.expired()
        else:
            subscription.supply_frames(frames)

    def _make_live(self) -> Live:
        return Live(
            self.journal, self.series.values(), self._loop, newest=self.newest, ring_bytes=self._ring_bytes,
            select=lambda selector: DeviceSelector(selector, self._described), unsent_bytes=self._unsent_bytes,
        )  # fmt: skip

    def _described(self, namespace: str, device: str) -> DeviceDescription:
        return self.descriptions.get((namespace, device), NO_DEVICE_DESCRIPTION)


class StoreInStep:
    """A consumer whose store has always applied everything."""

    async def applied(self, offset: int, timeout_s: float) -> bool:
        """Answer at once."""
        return True


class FakeLink:
    """`hub.live.watch.Link` on a fake connection; counts wakes."""

    kind = "ws"

    def __init__(self, connection: FakeConnection, high_water: int = HIGH_WATER_BYTES) -> None:
        self.connection = connection
        self.high_water = high_water
        self.wakes = 0
        self.write = connection.send_raw

    @property
    def is_full(self) -> bool:
        """As the real shell."""
        return self.connection.buffered_bytes > self.high_water

    def frame(self, payload: bytes) -> bytes:
        """As the real shell."""
        return text_frame(payload)

    def close(self, code: int, reason: str) -> None:
        """Close the connection."""
        self.connection.close(code, reason)

    def identify(self, token: str) -> Identity:
        """Take the token for the pattern that may be seen; an empty one, ``?``, is refused."""
        if token == "?":
            raise UnauthenticatedError("not known")
        return Identity("t-2", "other", Role.WATCHER, scopes=scopes_of(Role.WATCHER, [token]))

    def wake(self) -> None:
        """Count; tests call `Client.run`."""
        self.wakes += 1


class Client:
    """A watcher of one subscription: applies messages in order and keeps the cursor of the last one applied."""

    def __init__(
        self, world: World, granted: Sequence[str] = ("**",), *, high_water: int = HIGH_WATER_BYTES, **sub: object
    ) -> None:
        self.world = world
        self.high_water = high_water
        self.granted = granted
        self.sub: dict[str, object] = {"op": "sub", "sub": "s1", "match": ["**"], **sub}
        self.cursor: str | None = None
        self.messages: list[dict[str, Any]] = []
        self.readings: list[tuple[int, int, Value]] = []
        self.live_readings: list[tuple[int, int, Value]] = []
        self.names: dict[int, dict[str, Any]] = {}
        self.is_live = False

    def connect(self, *, run: bool = True) -> "Client":
        """Open a connection and subscribe from the cursor, or as at first."""
        self.connection = FakeConnection()
        self.link = FakeLink(self.connection, self.high_water)
        self.session = WatchSession(self.world.live, "default", self.granted, self.link, parse_time, "c-1")
        since = {} if self.cursor is None else {"since": self.cursor}
        self.say({**self.sub, **since})
        if run:
            self.run()
        return self

    def say(self, message: object) -> None:
        """Send one message to the hub."""
        self.session.receive(orjson.dumps(message), True, self.world.scheduler.now, NOW_NS)

    def run(self, steps: int = 10_000) -> None:
        """Do what the shell does when it was woken: step, and read pages."""
        for _ in range(steps):
            need = self.session.step()
            if need is False:
                return
            if need is not True:
                self.world.serve(self.session.reader, need)

    def receive(self, count: int | None = None) -> list[dict[str, Any]]:
        """Apply the messages that have arrived (or only the first ``count``; the rest is lost) and return them."""
        messages = self.connection.take()[:count]
        for message in messages:
            self._apply(message)
        self.messages += messages
        return messages

    def drop(self, count: int | None = None) -> None:
        """Apply ``count`` messages and lose the connection."""
        self.receive(count)
        self.session.end()
        self.is_live = False

    def ops(self) -> list[str]:
        """Return the ops of everything applied so far."""
        return [message["op"] for message in self.messages]

    def _apply(self, message: dict[str, Any]) -> None:
        match message["op"]:
            case "ok":
                self.cursor = message.get("from", self.cursor)
            case "series":
                self.names |= {int(i): s for i, s in message["s"].items()}
            case "data":
                readings = list(decode(message, self.names))
                self.readings += readings
                if self.is_live or "." not in message["o"].split(".", 1)[1]:
                    self.live_readings += readings
                self.cursor = message["o"]
            case "live":
                self.is_live = True
                self.cursor = message["o"]
            case "reset":
                self.cursor = message["head"]


def decode(message: Mapping[str, Any], names: Mapping[int, Mapping[str, Any]]) -> Iterable[tuple[int, int, Value]]:
    """Yield (series, time_ns, value) of a data message; every id must have been named before."""
    t0, tick = int(message["t0"]), message["tick"]
    for i, dt, value in message["u"]:
        kind = names[i]["type"]
        yield i, t0 + int(dt) * tick, int(value) if isinstance(value, str) and kind != "str" else value
