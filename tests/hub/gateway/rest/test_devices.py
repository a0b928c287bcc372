"""`hub.gateway.rest.devices`: who is there, and the life of a credential."""

import httpx
import pytest

from tests.hub.gateway.conftest import T0, S, get
from tests.support.hub_parts import HubParts


@pytest.mark.asyncio
async def test_devices_come_in_natural_order_with_newest_values(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """State, alert, channels with limits and newest values; a device only enrolled is offline and empty."""
    hub.identities.add_device("pump-1")
    hub.feed(hub.connect("pump-2", stream="c" * 16), ("temperature", T0 + 62 * S, 33.0))

    answer = await get(admin, "/v1/devices")

    assert [d["device"] for d in answer["devices"]] == ["pump-1", "pump-2", "pump-10"]
    enrolled, pump2, _ = answer["devices"]
    assert (enrolled["state"], enrolled["channels"], enrolled["last_ns"]) == ("offline", [], None)
    assert (pump2["state"], pump2["connected"], pump2["alert"]) == ("online", True, True)
    assert pump2["channels"][1] == {
        "channel": "temperature", "label": "Temperature", "unit": "Cel", "unit_shown": "°C",
            "type": "float", "every_s": 1.0, "decimals": None, "kind": None, "scale": None, "offset": None,
        "range": [0.0, 30.0], "latest": {"time_ns": str(T0 + 62 * S), "value": 33.0},
    }  # fmt: skip
    assert answer["head"] == hub.streams.position()


@pytest.mark.asyncio
async def test_wrong_clocks_are_flagged(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Beyond 2 s a device's clock is said to be wrong, and by how much; a clock that said nothing is null."""
    hub.registry.device("default", "pump-2").skew_ns = -3_200_400_000

    pump2, pump10 = (await get(admin, "/v1/devices"))["devices"]

    assert (pump2["skew_s"], pump2["skewed"]) == (-3.2, True)
    assert (pump10["skew_s"], pump10["skewed"]) == (None, False)


@pytest.mark.asyncio
async def test_enrolment_life_cycle(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Enrol, enrol again (409), rotate (the old token ends), remove (the credential ends, history stays)."""
    made = await admin.post("/v1/devices", json={"device": "new-1"})
    again = await admin.post("/v1/devices", json={"device": "new-1"})
    rotated = await admin.post("/v1/devices/new-1/rotate")
    was_known = hub.identities.authenticate(made.json()["token"])
    now_known = hub.identities.authenticate(rotated.json()["token"])
    removed = await admin.delete("/v1/devices/new-1")
    missing = await admin.delete("/v1/devices/new-1")

    assert [r.status_code for r in (made, again, rotated, removed, missing)] == [201, 409, 200, 204, 404]
    assert (was_known, now_known is not None) == (None, True)
    assert hub.identities.authenticate(rotated.json()["token"]) is None


@pytest.mark.asyncio
async def test_bulk_enrolment_is_all_or_nothing(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """One bad name and no device is enrolled."""
    bad = await admin.post("/v1/devices/bulk", json={"devices": ["ok-1", "not ok"]})
    good = await admin.post("/v1/devices/bulk", json={"devices": ["ok-1", "ok-2"]})

    assert bad.status_code == 400
    assert [d["device"] for d in good.json()["devices"]] == ["ok-1", "ok-2"]


@pytest.mark.asyncio
async def test_device_enrolled_again_is_connected_after_its_old_connection_ends(
    hub: HubParts, admin: httpx.AsyncClient
) -> None:
    """Connections are counted by their begins and ends alone, whatever happens to the credential between."""
    await admin.post("/v1/devices", json={"device": "pump-3"})
    old = hub.connect("pump-3")
    await admin.delete("/v1/devices/pump-3")
    old.closed()
    await admin.post("/v1/devices", json={"device": "pump-3"})
    hub.connect("pump-3")

    answer = await get(admin, "/v1/devices", match="pump-3")

    assert [(d["device"], d["connected"]) for d in answer["devices"]] == [("pump-3", True)]
