"""`hub.gateway.rest.children`: who waits behind a gateway, and what is decided, in one namespace and one scope."""

import httpx
import pytest

from device_sdk.errors import Reason
from hub.child_book import Asked
from hub.gateway.http import make_app
from hub.roles import Role
from tests.hub.gateway.conftest import get
from tests.support.hub_parts import HubParts, http_client

AT = "/v1/gateways/barn/children"


def come(hub: HubParts, device: str, gateway: str = "barn", namespace: str = "default") -> Reason | None:
    """Say hello behind a gateway."""
    refusal = hub.children.admit(Asked(namespace, gateway, ("*",), device))
    return None if refusal is None else refusal.reason


async def make(client: httpx.AsyncClient, name: str = "barn", **more: object) -> httpx.Response:
    """Make a gateway's token."""
    return await client.post("/v1/tokens", json={"role": "gateway", "name": name, "match": [f"{name}-*"], **more})


@pytest.mark.asyncio
async def test_child_from_pending_to_forgotten(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Listed as it is noted, decided, decided otherwise, undone; what there is not is 404."""
    made = await make(admin)
    assert come(hub, "barn-1") is Reason.CHILD_PENDING
    listed = await get(admin, "/v1/children", state="pending")
    accepted = await admin.post(f"{AT}/barn-1", json={"state": "accepted"})
    assert come(hub, "barn-1") is None
    ignored = await admin.post(f"{AT}/barn-1", json={"state": "ignored"})
    assert come(hub, "barn-1") is Reason.CHILD_IGNORED
    forgotten = [(await admin.delete(f"{AT}/barn-1")).status_code for _ in range(2)]

    assert made.status_code == 201
    (row,) = listed["children"]
    assert (row["gateway"], row["device"], row["state"]) == ("barn", "barn-1", "pending")
    assert (accepted.status_code, ignored.status_code, forgotten) == (204, 204, [204, 404])
    assert (await get(admin, "/v1/children"))["children"] == []


@pytest.mark.asyncio
async def test_gateway_is_made_with_its_rules(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Quota and patterns come with the token or later; a second token leaves them; the list counts the children."""
    await make(admin, quota=7, auto_accept=["barn-temp-*"])
    await make(admin)
    come(hub, "barn-temp-1")
    come(hub, "barn-1")
    listed = await get(admin, "/v1/gateways")
    changed = await admin.patch("/v1/gateways/barn", json={"auto_accept": []})
    unknown = await admin.patch("/v1/gateways/shed", json={"quota": 1})

    assert listed["gateways"] == [
        {"gateway": "barn", "quota": 7, "auto_accept": ["barn-temp-*"], "accepted": 1, "pending": 1, "ignored": 0}
    ]
    assert changed.json() == {"gateway": "barn", "quota": 7, "auto_accept": []}
    assert unknown.status_code == 404
    assert (await admin.delete("/v1/gateways/barn")).status_code == 204
    assert (await get(admin, "/v1/gateways"))["gateways"] == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "body",
    [
        {"role": "gateway", "name": "barn"}, {"role": "gateway", "name": "", "match": ["barn-*"]},
        {"role": "gateway", "name": "a/b", "match": ["barn-*"]},
        {"role": "gateway", "name": "barn", "match": ["barn-*/**"]},
        {"role": "gateway", "name": "barn", "match": ["barn-*"], "quota": 0},
        {"role": "gateway", "name": "barn", "match": ["barn-*"], "auto_accept": ["["]},
        {"role": "gateway", "name": "barn", "match": ["barn-*"], "scopes": {"read": ["**"]}},
        {"role": "watcher", "quota": 3}, {"role": "watcher", "auto_accept": ["*"]},
    ],
    ids=str,
)  # fmt: skip
async def test_what_makes_no_gateway_is_refused(admin: httpx.AsyncClient, body: dict[str, object]) -> None:
    """A gateway without a name or a prefix, with more than it may have, and others with what is a gateway's."""
    before = len((await get(admin, "/v1/tokens"))["tokens"])

    assert (await admin.post("/v1/tokens", json=body)).status_code == 400
    assert len((await get(admin, "/v1/tokens"))["tokens"]) == before


@pytest.mark.asyncio
async def test_scope_and_namespace_hold(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """An admin of some devices sees and decides over those; another namespace has gateways of its own."""
    await make(admin)
    for device in ("barn-1", "shed-1"):
        come(hub, device)
    _, token = hub.identities.add_token(Role.ADMIN, ["barn-*"])
    _, other = hub.identities.add_token(Role.ADMIN, namespace="north")
    async with http_client(make_app(hub), token=token) as client:
        seen = await get(client, "/v1/children")
        denied = await client.post(f"{AT}/shed-1", json={"state": "accepted"})
        rules = await client.patch("/v1/gateways/barn", json={"quota": 1})
    async with http_client(make_app(hub), token=other) as client:
        elsewhere = await get(client, "/v1/children"), await get(client, "/v1/gateways")
        touched = await client.post(f"{AT}/barn-1", json={"state": "ignored"})

    assert [row["device"] for row in seen["children"]] == ["barn-1"]
    assert (denied.status_code, rules.status_code, touched.status_code) == (403, 403, 404)
    assert elsewhere == ({"children": []}, {"gateways": []})
    assert come(hub, "barn-1") is Reason.CHILD_PENDING


@pytest.mark.asyncio
async def test_conflicts_are_told(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """A used up quota and an enrolled device are 409 with the way out; the log has what was tried."""
    await make(admin, quota=1)
    hub.identities.add_device("barn-8")
    answers = [await admin.post(f"{AT}/{d}", json={"state": "accepted"}) for d in ("barn-8", "barn-1", "barn-2")]

    assert [a.status_code for a in answers] == [409, 204, 409]
    assert "hub children quota barn" in answers[2].json()["error"]["message"]
    tried = [(e.target, e.outcome) for e in hub.change_log.entries("default", 3)]
    assert [outcome for _, outcome in tried] == ["conflict", "ok", "conflict"]
    assert "barn-2" in tried[0][0]


@pytest.mark.asyncio
async def test_child_is_a_device_as_any_other(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Before its first reading it is listed, described, commanded and given a state; one that waits is none of that."""
    await make(admin, auto_accept=["barn-1"])
    for device in ("barn-1", "barn-2"):
        come(hub, device)
    devices = await get(admin, "/v1/devices", match="barn-*")
    metadata = await get(admin, "/v1/metadata", match="barn-*")
    ordered = await admin.post("/v1/commands", json={"match": "barn-*", "name": "fan", "queue": True, "timeout": "1m"})
    desired = await admin.post("/v1/desired", json={"selector": "barn-*", "patch": {"speed": 3}})
    one = await admin.patch("/v1/devices/barn-2/desired", json={"patch": {"speed": 3}})

    assert [(d["device"], d["tokens"]) for d in devices["devices"]] == [("barn-1", 0)]
    assert [d["device"] for d in metadata["devices"]] == ["barn-1"]
    assert (ordered.status_code, sum(ordered.json()["states"].values())) == (200, 1), ordered.text
    assert [d["device"] for d in desired.json()["devices"]] == ["barn-1"]
    assert one.status_code == 404
