"""`hub.gateway.rest.watchers`: operators see who watches in their namespace, and how far behind each is."""

import json
from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers, QueryParams

from hub.gateway.http import make_app
from hub.gateway.sse import watch_events
from hub.gateway.watch_socket import WatchSocket
from hub.roles import Identity, Role, scopes_of
from tests.hub.gateway.conftest import get
from tests.support.fake_connection import FakeConnection
from tests.support.hub_parts import HubParts, http_client


def watch(hub: HubParts, name: str, namespace: str = "default") -> WatchSocket:
    """Return a connected watcher that asked for every temperature, and has read nothing."""
    identity = Identity(f"t-{name}", name, Role.WATCHER, namespace, scopes_of(Role.WATCHER))
    socket = WatchSocket(hub.live, hub.store, hub.consumer, identity)
    connection = FakeConnection("192.0.2.7:4711")
    connection.is_stalled = True
    socket.opened(connection)
    socket.message(json.dumps({"op": "sub", "sub": "t", "match": ["*/temperature"]}).encode(), True)
    return socket


def names(answer: dict[str, Any]) -> list[str]:
    """Return the identities listed."""
    return [watcher["identity"] for watcher in answer["watchers"]]


@pytest.mark.asyncio
async def test_a_connection_is_told_with_its_subscriptions(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Who, by which transport, from where, since when, and how each subscription stands."""
    watch(hub, "screen").message(b'{"op":"hello"}', True)

    answer = await get(admin, "/v1/watchers")

    (one,) = answer["watchers"]
    assert (one["identity"], one["identity_id"], one["role"]) == ("screen", "t-screen", "watcher")
    assert (one["transport"], one["peer"]) == ("websocket", "192.0.2.7:4711")
    assert one["unsent_bytes"] > 100
    assert int(one["since_ns"]) > hub.started_ns
    (subscription,) = one["subscriptions"]
    assert (subscription["name"], subscription["match"]) == ("t", ["*/temperature"])
    assert (answer["count"], answer["unsent_bytes"]) == (1, one["unsent_bytes"])
    assert (answer["live"]["watchers"], answer["live"]["listeners"]) == (1, 1)


@pytest.mark.asyncio
async def test_event_streams_are_watchers_too(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """A stream of server-sent events has one subscription, and its bytes count until they are taken."""
    identity = Identity("t-1", "feed", Role.WATCHER, scopes=scopes_of(Role.WATCHER))
    response = watch_events(
        hub.live, hub.store, hub.consumer, identity, QueryParams("match=pump-2"), Headers({}), "192.0.2.8"
    )

    (one,) = (await get(admin, "/v1/watchers"))["watchers"]
    response.stream.close()

    assert (one["transport"], one["peer"]) == ("sse", "192.0.2.8")
    assert [s["match"] for s in one["subscriptions"]] == [["pump-2/*"]]
    assert (await get(admin, "/v1/watchers"))["watchers"] == []


@pytest.mark.asyncio
async def test_the_furthest_behind_come_first(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """A limit shows the worst; the totals are of all."""
    for k in range(250):
        watch(hub, f"screen-{k}")
    late = watch(hub, "late")
    late.message(b'{"op":"sub","sub":"all","match":["**"],"since":"-1h"}', True)
    head = hub.live.head
    late.message(f'{{"op":"sub","sub":"old","match":["**"],"since":"{hub.live.runs.cursor(head - 2)}"}}'.encode(), True)

    answer = await get(admin, "/v1/watchers", limit=1)

    assert names(answer) == ["late"]
    assert (answer["count"], answer["behind"]) == (251, 1)


@pytest.mark.asyncio
async def test_namespaces_do_not_see_each_other(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Another namespace's watchers are not listed, and the hub's own figures are for `default` alone."""
    watch(hub, "ours")
    watch(hub, "theirs", "north")
    _, token = hub.identities.add_token(Role.OPERATOR, namespace="north")
    async with http_client(make_app(hub), token=token) as north:
        there = await get(north, "/v1/watchers")
    here = await get(admin, "/v1/watchers")

    assert (names(there), there["count"], there["live"]) == (["theirs"], 1, None)
    assert names(here) == ["ours"]


@pytest.mark.asyncio
async def test_watchers_may_not_see_who_else_watches(hub: HubParts) -> None:
    """It takes an operator of the whole namespace: names and addresses are not for every screen."""
    _, watcher = hub.identities.add_token(Role.WATCHER)
    _, part = hub.identities.add_token(Role.OPERATOR, ["pump-2/**"])
    for token in (watcher, part):
        async with http_client(make_app(hub), token=token) as client:
            assert (await client.get("/v1/watchers")).status_code == 403
