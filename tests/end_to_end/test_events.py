"""Devices that come and go, and what they lost, as readings of a real hub: watched once each through kills."""

import asyncio
import json
from collections import Counter
from contextlib import closing
from typing import Any

import pytest

from device_sdk import Client, Device
from device_sdk.watch import WatchedReading
from hub.auth import Identities
from hub.roles import Role
from tests.end_to_end.conftest import enrol
from tests.support.hub_process import HubProcess, wait_for

pytestmark = pytest.mark.end_to_end

ROUNDS = 3
LIMIT_S = 40.0


async def collect(client: Client, pattern: str, seen: list[WatchedReading]) -> None:
    """Watch for ever."""
    watch = client.watch(pattern, since="-1h")
    try:
        while True:
            seen += await watch.batch()
    finally:
        await watch.close()


def values(seen: list[WatchedReading]) -> list[dict[str, Any]]:
    """Return what they say."""
    return [json.loads(str(reading.value)) for reading in seen]


@pytest.mark.asyncio
@pytest.mark.timeout(120)
async def test_events_are_watched_once_each_through_kills(hub: HubProcess) -> None:
    """The hub is killed with devices online, again and again: live and in history each has gone and come each time.

    One of them has lost readings while the hub was away, and says so once. Who watches everything sees nothing of it.
    """
    tokens = enrol(hub, "pump", "tank")
    with closing(Identities(hub.data / "identities.sqlite3")) as identities:
        operator = identities.add_token(Role.ADMIN, ("**", "$sys"), "operator")[1]
        admin = identities.add_token(Role.ADMIN, ("**",), "admin")[1]
    presence, gaps, everything = list[WatchedReading](), list[WatchedReading](), list[WatchedReading]()
    client = Client(hub.url, operator)
    watching = [
        asyncio.create_task(collect(client, "$sys/presence", presence)),
        asyncio.create_task(collect(client, "$sys/gaps", gaps)),
        asyncio.create_task(collect(Client(hub.url, admin), "**", everything)),
    ]

    def online() -> int:
        return sum(value["state"] == "online" for value in values(presence))

    small = Device("pump", hub.ws_url, token=tokens["pump"], spool=":memory:", max_spool=262_144)
    async with small as pump, Device("tank", hub.ws_url, token=tokens["tank"], spool=":memory:") as tank:
        for number in range(ROUNDS):
            tank.record(level=float(number))
            await tank.flush_async(LIMIT_S)
            pump.record(level=float(number))
            await pump.flush_async(LIMIT_S)
            await wait_for(lambda number=number: online() == 2 * (number + 1), LIMIT_S, "both online")
            hub.kill()
            if number == 0:
                for place in range(60_000):
                    pump.record(level=float(place))
            await asyncio.to_thread(hub.start)
        await wait_for(lambda: online() == 2 * (ROUNDS + 1), LIMIT_S, "both online again")
        await pump.flush_async(LIMIT_S)
        lost = pump.statistics().dropped
    await wait_for(lambda: len(presence) == 4 * (ROUNDS + 1), LIMIT_S, "both offline")
    await wait_for(lambda: sum(value["count"] for value in values(gaps)) == lost, LIMIT_S, "the loss")
    await asyncio.sleep(1.0)  # what would be told twice would come now
    rows = await asyncio.to_thread(client.query, "$sys/*")
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)

    for device in ("pump", "tank"):
        whys = [(v["state"], v["why"]) for v in values(presence) if v["device"] == device]
        assert whys[:-2] == [("online", "connected"), ("offline", "hub_killed")] * ROUNDS
        assert [state for state, _ in whys[-2:]] == ["online", "offline"]
    assert lost > 0
    assert {(v["device"], v["reason"]) for v in values(gaps)} == {("pump", "spool_full")}
    told = Counter((r.time_ns, r.value) for r in presence + gaps)
    assert set(told.values()) == {1}
    assert Counter((row["time_ns"], row["value"]) for row in rows if row["channel"] != "audit") == told
    assert not [reading for reading in everything if reading.device == "$sys"]
    audited = hub.get("/v1/audit?device=$sys", token=operator)
    assert audited["balanced"] is True


@pytest.mark.asyncio
@pytest.mark.timeout(120)
async def test_alerts_are_told_once_each_through_kills(hub: HubProcess) -> None:
    """A limit set while the hub runs, crossed while it is killed and is away: told as often as it was crossed."""
    token = enrol(hub, "pump")["pump"]
    with closing(Identities(hub.data / "identities.sqlite3")) as identities:
        operator = identities.add_token(Role.ADMIN, ("**", "$sys"), "operator")[1]
    seen = list[WatchedReading]()
    watching = asyncio.create_task(collect(Client(hub.url, operator), "$sys/alerts", seen))
    path = "/v1/devices/pump/channels/level/metadata"
    status, answer = hub.request("PATCH", path, {"high": 10, "hysteresis": 1}, operator)
    assert status == 200, answer
    crossings: list[tuple[str, float]] = []

    def are_all_told() -> bool:
        return len(seen) >= len(crossings)

    async with Device("pump", hub.ws_url, token=token, spool=":memory:") as pump:
        for number in range(ROUNDS):
            # Few enough for all of them to be told where one look decides over both halves.
            for place in range(4):
                pump.record(level=20.0 + place)
                pump.record(level=float(place))
                crossings += [("raised", 20.0 + place), ("cleared", float(place))]
                if place == 1:
                    await pump.flush_async(LIMIT_S)
                    hub.kill()
            await asyncio.to_thread(hub.start)
            await pump.flush_async(LIMIT_S)
            await wait_for(are_all_told, LIMIT_S, f"alerts of round {number}")
    await asyncio.sleep(1.0)  # what would be told twice would come now
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)

    assert [(value["state"], value["value"]) for value in values(seen)] == crossings
