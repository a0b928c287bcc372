"""`hub.gateway.rest.enrolment`: the life of a credential, one device at a time and many in one request."""

import time

import httpx
import pytest

from hub.gateway.http import make_app
from hub.gateway.rest.enrolment import DeviceTokens
from hub.roles import Role
from tests.support.hub_parts import HubParts, http_client

pytestmark = pytest.mark.asyncio


async def test_enrolment_life_cycle(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Enrol, enrol again (409), rotate (both count), rotate without keeping (one counts), remove (none)."""
    made = await admin.post("/v1/devices", json={"device": "new-1"})
    again = await admin.post("/v1/devices", json={"device": "new-1"})
    kept = await admin.post("/v1/devices/new-1/rotate")
    both = [hub.identities.authenticate(r.json()["token"]) is not None for r in (made, kept)]
    last = await admin.post("/v1/devices/new-1/rotate", json={"keep_s": 0})
    one = [hub.identities.authenticate(r.json()["token"]) is not None for r in (made, kept, last)]
    removed = await admin.delete("/v1/devices/new-1")
    missing = await admin.delete("/v1/devices/new-1")

    assert [r.status_code for r in (made, again, kept, last, removed, missing)] == [201, 409, 200, 200, 204, 404]
    assert both == [True, True]
    assert one == [False, False, True]
    assert hub.identities.authenticate(last.json()["token"]) is None


async def test_a_grace_beyond_its_limit_is_refused(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """A month at most, and no negative time."""
    hub.identities.add_device("new-1")

    answers = [await admin.post("/v1/devices/new-1/rotate", json={"keep_s": keep_s}) for keep_s in (-1, 31 * 86400)]

    assert [a.status_code for a in answers] == [400, 400]


async def test_bulk_enrolment_is_all_or_nothing(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """One bad name and no device is enrolled."""
    bad = await admin.post("/v1/devices/bulk", json={"devices": ["ok-1", "not ok"]})
    good = await admin.post("/v1/devices/bulk", json={"devices": ["ok-1", "ok-2"]})

    assert bad.status_code == 400
    assert [d["device"] for d in good.json()["devices"]] == ["ok-1", "ok-2"]


async def test_bulk_enrolment_of_each_answers_by_row(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Each name for itself, in the order of the request; tokens of those that were enrolled count."""
    hub.identities.add_device("old-1")
    names = ["new-1", "", "old-1", "new-1", "x" * 200, "new-2"]

    response = await admin.post("/v1/devices/bulk", json={"devices": names, "each": True})

    rows = DeviceTokens.model_validate(response.json()).rows
    assert [row.device for row in rows] == names
    assert [row.result.value for row in rows] == ["enrolled", "bad_name", "exists", "duplicate", "bad_name", "enrolled"]
    assert all(hub.identities.authenticate(row.token) for row in rows if row.token is not None)


async def test_bulk_claims_are_codes(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """With `claims` nobody is enrolled yet; each code gives its device a token."""
    body = {"devices": ["new-1", "new-2"], "each": True, "claims": True, "expires_s": 60}

    rows = (await admin.post("/v1/devices/bulk", json=body)).json()["rows"]

    assert [d.name for d in hub.identities.devices()] == []
    assert [hub.identities.claims.redeem(row["code"]).device for row in rows] == ["new-1", "new-2"]


async def test_bulk_of_a_narrow_admin_refuses_by_row(hub: HubParts) -> None:
    """Names outside of the credential's patterns are forbidden, the others enrolled."""
    _, token = hub.identities.add_token(Role.ADMIN, ["mine-*"])

    async with http_client(make_app(hub), token=token) as client:
        response = await client.post("/v1/devices/bulk", json={"devices": ["mine-1", "theirs-1"], "each": True})

    assert [row["result"] for row in response.json()["rows"]] == ["enrolled", "forbidden"]


async def test_three_thousand_devices_are_one_quick_request(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """One transaction: measured 60 ms; a fsync for each would take many seconds."""
    start = time.perf_counter()
    response = await admin.post("/v1/devices/bulk", json={"devices": [f"d{n}" for n in range(3000)], "each": True})
    seconds = time.perf_counter() - start

    assert len(response.json()["rows"]) == 3000
    assert seconds < 5


async def test_claim_of_one_device(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """An admin makes a code for a new device; for one that exists it is refused."""
    made = await admin.post("/v1/devices/new-1/claim")
    hub.identities.claims.redeem(made.json()["code"])
    again = await admin.post("/v1/devices/new-1/claim", json={})

    assert [made.status_code, again.status_code] == [201, 409]
