"""``hub children``: by REST and on a folder; by name and by pattern."""

from contextlib import closing
from pathlib import Path

import pytest

from hub.auth import Identities
from hub.child_book import Asked
from hub.children import CHILDREN, Children
from tests.hub.cli.conftest import Run
from tests.support.hub_process import HubProcess


@pytest.fixture(params=["rest", "files"])
def where(request: pytest.FixtureRequest, hub: HubProcess, admin: str, tmp_path: Path) -> list[object]:
    """Return the options that lead to a hub, and to a folder without one."""
    return ["--url", hub.url, "--token", admin] if request.param == "rest" else ["--data", tmp_path]


def states(run: Run, name: str, where: list[object]) -> dict[str, str]:
    """Return device → state of a gateway's children."""
    rows = run("children", "list", "--gateway", name, "--json", *where).json
    return {row["device"]: row["state"] for row in rows}


def test_life_of_children(run: Run, where: list[object], name: str) -> None:
    """A gateway's token; accepted by name, ignored by pattern, forgotten; the rules are changed and shown."""
    made = run(
        "tokens", "add", "--role", "gateway", "--name", name, "--prefix", "barn-*", "--quota", "3", "--auto-accept",
        "barn-temp-*", "--json", *where,
    )  # fmt: skip
    assert run("children", "accept", name, f"{name}-1", f"{name}-2", *where).code == 0
    assert run("children", "ignore", name, f"{name}-2*", *where).code == 0
    assert states(run, name, where) == {f"{name}-1": "accepted", f"{name}-2": "ignored"}
    assert run("children", "forget", name, f"{name}-*", *where).code == 0
    assert states(run, name, where) == {}
    assert run("children", "quota", name, "9", *where).code == 0
    assert run("children", "auto-accept", name, *where).code == 0
    (row,) = [r for r in run("children", "gateways", "--json", *where).json if r["gateway"] == name]

    assert (made.code, made.json["role"]) == (0, "gateway")
    assert row == {"gateway": name, "quota": 9, "auto_accept": [], "accepted": 0, "pending": 0, "ignored": 0}
    assert run("children", "remove-gateway", name, *where).code == 0
    assert run("children", "remove-gateway", name, *where).code == 5


def test_waiting_ones_are_listed_for_people(run: Run, tmp_path: Path) -> None:
    """By state, with times."""
    with (
        closing(Identities(tmp_path / "identities.sqlite3")) as identities,
        closing(Children(tmp_path / CHILDREN, identities, clock=lambda: 1_795_376_000_000_000_000)) as children,
    ):
        children.admit(Asked("default", "barn", ("*",), "barn-1"))
        children.keep()

    shown = run("children", "list", "--state", "pending", "--data", tmp_path)
    others = run("children", "list", "--state", "ignored", "--data", tmp_path)
    wrong = run("children", "list", "--state", "asleep", "--data", tmp_path)

    assert "barn-1" in shown.out
    assert "2026-11-22" in shown.out
    assert "barn-1" not in others.out
    assert wrong.code == 2


def test_what_there_is_not(run: Run, where: list[object]) -> None:
    """A gateway nobody made, a pattern that means nobody."""
    for command in (("accept", "x", "x-1"), ("ignore", "x", "x-*"), ("forget", "x", "x-1"), ("quota", "x", "3")):
        assert run("children", command[0], *command[1:], *where).code == 5, command


@pytest.mark.parametrize(
    "options",
    [
        ("--role", "gateway", "--name", "barn"), ("--role", "gateway", "--name", "barn", "--match", "barn-*"),
        ("--role", "watcher", "--prefix", "barn-*"), ("--role", "watcher", "--quota", "3"),
        ("--role", "gateway", "--prefix", "barn-*"),
    ],
    ids=str,
)  # fmt: skip
def test_options_of_gateways_are_theirs(run: Run, tmp_path: Path, options: tuple[str, ...]) -> None:
    """A gateway needs name and prefix; nobody else has one."""
    assert run("tokens", "add", *options, "--data", tmp_path).code == 2
