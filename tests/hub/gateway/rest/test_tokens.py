"""`hub.gateway.rest.tokens`: tokens are made, listed and ended."""

import httpx
import pytest

from tests.hub.gateway.conftest import get
from tests.support.hub_parts import HubParts


@pytest.mark.asyncio
async def test_token_life_cycle(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """A token is made, listed without its secret, and ended."""
    made = await admin.post("/v1/tokens", json={"role": "watcher", "match": ["pump-*"], "name": "wall"})
    listed = await get(admin, "/v1/tokens")
    removed = await admin.delete(f"/v1/tokens/{made.json()['id']}")

    assert (made.status_code, removed.status_code) == (201, 204)
    assert made.json()["token"] not in str(listed)
    assert [(t["name"], t["scopes"]) for t in listed["tokens"] if t["role"] == "watcher"] == [
        ("wall", {"read": ["pump-*"]})
    ]
    assert hub.identities.authenticate(made.json()["token"]) is None


@pytest.mark.asyncio
async def test_token_with_a_bad_pattern_is_refused(admin: httpx.AsyncClient) -> None:
    """A pattern that can match nothing is an error when the token is made, not when it is used."""
    response = await admin.post("/v1/tokens", json={"role": "watcher", "match": ["a/b/c"]})

    assert response.status_code == 400


@pytest.mark.asyncio
@pytest.mark.parametrize("scopes", [{"manage": ["**"]}, {"read": ["a/b/c"]}, {"fly": ["**"]}], ids=str)
async def test_scopes_beyond_the_role_are_refused(admin: httpx.AsyncClient, scopes: dict[str, list[str]]) -> None:
    """A scope narrows what the role has; a verb of another role, no pattern or no verb is an error."""
    response = await admin.post("/v1/tokens", json={"role": "watcher", "scopes": scopes})

    assert response.status_code == 400
