"""`hub.gateway.rest.upkeep`: the hub says how it is."""

import httpx
import pytest

from hub.errors import JournalError
from tests.hub.gateway.conftest import get
from tests.support.hub_parts import HubParts


@pytest.mark.asyncio
async def test_health_names_run_head_and_store(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Whoever watches the hub sees that it takes readings and how far the store is."""
    answer = await get(admin, "/healthz")

    assert (answer["status"], answer["run"], answer["head"], answer["store_applied"]) == (
        "ok",
        hub.journal.run.id,
        2,
        2,
    )


@pytest.mark.asyncio
async def test_health_of_a_failed_hub_is_503(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """A hub whose journal failed says so with its status code."""
    hub.failed = JournalError("commit failed")

    response = await admin.get("/healthz")

    assert (response.status_code, response.json()["status"]) == (503, "failed")
