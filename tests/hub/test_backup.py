"""A backup is right as a whole whatever happens beside it, and takes its name only when it is whole."""

import io
import os
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hub.app import Hub
from hub.auth import Identities
from hub.backup import (
    COMMANDS,
    FILES,
    IDENTITIES,
    JOURNAL,
    METADATA,
    READINGS,
    STATES,
    Backup,
    BackupError,
    back_up,
    make_sendable,
    receive,
    remove_unsent,
    send,
)
from hub.change_log import CHANGES, ChangeLog, Entry
from hub.children import CHILDREN, Children
from hub.command_file import CommandFile
from hub.config import Config
from hub.desired import States
from hub.errors import ConflictError, NotFoundError
from hub.event_log import EVENTS, Event, EventLog
from hub.journal.sqlite import SqliteJournal
from hub.metadata import Edit, Metadata
from hub.model import SeriesKey
from hub.revocations import CERTIFICATES, Revocations
from hub.roles import Role
from hub.store.consumer import CONSUMER
from hub.store.embedded import EmbeddedStore
from hub.users import USERS, Users
from tests.support.frames import T0, FrameMaker


def no_sleep(_: float) -> None:
    """Go on at once."""


# The files that `Files` writes.
WRITTEN = (*FILES, METADATA, STATES)


class Files:
    """A hub's files, written as a hub does, one reading a frame."""

    def __init__(self, folder: Path, frames: int = 0) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.maker = FrameMaker()
        self.journal = SqliteJournal(folder / JOURNAL, row_bytes=1)
        self.store = EmbeddedStore(folder / READINGS)
        self.identities = Identities(folder / IDENTITIES)
        self.metadata = Metadata(folder / METADATA)
        self.metadata.change(Edit(SeriesKey("default", "pump", ""), {"label": "Pump"}), "tests")
        self.states = States(folder / STATES)
        self.states.change("default", ["pump"], {"speed": 3}, "tests")
        for _ in range(frames):
            self.add()

    def add(self, *, is_stored: bool = True) -> None:
        """Commit one frame; let the store take it and the journal forget what is before."""
        frame = self.maker.one("pump", "x" * 1000, T0 + self.journal.head)
        self.journal.append([frame], self.maker.all_series())
        if is_stored:
            self.store.write([frame])
            self.journal.set_checkpoint(CONSUMER, self.store.sync())

    def close(self) -> None:
        """Close all files."""
        self.store.close()
        self.journal.close()
        self.identities.close()
        self.metadata.close()
        self.states.close()


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    """Files with 20 frames, of which the store lacks the last two."""
    with closing(Files(tmp_path / "data", 18)) as files:
        files.add(is_stored=False)
        files.add(is_stored=False)
        yield files


def test_copy_holds_what_was_committed_and_opens(files: Files, tmp_path: Path) -> None:
    """Frames still in the write-ahead log are in it, nothing lies beside the files, only the owner reads them."""
    made = back_up(files.folder, tmp_path / "copies" / "monday", sleep=no_sleep)

    target = tmp_path / "copies" / "monday"
    assert made == Backup(sum((target / name).stat().st_size for name in WRITTEN), 20, 18)
    assert sorted(os.listdir(target)) == sorted(WRITTEN)
    assert os.listdir(target.parent) == ["monday"]
    assert {(target / name).stat().st_mode & 0o777 for name in WRITTEN} == {0o600}
    with closing(SqliteJournal(target / JOURNAL)) as journal, closing(EmbeddedStore(target / READINGS)) as store:
        assert (journal.head, store.applied, len(store.read([1], 0, 2**62, 100))) == (20, 18, 18)
    with closing(Metadata(target / METADATA)) as metadata:
        assert metadata.device("default", "pump").label == "Pump"
    with closing(States(target / STATES)) as states:
        assert states.twin("default", "pump").desired.state == b'{"speed":3}'


def test_hub_writes_on_during_a_copy(files: Files, tmp_path: Path) -> None:
    """Between any two steps frames are committed, stored and trimmed: the copy is of its beginning, the hub of now."""

    def write_meanwhile(_: float) -> None:
        for _ in range(30):
            files.add()
        files.journal.trim(files.journal.head - 5)

    made = back_up(files.folder, tmp_path / "copy", sleep=write_meanwhile)

    assert (made.head, made.applied) == (20, 18)
    assert files.journal.head > 60
    with closing(SqliteJournal(tmp_path / "copy" / JOURNAL)) as journal:
        assert [f.offset for f in journal.read(made.applied, 10**6)] == [19, 20]


@pytest.mark.asyncio
async def test_restored_copy_is_a_hub_that_lacks_only_what_came_later(tmp_path: Path) -> None:
    """A hub on the copy has every row of the journal it was copied with, and goes on from there."""
    with closing(Files(tmp_path / "data", 5)) as files:
        files.add(is_stored=False)
        back_up(files.folder, tmp_path / "copy", sleep=no_sleep)

    async with Hub(Config(data=tmp_path / "copy")) as hub:
        assert await hub.consumer.applied(6, 10)
        assert [row.time_ns for row in hub.store.read([1], 0, 2**62, 100)] == [T0 + n for n in range(6)]


def test_target_with_anything_in_it_is_refused(files: Files, tmp_path: Path) -> None:
    """Nothing is overwritten: a folder with a file, or a file, stays as it is. An empty folder is fine."""
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "note").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()

    for name in ("used", "file"):
        with pytest.raises(ConflictError, match="not empty"):
            back_up(files.folder, tmp_path / name, sleep=no_sleep)
    back_up(files.folder, tmp_path / "empty", sleep=no_sleep)

    assert os.listdir(tmp_path / "used") == ["note"]
    assert sorted(os.listdir(tmp_path)) == ["data", "empty", "file", "used"]


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A folder that is no hub's is refused before anything is made."""
    (tmp_path / "data").mkdir()

    with pytest.raises(NotFoundError, match=r"readings\.sqlite3"):
        back_up(tmp_path / "data", tmp_path / "copy", sleep=no_sleep)

    assert os.listdir(tmp_path) == ["data"]


def damage(path: Path) -> None:
    """Overwrite the pages behind the first ones."""
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 8192)


def put_ahead(path: Path) -> None:
    """Make the store say that it holds frames the journal never had."""
    with closing(sqlite3.connect(path.with_name(READINGS))) as connection, connection:
        connection.execute("UPDATE progress SET applied = 99")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        pytest.param(damage, "journal.sqlite3", id="damaged"),
        pytest.param(put_ahead, "store is at 99", id="store-ahead"),
    ],
)
def test_copy_that_is_not_right_takes_no_name(tmp_path: Path, fault: Callable[[Path], None], message: str) -> None:
    """Damage and a store ahead of its journal are found by the check; there is no copy then."""
    Files(tmp_path / "data", 20).close()
    fault(tmp_path / "data" / JOURNAL)

    with pytest.raises(BackupError, match=message):
        back_up(tmp_path / "data", tmp_path / "copy", sleep=no_sleep)

    assert os.listdir(tmp_path) == ["data"]


def test_interrupted_copy_is_made_again(files: Files, tmp_path: Path) -> None:
    """What a killed backup left beside the target is removed by the next one."""
    (tmp_path / "copy.part").mkdir()
    (tmp_path / "copy.part" / JOURNAL).write_bytes(b"half")

    back_up(files.folder, tmp_path / "copy", sleep=no_sleep)

    assert sorted(os.listdir(tmp_path)) == ["copy", "data"]


def test_copy_travels_as_an_archive(files: Files, tmp_path: Path) -> None:
    """What is received equals a copy made there."""
    made = receive(io.BytesIO(b"".join(send(make_sendable(files.folder)))), tmp_path / "copy")

    assert (made.head, made.applied) == (20, 18)
    assert sorted(os.listdir(tmp_path / "copy")) == sorted(WRITTEN)


@pytest.mark.parametrize("kept", [0, 100, 70_000, -2000], ids=["nothing", "head", "a-part", "no-end"])
def test_archive_that_ends_early_is_no_backup(files: Files, tmp_path: Path, kept: int) -> None:
    """A connection that breaks leaves nothing behind."""
    archive = b"".join(send(make_sendable(files.folder)))

    with pytest.raises(BackupError):
        receive(io.BytesIO(archive[:kept]), tmp_path / "copy")

    assert os.listdir(tmp_path) == ["data"]


def test_archive_of_something_else_writes_nothing(tmp_path: Path) -> None:
    """Names in an archive never decide where files go."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../evil"), io.BytesIO())

    with pytest.raises(BackupError, match="no backup of a hub"):
        receive(io.BytesIO(packed.getvalue()), tmp_path / "copy")

    assert os.listdir(tmp_path) == []


def test_one_copy_is_sent_at_a_time(files: Files) -> None:
    """A second one is refused while the first is taken; when that is done, or a kill ended it, there is room."""
    make_sendable(files.folder)
    with pytest.raises(ConflictError, match="under way"):
        make_sendable(files.folder)

    remove_unsent(files.folder)
    make_sendable(files.folder)
    remove_unsent(files.folder)

    assert not list(files.folder.glob("*.part"))


def test_folder_of_an_earlier_hub_is_copied_as_it_is(files: Files, tmp_path: Path) -> None:
    """What that hub did not know yet is not missed: neither here nor where an archive is taken apart."""
    files.metadata.close()
    (files.folder / METADATA).unlink()
    (files.folder / STATES).unlink()

    back_up(files.folder, tmp_path / "copy", sleep=no_sleep)
    receive(io.BytesIO(b"".join(send(tmp_path / "copy"))), tmp_path / "received")

    assert sorted(os.listdir(tmp_path / "received")) == sorted(FILES)


def test_users_and_log_are_copied_where_they_are(files: Files, tmp_path: Path) -> None:
    """A folder with users, a log of changes and events: all are in the copy and in the archive."""
    users, log = Users(files.folder / USERS), ChangeLog(files.folder / CHANGES)
    with closing(EventLog(files.folder / EVENTS)) as events:
        events.write("presence", [Event("default", 1, "came")])
    users.add("anna", Role.ADMIN)
    log.record(Entry("add"))

    back_up(files.folder, tmp_path / "copy", sleep=no_sleep)
    archive = io.BytesIO(b"".join(send(tmp_path / "copy")))
    receive(archive, tmp_path / "received")

    users.close()
    log.close()
    with (
        closing(Users(tmp_path / "received" / USERS)) as copied,
        closing(ChangeLog(tmp_path / "copy" / CHANGES)) as told,
        closing(EventLog(tmp_path / "received" / EVENTS)) as events,
    ):
        assert [entry.text for entry in events.numbered("presence", "default", 0, 9)] == ["came"]
        assert [user.name for user in copied.users()] == ["anna"]
        assert [entry.what for entry in told.entries("default", 9)] == ["add"]


def test_revoked_certificates_are_in_the_copy(files: Files, tmp_path: Path) -> None:
    """A restored hub lets nobody in who was shut out when the copy was made."""
    with closing(Revocations(files.folder / CERTIFICATES)) as revocations:
        revocations.revoke("ab" * 32)
        back_up(files.folder, tmp_path / "copy", sleep=no_sleep)

    with closing(Revocations(tmp_path / "copy" / CERTIFICATES)) as copied:
        assert copied.is_revoked("default", "ab" * 32)


def test_children_of_gateways_are_in_the_copy(files: Files, tmp_path: Path) -> None:
    """A restored hub shuts out who was ignored, and lets in who was accepted."""
    with (
        closing(Identities(files.folder / IDENTITIES)) as identities,
        closing(Children(files.folder / CHILDREN, identities)) as children,
    ):
        children.set_rules("barn")
        children.accept("barn", "barn-1")
        back_up(files.folder, tmp_path / "copy", sleep=no_sleep)
        with closing(Children(tmp_path / "copy" / CHILDREN, identities)) as copied:
            assert copied.is_accepted("default", "barn", "barn-1")


def test_commands_are_in_the_copy(files: Files, tmp_path: Path) -> None:
    """With what waits for devices: a restored hub goes on with it."""
    with closing(CommandFile(files.folder / COMMANDS)) as commands:
        commands.record([], {("default", "pump"): "{}"})
        back_up(files.folder, tmp_path / "copy", sleep=no_sleep)

    with closing(CommandFile(tmp_path / "copy" / COMMANDS)) as commands:
        assert commands.declared() == {("default", "pump"): "{}"}
