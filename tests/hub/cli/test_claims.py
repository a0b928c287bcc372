"""``hub claims`` and ``hub devices add --claim``: the same by REST and on the files."""

from pathlib import Path

import pytest

from hub.auth import Identities
from tests.hub.cli.conftest import Run
from tests.support.hub_process import HubProcess

Where = list[object]


@pytest.fixture(params=["rest", "files", "files beside a hub"])
def where(request: pytest.FixtureRequest, hub: HubProcess, admin: str, tmp_path: Path) -> Where:
    """Return the options that lead to a hub, to a folder without one, and to the folder of a running one."""
    if request.param == "rest":
        return ["--url", hub.url, "--token", admin]
    return ["--data", tmp_path if request.param == "files" else hub.data]


def test_life_of_a_group_claim(run: Run, where: Where, name: str) -> None:
    """Add, list, end; a second end says why not."""
    made = run("claims", "add", "--match", f"{name}-*", "--quota", 50, "--expires", "7d", "--json", *where)
    (listed,) = [c for c in run("claims", "ls", "--json", *where).json if c["id"] == made.json["id"]]
    table = run("claims", "ls", *where).out
    ended, again = run("claims", "rm", made.json["id"], *where), run("claims", "rm", made.json["id"], *where)

    assert (listed["match"], listed["quota"], listed["used"]) == (f"{name}-*", 50, 0)
    assert f"{name}-*" in table
    assert made.json["code"] not in table
    assert (ended.code, again.code) == (0, 5)


def test_code_of_one_device_is_alone_on_stdout(run: Run, where: Where, name: str, tmp_path: Path) -> None:
    """The code can be piped; the QR code and what to do next are said beside, and the picture is in its file."""
    picture = tmp_path / "claim.svg"
    made = run("devices", "add", name, "--claim", "--qr", "--qr-file", picture, "--expires", "1h", *where)

    code = made.out.strip()
    assert len(code) == 40
    assert "\n" not in code
    assert f"python -m device_sdk claim http://127.0.0.1:{'' if '--url' in where else '8000'}" in made.err
    assert "█" in made.err
    assert "which only this machine reaches" in made.err
    assert picture.read_bytes().startswith(b"<?xml")


def test_claimed_device_is_listed_with_its_tokens(run: Run, tmp_path: Path, name: str) -> None:
    """After the code was used and the token rotated, two are live, and the listing says when the old one ends."""
    code = run("devices", "add", name, "--claim", "--data", tmp_path).out.strip()
    identities = Identities(tmp_path / "identities.sqlite3")
    identities.claims.redeem(code)
    identities.close()
    run("devices", "rotate", name, "--keep", "2h", "--data", tmp_path)
    (two,) = run("devices", "ls", "--json", "--data", tmp_path).json
    run("devices", "rotate", name, "--keep", "0", "--data", tmp_path)
    (one,) = run("devices", "ls", "--json", "--data", tmp_path).json

    assert (two["tokens"], two["old_ends"] != "") == (2, True)
    assert (one["tokens"], one["old_ends"]) == (1, "")


def test_bad_name_gets_no_code(run: Run, where: Where) -> None:
    """A name outside the grammar is refused with the grammar."""
    outcome = run("devices", "add", "a b", "--claim", *where)

    assert outcome.code == 2
    assert "letters, digits" in outcome.err


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--qr"], "--claim"), (["--claim", "--qr-file", "x.jpg"], ".png"), (["--claim", "--expires", "soon"], "15m")],
)
def test_wrong_options_make_no_code(run: Run, tmp_path: Path, name: str, options: list[str], words: str) -> None:
    """They are refused before anything is made."""
    outcome = run("devices", "add", name, *options, "--data", tmp_path)

    assert outcome.code == 2
    assert words in outcome.err
    assert run("claims", "ls", "--json", "--data", tmp_path).json == []
