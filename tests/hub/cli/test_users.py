"""`hub users`: people of the page, by REST and on a folder."""

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hub.users import USERS, Users
from tests.hub.cli.conftest import Run
from tests.support.hub_process import HubProcess

PASSWORD = "ten letters"


@pytest.fixture
def typed() -> Iterator[Callable[[str], None]]:
    """Return a function that lets the next command read a text from stdin."""
    stdin = sys.stdin

    def type_text(text: str) -> None:
        sys.stdin = io.StringIO(text)

    yield type_text
    sys.stdin = stdin


def test_user_by_rest_signs_in_and_ends(
    run: Run, hub: HubProcess, admin: str, name: str, typed: Callable[[str], None]
) -> None:
    """The password comes from stdin; with it somebody signs in, until it is another one, or the user is gone."""
    at = ("--url", hub.url, "--token", admin)
    login = {"name": name, "password": PASSWORD}
    typed(PASSWORD + "\n")
    added = run("users", "add", name, "--role", "operator", "--match", "pump-*", *at)
    first = hub.request("POST", "/v1/login", login)[0]
    changed = run("users", "set", name, "--role", "watcher", *at)
    listed = [user for user in run("users", "ls", "--json", *at).json if user["name"] == name]
    typed("another ten\n")
    passwd = run("users", "passwd", name, *at)
    second = hub.request("POST", "/v1/login", login)[0]
    link = run("users", "passwd", name, "--invite", *at)
    code = link.out.strip().rpartition("#invite=")[2]
    accepted = hub.request("POST", "/v1/invite", {"code": code, "password": PASSWORD})[0]
    removed = run("users", "rm", name, *at)

    assert [o.code for o in (added, changed, passwd, link, removed)] == [0] * 5
    assert (first, second, accepted) == (200, 401, 200)
    assert (listed[0]["role"], listed[0]["has_password"]) == ("watcher", True)
    assert name not in run("users", "ls", *at).out
    assert PASSWORD not in added.out + added.err


def test_user_on_a_folder(run: Run, tmp_path: Path, typed: Callable[[str], None]) -> None:
    """Without a hub: an invitation, a password from stdin, a removal; each is in the log of changes, no listing is."""
    data = tmp_path / "data"
    data.mkdir()
    link = run("users", "add", "anna", "--role", "admin", "--invite", "--data", data)
    typed(PASSWORD)
    passwd = run("users", "passwd", "anna", "--data", data)
    again = run("users", "add", "anna", "--role", "admin", "--invite", "--data", data)
    listed = run("users", "ls", "--data", data)
    users = Users(data / USERS)
    has_password = users.password_of("anna") is not None
    users.close()
    removed = run("users", "rm", "anna", "--data", data)
    log = run("log", "--data", data, "--json").json

    assert [o.code for o in (link, passwd, again, listed, removed)] == [0, 0, 6, 0, 0]
    assert "/#invite=" in link.out
    assert has_password
    assert "anna" in listed.out
    assert [(e["what"], e["target"], e["outcome"], e["role"]) for e in log] == [
        ("hub users add", "anna", "ok", "offline"), ("hub users passwd", "anna", "ok", "offline"),
        ("hub users add", "anna", "conflict", "offline"), ("hub users rm", "anna", "ok", "offline"),
    ]  # fmt: skip
    assert all(e["who"] for e in log)


@pytest.mark.parametrize("text", ["", "short\n"], ids=["nothing", "short"])
def test_what_is_no_password_adds_nobody(run: Run, tmp_path: Path, typed: Callable[[str], None], text: str) -> None:
    """The rule is said, and nothing is added."""
    typed(text)

    outcome = run("users", "add", "anna", "--role", "admin", "--data", tmp_path)

    assert outcome.code == 2
    assert "10 to 256" in outcome.err
