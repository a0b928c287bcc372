"""`hub.gateway.rest.metadata`: what people set, what holds, who may see and change it, and what it does to readings."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from device_sdk.reading import Channel, ValueType
from hub.gateway.http import make_app
from hub.gateway.rest.metadata import (
    MAX_DEVICES_LISTED,
    AllMetadata,
    ChannelMetadata,
    DeviceMetadata,
    HistoryAnswer,
    Outcomes,
)
from hub.metadata import Edit
from hub.model import SeriesKey
from hub.roles import Role
from tests.support.hub_parts import HubParts, http_client, hub_parts

T0 = 1_795_376_000_000_000_000
S = 10**9
DEVICE, CHANNEL = "/v1/devices/pump-1/metadata", "/v1/devices/pump-1/channels/level/metadata"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubParts]:
    """A hub with pump-1 (level: ints 0 … 3, valve: a switch) and oven-1 (t)."""
    with hub_parts(tmp_path) as parts:
        pump = parts.connect("pump-1")
        parts.feed(
            pump, *(("level", T0 + n * S, n) for n in range(4)), ("valve", T0, True),
            channels=(Channel("level", "1", ValueType.INT, 1.0, 0.0, 10.0, "Level"), Channel("valve")),
        )  # fmt: skip
        parts.feed(parts.connect("oven-1", stream="00000000000000bb"), ("t", T0, 1.5), channels=(Channel("t"),))
        yield parts


@pytest_asyncio.fixture
async def client(hub: HubParts) -> AsyncIterator[httpx.AsyncClient]:
    """An operator of everything."""
    _, token = hub.identities.add_token(Role.OPERATOR, name="ann")
    async with http_client(make_app(hub), token=token) as client:
        yield client


async def ask(client: httpx.AsyncClient, path: str) -> Any:
    """Return the answer of a GET."""
    response = await client.get(path)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.asyncio
async def test_set_wins_over_declared_and_can_be_unset(client: httpx.AsyncClient) -> None:
    """PATCH merges; null gives the declaration back; devices and channels show what holds."""
    changed = await client.patch(CHANNEL, json={"unit": "L", "label": "Water", "every_s": 60})
    await client.patch(DEVICE, json={"label": "Pump", "site": "north", "add_tags": ["water"]})
    both = ChannelMetadata.model_validate(changed.json())
    assert both.set == {"unit": "L", "label": "Water", "every_s": 60.0}
    assert (both.effective["unit"], both.effective["label"], both.effective["low"]) == ("L", "Water", 0.0)

    device = DeviceMetadata.model_validate((await client.patch(DEVICE, json={"label": None})).json())
    assert device.set == {"site": "north", "tags": ["water"]}
    (await client.patch(CHANNEL, json={"label": None})).raise_for_status()

    listed = await ask(client, "/v1/devices?site=north&tag=water")
    assert [(d["device"], d["label"], d["site"], d["tags"]) for d in listed["devices"]] == [
        ("pump-1", None, "north", ["water"])
    ]
    level = listed["devices"][0]["channels"][0]
    assert (level["label"], level["unit"], level["every_s"], level["range"]) == ("Level", "L", 60.0, [0.0, 10.0])
    channels = (await ask(client, "/v1/channels"))["channels"]
    assert [(c["device"], c["site"], c["tags"]) for c in channels] == [
        ("oven-1", None, []), ("pump-1", "north", ["water"]), ("pump-1", "north", ["water"]),
    ]  # fmt: skip
    assert (await ask(client, "/v1/devices?tag=water&tag=old"))["devices"] == []


@pytest.mark.asyncio
async def test_scale_is_applied_wherever_readings_are_read(client: httpx.AsyncClient) -> None:
    """Newest, raw rows, buckets and files show stored · scale + offset; a negative scale turns min and max around."""
    (await client.patch(CHANNEL, json={"scale": -0.5, "offset": 10})).raise_for_status()

    latest = (await ask(client, "/v1/latest?match=*/level"))["readings"][0]
    rows = (await ask(client, "/v1/readings?match=*/level"))["rows"]
    buckets = await ask(client, "/v1/readings?match=*/level&from=0&bucket=1w&agg=min,max,avg,first,last,count,sum")
    least = await ask(client, "/v1/readings?match=*/level&from=0&bucket=1w&agg=min")
    export = (await client.get("/v1/export?match=*/level")).text.splitlines()[1:]
    newest = (await ask(client, "/v1/devices?match=pump-1"))["devices"][0]["channels"][0]

    assert (latest["value"], [row[2] for row in rows]) == (8.5, [10.0, 9.5, 9.0, 8.5])
    assert buckets["rows"][0][2:] == [8.5, 10.0, 9.25, 10.0, 8.5, 4, 37.0]
    assert least["rows"][0][2:] == [8.5]
    assert [line.split(",")[4] for line in export] == ["10.0", "9.5", "9.0", "8.5"]
    assert (newest["latest"]["value"], newest["type"], newest["range"]) == (8.5, "float", [5.0, 10.0])


@pytest.mark.asyncio
async def test_raw_gives_what_is_stored(client: httpx.AsyncClient) -> None:
    """With raw=true a scale does nothing, and channels without one never change."""
    before = [(await client.get(f"/v1/{path}")).text for path in ("latest", "readings", "export")]
    (await client.patch(CHANNEL, json={"scale": 2})).raise_for_status()

    after = [(await client.get(f"/v1/{path}?raw=true")).text for path in ("latest", "readings", "export")]
    buckets = await ask(client, "/v1/readings?match=*/level&from=0&bucket=1w&agg=max&raw=true")

    assert after == before
    assert buckets["rows"][0][2] == 3
    assert (await ask(client, "/v1/latest?match=oven-1"))["readings"][0]["value"] == 1.5


@pytest.mark.asyncio
async def test_alert_compares_what_is_shown(client: httpx.AsyncClient) -> None:
    """A range that a person sets is of shown values, and holds with one end alone."""
    (await client.patch(CHANNEL, json={"scale": 10})).raise_for_status()
    assert not (await ask(client, "/v1/devices?match=pump-1"))["devices"][0]["alert"]

    (await client.patch(CHANNEL, json={"high": 29})).raise_for_status()

    assert (await ask(client, "/v1/devices?match=pump-1"))["devices"][0]["alert"]


@pytest.mark.asyncio
async def test_switches_and_texts_refuse_a_scale(client: httpx.AsyncClient) -> None:
    """A bool has no scale: 400 with its type, and nothing is changed."""
    response = await client.patch("/v1/devices/pump-1/channels/valve/metadata", json={"scale": 2})

    assert response.status_code == 400
    assert "bool" in response.json()["error"]["message"]
    # Said before the first reading was there: it is kept, and does nothing.
    (await client.patch("/v1/devices/new/channels/x/metadata", json={"scale": 2})).raise_for_status()


@pytest.mark.asyncio
async def test_history_is_told_and_asked_for_a_time(client: httpx.AsyncClient) -> None:
    """Who, when, field, old, new; `at` says what was set then."""
    for unit in ("W", "kW"):
        (await client.patch(CHANNEL, json={"unit": unit})).raise_for_status()
    (await client.patch(DEVICE, json={"label": "Pump"})).raise_for_status()

    answer = HistoryAnswer.model_validate(await ask(client, f"{CHANNEL}/history"))
    first_ns = answer.changes[-1].time_ns
    then = await ask(client, f"{CHANNEL}/history?at={first_ns}&limit=1")
    device = await ask(client, f"{DEVICE}/history?at=2001-01-01T00:00:00Z")

    assert [(c.who, c.field, c.old, c.new) for c in answer.changes] == [
        ("ann", "unit", "W", "kW"), ("ann", "unit", None, "W"),
    ]  # fmt: skip
    assert (answer.since_ns, answer.held) == (None, None)
    assert (then["held"], len(then["changes"])) == ({"unit": "W"}, 1)
    assert (device["held"], device["changes"][0]["new"]) == ({}, "Pump")


@pytest.mark.asyncio
async def test_many_edits_are_judged_one_by_one(hub: HubParts) -> None:
    """Rows outside the scope or wrong are named, the others made; a dry run makes none."""
    _, token = hub.identities.add_token(Role.OPERATOR, ["pump-*"], name="bob")
    edits = [
        {"device": "pump-1", "fields": {"label": "Pump"}}, {"device": "oven-1", "fields": {"label": "Mine"}},
        {"device": "pump-1", "channel": "level", "fields": {"unit": "L"}},
        {"device": "pump-1", "channel": "valve", "fields": {"offset": 1}},
        {"device": "pump-1", "channel": "", "fields": {}}, {"device": "pump-2", "channel": "x", "fields": {"size": 1}},
    ]  # fmt: skip

    async with http_client(make_app(hub), token=token) as client:
        trial = (await client.post("/v1/metadata", json={"edits": edits, "dry_run": True})).json()
        untouched = hub.metadata.subjects("default")
        made = Outcomes.model_validate((await client.post("/v1/metadata", json={"edits": edits})).json())

    assert untouched == []
    assert [bool(o.error) for o in made.outcomes] == [False, True, False, True, True, True]
    assert [o.changed for o in made.outcomes] == [o["changed"] for o in trial["outcomes"]]
    assert (made.outcomes[0].changed, hub.metadata.device("default", "oven-1").label) == (["label"], None)


@pytest.mark.asyncio
async def test_what_is_outside_of_the_scope_is_not_there(hub: HubParts) -> None:
    """A watcher of one channel sees that channel, its device's name and label, and nothing else; it changes nothing."""
    _, token = hub.identities.add_token(Role.WATCHER, ["pump-1/level"])

    async with http_client(make_app(hub), token=token) as client:
        listed = AllMetadata.model_validate(await ask(client, "/v1/metadata"))
        missing = [
            (await client.get(path)).status_code
            for path in ("/v1/devices/oven-1/metadata", "/v1/devices/oven-1/metadata/history",
                         "/v1/devices/pump-1/channels/valve/metadata",
                         "/v1/devices/pump-1/channels/none/metadata/history", "/v1/devices/none/metadata")
        ]  # fmt: skip
        patched = await client.patch(CHANNEL, json={"unit": "L"})

    assert [(c.device, c.channel) for c in listed.channels] == [("pump-1", "level")]
    assert [d.device for d in listed.devices] == ["pump-1"]
    assert (missing, patched.status_code) == ([404] * 5, 403)


@pytest.mark.asyncio
async def test_described_before_it_is_there(client: httpx.AsyncClient) -> None:
    """Devices and channels may be described before their first reading; the listing has them."""
    (await client.patch("/v1/devices/pump-9/metadata", json={"label": "Next"})).raise_for_status()
    (await client.patch("/v1/devices/pump-9/channels/flow/metadata", json={"unit": "l"})).raise_for_status()

    listed = await ask(client, "/v1/metadata?match=pump-9")
    device = await ask(client, "/v1/devices/pump-9/metadata")
    channel = await ask(client, "/v1/devices/pump-9/channels/flow/metadata")

    assert listed["devices"] == [{"device": "pump-9", "set": {"label": "Next"}}] == [device]
    assert listed["channels"] == [channel]
    assert (channel["unit_shown"], channel["effective"]["unit"]) == ("L", "l")


@pytest.mark.asyncio
async def test_list_is_paged_by_device(hub: HubParts) -> None:
    """Each device once, with its channels, in natural order; what one answer holds is bounded."""
    names = ["pump-01", *(f"pump-{n}" for n in range(1, 12))]
    edits = [Edit(SeriesKey("north", name, channel), {"label": name}) for name in names for channel in ("", "t", "u")]
    hub.metadata.change_all(edits, "ann")
    _, token = hub.identities.add_token(Role.WATCHER, namespace="north")

    pages, after = [], None
    async with http_client(make_app(hub), token=token) as client:
        for _ in range(3):
            query: dict[str, int | str] = {"limit": 5, **({"after": after} if after else {})}
            pages.append(AllMetadata.model_validate((await client.get("/v1/metadata", params=query)).json()))
            after = pages[-1].next
        assert (await client.get("/v1/metadata", params={"limit": MAX_DEVICES_LISTED + 1})).status_code == 400

    assert [len(page.devices) for page in pages] == [5, 5, 2]
    assert [device.device for page in pages for device in page.devices] == names
    assert [len(page.channels) for page in pages] == [10, 10, 4]
    assert {c.device for c in pages[1].channels} == {d.device for d in pages[1].devices}
    assert after is None
