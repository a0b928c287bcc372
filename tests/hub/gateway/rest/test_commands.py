"""`hub.gateway.rest.commands`: commands by selector, inside the credential's scope, with a result for each device."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from device_sdk import wire
from device_sdk.wire import MAX_CONTROL_BYTES, MAX_CONTROL_DEPTH
from hub.gateway.http import make_app
from hub.gateway.rest.commands import CommandAnswer, CommandKinds, CommandList, DeviceCommands
from hub.roles import Role, Verb
from hub.session import DeviceSession
from tests.support.hub_parts import HubParts, http_client, hub_parts

pytestmark = pytest.mark.asyncio
FAN = {"fan": {"args": {"speed": {"type": "int", "required": True}}}}
PATH = "/v1/commands"


def connect(hub: HubParts, device: str, at: int) -> DeviceSession:
    """Connect a device that has a fan and answers at once."""
    session = hub.connect(device, stream=f"{at:016x}")
    hub.downlink.heard(session, wire.Schema((), FAN))

    def answer() -> None:
        for data in session.take_output():
            message = wire.decode_hub_message(data)
            if isinstance(message, wire.Command):
                session.receive(wire.encode(wire.Reply(message.id, True, message.args["speed"])), True, 1)

    session.take_output()
    session.flush = answer
    return session


@pytest_asyncio.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubParts]:
    """A hub with fan-1, fan-2 connected and fan-10 away."""
    with hub_parts(tmp_path) as parts:
        task = asyncio.create_task(parts.commands.run(), name="commands")
        for at, name in enumerate(("fan-1", "fan-2", "fan-10"), 1):
            parts.identities.add_device(name)
            session = connect(parts, name, at)
            if name == "fan-10":
                session.closed()
        parts.identities.add_device("fan-1", namespace="other")
        yield parts
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest_asyncio.fixture
async def client(hub: HubParts) -> AsyncIterator[httpx.AsyncClient]:
    """An operator of everything."""
    _, token = hub.identities.add_token(Role.OPERATOR, name="ann")
    async with http_client(make_app(hub), token=token) as client:
        yield client


async def give(client: httpx.AsyncClient, status: int = 200, **body: Any) -> Any:
    """Give a fan a command."""
    response = await client.post(PATH, json={"match": "*", "name": "fan", "args": {"speed": 3}, **body})
    assert response.status_code == status, response.text
    return response.json()


async def test_each_device_answers(client: httpx.AsyncClient) -> None:
    """With `wait` the answer has each device's result, in natural order, and the sums."""
    answer = CommandAnswer.model_validate(await give(client, wait=True))

    assert [(r.device, r.state, r.value) for r in answer.results] == [
        ("fan-1", "done", 3), ("fan-2", "done", 3), ("fan-10", "refused", None),
    ]  # fmt: skip
    assert (answer.states, answer.who, answer.match) == ({"done": 2, "refused": 1}, "ann", "*")
    assert CommandAnswer.model_validate((await client.get(f"{PATH}/{answer.id}")).json()) == answer


async def test_queued_ones_can_be_cancelled(client: httpx.AsyncClient) -> None:
    """A device that is away is waited for until the expiry, or until somebody ends it."""
    answer = await give(client, match="fan-10", queue=True, expires="1d", id="mine")
    assert (answer["id"], answer["states"]) == ("mine", {"queued": 1})
    assert int(answer["expires_ns"]) - int(answer["made_ns"]) == 86400 * 10**9

    cancelled = (await client.post(f"{PATH}/mine/cancel")).json()

    assert cancelled["states"] == {"cancelled": 1}


async def test_the_list_is_paged_newest_first(client: httpx.AsyncClient) -> None:
    """Each command once."""
    for id in ("one", "two", "three"):
        await give(client, id=id)

    first = CommandList.model_validate((await client.get(PATH, params={"limit": 2})).json())
    second = CommandList.model_validate((await client.get(PATH, params={"limit": 2, "page": first.next})).json())

    assert [c.id for c in (*first.commands, *second.commands)] == ["three", "two", "one"]
    assert second.next is None


async def test_what_a_device_was_told(hub: HubParts, client: httpx.AsyncClient) -> None:
    """The newest commands to one device with its result each; a device outside the scope is as if it were not there."""
    for speed in (1, 2, 3):
        await give(client, wait=True, id=f"n{speed}", args={"speed": speed})
    await give(client, wait=True, id="elsewhere", match="fan-1")
    path = "/v1/devices/fan-2/commands"

    answer = DeviceCommands.model_validate((await client.get(path, params={"limit": 2})).json())

    assert [(c.id, c.args, c.value, c.state, c.who) for c in answer.commands] == [
        ("n3", {"speed": 3}, 3, "done", "ann"), ("n2", {"speed": 2}, 2, "done", "ann"),
    ]  # fmt: skip
    assert (await client.get("/v1/devices/nobody/commands")).status_code == 404
    _, token = hub.identities.add_token(Role.OPERATOR, scopes={Verb.COMMAND: ["fan-1"]})
    async with http_client(make_app(hub), token=token) as narrow:
        assert (await narrow.get(path)).status_code == 404


async def test_kinds_of_command_are_counted(hub: HubParts, client: httpx.AsyncClient) -> None:
    """Equal declarations are one kind, others of the same name another; only of the devices that are meant and seen."""
    other = {"fan": {"args": {}, "doc": "Turn."}}
    hub.downlink.heard(hub.connect("fan-10", stream="f" * 16), wire.Schema((), other))

    answer = CommandKinds.model_validate((await client.get("/v1/declared")).json())

    assert [(k.name, k.doc, k.args, k.devices) for k in answer.kinds] == [
        ("fan", "", FAN["fan"]["args"], 2), ("fan", "Turn.", {}, 1),
    ]  # fmt: skip
    assert (answer.devices, answer.more) == (3, 0)
    one = (await client.get("/v1/declared", params={"match": "fan-1"})).json()
    assert (one["devices"], [k["devices"] for k in one["kinds"]]) == (1, [1])
    _, token = hub.identities.add_token(Role.OPERATOR, scopes={Verb.COMMAND: ["fan-10"]})
    async with http_client(make_app(hub), token=token) as narrow:
        assert [k["doc"] for k in (await narrow.get("/v1/declared")).json()["kinds"]] == ["Turn."]


async def test_scopes_hold_for_giving_and_for_looking(hub: HubParts, client: httpx.AsyncClient) -> None:
    """Devices outside the scope are neither commanded nor seen; nor is what chose them."""
    await give(client, id="all", wait=True)
    await give(client, id="not-yours", match="fan-2")
    _, token = hub.identities.add_token(Role.OPERATOR, scopes={Verb.COMMAND: ["fan-1"]})
    _, other = hub.identities.add_token(Role.OPERATOR, namespace="other")

    async with http_client(make_app(hub), token=token) as narrow:
        given = await give(narrow, wait=True, id="narrow")
        assert [r["device"] for r in given["results"]] == ["fan-1"]
        seen = (await narrow.get(f"{PATH}/all")).json()
        assert ([r["device"] for r in seen["results"]], seen["match"]) == (["fan-1"], None)
        assert (await narrow.get(f"{PATH}/not-yours")).status_code == 404
        assert [c["id"] for c in (await narrow.get(PATH)).json()["commands"]] == ["narrow", "all"]
        await give(narrow, 404, match="fan-2")
    async with http_client(make_app(hub), token=other) as foreign:
        assert (await foreign.get(PATH)).json()["commands"] == []
        assert (await foreign.get(f"{PATH}/all")).status_code == 404


async def test_wrong_requests_say_what_is_wrong(client: httpx.AsyncClient) -> None:
    """A selector that meets nothing, a time-out beyond its bound, an expiry without a queue."""
    assert "fits 'pump-*'" in (await give(client, 404, match="pump-*"))["error"]["message"]
    assert "limit is 3600 s" in (await give(client, 400, timeout="2h"))["error"]["message"]
    assert "goes with queue" in (await give(client, 400, expires="1d"))["error"]["message"]
    assert "limit is 2592000 s" in (await give(client, 400, expires="31d", queue=True))["error"]["message"]
    assert "duration" in (await give(client, 400, timeout="soon"))["error"]["message"]
    await give(client, 400, args={"speed": "x" * MAX_CONTROL_BYTES})
    for levels in (MAX_CONTROL_DEPTH, 300):
        args: object = 1
        for _ in range(levels):
            args = [args]
        assert "deeper than 32" in (await give(client, 400, args={"speed": args}))["error"]["message"]
    await give(client, id="same")
    await give(client, 409, id="same", args={"speed": 4})
