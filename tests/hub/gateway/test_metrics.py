"""`hub.gateway.metrics`: figures as Prometheus reads them, few whatever there is, gathered once a second."""

import asyncio
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from device_sdk.columns import encode_batch, to_columns
from device_sdk.reading import Channel
from hub.gateway.http import make_app
from hub.gateway.metrics import FRESH_S, WORST, Metrics, as_text, gather
from hub.gateway.watch_socket import WatchSocket
from hub.roles import Identity, Role, scopes_of
from tests.support.fake_connection import FakeConnection
from tests.support.hub_parts import FixedSettings, HubParts, http_client

pytestmark = pytest.mark.asyncio


def watch(hub: HubParts, number: int, *, unsent: int = 0) -> WatchSocket:
    """Return a connected watcher; one with bytes unsent reads nothing."""
    identity = Identity(f"t-{number}", f"screen-{number}", Role.WATCHER, scopes=scopes_of(Role.WATCHER))
    socket = WatchSocket(hub.live, hub.store, hub.consumer, identity)
    connection = FakeConnection(f"192.0.2.7:{number}")
    connection.is_stalled = unsent > 0
    socket.opened(connection)
    connection.send_raw(bytes(unsent))
    return socket


async def scrape(hub: HubParts) -> dict[str, Metric]:
    """Return what Prometheus would read, by name."""
    text = as_text(await gather(hub)).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(families: dict[str, Metric], name: str) -> dict[tuple[str, ...], float]:
    """Return label values → value of one metric."""
    return {tuple(sample.labels.values()): sample.value for sample in families[name].samples}


async def test_figures_are_those_of_the_parts(hub: HubParts) -> None:
    """Devices, journal, store, watchers: what `statistics()` says, and the process beside it."""
    for number in range(3):
        watch(hub, number)
    mqtt = hub.mqtt.statistics()
    mqtt.connections, mqtt.publications = 7, 9
    mqtt.refused["bad_credential"], mqtt.not_taken["child_pending"] = 2, 3

    found = await scrape(hub)

    assert values(found, "hub_devices") == {("online",): 2.0, ("stale",): 0.0, ("offline",): 0.0}
    assert values(found, "hub_device_connections") == {(): 2.0}
    assert values(found, "hub_series") == {(): 3.0}
    assert values(found, "hub_journal_frames") == {(): float(hub.journal.head)}
    assert values(found, "hub_journal_bytes") == {(): float(hub.journal.statistics().bytes)}
    assert values(found, "hub_store_readings") == {(): 5.0}
    assert values(found, "hub_watchers") == {("websocket",): 3.0, ("sse",): 0.0, ("poll",): 0.0}
    assert (values(found, "hub_mqtt_connections"), values(found, "hub_mqtt_publications")) == ({(): 7.0}, {(): 9.0})
    assert values(found, "hub_mqtt_refused_connections") == {("bad_credential",): 2.0}
    assert values(found, "hub_mqtt_not_taken") == {("child_pending",): 3.0}
    assert values(found, "hub_writer_queue_limit_bytes") == {(): float(64 * 1024 * 1024)}
    assert values(found, "process_resident_memory_bytes")[()] > 1e6
    assert values(found, "hub_scrape_duration_seconds")[()] < 5


async def test_requests_with_readings_are_counted(hub: HubParts) -> None:
    """By HTTP and by InfluxDB's route, once each, those too that were not let in; bytes as they came."""
    packed, batch = gzip.compress(b"m f=2i"), encode_batch(to_columns(1, [("t", 1_700_000_000 * 10**9, 1.5)]))
    app, token = make_app(hub), hub.identities.add_device("shed")
    async with http_client(app) as nobody, http_client(app, token=token) as device:
        sent = [
            await device.post("/v1/batches", json={"t": 1.5}, headers={"Idempotency-Key": "k"}),
            await device.post("/v1/batches", json={"t": 1.5}, headers={"Idempotency-Key": "k"}),
            await device.post("/v1/batches", json=[{"t": 2.5}, {"t": "x"}]),
            await device.post("/v1/batches", json={"t": "x"}),
            await device.post("/v1/batches", content=batch, params={"stream": "0" * 15 + "1"}),
            await device.post("/v1/batches", content=b'{"op":"batch","seq":7,"count":1}', params={"stream": "a" * 16}),
            await device.post("/v1/batches", content=b"rubbish"),
            await device.post("/v1/batches", content=b"x", headers={"Content-Type": "image/png"}),
            await device.post("/v1/batches", params={"nonsense": "1"}),
            await nobody.post("/v1/batches", json={"t": 1.5}),
            await device.post("/write", content=packed, headers={"Content-Encoding": "gzip"}),
            await device.post("/api/v2/write", content=b"m f=3i\nrubbish\n"),
            await device.post("/api/v2/write", content=b"m f=3i", params={"precision": "years"}),
            await nobody.post("/write", content=b"m f=3i"),
        ]
        # No readings, so none of these.
        await device.get("/v1/devices")
        await nobody.post("/v1/claims", json={})

    found = await scrape(hub)

    assert [answer.status_code for answer in sent] == [
        200, 200, 200, 422, 200, 409, 400, 415, 400, 401, 204, 400, 400, 401,
    ]  # fmt: skip
    assert values(found, "hub_post_requests") == {
        ("stored",): 4.0, ("in_part",): 2.0, ("refused",): 1.0, ("out_of_order",): 1.0, ("bad_request",): 3.0,
        ("unsupported_media_type",): 1.0, ("unauthenticated",): 2.0,
    }  # fmt: skip
    read = (answer.request.content for at, answer in enumerate(sent) if at not in (7, 9, 12, 13))
    assert values(found, "hub_post_received_bytes") == {(): float(sum(map(len, read)))}
    assert values(found, "hub_post_accepted_readings") == {(): 5.0}
    assert values(found, "hub_post_rejected_readings") == {(): 3.0}
    assert values(found, "hub_post_repeated_requests") == {(): 1.0}
    assert values(found, "hub_post_quarantined_frames") == {(): 0.0}


async def test_names_follow_the_conventions(hub: HubParts) -> None:
    """One prefix, base units, counters that end in `_total`, words for each, and no unit in a name's middle."""
    text = as_text(figures := await gather(hub)).decode()

    assert len({figure.name for figure in figures}) == len(figures) > 50
    for figure in figures:
        assert re.fullmatch(r"hub_[a-z_]+", figure.name)
        assert figure.name.endswith("_total") is (figure.kind == "counter"), figure.name
        assert f"# HELP {figure.name} {figure.words}\n# TYPE {figure.name} {figure.kind}\n" in text
        assert not re.search(r"_(ms|us|ns|kb|mb|kib|percent|minutes|hours)(_|$)", figure.name)
        assert re.search(r"(_bytes|_seconds)(_total)?$", figure.name) or not re.search(
            r"(bytes|second)s?_", figure.name
        )


async def test_series_do_not_grow_with_devices_and_watchers(hub: HubParts) -> None:
    """Fifty devices more, a hundred watchers, half of which read nothing: only the worst have series of their own."""
    before = len(list(samples(await scrape(hub))))
    for number in range(50):
        hub.feed(hub.connect(f"meter-{number}", stream=f"{number:016x}"), channels=(Channel("power"),))
    sockets = [watch(hub, number, unsent=number * (1 - number % 2)) for number in range(100)]

    found = await scrape(hub)

    worst = values(found, "hub_worst_watcher_unsent_bytes")
    assert len(worst) == WORST
    assert {name for name, _ in worst} == {sockets[number].origin.name for number in range(80, 100, 2)}
    assert values(found, "hub_watcher_max_unsent_bytes") == {(): max(worst.values())}
    assert len(list(samples(found))) == before + 5 * WORST
    assert not {"meter-1", "screen-98", "192.0.2.7"} & set(re.findall(r"[\w.-]+", str(found)))


async def test_one_that_is_behind_is_told_with_what_it_is_owed(hub: HubParts) -> None:
    """Lag in frames of the worst subscription of a connection; of those that keep up there is no series."""
    head = hub.live.head
    watch(hub, 1)
    late = watch(hub, 2, unsent=300 * 1024)
    since = hub.live.runs.cursor(head - 2)
    late.message(json.dumps({"op": "sub", "sub": "s", "match": ["**"], "since": since}).encode(), True)

    found = await scrape(hub)

    assert values(found, "hub_worst_watcher_lag_frames") == {(late.origin.name, "websocket"): 2.0}
    assert values(found, "hub_watcher_max_lag_frames") == {(): 2.0}
    assert values(found, "hub_watchers_behind") == values(found, "hub_live_subscriptions_behind") == {(): 1.0}


async def test_what_cannot_be_read_is_left_out(hub: HubParts) -> None:
    """A file system or a journal that does not answer takes its own figures away and no others."""
    hub.config = FixedSettings(Path("no-such-folder"))
    before = await scrape(hub)
    hub.journal.close()

    found = await scrape(hub)

    assert "hub_disk_free_bytes" not in before
    assert "hub_store_bytes" in before
    assert {name for name in before if name not in found} == {
        "hub_journal_frames", "hub_journal_first_offset", "hub_journal_bytes", "hub_journal_commits",
        "hub_journal_last_commit_seconds", "hub_journal_largest_commit_frames", "hub_store_readings", "hub_store_bytes",
    }  # fmt: skip


async def test_figures_are_gathered_once_a_second(hub: HubParts) -> None:
    """Whoever asks within a second, and all who ask at once, get the same text."""
    now = 100.0
    metrics = Metrics(lambda: now)

    first = await asyncio.gather(*(metrics.text(hub) for _ in range(20)))
    watch(hub, 1)
    now += FRESH_S / 2
    soon = await metrics.text(hub)
    now += FRESH_S
    later = await metrics.text(hub)

    assert {*first, soon} == {soon}
    assert b'hub_watchers{transport="websocket"} 0.0' in soon
    assert b'hub_watchers{transport="websocket"} 1.0' in later


def samples(families: dict[str, Metric]) -> Iterator[str]:
    """Yield each series of the hub itself."""
    for name, family in families.items():
        if name.startswith("hub_"):
            yield from (str(sample.labels) for sample in family.samples)
