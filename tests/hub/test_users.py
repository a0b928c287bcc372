"""`hub.users`: users, invitations and sessions in their file."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.errors import BadRequestError, ConflictError, NotFoundError, UnauthenticatedError
from hub.roles import Role, Verb
from hub.users import INVITE_S, MAX_SESSIONS, SESSION_S, USERS, Users


class Clock:
    """Wall time of the test, in ns."""

    def __init__(self) -> None:
        self.ns = 10**18

    def __call__(self) -> int:
        """Return the time."""
        return self.ns


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def users(tmp_path: Path, clock: Clock) -> Iterator[Users]:
    """An empty file of users."""
    users = Users(tmp_path / USERS, clock=clock)
    yield users
    users.close()


def signed_in(users: Users, name: str = "anna", namespace: str = "default") -> str:
    """Add an operator and return the cookie of a session."""
    users.add(name, Role.OPERATOR, ["greenhouse-*"], hash="h", namespace=namespace)
    cookie = users.open_session(name, "h")
    assert cookie is not None
    return cookie


def test_session_is_its_user_also_after_a_restart(users: Users, clock: Clock, tmp_path: Path) -> None:
    """The cookie speaks for name, role, scopes and namespace; the file is private and holds no cookie."""
    cookie = signed_in(users, namespace="north")
    again = Users(tmp_path / USERS, clock=clock)
    found = again.authenticate(cookie)
    again.close()

    assert found is not None
    assert (found.name, found.role, found.namespace) == ("anna", Role.OPERATOR, "north")
    assert found.patterns(Verb.COMMAND) == ("greenhouse-*",)
    assert users.authenticate(cookie[:-1] + "_") is None
    assert users.authenticate("x" * 1000) is None
    assert (tmp_path / USERS).stat().st_mode & 0o777 == 0o600
    assert cookie.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


@pytest.mark.parametrize("change", ["remove", "password", "scopes"])
def test_sessions_end_with_what_they_stand_on(users: Users, tmp_path: Path, clock: Clock, change: str) -> None:
    """Removal, a new password or other scopes end the sessions, also when another process does it; others stay."""
    cookie, other = signed_in(users), signed_in(users, "berta")
    session = users.authenticate(cookie)
    beside = Users(tmp_path / USERS, clock=clock)

    if change == "remove":
        beside.remove("anna")
    elif change == "password":
        beside.set_password("anna", "h2")
    else:
        beside.change("anna", Role.WATCHER)
    beside.close()

    assert session is not None
    assert users.refresh() == {session.id}
    assert users.authenticate(cookie) is None
    assert users.authenticate(other) is not None
    assert users.refresh() == set()


def test_sessions_are_bounded_in_time_and_number(users: Users, clock: Clock) -> None:
    """A session ends after a week; the 21st of a user ends the first."""
    first = signed_in(users)
    cookies = []
    for _ in range(MAX_SESSIONS):
        clock.ns += 1
        cookies.append(users.open_session("anna", "h") or "")

    assert users.authenticate(first) is None
    assert all(users.authenticate(cookie) for cookie in cookies)
    clock.ns += round(SESSION_S * 1e9)
    assert users.authenticate(cookies[-1]) is None
    assert len(users.refresh()) == 1 + MAX_SESSIONS


def test_password_changed_while_it_was_compared_opens_nothing(users: Users) -> None:
    """The session is opened only for the hash that the password was compared with."""
    signed_in(users)

    assert users.open_session("anna", "older") is None
    assert users.open_session("nobody", "h") is None


def test_invitation_is_good_once(users: Users, clock: Clock) -> None:
    """A code sets the password once, ends sessions, and is replaced by a newer one; after three days it is no more."""
    users.add("anna", Role.ADMIN)
    first, code = users.invite("anna"), users.invite("anna")

    assert (users.invited(first), users.invited(code), users.invited("x" * 999)) == (None, "anna", None)
    assert users.accept(code, "h") == "anna"
    assert users.password_of("anna") == "h"
    with pytest.raises(UnauthenticatedError):
        users.accept(code, "h2")
    late = users.invite("anna")
    clock.ns += round(INVITE_S * 1e9)
    assert users.invited(late) is None


def test_namespaces_do_not_meet(users: Users) -> None:
    """Nothing of another namespace is listed, changed or removed; only the name is taken."""
    signed_in(users, namespace="north")

    assert users.users() == []
    for attempt in (
        lambda: users.remove("anna"), lambda: users.set_password("anna", "h"), lambda: users.invite("anna"),
        lambda: users.change("anna", Role.ADMIN),
    ):  # fmt: skip
        with pytest.raises(NotFoundError):
            attempt()
    with pytest.raises(ConflictError):
        users.add("anna", Role.WATCHER)
    assert [u.name for u in users.users(namespace="north")] == ["anna"]


@pytest.mark.parametrize("name", ["", "-a", "a b", "x" * 65, "a/b", "a\n"], ids=repr)
def test_what_is_no_name(users: Users, name: str) -> None:
    """A name is something to type and to read in a log."""
    with pytest.raises(BadRequestError):
        users.add(name, Role.WATCHER)


def test_role_and_scopes_are_those_of_people(users: Users) -> None:
    """No user is a device, and none has a verb that its role has not."""
    with pytest.raises(BadRequestError):
        users.add("anna", Role.DEVICE)
    with pytest.raises(BadRequestError):
        users.add("anna", Role.WATCHER, scopes={Verb.MANAGE: ["**"]})
    assert users.is_empty()


def test_change_is_durable_before_it_is_told(users: Users, tmp_path: Path) -> None:
    """A commit is on the disk when the call returns."""
    users.add("anna", Role.ADMIN, hash="h")

    database = sqlite3.connect(tmp_path / USERS)
    assert database.execute("SELECT name, hash FROM user").fetchall() == [("anna", "h")]
    database.close()
    assert users._database.execute("PRAGMA synchronous").fetchone() == (2,)


def test_what_cannot_be_read_again_is_undone(users: Users, tmp_path: Path) -> None:
    """A user who was refused with an error is not in the file either."""
    cookie = signed_in(users)
    with sqlite3.connect(tmp_path / USERS) as database:
        database.execute("CREATE TRIGGER broken AFTER INSERT ON session BEGIN UPDATE user SET scopes = 'broken'; END")

    with pytest.raises(ValueError, match="Expecting"):
        users.open_session("anna", "h")

    assert users.authenticate(cookie) is not None
    with sqlite3.connect(tmp_path / USERS) as database:
        assert database.execute("SELECT count(*) FROM session").fetchone() == (1,)
