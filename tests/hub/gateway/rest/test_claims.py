"""`hub.gateway.rest.claims`: codes for groups, and the door that is open to strangers."""

import httpx
import pytest

from hub.gateway.attempts import FAILURES, Attempts
from hub.gateway.http import MAX_OPEN_BODY_BYTES, make_app
from hub.gateway.rest.claims import Claims
from tests.hub.gateway.conftest import get
from tests.support.hub_parts import FixedSettings, HubParts, http_client

pytestmark = pytest.mark.asyncio


class CountedAttempts(Attempts):
    """Attempts that say what was asked of them."""

    begun = given_back = 0

    def begin(self, address: str, now: float) -> float:
        self.begun += 1
        return super().begin(address, now)

    def succeeded(self) -> None:
        self.given_back += 1
        super().succeeded()


async def test_a_group_claims_up_to_its_quota(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Devices without any credential get their tokens; one too many is refused; the listing counts them."""
    made = (await admin.post("/v1/claims", json={"match": "pi-*", "quota": 2, "expires_s": 60})).json()
    hub.config = FixedSettings(is_loopback=False)

    async with http_client(make_app(hub)) as stranger:
        answers = [
            await stranger.post("/v1/claim", json={"code": made["code"], "device": device})
            for device in ("pi-1", "pi-1", "pump-1", "pi-2", "pi-3")
        ]

    assert [a.status_code for a in answers] == [200, 409, 403, 200, 403]
    first = answers[0].json()
    assert (first["device"], first["namespace"]) == ("pi-1", "default")
    identity = hub.identities.authenticate(first["token"])
    assert identity is not None
    assert identity.name == "pi-1"
    (listed,) = (await get(admin, "/v1/claims"))["claims"]
    assert (listed["id"], listed["match"], listed["used"], listed["quota"]) == (made["id"], "pi-*", 2, 2)
    assert made["code"] not in str(listed)


async def test_codes_that_open_nothing_are_answered_alike(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Unknown, used, ended: the same status and the same words, whatever else the body says."""
    used = (await admin.post("/v1/devices/new-1/claim")).json()["code"]
    ended = (await admin.post("/v1/claims", json={"match": "*", "quota": 1})).json()
    hub.identities.claims.redeem(used)
    removed = await admin.delete(f"/v1/claims/{ended['id']}")
    codes = [used, ended["code"], "c0123456789ab." + "a" * 26, "nonsense", "", used[:-1] + "0"]

    async with http_client(make_app(hub)) as stranger:
        answers = [await stranger.post("/v1/claim", json={"code": code, "device": "a b"}) for code in codes]

    assert removed.status_code == 204
    assert {a.status_code for a in answers} == {403}
    assert len({a.text for a in answers}) == 1
    assert "hub devices add NAME --claim" in answers[0].text


async def test_guessing_is_slowed_down_by_address(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """After a few failures 429 with Retry-After; another address still claims, and success costs nothing."""
    code = (await admin.post("/v1/claims", json={"match": "*", "quota": 50})).json()["code"]
    app = make_app(hub)

    async with http_client(app, peer="192.0.2.1") as guesser, http_client(app, peer="192.0.2.2") as honest:
        guesses = [await guesser.post("/v1/claim", json={"code": f"c{n}"}) for n in range(int(FAILURES) + 1)]
        claimed = [await honest.post("/v1/claim", json={"code": code, "device": f"d{n}"}) for n in range(30)]

    assert [g.status_code for g in guesses] == [403] * int(FAILURES) + [429]
    assert guesses[-1].json()["error"]["reason"] == "too_many_requests"
    assert 1 <= int(guesses[-1].headers["retry-after"]) <= 6
    assert {c.status_code for c in claimed} == {200}


async def test_claims_that_succeed_leave_room_for_a_fleet(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Of the limit in total they take nothing; the same device again takes what a failure takes."""
    code = (await admin.post("/v1/claims", json={"match": "*", "quota": 50})).json()["code"]
    hub.claim_attempts = counted = CountedAttempts()

    async with http_client(make_app(hub), peer="192.0.2.2") as fleet:
        for device in ("d1", "d2", "d2", "d3"):
            body = {"code": code, "device": device, "retry": "a secret of the device"}
            assert (await fleet.post("/v1/claim", json=body)).status_code == 200
        await fleet.post("/v1/claim", json={"code": code, "device": "d1"})

    assert (counted.begun, counted.given_back) == (5, 3)


async def test_claims_of_another_namespace_are_not_there(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """They are not listed and cannot be ended; their devices come into their own namespace."""
    id_, code = hub.identities.claims.add_group("*", 1, 60, namespace="other")

    listed = Claims.model_validate((await admin.get("/v1/claims")).json()).claims
    ended = await admin.delete(f"/v1/claims/{id_}")
    claimed = await admin.post("/v1/claim", json={"code": code, "device": "pi-1"})

    assert (listed, ended.status_code) == ([], 404)
    assert claimed.json()["namespace"] == "other"
    assert hub.identities.devices() == []


async def test_a_stranger_sends_little(hub: HubParts) -> None:
    """What is open to all takes no body of a megabyte into RAM before it has counted an attempt."""
    hub.config = FixedSettings(is_loopback=False)

    async with http_client(make_app(hub)) as stranger:
        answer = await stranger.post("/v1/claim", json={"code": "x" * MAX_OPEN_BODY_BYTES})

    assert answer.status_code == 413
