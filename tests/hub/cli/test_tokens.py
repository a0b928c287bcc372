"""``hub tokens``: credentials of watchers and admins, by REST and on the files."""

from pathlib import Path

import pytest

from hub.auth import Identities
from hub.roles import Role, Verb
from tests.hub.cli.conftest import Run
from tests.support.hub_process import HubProcess


@pytest.fixture(params=["rest", "files"])
def where(request: pytest.FixtureRequest, hub: HubProcess, admin: str, tmp_path: Path) -> list[object]:
    """Return the options that lead to a hub, and to a folder without one."""
    return ["--url", hub.url, "--token", admin] if request.param == "rest" else ["--data", tmp_path]


def test_life_of_a_token(run: Run, where: list[object], name: str) -> None:
    """Made, listed without its secret, ended."""
    made = run(
        "tokens", "add", "--role", "watcher", "--match", "a/**", "--match", "b", "--name", name, "--json", *where
    )
    assert (made.code, made.json["role"]) == (0, "watcher")

    (listed,) = [row for row in run("tokens", "ls", "--json", *where).json if row["name"] == name]
    assert (listed["id"], listed["scopes"]) == (made.json["id"], {"read": ["a/**", "b"]})
    assert made.json["token"] not in run("tokens", "ls", *where).out

    assert run("tokens", "rm", listed["id"], *where).code == 0
    assert run("tokens", "rm", listed["id"], *where).code == 5


def test_token_alone_is_on_stdout(run: Run, tmp_path: Path) -> None:
    """`HUB_TOKEN=$(hub tokens add --role admin --data DIR)` works."""
    outcome = run("tokens", "add", "--role", "admin", "--data", tmp_path)

    identities = Identities(tmp_path / "identities.sqlite3")
    identity = identities.authenticate(outcome.out.strip())
    identities.close()
    assert identity is not None
    assert (identity.role, identity.patterns(Verb.MANAGE)) == (Role.ADMIN, ("**",))


def test_scopes_narrow_single_verbs(run: Run, where: list[object], name: str) -> None:
    """An operator may read everything, command a few devices, and edit none."""
    made = run(
        "tokens", "add", "--role", "operator", "--scope", "command=greenhouse-*", "--scope", "edit=", "--name", name,
        "--json", *where,
    )  # fmt: skip
    (listed,) = [row for row in run("tokens", "ls", "--json", *where).json if row["name"] == name]
    too_wide = run("tokens", "add", "--role", "watcher", "--scope", "manage=**", *where)

    assert made.code == 0
    assert listed["scopes"] == {"read": ["**"], "command": ["greenhouse-*"]}
    assert "read: **; command: greenhouse-*" in run("tokens", "ls", *where).out
    assert too_wide.code != 0
    assert "no verb manage" in too_wide.err


def test_unknown_verb_is_named(run: Run, tmp_path: Path) -> None:
    """A mistyped verb is a usage error with the verbs there are."""
    outcome = run("tokens", "add", "--role", "watcher", "--scope", "raed=**", "--data", tmp_path)

    assert outcome.code == 2
    assert "raed" in outcome.err


def test_role_is_not_that_of_devices(run: Run, tmp_path: Path) -> None:
    """Devices get their tokens elsewhere."""
    assert run("tokens", "add", "--role", "device", "--data", tmp_path).code == 2


def test_token_made_beside_a_hub_counts_at_once(run: Run, hub: HubProcess) -> None:
    """What --data makes is good for the running hub's REST."""
    secret = run("tokens", "add", "--role", "admin", "--data", hub.data).out.strip()

    assert run("tokens", "ls", "--url", hub.url, "--token", secret).code == 0
