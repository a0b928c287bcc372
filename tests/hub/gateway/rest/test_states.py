"""`hub.gateway.rest.states`: who may see and change states, what each answer says, and that changes reach devices."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from device_sdk import wire
from hub.gateway.http import make_app
from hub.gateway.rest.states import DeviceState, StateOutcome, StateOutcomes, StateRows
from hub.metadata import Edit
from hub.model import SeriesKey
from hub.roles import Role
from tests.support.hub_parts import HubParts, http_client, hub_parts

pytestmark = pytest.mark.asyncio


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubParts]:
    """A hub with fan-1, fan-2 at the site north and oven-1; another namespace has a fan-1, too."""
    with hub_parts(tmp_path) as parts:
        parts.identities.add_devices(["fan-1", "fan-2", "oven-1"])
        parts.identities.add_device("fan-1", namespace="other")
        parts.metadata.change(Edit(SeriesKey("default", "fan-2", ""), {"site": "north"}), "tests")
        yield parts


@pytest_asyncio.fixture
async def client(hub: HubParts) -> AsyncIterator[httpx.AsyncClient]:
    """An operator of everything."""
    _, token = hub.identities.add_token(Role.OPERATOR, name="ann")
    async with http_client(make_app(hub), token=token) as client:
        yield client


def turn(hub: HubParts) -> None:
    """Do what the hub's task does."""
    hub.rollout.finish(hub.rollout.work(hub.rollout.take()))


async def rows(client: httpx.AsyncClient, **query: object) -> dict[str, Any]:
    """List states: device → (drift, differing)."""
    answer = await client.get("/v1/states", params=query)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    found = StateRows.model_validate(answer.json())
    return {row.device: (row.drift.value, row.differing) for row in found.devices}


async def test_change_reaches_the_device_and_its_report_shows(hub: HubParts, client: httpx.AsyncClient) -> None:
    """PATCH → desired on the connection → reported → both states, the drift and the history in one answer."""
    session = hub.connect("fan-1")
    session.take_output()
    changed = await client.patch("/v1/devices/fan-1/desired", json={"patch": {"fan": {"speed": 3}, "t": 1}})
    assert StateOutcome.model_validate(changed.json()).version == 1
    turn(hub)
    (said,) = session.take_output()
    desired = wire.decode_hub_message(said)
    assert isinstance(desired, wire.Desired)
    assert (desired.version, desired.state) == (1, {"fan": {"speed": 3}, "t": 1})
    assert await rows(client, drift="pending") == {"fan-1": ("pending", ["fan.speed", "t"])}

    session.receive(wire.encode(wire.Reported(1, {"fan": {"speed": 2}, "t": 1}, desired.mark)), True, 0)
    turn(hub)
    found = DeviceState.model_validate((await client.get("/v1/devices/fan-1/state")).json())

    assert (found.drift.value, found.differing) == ("drifted", ["fan.speed"])
    assert (found.desired.version, found.desired.who, found.reported.version) == (1, "ann", 1)
    assert found.reported.state == {"fan": {"speed": 2}, "t": 1}
    assert [(c.version, c.who, c.patch) for c in found.changes] == [(1, "ann", {"fan": {"speed": 3}, "t": 1})]


async def test_selector_changes_many_and_says_of_each(client: httpx.AsyncClient) -> None:
    """One request, an outcome for each; who would conflict is named and keeps no other from it."""
    await client.patch("/v1/devices/fan-2/desired", json={"patch": {"speed": 1}})
    body = {"selector": "fan-*", "patch": {"speed": 3}, "expected_version": 0}
    outcomes = StateOutcomes.model_validate((await client.post("/v1/desired", json=body)).json()).devices
    by_site = await client.post("/v1/desired", json={"selector": "site:north", "patch": {"speed": 4}})

    assert [(o.device, o.version, o.changed, o.error is None) for o in outcomes] == [
        ("fan-1", 1, True, True), ("fan-2", 1, False, False),
    ]  # fmt: skip
    assert [o["device"] for o in by_site.json()["devices"]] == ["fan-2"]
    assert await rows(client, drift=["offline", "drifted"]) == {
        "fan-1": ("offline", ["speed"]), "fan-2": ("offline", ["speed"]),
    }  # fmt: skip
    assert (await rows(client, match="oven-*")) == {"oven-1": ("in_sync", [])}


async def test_moved_version_is_409_and_unknown_device_404(client: httpx.AsyncClient) -> None:
    """An expected version that moved, a device that is not there, a patch that is none."""
    await client.patch("/v1/devices/fan-1/desired", json={"patch": {"speed": 1}})
    path = "/v1/devices/fan-1/desired"
    statuses = [
        (await client.patch(path, json={"patch": {"speed": 2}, "expected_version": 0})).status_code,
        (await client.patch("/v1/devices/nobody/desired", json={"patch": {}})).status_code,
        (await client.get("/v1/devices/nobody/state")).status_code,
        (await client.patch(path, json={"patch": [1]})).status_code,
        (await client.post("/v1/desired", json={"selector": "", "patch": {}})).status_code,
        (await client.patch(path, json={"patch": {"x": "y" * 40_000}})).status_code,
    ]

    assert statuses == [409, 404, 404, 400, 400, 400]


async def test_scope_bounds_what_is_chosen_and_seen(hub: HubParts) -> None:
    """A selector reaches only what the credential may command; another namespace's device of that name stays."""
    _, token = hub.identities.add_token(Role.OPERATOR, ["fan-2"])
    async with http_client(make_app(hub), token=token) as client:
        outcomes = (await client.post("/v1/desired", json={"selector": "*", "patch": {"speed": 3}})).json()["devices"]
        refused = await client.patch("/v1/devices/fan-1/desired", json={"patch": {"speed": 3}})
        hidden = await client.get("/v1/devices/fan-1/state")
        seen = await rows(client)

    assert [o["device"] for o in outcomes] == ["fan-2"]
    assert (refused.status_code, hidden.status_code, list(seen)) == (403, 404, ["fan-2"])
    assert hub.rollout.states.devices("other") == []


@pytest.mark.slow
async def test_rollout_to_a_fleet_reaches_who_is_there_and_later_the_rest(hub: HubParts) -> None:
    """One request for 3,000 devices: 2,700 connected get it once, 300 that come later get it then, once."""
    names = [f"pump-{n}" for n in range(3000)]
    hub.identities.add_devices(names)
    _, token = hub.identities.add_token(Role.OPERATOR)
    told: Counter[str] = Counter()

    class Line:
        """A device that takes in what it is told, at once."""

        def __init__(self, device: str) -> None:
            self.namespace, self.device = "default", device

        def tell(self, message: wire.Command | wire.Desired) -> None:
            """Handle and report."""
            assert isinstance(message, wire.Desired)
            told[self.device] += 1
            hub.downlink.heard(self, wire.Reported(message.version, message.state, message.mark))

        def flush(self) -> None:
            """All is out."""

    for name in names[:2700]:
        hub.downlink.entered(Line(name))
    async with http_client(make_app(hub), token=token) as client:
        answer = await client.post("/v1/desired", json={"selector": "pump-*", "patch": {"interval_s": 10}})
        for _ in range(20):
            turn(hub)
        waiting = await rows(client, match="pump-*", drift="offline")
        for name in names[2700:]:
            hub.downlink.entered(Line(name))
        for _ in range(20):
            turn(hub)
        in_sync = await rows(client, match="pump-*", drift="in_sync")

    assert {o["changed"] for o in answer.json()["devices"]} == {True}
    assert sorted(waiting) == sorted(names[2700:])
    assert set(in_sync) == set(names)
    assert told == dict.fromkeys(names, 1)
