"""The hooks of docs/examples in a real hub: what is stored, refused, seen and denied; what hangs holds up nobody."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from device_sdk import Device, FlushTimeoutError, wire
from hub.auth import Identities
from hub.roles import Role
from tests.end_to_end.conftest import enrol
from tests.support.hub_process import HubProcess

pytestmark = [pytest.mark.asyncio, pytest.mark.end_to_end]
LIMIT_S = 20.0
MODULE = "docs.examples.hooks"
# Hangs for the device of that name alone, until the file beside it is there; each answer is another.
HANGING = """
import pathlib, time
HERE = pathlib.Path(__file__).parent

def ingest(context, columns):
    while context.name == "slow" and not (HERE / "go").exists():
        time.sleep(0.02)
    return {"x": [value + time.time_ns() % 1000 for value in columns["x"].values]}
"""


def token(hub: HubProcess, name: str, role: Role = Role.WATCHER) -> str:
    with closing(Identities(hub.data / "identities.sqlite3")) as identities:
        return identities.add_token(role, name=name)[1]


@asynccontextmanager
async def watching(hub: HubProcess, name: str) -> AsyncIterator[ClientConnection]:
    headers = {"Authorization": f"Bearer {token(hub, name)}"}
    url, protocol = hub.ws_url + wire.WATCH_PATH, Subprotocol(wire.WATCH_SUBPROTOCOL)
    async with asyncio.timeout(LIMIT_S), connect(url, subprotocols=[protocol], additional_headers=headers) as socket:
        yield socket


async def ask(socket: ClientConnection, **message: Any) -> dict[str, Any]:
    await socket.send(json.dumps(message))
    answer: dict[str, Any] = json.loads(await socket.recv())
    return answer


def send(hub: HubProcess, name: str, device_token: str, spool: Path, **values: Any) -> None:
    with Device(name, hub.ws_url, token=device_token, spool=spool / name) as device:
        device.record(**values)
        device.flush(timeout_s=LIMIT_S)


async def test_example_changes_rejects_narrows_and_denies(tmp_path: Path) -> None:
    """The program of the documentation, on the sockets of a hub; each answer is what its text says."""
    with HubProcess(tmp_path / "data", "--hook", f"{MODULE}:ingest", "--hook", f"{MODULE}:authorize") as hub:
        for name in ("greenhouse-1", "greenhouse-3"):
            await asyncio.to_thread(
                send, hub, name, enrol(hub, name)[name], tmp_path, temperature=77.0, debug="x", battery=3.1
            )
        async with httpx.AsyncClient(base_url=hub.url, headers=bearer(token(hub, "carl"))) as all_:
            latest = (await all_.get("/v1/latest")).json()["readings"]
            audit = (await all_.get("/v1/audit")).json()
        async with httpx.AsyncClient(base_url=hub.url, headers=bearer(token(hub, "ben"))) as ben:
            batteries = (await ben.get("/v1/latest")).json()["readings"]
        async with httpx.AsyncClient(base_url=hub.url, headers=bearer(token(hub, "o", Role.OPERATOR))) as operator:
            enrol(hub, "pump-main", "fan-1")
            commanded = await operator.post("/v1/commands", json={"match": "*", "name": "stop", "queue": True})
        async with watching(hub, "ann") as socket:
            granted = await ask(socket, id=1, op="sub", sub="a", match=["**"], since="last")
            refused = await ask_until(socket, 2, op="sub", sub="b", match=["greenhouse-3/**"])

    assert {(r["device"], r["channel"]): r["value"] for r in latest} == {
        ("greenhouse-1", "temperature"): 25.0, ("greenhouse-1", "battery"): 3.1,
        ("greenhouse-3", "temperature"): 77.0, ("greenhouse-3", "battery"): 3.1,
    }  # fmt: skip
    assert "hook: debug output is not stored" in json.dumps(audit)
    assert {(r["device"], r["channel"]) for r in batteries} == {
        ("greenhouse-1", "battery"),
        ("greenhouse-3", "battery"),
    }
    assert [result["device"] for result in commanded.json()["results"]] == ["fan-1"]
    assert granted["granted"] == ["**"]
    assert (refused["op"], refused["reason"]) == ("error", "forbidden")


async def ask_until(socket: ClientConnection, id: int, **message: Any) -> dict[str, Any]:
    """Ask on a connection on which readings arrive; return the answer, which has the number."""
    answer = await ask(socket, id=id, **message)
    while answer.get("id") != id:
        assert answer.get("op") != "data" or "s1" not in answer
        answer = json.loads(await socket.recv())
    return answer


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


async def test_hook_that_hangs_holds_up_its_device_alone_and_a_kill_loses_nothing(tmp_path: Path) -> None:
    """A device whose hook hangs keeps its readings over the hub's kill; others are acked as ever; all once."""
    folder = tmp_path / "hooks"
    folder.mkdir()
    (folder / "hanging.py").write_text(HANGING)
    with HubProcess(tmp_path / "data", "--hook", "hanging:ingest", environment={"PYTHONPATH": str(folder)}) as hub:
        tokens = enrol(hub, "slow", "quick")
        with Device("slow", hub.ws_url, token=tokens["slow"], spool=tmp_path / "slow") as slow:
            for number in range(50):
                slow.record(x=number)
            for number in range(5):
                await asyncio.to_thread(send, hub, "quick", tokens["quick"], tmp_path, x=number)
            while "ingest hook failed hook=hanging:ingest device=slow" not in hub.log.read_text():
                with pytest.raises(FlushTimeoutError):
                    slow.flush(timeout_s=0.1)
            hub.kill()
            (folder / "go").touch()
            hub.start()
            await asyncio.to_thread(slow.flush, timeout_s=LIMIT_S)
            rows = {n: hub.get(f"/v1/readings?match={n}&from=2020-01-01T00:00:00Z")["rows"] for n in tokens}
            dropped = slow.statistics().dropped

    assert {name: len(found) for name, found in rows.items()} == {"slow": 50, "quick": 5}
    assert dropped == 0
