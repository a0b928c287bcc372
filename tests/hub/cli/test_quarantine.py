"""``hub quarantine``: on a running hub and, for looking, on its files."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from device_sdk.columns import encode_batch, to_columns
from device_sdk.reading import Reading
from hub.auth import Identities
from hub.journal.sqlite import SqliteJournal
from hub.roles import Role
from tests.hub.cli.conftest import Run
from tests.support.frames import T0, FrameMaker
from tests.support.hub_process import HubProcess

GOOD = encode_batch(to_columns(1, [Reading("t", T0 + 1, 20.5)]))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of a hub that took neither a frame that is valid today nor one that is not."""
    folder = tmp_path_factory.mktemp("quarantine") / "data"
    folder.mkdir()
    maker = FrameMaker()
    frames = [
        maker.one("pump", 1.0), maker.quarantined("pump", b"\x00\xff{", 3), maker.quarantined("pump", GOOD, 1),
    ]  # fmt: skip
    with closing(SqliteJournal(folder / "journal.sqlite3")) as journal:
        journal.append(frames, maker.all_series())
    return folder


@pytest.fixture(scope="module")
def where(data: Path) -> Iterator[list[object]]:
    """A hub on that folder, as options with an admin's token."""
    with closing(Identities(data / "identities.sqlite3")) as identities:
        _, token = identities.add_token(Role.ADMIN)
    with HubProcess(data) as hub:
        yield ["--url", hub.url, "--token", token]


@pytest.mark.slow
def test_life_of_quarantined_frames(run: Run, data: Path, where: list[object]) -> None:
    """Listed and shown alike by REST and from the files; replayed once; deleted; the audit names what was replayed."""
    listed = run("quarantine", "ls", "--json", *where)
    assert [(row["id"], row["count"], row["size"]) for row in listed.json] == [(2, 3, 3), (3, 1, len(GOOD))]
    assert run("quarantine", "ls", "--json", "--data", data).json == listed.json
    assert run("quarantine", "ls", "--json", "--device", "door", *where).json == []
    assert run("quarantine", "refused", "--json", "--device", "door", *where).json == []
    shown = run("quarantine", "show", 2, "--bytes", 2, "--json", *where)
    assert (shown.json["hex"], shown.json["truncated"]) == ("00ff", True)
    assert run("quarantine", "show", 2, "--bytes", 2, "--json", "--data", data).json == shown.json
    assert run("quarantine", "show", 2, *where).out == "00ff7b\n"

    replayed = run("quarantine", "replay", 2, 3, "--json", *where)
    again = run("quarantine", "replay", 3, "--json", *where)
    assert (replayed.code, [row["outcome"] for row in replayed.json]) == (1, ["malformed", "replayed"])
    assert (again.code, again.json[0]["outcome"]) == (0, "already")
    for place in (where, ["--data", data]):
        streams = run("audit", "pump", "--json", *place).json["streams"]
        assert sorted((s["accepted"], s["rejected"], s["replayed"]) for s in streams) == [(1, 0, 0), (1, 4, 1)]

    assert run("quarantine", "rm", 2, *where).code == 0
    assert run("quarantine", "rm", 2, *where).code == 5
    assert run("quarantine", "show", 2, *where).code == 5
    assert [row["id"] for row in run("quarantine", "ls", "--json", *where).json] == [3]


def test_text_of_a_peer_never_reaches_the_terminal_as_it_is(run: Run, tmp_path: Path) -> None:
    """A reason with an escape sequence in it is shown with the escape spelled out."""
    frame = FrameMaker().quarantined("pump", b"{", 3)
    frame.reason = "malformed: \x1b[31m"
    with closing(SqliteJournal(tmp_path / "journal.sqlite3")) as journal:
        journal.append([frame], [])
    (tmp_path / "readings.sqlite3").touch()

    told = run("quarantine", "ls", "--data", tmp_path).out + run("quarantine", "show", 1, "--data", tmp_path).err

    assert "\x1b" not in told
    assert told.count("\\x1b[31m") == 2
