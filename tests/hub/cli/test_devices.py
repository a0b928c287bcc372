"""``hub devices``: enrol, list, rotate, remove; the same by REST and on the files."""

from pathlib import Path

import pytest

from device_sdk import Device
from hub.auth import Identities
from hub.cli.devices import clock_text
from hub.roles import Role
from tests.hub.cli.conftest import Run
from tests.support.hub_process import HubProcess

Where = list[object]


@pytest.fixture(params=["rest", "files", "files beside a hub"])
def where(request: pytest.FixtureRequest, hub: HubProcess, admin: str, tmp_path: Path) -> Where:
    """Return the options that lead to a hub, to a folder without one, and to the folder of a running one."""
    if request.param == "rest":
        return ["--url", hub.url, "--token", admin]
    return ["--data", tmp_path if request.param == "files" else hub.data]


def test_life_of_a_device(run: Run, where: Where, name: str) -> None:
    """Add, list, rotate, remove: each does what it says, and a second time says why not."""
    added = run("devices", "add", name, "--json", *where)
    assert (added.code, added.json["device"]) == (0, name)

    again = run("devices", "add", name, *where)
    assert again.code == 6
    assert f"hub devices rotate {name}" in again.err

    assert name in {row["device"] for row in run("devices", "ls", "--json", *where).json}

    rotated = run("devices", "rotate", name, "--json", *where)
    assert rotated.json["token"] != added.json["token"]

    assert run("devices", "rm", name, *where).code == 0
    assert run("devices", "rm", name, *where).code == 5
    assert run("devices", "rotate", name, *where).code == 5


def test_token_alone_is_on_stdout(run: Run, tmp_path: Path, name: str) -> None:
    """The secret can be piped; what to do with it is said beside."""
    outcome = run("devices", "add", name, "--data", tmp_path)

    identities = Identities(tmp_path / "identities.sqlite3")
    assert identities.authenticate(outcome.out.strip()) is not None
    identities.close()
    assert f'Device("{name}", "ws://127.0.0.1:8000", token=…)' in outcome.err


def test_bad_name_is_a_usage_error(run: Run, where: Where) -> None:
    """A name outside the grammar is refused with the grammar."""
    outcome = run("devices", "add", "a b", *where)

    assert outcome.code == 2
    assert "letters, digits" in outcome.err


def test_wrong_clock_is_shown() -> None:
    """A device whose clock is flagged says by how much; others say nothing."""
    assert clock_text({"skew_s": 3.21, "skewed": True}) == "+3.2 s"
    assert clock_text({"skew_s": -86400.0, "skewed": True}) == "-86,400.0 s"
    assert clock_text({"skew_s": 1.9, "skewed": False}) == clock_text({"skew_s": None, "skewed": False}) == ""


def test_listing_shows_state(run: Run, hub: HubProcess, recorded: str) -> None:
    """With a hub the listing tells presence, last reading and channels."""
    table = run("devices", "ls", "--url", hub.url).out

    (line,) = [line for line in table.splitlines() if line.startswith(f"{recorded} ")]
    assert "2026-11-22" in line
    assert line.split()[-1] == "2"


def test_without_an_admin_it_is_refused(run: Run, hub: HubProcess, name: str) -> None:
    """On loopback anyone may read, nobody may enrol; the message says what is needed."""
    outcome = run("devices", "add", name, "--url", hub.url)

    assert outcome.code == 4
    assert "hub tokens add --role admin" in outcome.err


def test_no_byte_of_an_erased_device_is_left(run: Run, tmp_path: Path) -> None:
    """In no file of the hub but the journal, which forgets by its own time: readings, label, state; a second time
    there is nothing more to erase. Without --yes it asks."""
    secret = "my-secret-diary"
    with HubProcess(tmp_path / "data") as hub:
        identities = Identities(hub.data / "identities.sqlite3")
        admin, token = identities.add_token(Role.ADMIN)[1], identities.add_device("anna")
        identities.close()
        where = ["--url", hub.url, "--token", admin]
        with Device("anna", hub.ws_url, token=token, spool=":memory:") as device:
            for n in range(50):
                device.record({"text": f"{secret}-{n}"})
            device.flush(10)
        hub.get("/v1/readings?match=anna&last=1h", token=admin)
        assert run("metadata", "set", "anna", f"label={secret}", *where).code == 0
        assert run("state", "set", "anna", f"text={secret}", *where).code == 0
        assert secret.encode() in (hub.data / "metadata.sqlite3-wal").read_bytes()
        refused = run("devices", "erase", "anna", "--yes", *where)
        run("devices", "rm", "anna", *where)

        erased = run("devices", "erase", "anna", "--yes", "--json", *where)
        again = run("devices", "erase", "anna", "--yes", "--json", *where)

        assert (refused.code, erased.code, again.code) == (6, 0, 0), (refused.err, erased.err)
        assert (erased.json["readings"], again.json["readings"]) == (50, 0)
        left = {path.name for path in hub.data.iterdir() if secret.encode() in path.read_bytes()}
        assert left <= {"journal.sqlite3", "journal.sqlite3-wal"}
