"""`hub.gateway.rest.metrics`: who reads everything in the namespace `default` may scrape, and a scrape is no change."""

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hub.gateway.http import make_app
from hub.roles import Role
from tests.support.hub_parts import HubParts, http_client

pytestmark = pytest.mark.asyncio


async def answer(hub: HubParts, token: str | None, peer: str = "192.0.2.1") -> httpx.Response:
    """Scrape with a token."""
    async with http_client(make_app(hub), token=token, peer=peer) as client:
        return await client.get("/metrics")


async def test_prometheus_reads_it_with_a_watchers_token(hub: HubParts) -> None:
    """The content type is the text format's; nothing of it is kept by caches or noted in the log of changes."""
    _, token = hub.identities.add_token(Role.WATCHER, name="prometheus")

    told = await answer(hub, token)

    assert (told.status_code, told.headers["cache-control"]) == (200, "no-store")
    assert told.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "hub_build_info" in {family.name for family in text_string_to_metric_families(told.text)}
    assert hub.change_log.entries("default", 10) == []


async def test_it_takes_a_scope_over_everything_in_the_default_namespace(hub: HubParts) -> None:
    """Nobody: 401; a part of the devices, a device, another namespace: 403."""
    tokens = [
        hub.identities.add_token(Role.WATCHER, ["pump-2/**"])[1],
        hub.identities.add_token(Role.ADMIN, namespace="north")[1],
        hub.identities.add_device("pump-2"),
    ]

    assert [(await answer(hub, token)).status_code for token in (None, *tokens)] == [401, 403, 403, 403]


async def test_this_machine_needs_no_token_on_loopback(hub: HubParts) -> None:
    """As the page and everything else that is read."""
    assert (await answer(hub, None, "127.0.0.1")).status_code == 200
