"""Watching a real hub through kills: each reading once, the set seen equals the set stored, and an open stream ends."""

import asyncio
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from device_sdk import Client, Device
from device_sdk.watch import WatchedReading
from simulators.proxy import Delay, FaultProxy
from tests.end_to_end.conftest import enrol
from tests.support.hub_process import HubProcess
from tests.support.live_world import decode

pytestmark = pytest.mark.end_to_end

START_NS = 1_795_376_000_000_000_000
READINGS = 600


async def watch_all(client: Client, seen: list[WatchedReading], has_begun: asyncio.Event) -> None:
    """Collect readings until all were seen."""
    watch = client.watch("d/n", since=START_NS)
    while len(seen) < READINGS:
        seen += await watch.batch()
        has_begun.set()
    await watch.close()


@pytest.mark.asyncio
async def test_watcher_sees_each_reading_once_through_two_kills(hub: HubProcess, tmp_path: Path) -> None:
    """The hub is killed twice while a device records and a watcher watches: 0 gaps, 0 duplicates, equal to a query."""
    token = enrol(hub, "d")["d"]
    client = Client(hub.url)
    seen: list[WatchedReading] = []
    has_begun = asyncio.Event()

    async with Device("d", hub.ws_url, token=token, spool=tmp_path / "spool") as device:
        device.record({"n": 0}, time=START_NS)
        await device.flush_async(20)
        watching = asyncio.create_task(watch_all(client, seen, has_begun))
        async with asyncio.timeout(10):
            await has_begun.wait()
        for n in range(1, READINGS):
            device.record({"n": n}, time=START_NS + n)
            if n in (200, 400):
                hub.kill()
                await asyncio.to_thread(hub.start)
            await asyncio.sleep(0.002)
        await device.flush_async(30)
        async with asyncio.timeout(30):
            await watching
    rows = await asyncio.to_thread(client.query, "d/n")

    assert [(r.time_ns, r.value) for r in seen] == [(START_NS + n, n) for n in range(READINGS)]
    assert [(row["time_ns"], row["value"]) for row in rows] == [(r.time_ns, r.value) for r in seen]


def test_hub_with_open_streams_stops_quickly(hub: HubProcess) -> None:
    """Ctrl-C ends a hub whose page and event streams are open in two seconds; the streams end with a bye."""
    text: list[bytes] = []

    def read() -> None:
        with suppress(OSError), urllib.request.urlopen(f"{hub.url}/v1/watch?match=**", timeout=20) as answer:
            while line := answer.readline():
                text.append(line)
                is_open.set()

    is_open = threading.Event()
    reader = threading.Thread(target=read)
    reader.start()
    assert is_open.wait(10)

    took = hub.stop()
    reader.join(10)

    assert took < 2
    assert b"event: bye\n" in text


def test_hub_with_waiting_polls_stops_quickly(hub: HubProcess) -> None:
    """Ctrl-C answers whoever waits, with when to come back, and ends in two seconds."""
    cursor = hub.get("/v1/watch?wait=0s")["o"]
    answers: list[Any] = []
    polls = [
        threading.Thread(target=lambda: answers.append(hub.get(f"/v1/watch?wait=50s&since={cursor}"))) for _ in range(3)
    ]
    for poll in polls:
        poll.start()
    time.sleep(0.5)

    took = hub.stop()
    for poll in polls:
        poll.join(10)

    assert took < 2
    assert sorted(answer["messages"][-1]["retry_ms"] for answer in answers) == [0, 2, 4]
    assert {answer["o"] for answer in answers} == {cursor}


@pytest.mark.asyncio
async def test_poller_sees_each_reading_once_through_two_kills(hub: HubProcess, tmp_path: Path) -> None:
    """The hub is killed twice while a device records and a client polls, which forgets an answer now and then."""
    token = enrol(hub, "d")["d"]
    cursor = (await asyncio.to_thread(hub.get, "/v1/watch?wait=0s"))["o"]
    seen: list[tuple[int, object]] = []

    async def poll(cursor: str) -> None:
        asked = 0
        while len(seen) < READINGS:
            asked += 1
            try:
                body = await asyncio.to_thread(hub.get, f"/v1/watch?match=d/n&wait=20s&since={cursor}")
            except (OSError, HTTPException):
                await asyncio.sleep(0.05)
                continue
            if asked % 5 == 0:
                continue
            names: dict[int, Any] = {}
            for message in body["messages"]:
                names |= {int(number): series for number, series in message.get("s", {}).items()}
                if message["op"] == "data":
                    seen.extend((time_ns, value) for _, time_ns, value in decode(message, names))
            cursor = body["o"]

    async with Device("d", hub.ws_url, token=token, spool=tmp_path / "spool") as device:
        polling = asyncio.create_task(poll(cursor))
        for n in range(READINGS):
            device.record({"n": n}, time=START_NS + n)
            if n in (200, 400):
                hub.kill()
                await asyncio.to_thread(hub.start)
            await asyncio.sleep(0.002)
        await device.flush_async(30)
        async with asyncio.timeout(30):
            await polling

    assert seen == [(START_NS + n, n) for n in range(READINGS)]


@pytest.mark.asyncio
async def test_new_readings_are_live_at_once_after_a_long_outage(hub: HubProcess, tmp_path: Path) -> None:
    """20,000 readings wait when a slow link returns: a watcher sees the next one within a second, all arrive once.

    At 50 KB/s the backlog takes four seconds, which is what the new reading would wait behind it.
    """
    token = enrol(hub, "d")["d"]
    client = Client(hub.url)
    seen: dict[object, float] = {}

    async def look() -> None:
        watch = client.watch("d/n")
        while 19_999 not in seen or 1_000_000 not in seen:
            seen.update((reading.value, time.monotonic()) for reading in await watch.batch())
        await watch.close()

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 what a status shows has no event
                await asyncio.sleep(0.01)

    watching = asyncio.create_task(look())
    with FaultProxy(("127.0.0.1", hub.port)) as line:
        port = line.port
        device = Device("d", f"ws://127.0.0.1:{port}", token=token, spool=tmp_path / "spool")
        await device.__aenter__()
        await until(lambda: device.status.online)
        while not seen:  # until the watch has begun
            device.record(n=-1)
            await asyncio.sleep(0.1)
    await until(lambda: not device.status.online)
    for n in range(20_000):
        device.record(n=n)

    with FaultProxy(("127.0.0.1", hub.port), up=Delay(bytes_per_s=50_000), port=port):
        await until(lambda: device.status.online)
        recorded = time.monotonic()
        device.record(n=1_000_000)
        await until(lambda: 1_000_000 in seen)
        await device.flush_async(60)
        async with asyncio.timeout(30):
            await watching
        took_s = time.monotonic() - recorded
        await device.__aexit__(None, None, None)

    assert seen[1_000_000] - recorded < 1.0
    assert took_s > 2.0
    assert set(seen) == {-1, 1_000_000, *range(20_000)}
    [series] = hub.get("/v1/audit?device=d")["series"]
    assert series["rows"] == series["accepted"] >= 20_002


@pytest.mark.asyncio
async def test_hub_that_says_bye_is_not_there_to_come_back_to(hub: HubProcess) -> None:
    """A watcher that comes back at once finds nobody, and not the hub that is about to end."""
    async with connect(f"{hub.ws_url}/v1/watch", subprotocols=[Subprotocol("watch.v1")]) as watcher:
        await watcher.send('{"op":"sub","sub":"s1","match":["d"]}')
        assert "ok" in str(await watcher.recv())
        os.kill(hub.pid, signal.SIGINT)
        while "bye" not in str(await watcher.recv()):
            pass

        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(hub.host, hub.port)
