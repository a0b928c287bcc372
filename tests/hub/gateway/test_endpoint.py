"""`hub.gateway.endpoint`: what a credential may see and touch, and how values stand in JSON."""

import httpx
import pytest

from device_sdk.reading import Value
from hub.gateway.endpoint import json_value
from hub.gateway.http import make_app
from hub.roles import Role
from tests.hub.gateway.conftest import T0, get
from tests.support.hub_parts import HubParts, http_client


@pytest.mark.asyncio
async def test_watcher_sees_only_what_is_granted(hub: HubParts) -> None:
    """Patterns of the token bound every listing, history, export and audit."""
    hub.identities.add_device("pump-1")
    _, token = hub.identities.add_token(Role.WATCHER, ["pump-2/counter"])

    async with http_client(make_app(hub), token=token) as client:
        devices = await get(client, "/v1/devices")
        readings = await get(client, "/v1/readings", match="**")
        export = await client.get("/v1/export")
        audit = await get(client, "/v1/audit")

    assert [(d["device"], [c["channel"] for c in d["channels"]]) for d in devices["devices"]] == [
        ("pump-2", ["counter"])
    ]
    assert readings["series"] == [{"device": "pump-2", "channel": "counter", "unit": None, "unit_shown": None}]
    assert len(export.text.splitlines()) == 2
    assert [s["channel"] for s in audit["series"]] == ["counter"]
    assert [s["device"] for s in audit["streams"]] == ["pump-2"]


@pytest.mark.asyncio
async def test_other_namespaces_are_invisible(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """The namespace comes from the credential; nothing of another one shows."""
    hub.feed(hub.connect("secret-1", stream="d" * 16, namespace="other"), ("x", T0, 1.0))

    devices, audit = await get(admin, "/v1/devices"), await get(admin, "/v1/audit")
    export = await admin.get("/v1/export")

    assert "secret-1" not in str(devices) + str(audit) + export.text


@pytest.mark.parametrize(
    ("value", "expected"),
    [(2**53, 2**53), (2**53 + 1, str(2**53 + 1)), (-(2**63), str(-(2**63))), (True, True), (1.5, 1.5), ("x", "x")],
    ids=str,
)
def test_integers_that_javascript_would_lose_travel_as_text(value: Value, expected: Value) -> None:
    """Exactly up to 2**53 as numbers, beyond it as decimal text; everything else as it is."""
    assert json_value(value) == expected
    assert type(json_value(value)) is type(expected)
