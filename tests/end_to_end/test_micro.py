"""Microcontrollers at a real hub, directly and through mosquitto: a reading is stored once, or declared as dropped."""

import asyncio
import json
import shutil
import ssl
import sys
import sysconfig
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hub.tls import make_certificates
from simulators.proxy import FaultProxy
from tests.end_to_end.conftest import admin_token, enrol
from tests.support.hub_process import ROOT, HubProcess, free_port, wait_for
from tests.support.mosquitto import PROGRAM, Mosquitto
from tests.support.mqtt_hub import MqttHub

pytestmark = [pytest.mark.asyncio, pytest.mark.end_to_end]

NAME = "esp32-attic"
LIMIT_S = 120
MICROPYTHON = shutil.which("micropython", path=sysconfig.get_path("scripts"))
needs_micropython = pytest.mark.skipif(MICROPYTHON is None, reason="there is no MicroPython for this machine")
needs_mosquitto = pytest.mark.skipif(PROGRAM is None, reason="mosquitto is not installed: apt-get install mosquitto")
INTERPRETERS = {
    "cpython": [sys.executable, "-W", "error"],
    "micropython": [str(MICROPYTHON), "-X", "heapsize=64k"],
}  # fmt: skip


class Site:
    """A hub and the port that devices connect to."""

    def __init__(self, hub: HubProcess, port: int) -> None:
        self.hub, self.port = hub, port
        self.token = enrol(hub, NAME)[NAME]

    def values(self) -> list[int]:
        """Return the numbers that are stored, a value for each row."""
        rows = self.hub.get(f"/v1/readings?match={NAME}/n&last=1h&limit=10000")["rows"]
        return [row[2] for row in rows]

    def audit(self) -> Any:
        """Return what the hub knows of the device's readings."""
        return self.hub.get(f"/v1/audit?device={NAME}")


@pytest.fixture
def direct(tmp_path: Path) -> Iterator[Site]:
    """A hub with a port of its own."""
    with MqttHub(tmp_path / "data") as hub:
        yield Site(hub, hub.mqtt_port)


@pytest.fixture
def brokered(tmp_path: Path) -> Iterator[Site]:
    """A hub behind a broker."""
    with (
        Mosquitto(tmp_path, free_port(), "max_queued_messages 0") as broker,
        HubProcess(tmp_path / "data", "--mqtt-url", f"mqtt://127.0.0.1:{broker.port}") as hub,
    ):
        yield Site(hub, broker.port)


@pytest.fixture(params=["direct", pytest.param("brokered", marks=needs_mosquitto)])
def site(request: pytest.FixtureRequest) -> Site:
    """Each of them."""
    site: Site = request.getfixturevalue(request.param)
    return site


class Board:
    """A running program of `tests/device_sdk/micro`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def told(self) -> dict[str, Any]:
        """Wait for its end; return what it says of itself."""
        output, _ = await asyncio.wait_for(self._process.communicate(), LIMIT_S + 20)
        told: dict[str, Any] = json.loads(output)
        return told


@asynccontextmanager
async def board(folder: Path, interpreter: str, token: str, port: int, *arguments: object) -> AsyncIterator[Board]:
    """Run ``session.py`` with (count, rows, pace), and (seconds, authority) if other than `LIMIT_S` and none."""
    folder.mkdir()
    for path in ("device_sdk/micro.py", "tests/device_sdk/micro/session.py"):
        shutil.copy(ROOT / path, folder)
    words = [*INTERPRETERS[interpreter], "session.py", NAME, port, token, *arguments]
    words += [LIMIT_S] if len(arguments) == 3 else []
    process = await asyncio.create_subprocess_exec(*map(str, words), cwd=folder, stdout=asyncio.subprocess.PIPE)
    try:
        yield Board(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@needs_micropython
async def test_ten_thousand_readings_pass_a_heap_of_64_kib(site: Site, tmp_path: Path) -> None:
    """More than half of it stays free; the hub has the values, units and times as they were."""
    async with board(tmp_path / "board", "micropython", site.token, site.port, 2500, 100, "gently") as running:
        told = await running.told()

    assert (told["dropped"], told["left"], told["connections"]) == (0, 0, 1)
    assert told["free_bytes"] > 32_000
    assert site.values() == list(range(1, 2501))
    audit = await asyncio.to_thread(site.audit)
    assert audit["devices"][0]["streams"]
    (stream,) = audit["streams"]
    assert (stream["accepted"], stream["dropped"], stream["rejected"]) == (10_000, 0, 0)


@pytest.mark.parametrize("interpreter", ["cpython", pytest.param("micropython", marks=needs_micropython)])
async def test_tls_is_verified(tmp_path: Path, interpreter: str) -> None:
    """By the hub's authority, as the how-to has it; by another's, nothing is sent."""
    files = make_certificates(tmp_path / "data" / "tls", ["127.0.0.1"], now=datetime.now(UTC))
    other = make_certificates(tmp_path / "other", ["127.0.0.1"], now=datetime.now(UTC))
    for authority in (files, other):
        authority.ca.with_suffix(".der").write_bytes(ssl.PEM_cert_to_DER_cert(authority.ca.read_text()))
    options = ("--tls-cert", str(files.cert), "--tls-key", str(files.key))
    with MqttHub(tmp_path / "data", *options, ca=files.ca) as hub:
        token, told = enrol(hub, NAME)[NAME], {}
        for name, authority, limit_s in (("right", files, LIMIT_S), ("wrong", other, 3)):
            der = authority.ca.with_suffix(".der")
            async with board(
                tmp_path / name, interpreter, token, hub.mqtt_port, 30, 100, "gently", limit_s, der
            ) as running:
                told[name] = await running.told()

    assert (told["right"]["left"], told["right"]["dropped"], told["right"]["connections"]) == (0, 0, 1)
    assert (told["wrong"]["connections"], told["wrong"]["acked"]) == (0, 0)


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("interpreter", ["cpython", pytest.param("micropython", marks=needs_micropython)])
async def test_faults_and_kills_lose_nothing_undeclared(site: Site, tmp_path: Path, interpreter: str) -> None:
    """On a line that is cut, held and swallowed, with a hub that is killed: stored once, or in a gap.

    A minute and more, for after each fault the board waits up to twice as long before it connects.
    """
    count = 3000
    async with (
        FaultProxy(("127.0.0.1", site.port)) as proxy,
        board(tmp_path / "board", interpreter, site.token, proxy.port, count, 60, 8) as running,
    ):
        async with proxy.chaos(7, 0.05):
            await asyncio.sleep(4)
            await asyncio.to_thread(site.hub.kill)
            await asyncio.to_thread(site.hub.start)
            await asyncio.sleep(6)
            # Each fault doubles the board's wait before it connects again, and there is nothing to strike meanwhile.
            await wait_for(lambda: proxy.statistics().struck > 3, what="a rough line")
        told = await running.told()
    values = site.values()
    streams = (await asyncio.to_thread(site.audit))["streams"]

    assert told["left"] == 0, told
    assert len(set(values)) == len(values), "nothing is there twice"
    assert len(values) + told["dropped"] == count
    assert sum(stream["dropped"] for stream in streams) == told["dropped"]
    assert sum(stream["accepted"] for stream in streams) == len(values)


UMQTT = """
import sys
from umqtt.simple import MQTTClient
name, port, token = sys.argv[1:]
client = MQTTClient(name, "127.0.0.1", int(port), user=name, password=token, keepalive=30)
client.set_last_will(b"tele/" + name.encode() + b"/LWT", b"Offline", retain=True, qos=1)
client.connect()
heard = []
client.set_callback(lambda topic, payload: heard.append(payload))
for n in range(1, 301):
    client.publish(b"sensors/" + name.encode(), b'{"n":%d}' % n, qos=1)
client.subscribe(b"hub/v1/" + name.encode() + b"/down", 1)
try:
    client.subscribe(b"#", 0)
except Exception:
    heard.append("refused")
client.ping()
client.disconnect()
print(heard)
"""
UMQTT_FILE = Path.home() / ".micropython" / "lib" / "umqtt" / "simple"


# Nightly: no package registry has it in a form that pip, npm or apt can install.
@pytest.mark.nightly
@needs_micropython
@pytest.mark.skipif(
    not any(UMQTT_FILE.with_suffix(kind).is_file() for kind in (".py", ".mpy")),
    reason="umqtt.simple is not installed: micropython -m mip install umqtt.simple",
)
async def test_umqtt_simple_is_a_client_like_others(direct: Site, tmp_path: Path) -> None:
    """What most boards have today: each PUBACK means stored; it may have its own topics, and no others."""
    (tmp_path / "main.py").write_text(UMQTT)
    words = [str(MICROPYTHON), "main.py", NAME, str(direct.port), direct.token]
    process = await asyncio.create_subprocess_exec(*words, cwd=tmp_path, stdout=asyncio.subprocess.PIPE)
    output, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
    await wait_for(lambda: len(direct.values()) == 300, LIMIT_S, "300 rows")

    assert output.strip() == b"['refused']"
    assert sorted(direct.values()) == list(range(1, 301))


@needs_micropython
async def test_hub_gives_commands_and_a_state(site: Site, tmp_path: Path) -> None:
    """By REST, to a board: it obeys, and takes the state in."""
    admin = admin_token(site.hub)

    def ask(method: str, path: str, body: Any = None) -> Any:
        status, answer = site.hub.request(method, path, body, admin)
        assert status < 300, answer
        return answer

    async with board(tmp_path / "board", "micropython", site.token, site.port, 200, 100, 50):
        await wait_for(lambda: site.values(), LIMIT_S, "a reading")
        order = {"name": "fan", "args": {"speed": 3}, "match": NAME, "wait": True}
        given = await asyncio.to_thread(ask, "POST", "/v1/commands", order)
        await asyncio.to_thread(ask, "PATCH", f"/v1/devices/{NAME}/desired", {"patch": {"interval_s": 5}})
        await wait_for(lambda: ask("GET", f"/v1/devices/{NAME}/state")["drift"] == "in_sync", LIMIT_S, "the state")

    assert [(one["state"], one["value"]) for one in given["results"]] == [("done", {"speed": 3})]
