"""``hub state`` end to end: from the command line to a program on a device and back, over real sockets."""

import threading
import time
from contextlib import closing
from typing import Any

import pytest

from device_sdk import Client, Device
from hub.auth import Identities
from hub.cli.exit_code import CliError, ExitCode
from hub.cli.state import _patch
from tests.hub.cli.conftest import Run
from tests.support.hub_process import HubProcess

LIMIT_S = 30.0


def test_set_reaches_the_program_and_show_says_what_it_reports(
    run: Run, hub: HubProcess, admin: str, name: str
) -> None:
    """Set while the device is away; it comes, handles, reports; show and drift say so before and after."""
    where = ["--url", hub.url, "--token", admin]
    with closing(Identities(hub.data / "identities.sqlite3")) as identities:
        token = identities.add_device(name)
    told = run("state", "set", name, "interval_s=10", "fan.speed=3", "mode=eco", *where)
    assert (told.code, told.err) == (0, "1 devices: 1 changed, 0 refused\n")
    (waiting,) = run("state", "drift", name, "--json", *where).json
    assert (waiting["drift"], waiting["differing"]) == ("offline", ["interval_s", "fan.speed", "mode"])

    handled = threading.Event()
    with Device(name, hub.ws_url, token=token, spool=":memory:") as device:

        @device.on_desired
        def apply(state: dict[str, Any]) -> None:
            device.report({**state, "mode": "boost\x1b[2J"})
            handled.set()

        assert handled.wait(LIMIT_S)
        ends = time.monotonic() + LIMIT_S
        while (found := run("state", "show", name, "--json", *where).json)["reported"]["version"] != 1:
            assert time.monotonic() < ends
    shown = run("state", "show", name, *where)

    assert (found["drift"], found["differing"]) == ("drifted", ["mode"])
    lines = [line.split() for line in shown.out.splitlines()]
    assert ["fan.speed", "3", "3"] in lines
    assert ["mode", '"eco"', '"boost\\u001b[2J"', "differs"] in lines
    assert "taken in 1" in shown.err


def test_nobody_chosen_and_refusals_are_exit_codes(run: Run, hub: HubProcess, admin: str, name: str) -> None:
    """5 when no device matches, 1 when one is refused, 2 for words that say nothing."""
    where = ["--url", hub.url, "--token", admin]
    with closing(Identities(hub.data / "identities.sqlite3")) as identities:
        identities.add_device(name)

    assert run("state", "set", "nobody-at-all", "a=1", *where).code == ExitCode.NOT_FOUND
    assert run("state", "set", name, "a=1", "--expected-version", 7, *where).code == ExitCode.FAILED
    assert run("state", "set", name, "a", *where).code == ExitCode.USAGE
    assert run("state", "show", "nobody-at-all", *where).code == ExitCode.NOT_FOUND


def test_assignments_make_a_merge_patch() -> None:
    """Dots go into objects, values are JSON or text, null removes."""
    assert _patch(["a.b=1", "a.c=x y", "d=null", "e=[1,2]", "f=true", "g=", 'h="1"']) == {
        "a": {"b": 1, "c": "x y"}, "d": None, "e": [1, 2], "f": True, "g": "", "h": "1",
    }  # fmt: skip
    for wrong in (["=1"], ["a..b=1"], ["a=1", "a.b=2"]):
        with pytest.raises(CliError):
            _patch(wrong)


def test_client_sets_and_shows(hub: HubProcess, admin: str, name: str) -> None:
    """A program does the same by `Client`; a version that moved is an outcome, not an exception."""
    with closing(Identities(hub.data / "identities.sqlite3")) as identities:
        identities.add_device(name)
    client = Client(hub.url, admin)

    (made,) = client.set_desired(name, {"fan": {"speed": 3}})
    (refused,) = client.set_desired(name, {"fan": None}, expected_version=0)

    assert (made["version"], made["changed"], refused["changed"]) == (1, True, False)
    assert client.state(name)["desired"]["state"] == {"fan": {"speed": 3}}
