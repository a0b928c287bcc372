"""`hub.gateway.rest.devices`: who is there, and how many tokens each has."""

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
async def test_listing_says_how_many_tokens_are_live(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """None of a device that is not enrolled; with two, when the old one ends."""
    hub.identities.add_device("pump-10")
    hub.identities.add_device("pump-11")
    hub.identities.rotate_device("pump-11", keep_s=60)

    pump2, pump10, pump11 = (await get(admin, "/v1/devices"))["devices"]

    assert [(d["tokens"], d["old_token_ends_ns"] is None) for d in (pump2, pump10, pump11)] == [
        (0, True),
        (1, True),
        (2, False),
    ]


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
