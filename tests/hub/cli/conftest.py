"""Fixtures of the command line's tests: commands run in this process, against one real hub for all of them."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from hub.auth import Identities
from hub.cli import main
from hub.roles import Role
from tests.support.hub_process import HubProcess

T0 = 1_795_376_000_000_000_000
_numbers = count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks a running hub belongs to the suite of real processes."""
    for item in items:
        if "hub" in getattr(item, "fixturenames", ()) and item.path.parent == Path(__file__).parent:
            item.add_marker("end_to_end")


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it wrote, parsed."""
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def bare_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run in an empty folder, without any HUB_ variable, with a state folder of the test."""
    for name in [name for name in os.environ if name.startswith("HUB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs ``hub`` with arguments and returns how it ended."""

    def run_command(*arguments: object) -> Outcome:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        code = ended.value.code
        return Outcome(0 if code is None else int(code), captured.out, captured.err)

    return run_command


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """One running hub for all tests of the command line; each test uses names of its own."""
    with HubProcess(tmp_path_factory.mktemp("cli") / "data") as running:
        yield running


@pytest.fixture(scope="session")
def admin(hub: HubProcess) -> str:
    """Return an admin's token."""
    identities = Identities(hub.data / "identities.sqlite3")
    try:
        return identities.add_token(Role.ADMIN, ["**"], "tests")[1]
    finally:
        identities.close()


@pytest.fixture
def name() -> str:
    """Return a device name that no other test uses."""
    return f"device-{next(_numbers)}"


@pytest.fixture
def recorded(hub: HubProcess, name: str) -> str:
    """Return the name of a device that has recorded 10 temperatures, one a second, and one state."""
    from device_sdk import Device

    identities = Identities(hub.data / "identities.sqlite3")
    token = identities.add_device(name)
    identities.close()
    with Device(name, hub.ws_url, token=token, spool=":memory:") as device:
        temperature = device.channel("temperature", unit="Cel")
        for n in range(10):
            temperature.record(20.0 + n, time=T0 + n * 10**9)
        device.record({"state": 'on, "really"'}, time=T0)
        device.flush(20)
    return name
