"""Socket.IO's own client for Node.js watches a real hub: cuts, a killed hub, a stopped client, rights."""

import asyncio
import os
import random
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_sdk import Device
from hub.auth import Identities
from hub.roles import Role
from tests.end_to_end.conftest import enrol
from tests.support.hub_process import ROOT, HubProcess, wait_for
from tests.support.node import NodeProcess, find, install

SCRIPT = Path(__file__).parents[1] / "support" / "socket_io_watcher.cjs"
CLIENT = "socket.io-client@4.8"
T0 = 1_790_000_000_000_000_000
TRANSPORTS = ("websocket", "polling", "polling,websocket")
pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Socket.IO's client for Node.js, installed for this run."""
    found = install(tmp_path_factory.mktemp("node"), CLIENT)
    if found is None:
        pytest.skip(f"needs Node.js, npm and a registry with {CLIENT}")
    return found


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    """A hub with the door open."""
    with HubProcess(tmp_path / "data", "--socketio") as running:
        yield running


def watcher_token(hub: HubProcess, *patterns: str) -> tuple[str, str]:
    """Return id and token of a watcher."""
    identities = Identities(hub.data / "identities.sqlite3")
    try:
        return identities.add_token(Role.WATCHER, patterns or ("**",), "test")
    finally:
        identities.close()


def watch(hub: HubProcess, modules: Path, token: str, transport: str) -> NodeProcess:
    """Start a watcher."""
    return NodeProcess(modules, SCRIPT, [hub.url, token, transport])


def values(node: NodeProcess) -> list[float]:
    """Return all values a watcher got, as they came."""
    return [value for line in node.heard("data") for value in line["values"]]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_node_client_cut_at_random_and_a_killed_hub_gets_each_once(
    hub: HubProcess, modules: Path, transport: str
) -> None:
    """Cuts, kills of the hub, an upgrade of the transport: no gap, no duplicate, in order, all recovered."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    count = 6000
    token = enrol(hub, "d")["d"]
    with watch(hub, modules, watcher_token(hub)[1], transport) as node:
        await wait_for(lambda: node.heard("live"))
        with Device("d", hub.ws_url, token=token, spool=":memory:") as device:
            for k in range(count):
                device.record({"x": k}, time=T0 + k)
                if k % 500 == 250:
                    node.say("cut")
                if k in (2000, 4000):
                    hub.kill()
                    hub.start()
                if k % 20 == 0:
                    await asyncio.sleep(rng.random() * 0.01)
            await asyncio.to_thread(device.flush, 30)
        await wait_for(lambda: len(values(node)) >= count, 30, f"{count} values, seed {seed}")

        assert values(node) == list(range(count)), f"seed {seed}"
        answers = node.heard("ok")
        assert len(answers) > 3
        assert all(answer["recovered"] for answer in answers[1:]), f"seed {seed}"
        assert node.heard("live")[-1]["transport"] == ("polling" if transport == "polling" else "websocket")


async def test_stopped_node_client_gets_all_when_it_goes_on(hub: HubProcess, modules: Path) -> None:
    """A process that does not run for a while owes the hub nothing and is owed only what its cursor says."""
    count = 50_000
    token = enrol(hub, "d")["d"]
    with watch(hub, modules, watcher_token(hub)[1], "websocket") as node:
        await wait_for(lambda: node.heard("live"))
        os.kill(node.pid, signal.SIGSTOP)
        with Device("d", hub.ws_url, token=token, spool=":memory:") as device:
            for k in range(count):
                device.record({"x": k}, time=T0 + k)
            await asyncio.to_thread(device.flush, 30)
        assert values(node) == []
        os.kill(node.pid, signal.SIGCONT)
        await wait_for(lambda: len(values(node)) >= count, 30)

        assert values(node) == list(range(count))


async def test_node_client_is_told_why_and_stays_away_or_comes_back(hub: HubProcess, modules: Path) -> None:
    """connect_error has the reason; after a revocation the client stays away, after a stop of the hub it comes back."""
    id_, token = watcher_token(hub)
    with watch(hub, modules, "t0.wrong", "websocket") as wrong, watch(hub, modules, token, "websocket") as node:
        await wait_for(lambda: wrong.heard("connect_error") and node.heard("live"))
        assert wrong.heard("connect_error")[0]["data"] == {"reason": "unauthenticated"}

        hub.stop()
        await wait_for(lambda: node.heard("disconnect"))
        hub.start()
        await wait_for(lambda: len(node.heard("ok")) == 2)
        assert [(b["code"], b["reason"]) for b in node.heard("bye")] == [(4000, "the hub stops")]
        assert node.heard("disconnect")[0]["active"] is True
        assert node.heard("ok")[1]["recovered"] is True

        identities = Identities(hub.data / "identities.sqlite3")
        identities.remove_token(id_)
        identities.close()
        await wait_for(lambda: len(node.heard("disconnect")) == 2)
        assert node.heard("bye")[-1]["code"] == 4401
        assert node.heard("disconnect")[1] == {
            "what": "disconnect", "reason": "io server disconnect", "active": False,
        }  # fmt: skip


@pytest.mark.parametrize("language", ["js", "python"])
async def test_programs_of_the_page_run(hub: HubProcess, modules: Path, tmp_path: Path, language: str) -> None:
    """What docs/how-to/coming-from-socket-io.md prints shows history and then what is new, each once."""
    page = (ROOT / "docs" / "how-to" / "coming-from-socket-io.md").read_text(encoding="utf-8")
    (program,) = re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)
    file = tmp_path / f"program.{'cjs' if language == 'js' else 'py'}"
    file.write_text(program.replace("127.0.0.1:8000", f"127.0.0.1:{hub.port}"), encoding="utf-8")
    token = enrol(hub, "greenhouse-1")["greenhouse-1"]
    environment = {**os.environ, "HUB_TOKEN": watcher_token(hub)[1], "NODE_PATH": str(modules)}
    command = [(find("node") or "node") if language == "js" else sys.executable, str(file)]
    with Device("greenhouse-1", hub.ws_url, token=token, spool=":memory:") as device:
        device.record({"temperature": 20.5, "debug": 1.0})
        await asyncio.to_thread(device.flush, 30)
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment)
        assert process.stdout is not None, "it is a pipe"
        try:
            async with asyncio.timeout(30):
                first = (await process.stdout.readline()).decode()
                device.record({"temperature": 21.5, "debug": 1.0})
                second = (await process.stdout.readline()).decode()
        finally:
            process.kill()
            await process.wait()

    assert [line.split()[1:] for line in (first, second)] == [["greenhouse-1", "20.5"], ["greenhouse-1", "21.5"]]
