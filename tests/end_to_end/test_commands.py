"""Commands over real sockets: a hub, its REST interface, devices of the SDK; kills of either end."""

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from device_sdk import Device
from tests.end_to_end.conftest import admin_token, enrol
from tests.support.hub_process import HubProcess

pytestmark = pytest.mark.slow
LIMIT_S = 60.0

# A device whose command takes effect, and then hangs: it is killed between effect and reply.
_HANGING = """
import sys, time
from pathlib import Path
from device_sdk import Device
name, url, token, spool, effects, hangs = sys.argv[1:]
device = Device(name, url, token=token, spool=spool)
@device.command
def fan(speed: int) -> int:
    with open(effects, "a") as file:
        file.write(f"{speed}\\n")
    if hangs == "yes":
        time.sleep(3600)
    return speed
with device:
    time.sleep(3600)
"""


def ask(hub: HubProcess, token: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Return the answer of a request."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(hub.url + path, data, headers), timeout=LIMIT_S) as answer:
        return json.loads(answer.read())


def wait_until(condition: Any) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def give(hub: HubProcess, token: str, **body: Any) -> Any:
    """Give the fans a command."""
    return ask(hub, token, "/v1/commands", {"match": "*", "name": "fan", "args": {"speed": 3}, **body})


def test_a_program_that_declares_late_gets_what_waited_for_it(hub: HubProcess, tmp_path: Path) -> None:
    """It connects before it has declared its last command; the first one it declares is not taken for all."""
    tokens, admin = enrol(hub, "fan-1"), admin_token(hub)

    def run_until(effects: list[int], is_done: Callable[[], bool]) -> None:
        with Device("fan-1", hub.ws_url, token=tokens["fan-1"], spool=tmp_path / "spool") as device:
            wait_until(lambda: device.status.online)

            @device.command
            def lamp() -> None: ...

            wait_until(lambda: "lamp" in give(hub, admin, name="fly", match="fan-1")["results"][0]["error"])

            @device.command
            def fan(speed: int) -> None:
                effects.append(speed)

            wait_until(is_done)

    run_until([], lambda: give(hub, admin, wait=True)["states"] == {"done": 1})
    waiting, effects = give(hub, admin, queue=True, expires="1m", args={"speed": 4}), list[int]()
    run_until(effects, lambda: ask(hub, admin, f"/v1/commands/{waiting['id']}")["states"] == {"done": 1})

    assert effects == [4]


def test_a_command_reaches_a_device_and_its_answer_comes_back(hub: HubProcess, tmp_path: Path) -> None:
    """Declared before or after the device is opened; wrong arguments are refused by the hub."""
    tokens, admin = enrol(hub, "fan-1", "away"), admin_token(hub)
    device = Device("fan-1", hub.ws_url, token=tokens["fan-1"], spool=tmp_path / "spool")

    @device.command
    def fan(speed: int) -> dict[str, int]:
        return {"speed": speed}

    with device:

        @device.command(name="late")
        async def blink() -> str:
            await asyncio.sleep(0)
            return "on"

        wait_until(lambda: give(hub, admin, wait=True, match="fan-1")["states"] == {"done": 1})
        answer = give(hub, admin, wait=True)
        wrong = give(hub, admin, args={"speed": "fast"}, match="fan-1")
        wait_until(lambda: give(hub, admin, name="late", args={}, wait=True)["states"].get("done") == 1)

    assert {r["device"]: (r["state"], r["value"]) for r in answer["results"]} == {
        "fan-1": ("done", {"speed": 3}), "away": ("refused", None),
    }  # fmt: skip
    assert wrong["results"][0]["error"] == "fan: speed: Input should be a valid integer"


def test_a_device_killed_between_effect_and_reply_says_interrupted(hub: HubProcess, tmp_path: Path) -> None:
    """The command is sent again and not run again: the answer is that it may have taken effect."""
    tokens, admin = enrol(hub, "fan-1"), admin_token(hub)
    effects = tmp_path / "effects"
    effects.touch()
    arguments = ["fan-1", hub.ws_url, tokens["fan-1"], str(tmp_path / "spool"), str(effects)]

    def start(hangs: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", _HANGING, *arguments, hangs])

    first = start("yes")
    try:
        wait_until(lambda: give(hub, admin, id="probe", args={}, timeout="1m") and _is_declared(hub, admin))
        given = give(hub, admin, id="once", queue=True, expires="1h")
        wait_until(lambda: effects.read_text() == "3\n")
    finally:
        first.kill()
        first.wait()
    second = start("no")
    try:
        wait_until(lambda: ask(hub, admin, "/v1/commands/once")["states"] == {"failed": 1})
        answer = ask(hub, admin, "/v1/commands/once")
    finally:
        second.kill()
        second.wait()

    assert given["states"] == {"sent": 1}
    assert answer["results"][0]["error"].startswith("interrupted")
    assert effects.read_text() == "3\n"


def _is_declared(hub: HubProcess, admin: str) -> bool:
    """Whether the hub knows all fans: a wrong argument is then named."""
    return all("speed" in result["error"] for result in give(hub, admin, args={"speed": "x"})["results"])


def test_a_hub_killed_in_a_fan_out_goes_on_with_it(hub: HubProcess, tmp_path: Path) -> None:
    """Each of 60 devices runs it once, six of them when they connect for the first time after the kill."""
    names = [f"fan-{n}" for n in range(60)]
    tokens, admin = enrol(hub, *names), admin_token(hub)
    effects: Counter[str] = Counter()

    def device_of(name: str) -> Device:
        device = Device(name, hub.ws_url, token=tokens[name], spool=tmp_path / name, close_timeout_s=0)

        @device.command
        async def fan(speed: int) -> int:
            effects[name] += 1
            await asyncio.sleep(0.02)
            return speed

        return device

    async def until(states: dict[str, int]) -> None:
        await asyncio.to_thread(wait_until, lambda: ask(hub, admin, "/v1/commands/all")["states"] == states)

    async def run() -> None:
        async with AsyncExitStack() as stack:
            for name in names:  # all declare what they have, and six leave
                opened = await stack.enter_async_context(device_of(name))
                if names.index(name) >= 54:
                    opened.record(x=1)
                    await opened.flush_async(LIMIT_S)
                    await opened.__aexit__(None, None, None)
            await asyncio.to_thread(wait_until, lambda: _is_declared(hub, admin))
            given = await asyncio.to_thread(give, hub, admin, id="all", queue=True, expires="1h")
            hub.kill()
            await asyncio.to_thread(hub.start)
            again = await asyncio.to_thread(give, hub, admin, id="all", queue=True, expires="1h")
            assert sum(again["states"].values()) == sum(given["states"].values()) == 60
            await until({"done": 54, "queued": 6})
            for name in names[54:]:
                await stack.enter_async_context(device_of(name))
            await until({"done": 60})

    asyncio.run(run())

    assert effects == dict.fromkeys(names, 1)
