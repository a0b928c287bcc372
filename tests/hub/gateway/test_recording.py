"""`hub.gateway.recording`: which requests are written into the log of changes, and which are only counted."""

import pytest

from hub.gateway.http import make_app
from hub.gateway.rest import ENDPOINTS
from hub.roles import Role, Verb
from tests.support.hub_parts import FixedSettings, HubParts, http_client


def test_every_change_is_recorded_and_no_question() -> None:
    """Whatever is not a GET and needs a verb, and a backup, which takes everything away; but not readings."""
    recorded = {f"{e.method} {e.path}" for e in ENDPOINTS if e.is_change}

    assert {"POST /v1/devices", "DELETE /v1/tokens/{id}", "POST /v1/users", "GET /v1/backup"} <= recorded
    changes = {f"{e.method} {e.path}" for e in ENDPOINTS if e.verb not in (None, Verb.WRITE) and e.method != "GET"}
    assert recorded == changes | {"GET /v1/backup"}


@pytest.mark.asyncio
async def test_refusals_cost_no_row_each(hub: HubParts) -> None:
    """A stranger's and a watcher's refused requests are counted; one row says how many; the token is not in it."""
    hub.config = FixedSettings(is_loopback=False)
    _, watcher = hub.identities.add_token(Role.WATCHER, name="wall")

    async with http_client(make_app(hub), peer="192.0.2.7") as client:
        for _ in range(3):
            await client.get("/v1/devices", headers={"Authorization": "Bearer d0123456789ab.guess"})
            await client.delete("/v1/devices/pump-1", headers={"Authorization": f"Bearer {watcher}"})
        await client.get("/v1/devices")
    assert hub.change_log.entries("default", 9) == []

    hub.change_log.flush()

    found = {(e.what, e.who, e.outcome): e.count for e in hub.change_log.entries("default", 9)}
    assert found == {
        ("GET /v1/devices", "", "unauthenticated"): 3,
        ("DELETE /v1/devices/{device}", "wall", "forbidden"): 3,
    }


@pytest.mark.asyncio
async def test_log_that_cannot_be_written_holds_up_nothing(hub: HubParts, caplog: pytest.LogCaptureFixture) -> None:
    """The change is done by then: it is answered, and the hub's log says what is missing."""
    _, token = hub.identities.add_token(Role.ADMIN, name="laptop")
    hub.change_log.close()

    async with http_client(make_app(hub), token=token) as client:
        made = await client.post("/v1/devices", json={"device": "pump-1"})

    assert made.status_code == 201
    assert "change not in the log what=POST /v1/devices who=laptop" in caplog.text
