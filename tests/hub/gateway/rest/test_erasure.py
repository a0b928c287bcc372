"""`hub.gateway.rest.erasure`: all of a device goes, once it cannot send any more, and nothing of others."""

import httpx
import pytest

from hub.metadata import Edit
from hub.model import SeriesKey
from tests.hub.gateway.conftest import get
from tests.support.hub_parts import HubParts

pytestmark = pytest.mark.asyncio
CONFIRMED = {"confirm": "pump-2"}


async def test_all_of_a_device_is_erased(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Readings, newest values, descriptions; the ledger says how many readings, other devices keep theirs."""
    hub.metadata.change(Edit(SeriesKey("default", "pump-2", "temperature"), {"label": "cellar"}), "ann")
    hub.describe()
    hub.registry.device("default", "pump-2").connections = 0
    before = await get(admin, "/v1/readings", **{"from": "0"})

    answer = await admin.post("/v1/devices/pump-2/erase", json=CONFIRMED)

    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["readings"], told["descriptions"], told["journal_hours"]) == (4, 1, 24.0)
    after = await get(admin, "/v1/readings", **{"from": "0"})
    assert len(before["rows"]) - len(after["rows"]) == 4
    latest = await get(admin, "/v1/latest")
    assert [r["device"] for r in latest["readings"]] == ["pump-10"]
    series = (await get(admin, "/v1/audit"))["series"]
    assert {(s["device"], s["erased"], s["rows"], s["balanced"]) for s in series} >= {
        ("pump-2", 3, 0, True),
        ("pump-10", 0, 1, True),
    }


async def test_a_device_that_may_still_send_is_not_erased(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Its tokens end first, and its connection; else half of it would be there again."""
    hub.identities.add_device("pump-2")

    answer = await admin.post("/v1/devices/pump-2/erase", json=CONFIRMED)

    assert (answer.status_code, answer.json()["error"]["reason"]) == (409, "conflict")
    assert "hub devices rm pump-2" in answer.text
    hub.identities.remove_device("pump-2")
    answer = await admin.post("/v1/devices/pump-2/erase", json=CONFIRMED)
    assert answer.status_code == 409
    assert "still connected" in answer.text


async def test_the_name_is_said_twice(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """There is no way back."""
    for body in ({"confirm": "pump-1"}, {}):
        answer = await admin.post("/v1/devices/pump-2/erase", json=body)

        assert answer.status_code == 400
    assert hub.store.statistics().rows == 5
