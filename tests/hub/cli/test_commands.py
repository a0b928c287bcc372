"""``hub command`` and ``hub commands``: a result for each device, and an exit code that says whether all did it."""

import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from device_sdk import Client, Device, MisuseError
from hub.auth import Identities
from tests.hub.cli.conftest import Run
from tests.support.hub_process import HubProcess

LIMIT_S = 20.0


@pytest.fixture
def where(hub: HubProcess, admin: str, run: Run) -> Iterator[list[object]]:
    """A hub with a fan that is connected and declared; `away` is enrolled only."""
    with closing(Identities(hub.data / "identities.sqlite3")) as identities:
        token = identities.add_devices(["fan-1", "away"], rotate=True)["fan-1"]
    device = Device("fan-1", hub.ws_url, token=token, spool=":memory:")

    @device.command
    def fan(speed: int, mode: str = "eco") -> dict[str, object]:
        return {"speed": speed, "mode": mode}

    client, end = Client(hub.url, admin), time.monotonic() + LIMIT_S
    with device:
        while client.command("fan-1", "fan", speed=1)[0]["state"] != "done":
            assert time.monotonic() < end, "the fan does not come"
        yield ["--url", hub.url, "--token", admin]


def test_each_device_is_listed_and_the_exit_code_says_all(run: Run, where: list[object]) -> None:
    """0 when all did it, 1 when one did not; values are JSON, or text as it is."""
    done = run("command", "fan-*", "fan", "speed=3", "mode=full", *where)
    assert done.code == 0
    assert 'fan-1   done   {"speed": 3, "mode": "full"}' in done.out
    assert "fan: 1 done" in done.err

    some = run("command", "fan-* away", "fan", "speed=3", "--json", *where)

    assert some.code == 1
    assert some.json["states"] == {"done": 1, "refused": 1}
    assert run("command", "fan-1", "fan", "speed", *where).code == 2
    assert run("command", "pump-*", "fan", "speed=3", *where).code == 5


def test_commands_are_listed_shown_and_cancelled(run: Run, where: list[object]) -> None:
    """By the id that the list shows; what ended stays as it ended."""
    run("command", "fan-1", "fan", "speed=7", *where)

    first = run("commands", "ls", "--json", *where).json[0]
    shown = run("commands", "show", first["id"], *where)
    cancelled = run("commands", "cancel", first["id"], "--json", *where)

    assert (first["args"], first["states"]) == ({"speed": 7}, {"done": 1})
    assert "fan-1" in shown.out
    assert cancelled.json["states"] == {"done": 1}
    assert "speed" in run("commands", "ls", *where).out
    assert run("commands", "show", "none", *where).code == 5


def test_the_client_commands_too(hub: HubProcess, admin: str, where: list[object]) -> None:
    """Arguments by name; an id of one's own makes it repeatable; wrong questions are misuse."""
    client = Client(hub.url, admin)

    (first,) = client.command("fan-1", "fan", speed=5, id="mine")
    (again,) = client.command("fan-1", "fan", args={"speed": 5}, id="mine")

    assert first == again
    assert (first["state"], first["value"]) == ("done", {"speed": 5, "mode": "eco"})
    with pytest.raises(MisuseError, match="no device"):
        client.command("pump-*", "fan")
