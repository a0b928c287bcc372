"""Identities: tokens open exactly what they should, and end everywhere within one refresh."""

import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hub.auth import Identities
from hub.errors import BadRequestError, ConflictError, NotFoundError, UnavailableError
from hub.roles import Identity, Role, Verb
from tests.support.wall_clock import WallClock


@pytest.fixture
def clock() -> WallClock:
    """Return a clock the test moves."""
    return WallClock()


@pytest.fixture
def identities(tmp_path: Path, clock: WallClock) -> Iterator[Identities]:
    """Return an empty file of identities."""
    opened = Identities(tmp_path / "identities.sqlite3", clock=clock)
    yield opened
    opened.close()


def test_device_token_authenticates_as_that_device(identities: Identities) -> None:
    """A device's token speaks for that device and sees only its own channels."""
    token = identities.add_device("pump-1")

    identity = identities.authenticate(token)

    assert identity == Identity(token.split(".")[0], "pump-1", Role.DEVICE, "default", {Verb.WRITE: ("pump-1/**",)})


def test_token_carries_256_random_bits(identities: Identities) -> None:
    """The secret part is 32 random bytes in base64url."""
    id_, secret = identities.add_device("pump-1").split(".")

    assert len(id_) == 13
    assert len(secret) == 43


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda t: "", id="empty"),
        pytest.param(lambda t: t[:-1], id="shorter"),
        pytest.param(lambda t: t + "A", id="longer"),
        pytest.param(lambda t: t.split(".")[0], id="id only"),
        pytest.param(lambda t: "d000000000000." + t.split(".")[1], id="other id"),
        pytest.param(lambda t: t + "." * 10_000, id="huge"),
        pytest.param(lambda t: t.replace(".", ".\udcff"), id="surrogate"),
    ],
)
def test_wrong_token_is_refused(identities: Identities, change: object) -> None:
    """Anything but the exact token is nobody, never an exception."""
    token = identities.add_device("pump-1")

    assert callable(change)
    assert identities.authenticate(change(token)) is None


def test_adding_a_device_twice_conflicts(identities: Identities) -> None:
    """A second enrolment is refused and leaves the first token valid."""
    token = identities.add_device("pump-1")

    with pytest.raises(ConflictError, match="hub devices rotate pump-1"):
        identities.add_device("pump-1")

    assert identities.authenticate(token) is not None


def test_adding_many_adds_all_or_none(identities: Identities) -> None:
    """A conflict in the middle of a bulk enrolment adds nobody."""
    identities.add_device("b")

    with pytest.raises(ConflictError):
        identities.add_devices(["a", "b", "c"])

    assert [d.name for d in identities.devices()] == ["b"]


def test_names_are_of_one_namespace_and_of_those_asked(identities: Identities) -> None:
    """Names without what belongs to tokens; ``among`` never adds one that is not enrolled."""
    identities.add_devices(["a", "b"])
    identities.add_device("c", namespace="other")

    assert identities.names() == {"a", "b"}
    assert identities.names(among=["b", "c", "d"]) == {"b"}
    assert identities.names(among=[]) == set()
    assert identities.names(among=["b", "c"], namespace="other") == {"c"}


def test_adding_many_can_rotate_those_that_exist(identities: Identities) -> None:
    """With rotate, existing devices get a new token and new ones are enrolled."""
    old = identities.add_device("b")

    tokens = identities.add_devices(["a", "b"], rotate=True)

    assert identities.authenticate(old) is None
    assert {name: identities.authenticate(t).name for name, t in tokens.items()} == {"a": "a", "b": "b"}  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["", "-x", "a/b", "a" * 65, "ä"])
def test_bad_device_name_is_refused(identities: Identities, name: str) -> None:
    """Only the grammar of device names is taken."""
    with pytest.raises(BadRequestError):
        identities.add_device(name)


def test_rotation_keeps_the_old_token_for_its_grace(identities: Identities, clock: WallClock) -> None:
    """Both tokens count, and nothing is disconnected, until the grace is over; then refresh names the old id."""
    old = identities.add_device("pump-1")
    new = identities.rotate_device("pump-1", keep_s=60)
    clock.advance(59)
    both = [identities.authenticate(token) is not None for token in (old, new)]
    ended_before = identities.refresh()

    clock.advance(1)

    assert (both, ended_before) == ([True, True], set())
    assert identities.authenticate(old) is None
    assert identities.authenticate(new) is not None
    assert identities.refresh() == {old.split(".")[0]}
    assert identities.refresh() == set()


def test_grace_of_another_process_disconnects_nobody(identities: Identities, tmp_path: Path) -> None:
    """A token whose end was set beside a running hub goes on until then."""
    old = identities.add_device("pump-1")
    with closing(Identities(tmp_path / "identities.sqlite3")) as other:
        other.rotate_device("pump-1", keep_s=3600)

    assert identities.refresh() == set()
    assert identities.authenticate(old) is not None


def test_third_rotation_ends_the_oldest(identities: Identities) -> None:
    """Never more than two are live, however often a device is rotated."""
    first = identities.add_device("pump-1")
    second, third = identities.rotate_device("pump-1"), identities.rotate_device("pump-1")

    assert [identities.authenticate(token) is not None for token in (first, second, third)] == [False, True, True]
    assert identities.refresh() == {first.split(".")[0]}


def test_grace_survives_a_restart(identities: Identities, clock: WallClock, tmp_path: Path) -> None:
    """Both tokens and the end of the old one are in the file."""
    old = identities.add_device("pump-1")
    new = identities.rotate_device("pump-1", keep_s=60)

    with closing(Identities(tmp_path / "identities.sqlite3", clock=clock)) as again:
        before = [again.authenticate(token) is not None for token in (old, new)]
        clock.advance(60)
        after = [again.authenticate(token) is not None for token in (old, new)]

    assert (before, after) == ([True, True], [False, True])


def test_rotation_without_keeping_ends_the_old_token(identities: Identities, clock: WallClock) -> None:
    """With keep 0 only the new token counts, and refresh names the old id once."""
    old = identities.add_device("pump-1")
    clock.now_ns += 5

    new = identities.rotate_device("pump-1", keep_s=0)

    assert identities.authenticate(old) is None
    assert identities.authenticate(new) is not None
    assert identities.refresh() == {old.split(".")[0]}
    assert identities.refresh() == set()
    (device,) = identities.devices()
    assert device.rotated_ns == device.created_ns + 5


def test_removed_device_is_nobody(identities: Identities) -> None:
    """Removing ends the token at once; removing again says it is not there."""
    token = identities.add_device("pump-1")

    identities.remove_device("pump-1")

    assert identities.authenticate(token) is None
    assert identities.refresh() == {token.split(".")[0]}
    with pytest.raises(NotFoundError):
        identities.remove_device("pump-1")
    with pytest.raises(NotFoundError):
        identities.rotate_device("pump-1")


def test_watcher_token_keeps_role_and_patterns(identities: Identities) -> None:
    """A token is listed and authenticates with the role and patterns it was made with."""
    id_, token = identities.add_token(Role.WATCHER, ["greenhouse-*/**", "*/battery"], "wall")

    identity = identities.authenticate(token)

    assert identity == Identity(id_, "wall", Role.WATCHER, "default", {Verb.READ: ("greenhouse-*/**", "*/battery")})
    assert [(t.id, t.name, t.role) for t in identities.tokens()] == [(id_, "wall", Role.WATCHER)]


def test_identity_says_when_it_ends(identities: Identities, clock: WallClock, tmp_path: Path) -> None:
    """Of a session, read from the file too; a token without an end has none, and the end is no other identity."""
    ending = identities.authenticate(identities.add_session(Role.WATCHER, 60.0))
    endless = identities.authenticate(identities.add_token(Role.WATCHER)[1])
    again = Identities(tmp_path / "identities.sqlite3", clock=clock)

    assert ending is not None
    assert endless is not None
    assert (ending.ends_ns, endless.ends_ns) == (clock() + 60 * 10**9, None)
    assert [c.identity.ends_ns for c in again._credentials.values() if c.identity == ending] == [ending.ends_ns]
    again.close()


def test_device_role_needs_a_device(identities: Identities) -> None:
    """A token with the role of devices cannot be made without a device."""
    with pytest.raises(BadRequestError, match="hub devices add"):
        identities.add_token(Role.DEVICE, ["**"], "x")


def test_token_without_pattern_is_refused(identities: Identities) -> None:
    """A token that may see nothing is a mistake."""
    with pytest.raises(BadRequestError, match="--match"):
        identities.add_token(Role.WATCHER, [], "x")


def test_removed_token_is_nobody(identities: Identities) -> None:
    """Removing a token ends it; an unknown id is said to be unknown."""
    id_, token = identities.add_token(Role.ADMIN)

    identities.remove_token(id_)

    assert identities.authenticate(token) is None
    assert identities.tokens() == []
    with pytest.raises(NotFoundError):
        identities.remove_token(id_)


def test_session_ends_with_its_time(identities: Identities, clock: WallClock) -> None:
    """A session of the page is not listed, lasts its time, and is reported when it ends."""
    cookie = identities.add_session(Role.WATCHER, 60.0)
    assert identities.tokens() == []
    assert identities.authenticate(cookie) is not None

    clock.now_ns += 60_000_000_000

    assert identities.authenticate(cookie) is None
    assert identities.refresh() == {cookie.split(".")[0]}


def test_a_device_is_enrolled_without_reading_all_others(identities: Identities) -> None:
    """With 3,000 devices one more costs its fsync, not a copy of all: well below 20 ms."""
    identities.enrol_each([f"d{n}" for n in range(3000)])

    start = time.perf_counter()
    for n in range(20):
        identities.add_device(f"e{n}")
    seconds_each = (time.perf_counter() - start) / 20

    assert seconds_each < 20e-3


def test_edits_of_another_process_count_after_refresh(identities: Identities, tmp_path: Path) -> None:
    """What another connection adds, rotates and removes is taken in by refresh."""
    kept, gone = identities.add_device("kept"), identities.add_device("gone")
    other = Identities(tmp_path / "identities.sqlite3")
    added = other.add_device("added")
    other.remove_device("gone")
    other.close()

    ended = identities.refresh()

    assert ended == {gone.split(".")[0]}
    assert identities.authenticate(added) is not None
    assert identities.authenticate(gone) is None
    assert identities.authenticate(kept) is not None


def test_device_added_by_another_process_may_connect_at_once(identities: Identities, tmp_path: Path) -> None:
    """An id that is not known yet is looked for in the file before it is refused."""
    other = Identities(tmp_path / "identities.sqlite3")
    token = other.add_device("new")
    other.close()

    identity = identities.authenticate(token)

    assert identity is not None
    assert identity.name == "new"


def test_identities_survive_a_restart(tmp_path: Path) -> None:
    """Everything is in the file."""
    path = tmp_path / "new" / "identities.sqlite3"
    first = Identities(path)
    token = first.add_device("pump-1")
    first.close()
    first.close()

    second = Identities(path)

    assert second.authenticate(token) is not None
    second.close()


def test_file_is_private_and_holds_no_token(identities: Identities, tmp_path: Path) -> None:
    """The files have mode 0600 and no token can be read from them."""
    secret = identities.add_device("pump-1").split(".")[1].encode()

    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert secret not in path.read_bytes()


def test_authenticate_is_cheap(identities: Identities) -> None:
    """With 2,000 devices a token is checked in well under 20 µs."""
    tokens = list(identities.add_devices(f"d{n}" for n in range(2000)).values())

    start = time.perf_counter()
    for token in tokens:
        identities.authenticate(token)
    seconds_each = (time.perf_counter() - start) / len(tokens)

    assert seconds_each < 20e-6


def test_unknown_id_is_refused_cheaply(identities: Identities) -> None:
    """A flood of unknown ids costs a pragma each, not a read of the table."""
    identities.add_devices(f"d{n}" for n in range(2000))

    start = time.perf_counter()
    for n in range(1000):
        identities.authenticate(f"d{n:012}.x")
    seconds_each = (time.perf_counter() - start) / 1000

    assert seconds_each < 100e-6


def test_an_expired_session_is_named_while_the_file_takes_no_edits(
    identities: Identities, clock: WallClock, tmp_path: Path
) -> None:
    """Connections of ended credentials are closed also when the disk cannot take the deletion; so are all others."""
    session = identities.add_session(Role.WATCHER, 10)
    id_, _ = identities.add_token(Role.WATCHER)
    with closing(Identities(tmp_path / "identities.sqlite3")) as other:
        other.remove_token(id_)
    with closing(sqlite3.connect(tmp_path / "identities.sqlite3")) as keeper:
        keeper.execute("CREATE TRIGGER t BEFORE DELETE ON token BEGIN SELECT RAISE(FAIL, 'full'); END")
    clock.now_ns += 11 * 10**9

    ended = identities.refresh()

    assert ended == {id_, session.partition(".")[0]}


def test_an_edit_that_the_file_refuses_leaves_everything_as_it_was(identities: Identities, tmp_path: Path) -> None:
    """A disk that is full ends the transaction by itself: the error says why, and the next edit works."""
    with closing(sqlite3.connect(tmp_path / "identities.sqlite3", isolation_level=None)) as keeper:
        keeper.execute("CREATE TRIGGER t BEFORE INSERT ON device BEGIN SELECT RAISE(ROLLBACK, 'disk is full'); END")
        with pytest.raises(UnavailableError, match="disk is full"):
            identities.add_device("pump-1")
        keeper.execute("DROP TRIGGER t")

    assert identities.devices() == []
    assert identities.authenticate(identities.add_device("pump-1")) is not None


def test_unknown_id_waits_for_no_edit(identities: Identities, tmp_path: Path) -> None:
    """While an edit waits for another process, who is known is known at once, and who is not is told to try again."""
    token = identities.add_device("pump-1")
    other = sqlite3.connect(tmp_path / "identities.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    edit = threading.Thread(target=identities.add_device, args=("pump-2",))
    edit.start()
    deadline = time.monotonic() + 5
    refusal: UnavailableError | None = None
    began = time.monotonic()
    try:
        while refusal is None:
            began = time.monotonic()
            try:
                assert identities.authenticate("d0.unknown") is None
            except UnavailableError as error:
                refusal = error
            assert began < deadline, "the edit never began"
        assert time.monotonic() - began < 0.5
        assert identities.authenticate(token) is not None
        assert "try again" in str(refusal)
    finally:
        other.execute("ROLLBACK")
        edit.join()
        other.close()
