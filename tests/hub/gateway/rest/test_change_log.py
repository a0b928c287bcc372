"""`hub.gateway.rest.change_log`: the log by REST, paged, filtered, of one namespace."""

import pytest

from hub.change_log import Entry
from hub.gateway.http import make_app
from hub.roles import Role
from tests.support.hub_parts import HubParts, http_client


@pytest.mark.asyncio
async def test_changes_are_in_the_log_with_who_and_outcome(hub: HubParts) -> None:
    """Each change with its asker, target and outcome; reading is no change; the page before leads to the next."""
    id_, token = hub.identities.add_token(Role.ADMIN, name="laptop")

    async with http_client(make_app(hub), token=token, peer="192.0.2.7") as client:
        await client.post("/v1/devices", json={"device": "pump-1"})
        await client.post("/v1/devices", json={"device": "pump-1"})
        await client.get("/v1/tokens")
        made = await client.post("/v1/tokens", json={"role": "watcher", "name": "wall"})
        await client.delete("/v1/devices/pump-1")
        page = (await client.get("/v1/log?limit=2")).json()
        rest = (await client.get(f"/v1/log?before={page['next']}")).json()
        one = (await client.get("/v1/log?device=pump-1&what=DELETE&who=lap&since=-1h")).json()

    told = [(e["what"], e["target"], e["outcome"]) for e in page["entries"] + rest["entries"]]
    assert told == [
        ("DELETE /v1/devices/{device}", "pump-1", "ok"), ("POST /v1/tokens", "wall watcher **", "ok"),
        ("POST /v1/devices", "pump-1", "conflict"), ("POST /v1/devices", "pump-1", "ok"),
    ]  # fmt: skip
    entry = one["entries"][0]
    assert (entry["who"], entry["role"], entry["credential"], entry["peer"]) == ("laptop", "admin", id_, "192.0.2.7")
    assert (len(one["entries"]), rest["next"], rest["cut"]) == (1, None, None)
    assert made.json()["token"] not in str(page) + str(rest)


@pytest.mark.asyncio
async def test_each_namespace_sees_its_own_log(hub: HubParts) -> None:
    """What others did elsewhere is not there."""
    hub.change_log.record(Entry("POST /v1/devices", "secret"))
    _, token = hub.identities.add_token(Role.ADMIN, namespace="north")

    async with http_client(make_app(hub), token=token) as client:
        await client.post("/v1/devices", json={"device": "mine"})
        page = (await client.get("/v1/log")).json()

    assert [e["target"] for e in page["entries"]] == ["mine"]
