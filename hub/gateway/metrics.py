"""Figures of the whole hub in Prometheus' text format, from the ``statistics()`` of its parts.

Owns: which figures there are, their names and units, how often they are gathered. Place: below `rest`; the only
importer of prometheus_client, on the first scrape. Must not: have a label whose values grow with devices or watchers.

Names follow prometheus.io/docs/practices/naming: ``hub_``, the part, what is counted, its unit; ``_total`` is a counter
since the start. Of watchers there are the sums and the worst over all, and each of the `WORST` furthest behind by the
name of its connection: a watcher that keeps up has no series of its own.
"""

import asyncio
import heapq
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from hub.devices import Presence
from hub.disk_budget import DiskBudget, Sizing
from hub.gateway.access import Parts
from hub.gateway.endpoint import version
from hub.gateway.turns import in_turns, with_figures
from hub.hooks.ingest import IngestStatistics
from hub.journal.base import JournalStatistics
from hub.journal.writer import WriterStatistics
from hub.live.figures import SubscriptionFigures
from hub.live.rooms import LiveStatistics, Watcher
from hub.mqtt.clients import Figures as Mqtt
from hub.post_outcome import IN_PART, REFUSED, STORED
from hub.post_outcome import Figures as Posts
from hub.retention import RetentionStatistics
from hub.store.consumer import ConsumerStatistics

_log = logging.getLogger("hub.gateway")

# Scrapes within this time get the same text: however many ask, the hub gathers once a second.
FRESH_S = 1.0
# Watchers with series of their own.
WORST = 10
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric; ``samples``: (labels, value) each."""

    name: str
    kind: Literal["counter", "gauge"]
    words: str
    samples: Sequence[tuple[Mapping[str, str], float]]


class Metrics:
    """The text of one hub, made when it is asked for and older than `FRESH_S`.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = asyncio.Lock()
        self._text = b""
        self._until = -1.0

    async def text(self, hub: Parts) -> bytes:
        """Return the figures of the hub; those who ask at the same time share them."""
        async with self._lock:
            if self._clock() >= self._until:
                figures = await gather(hub)
                # In a thread, for the first call imports the library.
                self._text = await asyncio.to_thread(as_text, figures)
                self._until = self._clock() + FRESH_S
            return self._text


def as_text(figures: Iterable[Figure]) -> bytes:
    """Return figures in Prometheus' text format, with those of the process."""
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector

    class Gathered(Collector):
        def collect(self) -> Iterator[Metric]:
            for figure in figures:
                kind = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
                names = list(figure.samples[0][0]) if figure.samples else []
                family = kind(figure.name, figure.words, labels=names)
                for labels, value in figure.samples:
                    family.add_metric(list(labels.values()), value)
                yield family

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Gathered())
    ProcessCollector(registry=registry)
    return generate_latest(registry)


async def gather(hub: Parts) -> list[Figure]:
    """Return all figures of now; what reads files does so in a thread, what reads many things in several turns."""
    begun = time.perf_counter()
    files = await asyncio.to_thread(_read_files, hub)
    figures = [
        *_of_hub(hub, await _presences(hub)),
        *_of_files(files),
        *_of_writer(hub.writer.statistics()),
        *_of_consumer(hub.consumer.statistics()),
        *_of_hooks(hub.ingest.statistics()),
        *_of_mqtt(hub.mqtt.statistics()),
        *_of_posts(hub.posts.figures),
        *_of_live(hub.live.statistics()),
        *(await _watching(hub)).figures(),
    ]
    if hub.retention is not None:
        figures += _of_retention(hub.retention.figures)
    if hub.disk_budget is not None:
        figures += _of_budget(hub.disk_budget)
    figures.append(_gauge("scrape_duration_seconds", "How long gathering these took.", time.perf_counter() - begun))
    return figures


# --- parts -----------------------------------------------------------------------------------------------


def _of_hub(hub: Parts, presences: Mapping[Presence, int]) -> Iterator[Figure]:
    yield Figure("hub_build_info", "gauge", "Always 1; the version is a label.", [({"version": version()}, 1)])
    yield _gauge("start_time_seconds", "When the hub was started, unix time.", hub.started_ns / 1e9)
    yield _gauge("failed", "1: a disk failed, and nothing is taken.", hub.failed is not None)
    states = hub.registry.devices.values()
    yield Figure(
        "hub_devices", "gauge", "Devices by presence.", [({"presence": p.value}, presences.get(p, 0)) for p in Presence]
    )
    yield _gauge("device_connections", "Devices connected now.", sum(state.connections for state in states))
    yield _gauge("series", "Channels of all devices.", len(hub.registry.by_id))
    yield _counter("late_readings", "Readings older than what was known of their series.", sum(s.late for s in states))


@dataclass(frozen=True, slots=True)
class _Files:
    """What is read from disk; None: it could not be."""

    journal: JournalStatistics | None
    applied: int
    sizing: Sizing | None
    disk: tuple[int, int] | None


def _read_files(hub: Parts) -> _Files:
    budget, retention = hub.disk_budget, hub.retention
    dropped = 0 if retention is None else retention.figures.dropped
    return _Files(
        _tried(hub.journal.statistics),
        hub.store.applied,
        None if budget is None else _tried(lambda: budget.sizing(dropped)),
        _tried(lambda: _disk(hub.config.data)),
    )


def _tried(read: Callable[[], T]) -> T | None:
    """Return what was read, or None."""
    try:
        return read()
    except Exception as error:  # whatever failed, of whichever engine: just then the other figures matter
        _log.debug("figures not read reason=%r", error)
        return None


def _disk(folder: Path) -> tuple[int, int]:
    usage = shutil.disk_usage(folder)
    return usage.total, usage.free


def _of_files(files: _Files) -> Iterator[Figure]:
    journal, sizing = files.journal, files.sizing
    if journal is not None:
        yield _counter("journal_frames", "Frames committed, of all starts.", journal.head)
        yield _gauge("journal_first_offset", "The oldest frame kept.", journal.first_offset)
        yield _gauge("journal_bytes", "The journal's pages in use.", journal.bytes)
        yield _counter("journal_commits", "Commits, each with an fsync.", journal.commits)
        yield _gauge("journal_last_commit_seconds", "How long the last commit took.", journal.commit_s)
        yield _gauge("journal_largest_commit_frames", "The most frames in one commit.", journal.largest_group)
    yield _counter("store_frames", "Frames applied to the store, of all starts.", files.applied)
    if sizing is not None:
        yield _gauge("store_readings", "Readings stored.", sizing.readings)
        if sizing.store_bytes:
            # None on a server, whose disk is its own business.
            yield _gauge("store_bytes", "The store's pages in use.", sizing.store_bytes)
        if sizing.budget_bytes is not None:
            yield _gauge("disk_budget_bytes", "What journal and store may take.", sizing.budget_bytes)
    if files.disk is not None:
        total, free = files.disk
        yield _gauge("disk_size_bytes", "The file system of the hub's files.", total)
        yield _gauge("disk_free_bytes", "What of it is free.", free)


def _of_writer(writer: WriterStatistics) -> Iterator[Figure]:
    yield _gauge("writer_queue_frames", "Frames that wait for their commit.", writer.frames)
    yield _gauge("writer_queue_bytes", "Memory they take.", writer.bytes)
    yield _gauge("writer_queue_limit_bytes", "Above it devices wait.", writer.limit_bytes)
    yield _gauge("writer_queue_peak_bytes", "The most there was since the start.", writer.peak_bytes)
    yield _counter("writer_refused_frames", "Frames not stored because the disk was full.", writer.refused)


def _of_consumer(consumer: ConsumerStatistics) -> Iterator[Figure]:
    yield _gauge("store_behind_frames", "Frames in the journal that the store has not applied.", consumer.behind)
    yield _gauge("store_queue_bytes", "Frames that wait for the store in memory.", consumer.queued_bytes)
    yield _gauge("store_queue_limit_bytes", "Above it they are read from the journal.", consumer.limit_bytes)
    yield _counter("store_errors", "Writes to the store that failed and were repeated.", consumer.errors)
    yield _counter("store_expired_frames", "Frames that left the journal before the store had them.", consumer.expired)


def _of_retention(done: RetentionStatistics) -> Iterator[Figure]:
    yield _counter("retention_dropped_readings", "Readings dropped when their time was over.", done.dropped)
    yield _counter("retention_dropped_sums", "Blocks of sums dropped.", done.rollups_dropped)
    yield _counter("retention_freed_bytes", "Given back to the file system.", done.given_back_bytes)
    yield _counter("retention_passes", "Looks at all series.", done.passes)


def _of_budget(budget: DiskBudget) -> Iterator[Figure]:
    yield _gauge("disk_budget_full", "1: nothing is left to drop, and devices wait.", budget.is_full)
    yield _counter("disk_budget_dropped_readings", "Readings dropped before their time.", budget.dropped_early)


def _of_hooks(hooks: IngestStatistics) -> Iterator[Figure]:
    yield _gauge("hooks_queue_frames", "Frames that wait for hooks.", hooks.frames)
    yield _gauge("hooks_queue_bytes", "Memory they take.", hooks.bytes)
    yield _gauge("hooks_queue_limit_bytes", "Above it devices wait.", hooks.limit_bytes)
    yield _counter("hooks_answered_batches", "Batches that hooks answered for.", hooks.answered)
    yield _counter(
        "hooks_failed_batches", "Batches that a hook failed for: their devices send them again.", hooks.failed
    )


def _of_mqtt(mqtt: Mqtt) -> Iterator[Figure]:
    yield _gauge("mqtt_connections", "MQTT clients connected now.", mqtt.connections)
    yield _counter("mqtt_publications", "Publications of MQTT clients.", mqtt.publications)
    yield _gauge("mqtt_waiting_publications", "Foreign ones that are not stored yet: their PUBACK waits.", mqtt.waiting)
    yield _gauge("mqtt_repeated_publications", "Those of them that could not be stored at first.", mqtt.again)
    yield _counter("mqtt_lost_publications", "Of QoS 0, while nothing could be stored.", mqtt.lost)
    yield _counter("mqtt_quarantined_publications", "Put into quarantine: nobody could read them.", mqtt.quarantined)
    yield Figure(
        "hub_mqtt_refused_connections_total", "counter", "Connections not let in, by reason.",
        [({"reason": reason}, count) for reason, count in sorted(mqtt.refused.items())],
    )  # fmt: skip
    yield Figure(
        "hub_mqtt_not_taken_total", "counter", "Messages about devices behind gateways that may not speak, by reason.",
        [({"reason": reason}, count) for reason, count in sorted(mqtt.not_taken.items())],
    )  # fmt: skip


def _of_posts(posts: Posts) -> Iterator[Figure]:
    requests = {STORED: 0, IN_PART: 0, REFUSED: 0, **posts.requests}
    yield Figure(
        "hub_post_requests_total", "counter", "Requests with readings, by HTTP and InfluxDB's routes, by outcome.",
        [({"outcome": outcome}, count) for outcome, count in requests.items()],
    )  # fmt: skip
    yield _counter("post_accepted_readings", "Readings of them that are stored.", posts.accepted)
    yield _counter("post_rejected_readings", "Readings and lines of them that are not.", posts.rejected)
    yield _counter("post_quarantined_frames", "Put into quarantine: nobody could read them.", posts.quarantined)
    yield _counter("post_repeated_requests", "Requests known by their Idempotency-Key, and stored before.", posts.known)
    yield _counter("post_received_bytes", "Their bodies, packed as they came.", posts.bytes)


def _of_live(live: LiveStatistics) -> Iterator[Figure]:
    yield _gauge("live_head_offset", "The newest frame that watchers may get.", live.head)
    yield _gauge("live_rooms", "Sets of patterns that are watched.", live.rooms)
    yield _gauge("live_subscriptions", "Subscriptions of all watchers.", live.listeners)
    yield _gauge("live_subscriptions_behind", "Subscriptions that read pages to catch up.", live.behind)
    yield _gauge("live_ring_frames", "Newest frames in memory.", live.ring_frames)
    yield _gauge("live_ring_bytes", "Memory they take.", live.ring_bytes)
    yield _gauge("live_cache_bytes", "Encoded messages in memory.", live.cache_bytes)
    yield _counter("live_flushes", "Times that rooms were sent what is new.", live.flushes)
    yield _counter("live_deliveries", "Messages written to subscriptions that keep up.", live.deliveries)
    yield _gauge("live_unsent_bytes", "Written to watchers and not taken, at the last look.", live.unsent_bytes)
    yield _gauge("live_unsent_mark_bytes", "Above it one connection waits as a cursor.", live.unsent_mark)
    yield _counter("live_evicted_watchers", "Watchers closed because all held too much.", live.evicted)


# --- devices and watchers --------------------------------------------------------------------------------


async def _presences(hub: Parts) -> Counter[Presence]:
    found: Counter[Presence] = Counter()
    now_ns = time.time_ns()
    async for state in in_turns(hub.registry.devices.values()):
        found[state.presence(now_ns)] += 1
    return found


@dataclass(frozen=True, slots=True)
class _Standing:
    """How one watcher stands: the worst of its subscriptions, the sums of their rates."""

    name: str
    transport: str
    behind: int
    behind_s: float
    unsent: int
    messages_per_s: float
    conflated: int


@dataclass(slots=True)
class _Watching:
    """All watchers together, and the worst of them."""

    transports: Counter[str] = field(default_factory=Counter)
    behind: int = 0
    most_behind: int = 0
    most_behind_s: float = 0.0
    most_unsent: int = 0
    messages_per_s: float = 0.0
    conflated: int = 0
    late: list[_Standing] = field(default_factory=list)

    def add(self, one: _Standing) -> None:
        """Count one watcher."""
        self.transports[one.transport] += 1
        self.behind += one.behind > 0
        self.most_behind = max(self.most_behind, one.behind)
        self.most_behind_s = max(self.most_behind_s, one.behind_s)
        self.most_unsent = max(self.most_unsent, one.unsent)
        self.messages_per_s += one.messages_per_s
        self.conflated += one.conflated
        if one.behind or one.unsent:
            self.late.append(one)

    def figures(self) -> Iterator[Figure]:
        """Return what is told of watchers."""
        kinds = {"websocket": 0, "sse": 0, "poll": 0, **self.transports}
        yield Figure(
            "hub_watchers", "gauge", "Connections of watchers, by transport.",
            [({"transport": kind}, count) for kind, count in kinds.items()],
        )  # fmt: skip
        yield _gauge("watchers_behind", "Watchers with a subscription that is owed something.", self.behind)
        yield _gauge("watcher_max_lag_frames", "The most frames that one is owed.", self.most_behind)
        yield _gauge("watcher_max_lag_seconds", "The longest span that one is owed, at least.", self.most_behind_s)
        yield _gauge("watcher_max_unsent_bytes", "The most that one has not taken.", self.most_unsent)
        yield _gauge(
            "watcher_messages_per_second", "Messages with data to all, over the last 15 s.", self.messages_per_s
        )
        yield _gauge("watcher_conflated_readings", "Readings that newer ones replaced, for those here.", self.conflated)
        worst = heapq.nlargest(WORST, self.late, key=lambda one: (one.behind, one.unsent))

        def of_each(name: str, words: str, value: Callable[[_Standing], float]) -> Figure:
            samples = [({"connection": one.name, "transport": one.transport}, value(one)) for one in worst]
            return Figure(f"hub_worst_watcher_{name}", "gauge", words, samples)

        yield of_each("lag_frames", f"Frames owed to each of the {WORST} furthest behind.", lambda one: one.behind)
        yield of_each("lag_seconds", "The span of them, at least.", lambda one: one.behind_s)
        yield of_each("unsent_bytes", "What each has not taken.", lambda one: one.unsent)
        yield of_each("messages_per_second", "Messages with data to each.", lambda one: one.messages_per_s)
        yield of_each("conflated_readings", "Readings that newer ones replaced.", lambda one: one.conflated)


async def _watching(hub: Parts) -> _Watching:
    found = _Watching()
    async for watcher, figures in with_figures(hub.live.watchers):
        found.add(_standing(watcher, figures))
    return found


def _standing(watcher: Watcher, each: Sequence[SubscriptionFigures]) -> _Standing:
    origin = watcher.origin
    return _Standing(
        origin.name, origin.transport,
        max([one.behind for one in each], default=0), max([one.behind_s for one in each], default=0.0),
        watcher.buffered_bytes,
        sum([one.messages_per_s for one in each]), sum([one.conflated or 0 for one in each]),
    )  # fmt: skip


def _gauge(name: str, words: str, value: float) -> Figure:
    return Figure(f"hub_{name}", "gauge", words, [({}, value)])


def _counter(name: str, words: str, value: float) -> Figure:
    return Figure(f"hub_{name}_total", "counter", words, [({}, value)])
