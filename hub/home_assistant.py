"""Our devices in Home Assistant: what is to be published on a broker so that they appear there, and go again.

Owns: what was said of each series, and when the next may be said. Place: above `devices`; a bridge publishes what comes
of it. Pure: the time is passed in. Must not: hold readings up, or be a part that they need.

Theory of operation. `tick` compares the registry with what was said, and returns what is new: first what is gone, then
for each series its announcement, whether its device is there, its newest value. All of it is retained by the broker, so
Home Assistant may start at any time; each value is said at most once in `every_s`, and a tick says at most `per_tick`
messages, in turn over all series: the last value of each is said at last. Values are the newest by their own times;
what came late is history, which Home Assistant does not take.

A tick costs what is said there, not what the hub has: it looks at `LOOK_AT_ONCE` series of the registry, in rounds.

Announcements outlive the hub. What a broker still has of series that are gone is given to `saw`, and taken back at the
end of a round, when all that is to be said is known.
"""

import json
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from device_sdk.reading import is_device_name
from hub.devices import Presence, Registry
from hub.home_assistant_entity import Place, config, state
from hub.model import Series

# A value a second is what a person can follow; Home Assistant writes each into its own database.
EVERY_S = 1.0
# In one tick. A broker and Home Assistant take thousands a second; a fleet must not be all they do.
PER_TICK = 200
# Entities beyond some thousand make Home Assistant's pages slow. A series takes about 600 bytes here.
MAX_SERIES = 5_000
# Series of the registry in one tick: a hub of 50,000 is looked through in 6 s.
LOOK_AT_ONCE = 2_000
# Topics that wait to be taken back.
_MAX_GONE = 20_000
_MAX_TOPIC = 512


class Message(NamedTuple):
    """What is to be published; empty and retained: the broker forgets the topic."""

    topic: str
    payload: bytes
    qos: int = 0
    is_retained: bool = True


class _Said:
    """What was said of one series."""

    __slots__ = ("sent_ns", "series", "signature", "topic", "value_of")

    def __init__(self, series: Series) -> None:
        self.series = series
        self.topic = ""
        self.signature: tuple[Any, ...] | None = None
        self.value_of: tuple[int, object] | None = None
        self.sent_ns: int | None = None


class HomeAssistant:
    """What a hub says to Home Assistant; all calls come from one loop.

    Args:
        place: where its entities are on the broker.
        namespace: whose devices appear.
        is_wanted: whether a device appears, by its name; one that came from the same broker is there already.
        label: of a device, for people.
    """

    def __init__(
        self,
        registry: Registry,
        place: Place,
        *,
        namespace: str = "default",
        is_wanted: Callable[[str], bool] = lambda _: True,
        label: Callable[[str], str | None] = lambda _: None,
        every_s: float = EVERY_S,
        per_tick: int = PER_TICK,
        max_series: int = MAX_SERIES,
    ) -> None:
        self._registry = registry
        self._place = place
        self._namespace = namespace
        self._is_wanted = is_wanted
        self._label = label
        self._every_ns = int(every_s * 1e9)
        self._per_tick = per_tick
        self._max_series = max_series
        self._said: dict[int, _Said] = {}
        self._there: dict[str, bool] = {}
        self._gone: deque[str] = deque(maxlen=_MAX_GONE)
        # Announcements that the broker has, not yet compared with the registry, and their topics of values.
        self._found: dict[str, str] = {}
        # Topics of announcements that we have made: the broker gives them to us again.
        self._announced: set[str] = set()
        self._next = 0
        # What is left of a round, and how many series of it had no room.
        self._round: Iterator[int] | None = None
        self._no_room = 0
        self.left_out = 0

    @property
    def will(self) -> Message:
        """Return what the broker says when the hub is gone without a word, and the hub when it goes."""
        return Message(self._place.status, b"offline", 1)

    @property
    def filters(self) -> tuple[str, str]:
        """Return what a bridge subscribes to for `saw`: our announcements, and whether Home Assistant is there."""
        return f"{self._place.discovery}/+/{self._place.hub}/+/config", f"{self._place.discovery}/status"

    def is_ours(self, topic: str) -> bool:
        """Say whether a topic is one that only this hub publishes: a bridge must not take it for a device's."""
        return topic.startswith(f"{self._place.topic}/{self._place.hub}/") or self._is_config(topic)

    def connected(self) -> Message:
        """Begin on a new connection: all is said again, since the broker may be another one."""
        self._say_again()
        return Message(self._place.status, b"online", 1)

    def saw(self, topic: str, payload: bytes) -> None:
        """Take what came by `filters`."""
        if topic == self.filters[1]:
            # Home Assistant has started: it has what is retained, unless its broker lost it.
            if payload == b"online":
                self._say_again()
        elif payload and topic not in self._announced and self._is_config(topic) and len(self._found) < _MAX_GONE:
            self._found[topic] = self._state_topic(payload)

    def tick(self, now_ns: int) -> list[Message]:
        """Return what is to be published now; call it some times a second."""
        self._drop_gone()
        self._look()
        out: list[Message] = []
        while self._gone and len(out) < self._per_tick:
            out.append(Message(self._gone.popleft(), b"", 1))
        now = _Now(self._registry, self._namespace, self._label, now_ns)
        for said in self._in_turn():
            if len(out) >= self._per_tick:
                self._next = said.series.id
                break
            out += self._of(said.series, said, now)
        return out

    def _of(self, series: Series, said: _Said, now: "_Now") -> Iterator[Message]:
        label, is_there = now.of(series.device)
        signature = (series.type, series.unit, series.label, series.described, label)
        if said.signature != signature:
            topic = self._place.config(series)
            if said.topic and said.topic != topic:
                self._announced.discard(said.topic)
                yield Message(said.topic, b"", 1)
            self._announced.add(topic)
            said.topic, said.signature = topic, signature
            document = config(series, self._place, label)
            yield Message(topic, json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(), 1)
        if self._there.get(series.device) is not is_there:
            self._there[series.device] = is_there
            yield Message(self._place.availability(series.device), b"online" if is_there else b"offline", 1)
        latest = self._registry.latest.get(series.id)
        # A clock that was set back must not silence a series.
        is_due = said.sent_ns is None or not 0 <= now.ns - said.sent_ns < self._every_ns
        if latest is not None and is_due and said.value_of != (latest.time_ns, latest.value):
            said.value_of, said.sent_ns = (latest.time_ns, latest.value), now.ns
            yield Message(self._place.state(series), state(series, latest.value))

    def _counts(self, series: Series) -> bool:
        """Say whether a series appears: until its type is known it could be either kind of entity."""
        return (
            series.namespace == self._namespace
            and series.type is not None
            and is_device_name(series.device)
            and self._is_wanted(series.device)
        )

    def _in_turn(self) -> list[_Said]:
        """Return all that is said, beginning where the last tick had no more room."""
        ids = sorted(self._said)
        at = bisect_left(ids, self._next)
        return [self._said[number] for number in (*ids[at:], *ids[:at])]

    def _look(self) -> None:
        """Take in series that are new, some of the registry at a time."""
        by_id = self._registry.by_id
        if self._round is None:
            self._round, self._no_room = iter(sorted(by_id)), 0
        looked = 0
        for number in islice(self._round, LOOK_AT_ONCE):
            looked += 1
            series = by_id.get(number)
            if series is None or number in self._said or not self._counts(series):
                continue
            if len(self._said) < self._max_series:
                self._said[number] = _Said(series)
            else:
                self._no_room += 1
        if looked < LOOK_AT_ONCE:
            self._round, self.left_out = None, self._no_room
            self._take_back_found()

    def _drop_gone(self) -> None:
        """Let the broker forget what is no more."""
        by_id, gone = self._registry.by_id, []
        for number, said in self._said.items():
            series = by_id.get(number)
            if series is None or not self._counts(series):
                gone.append(said)
            else:
                said.series = series
        if not gone:
            return
        for said in gone:
            del self._said[said.series.id]
            if said.topic:
                self._announced.discard(said.topic)
                self._gone += (said.topic, self._place.state(said.series))
        devices = {said.series.device for said in self._said.values()}
        for device in [device for device in self._there if device not in devices]:
            del self._there[device]
            self._gone.append(self._place.availability(device))

    def _take_back_found(self) -> None:
        """Let the broker forget what an earlier life announced and this one does not."""
        if self._found:
            for topic in self._found.keys() - {self._place.config(said.series) for said in self._said.values()}:
                self._gone += [gone for gone in (topic, self._found[topic]) if gone]
            self._found.clear()

    def _is_config(self, topic: str) -> bool:
        prefix, levels = f"{self._place.discovery}/", topic.split("/")
        return (
            topic.startswith(prefix)
            and topic.count("/") == prefix.count("/") + 3
            and ((levels[-3], levels[-1]) == (self._place.hub, "config"))
        )

    def _state_topic(self, payload: bytes) -> str:
        """Return where an announcement of an earlier life has its values, if that is below our prefix."""
        try:
            topic = json.loads(payload)["state_topic"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return ""
        prefix = f"{self._place.topic}/{self._place.hub}/"
        return topic if isinstance(topic, str) and topic.startswith(prefix) and len(topic) <= _MAX_TOPIC else ""

    def _say_again(self) -> None:
        self._there.clear()
        for said in self._said.values():
            said.signature = said.value_of = said.sent_ns = None


class _Now:
    """Labels of devices and whether they are there, each looked up once in a tick."""

    __slots__ = ("_found", "_label", "_namespace", "_registry", "ns")

    def __init__(self, registry: Registry, namespace: str, label: Callable[[str], str | None], ns: int) -> None:
        self._registry, self._namespace, self._label, self.ns = registry, namespace, label, ns
        self._found: dict[str, tuple[str | None, bool]] = {}

    def of(self, device: str) -> tuple[str | None, bool]:
        found = self._found.get(device)
        if found is None:
            presence = self._registry.device(self._namespace, device).presence(self.ns)
            found = self._found[device] = (self._label(device), presence is not Presence.OFFLINE)
        return found
