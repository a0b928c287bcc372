"""`hub.gateway.rest.imports`: frames of files, by an admin, once in the log of changes."""

import base64
from typing import Any

import httpx
import pytest

from device_sdk.columns import encode_batch, to_columns
from hub.gateway.http import make_app
from hub.gateway.rest.imports import ImportAnswer, ImportStream
from hub.roles import Role
from tests.hub.gateway.conftest import T0, get
from tests.support.hub_parts import HubParts, http_client

ID = "ab" * 16
PATH = f"/v1/imports/{ID}/frames"


def frame(device: str, value: object = 1.5) -> dict[str, Any]:
    """Return a device's first frame: two readings of a channel, the second a text."""
    body = encode_batch(to_columns(1, [("old", T0, 1.5), ("old", T0 + 1, value)]))  # type: ignore[list-item]
    channels = {"old": {"unit": "Cel", "type": "float"}}
    return {"device": device, "body": base64.b64encode(body).decode(), "channels": channels}


@pytest.mark.asyncio
async def test_readings_of_a_file_are_history(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Of a device that nobody enrolled: stored when it is answered; refused ones are named; the audit balances."""
    begun = await admin.post("/v1/imports", json={"name": "old.csv", "id": ID})
    answers = [(await admin.post(PATH, json={"frames": [frame("attic", "x")]})).json() for _ in range(2)]

    assert ImportStream.model_validate(begun.json()).stream == f"import-{ID}"
    for answer in answers:
        ImportAnswer.model_validate(answer)
    assert [(b["stored"], b["accepted"], b["rejected"]) for answer in answers for b in answer["before"]] == [
        (0, 0, 0), (1, 1, 1),
    ]  # fmt: skip
    assert answers[0]["refused"] == [
        {"device": "attic", "seq": 1, "channel": "old", "index": 1, "reason": "type_conflict"}
    ]
    assert answers[1]["refused"] == []
    rows = await get(admin, "/v1/readings", match="attic", **{"from": "0"})
    assert [row[2] for row in rows["rows"]] == [1.5]
    assert rows["series"][0]["unit"] == "Cel"
    audit = await get(admin, "/v1/audit", device="attic")
    assert [s["stream"] for s in audit["streams"]] == [f"import-{ID}"]
    assert audit["balanced"] is True


@pytest.mark.asyncio
async def test_file_is_in_the_log_of_changes_once(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Its many requests are not, unless one fails."""
    await admin.post("/v1/imports", json={"name": "old.csv", "id": ID})
    for _ in range(3):
        await admin.post(PATH, json={"frames": [frame("attic")]})
    await admin.post(PATH, json={"frames": [{"device": "attic", "body": "!"}]})

    entries = (await get(admin, "/v1/log"))["entries"]

    assert [(e["what"], e["target"], e["outcome"]) for e in entries] == [
        ("POST /v1/imports/{id}/frames", "", "bad_request"), ("POST /v1/imports", "old.csv", "ok"),
    ]  # fmt: skip


@pytest.mark.asyncio
async def test_scope_holds_for_every_device_of_a_request(hub: HubParts) -> None:
    """An admin of some devices imports for those alone; one foreign name and nothing of the request is stored."""
    _, token = hub.identities.add_token(Role.ADMIN, ["mine-*"])

    async with http_client(make_app(hub), token=token) as client:
        mixed = await client.post(PATH, json={"frames": [frame("mine-1"), frame("theirs-1")]})
        own = await client.post(PATH, json={"frames": [frame("mine-1")]})

    assert (mixed.status_code, own.status_code) == (403, 200)
    assert own.json()["before"][0]["stored"] == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("id_", ["0", "x" * 32, "AB" * 16])
async def test_id_is_a_digest(admin: httpx.AsyncClient, id_: str) -> None:
    """Anything else is said to be none."""
    answer = await admin.post(f"/v1/imports/{id_}/frames", json={"frames": []})

    assert answer.status_code == 400


@pytest.mark.asyncio
async def test_store_that_is_behind_slows_an_import_down(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Nothing is taken while history lacks what came before: the journal does not run ahead."""
    hub.consumer.is_behind = True
    hub.feed(hub.connect("pump-2", stream="c" * 16), ("temperature", T0 + 9, 1.0))

    answer = await admin.post(PATH, json={"frames": [frame("attic")]})

    assert answer.status_code == 503
    assert ("default", "attic") not in hub.registry.devices
