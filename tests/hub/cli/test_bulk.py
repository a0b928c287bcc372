"""``hub devices import``: a row for each row, the same by REST and on the files."""

import csv
import io
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from hub.auth import Identities
from hub.cli.bulk import CHUNK_BYTES, CHUNK_ROWS, chunks
from tests.hub.cli.conftest import Run
from tests.support.hub_process import HubProcess

Where = list[object]


@pytest.fixture(params=["rest", "files beside a hub"])
def where(request: pytest.FixtureRequest, hub: HubProcess, admin: str) -> Where:
    """Return the options that lead to a hub, and to its folder."""
    return ["--url", hub.url, "--token", admin] if request.param == "rest" else ["--data", hub.data]


@pytest.fixture
def fleet(tmp_path: Path, name: str) -> Path:
    """Return a file with good rows, a bad name, a name twice, a blank row and columns that are passed over."""
    path = tmp_path / "fleet.csv"
    path.write_text(
        f'\ufeffsite, device,note\nnorth,{name}-1,"a note,\nof two lines"\nnorth,a b,\n\nsouth,{name}-1,\n'
        f"south,{name}-2,\nsouth,{'x' * 300},\nsouth\n"
    )
    return path


def rows(text: str) -> list[dict[str, Any]]:
    """Return a report's rows."""
    return list(csv.DictReader(io.StringIO(text)))


def test_each_row_has_its_result(run: Run, hub: HubProcess, where: Where, fleet: Path, name: str) -> None:
    """Bad rows lose nothing else, the numbers are those of a spreadsheet, and the tokens count."""
    outcome = run("devices", "import", fleet, *where)

    report = rows(outcome.out)
    assert [(row["row"], row["result"]) for row in report] == [
        ("2", "enrolled"), ("3", "bad_name"), ("5", "duplicate"),
        ("6", "enrolled"), ("7", "bad_name"), ("8", "bad_name"),
    ]  # fmt: skip
    assert "row 2" in report[2]["why"]
    assert "letters, digits" in report[1]["why"]
    assert report[4]["device"] == "x" * 300
    assert outcome.code == 1
    assert "2 enrolled" in outcome.err
    identities = Identities(hub.data / "identities.sqlite3")
    who = identities.authenticate(report[3]["token"])
    identities.close()
    assert who is not None
    assert who.name == f"{name}-2"


def test_a_second_import_leaves_devices_as_they_are(run: Run, where: Where, tmp_path: Path, name: str) -> None:
    """What exists is said to, without a token, and that is no failure."""
    (tmp_path / "one.csv").write_text(f"device\n{name}\n")
    first, second = run("devices", "import", "one.csv", *where), run("devices", "import", "one.csv", *where)

    assert (first.code, second.code) == (0, 0)
    assert (rows(second.out)[0]["result"], rows(second.out)[0]["token"]) == ("exists", "")


def test_the_report_is_a_new_private_file(run: Run, where: Where, tmp_path: Path, name: str) -> None:
    """It holds secrets: mode 0600, and an older one is not overwritten; then nobody is enrolled."""
    (tmp_path / "one.csv").write_text(f"device\n{name}\n")
    (tmp_path / "old.csv").touch()
    refused = run("devices", "import", "one.csv", "--report", "old.csv", *where)
    made = run("devices", "import", "one.csv", "--report", "new.csv", "--claims", *where)

    assert (refused.code, made.code) == (6, 0)
    (row,) = rows((tmp_path / "new.csv").read_text())
    assert (row["result"], row["token"], len(row["code"])) == ("claimable", "", 40)
    assert stat.S_IMODE((tmp_path / "new.csv").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name\na\n", "no column `device`"),
        ("", "no column `device`"),
        ('device\na\n"b\nc\n', "behind row 2"),
    ],
    ids=["other columns", "empty", "open quote"],
)
def test_a_file_nobody_can_read_enrols_nobody(run: Run, tmp_path: Path, text: str, words: str) -> None:
    """The error says where, before anything was enrolled."""
    (tmp_path / "fleet.csv").write_text(text)

    outcome = run("devices", "import", "fleet.csv", "--data", tmp_path)

    assert outcome.code == 1
    assert words in outcome.err
    assert run("devices", "ls", "--json", "--data", tmp_path).json == []


def test_three_thousand_rows_are_quick(run: Run, where: Where, tmp_path: Path, name: str) -> None:
    """One request and one transaction: measured 0.1 s by REST; a fsync for each would take many seconds."""
    (tmp_path / "big.csv").write_text("device\n" + "".join(f"{name}-{n}\n" for n in range(3000)))

    start = time.perf_counter()
    outcome = run("devices", "import", "big.csv", *where)
    seconds = time.perf_counter() - start

    assert len({row["token"] for row in rows(outcome.out)}) == 3000
    assert seconds < 10


def test_requests_stay_below_what_the_hub_takes() -> None:
    """Ten thousand short names are one part; longer ones are cut by size; nothing is left out."""
    short, long = [f"d{n}" for n in range(CHUNK_ROWS + 1)], ["ä" * 65] * 3000

    assert [len(part) for part in chunks(short)] == [CHUNK_ROWS, 1]
    assert all(sum(len(name) * 6 for name in part) <= CHUNK_BYTES for part in chunks(long))
    assert sum(map(len, chunks(long))) == 3000
    assert list(chunks([])) == []
