"""``hub query``, ``export``, ``audit``: what was stored, as a table, a file, a ledger."""

import csv
import json
import sqlite3
from pathlib import Path

import pytest

from hub.journal.sqlite import SqliteJournal
from hub.model import Frame
from hub.store.embedded import EmbeddedStore
from tests.hub.cli.conftest import T0, Run
from tests.support.frames import FrameMaker
from tests.support.hub_process import HubProcess

HEADER = ["device", "channel", "time", "time_unix_ms", "value", "unit"]


@pytest.fixture(params=["rest", "files"])
def where(request: pytest.FixtureRequest, hub: HubProcess) -> list[object]:
    """Return the options that lead to the hub, and to its files."""
    return ["--url", hub.url] if request.param == "rest" else ["--data", hub.data]


def test_query_shows_rows_in_order(run: Run, where: list[object], recorded: str) -> None:
    """Time, device, channel, value, unit."""
    rows = run("query", f"{recorded}/temperature", "--from", T0, "--json", *where).json

    assert [row["value"] for row in rows] == [20.0 + n for n in range(10)]
    assert rows[0] | {"value": 0} == {
        "time": "2026-11-22 19:33:20Z", "time_ns": str(T0), "device": recorded, "channel": "temperature",
        "value": 0, "unit": "Cel", "unit_shown": "°C",
    }  # fmt: skip


def test_query_in_buckets(run: Run, where: list[object], recorded: str) -> None:
    """One row a bucket with the aggregates asked for."""
    rows = run(
        "query", f"{recorded}/temperature", "--from", T0, "--bucket", "5s", "--agg", "min,max,count", "--json", *where
    ).json

    assert [(row["min"], row["max"], row["count"]) for row in rows] == [(20.0, 24.0, 5), (25.0, 29.0, 5)]


def test_query_in_local_days_with_fill(run: Run, where: list[object], recorded: str) -> None:
    """Kathmandu's days begin at 18:15 UTC; the one before has no reading, and is shown."""
    rows = run(
        "query", f"{recorded}/temperature", "--from", "2026-11-22T00:00:00+05:45", "--to", "2026-11-24T00:00:00+05:45",
        "--bucket", "1d", "--tz", "Asia/Kathmandu", "--agg", "mean,std,count", "--fill", "null", "--json", *where,
    ).json  # fmt: skip

    assert [row["time"] for row in rows] == ["2026-11-21 18:15:00Z", "2026-11-22 18:15:00Z"]
    assert [(row["mean"], row["count"]) for row in rows] == [(None, 0), (24.5, 10)]
    assert rows[1]["std"] == pytest.approx(3.0276503540974917)


def test_limit_says_that_there_is_more(run: Run, where: list[object], recorded: str) -> None:
    """A cut listing is never silent."""
    outcome = run("query", f"{recorded}/temperature", "--from", T0, "--limit", 3, *where)

    assert len(outcome.out.splitlines()) == 4
    assert "there is more" in outcome.err


def test_export_csv_is_exact(run: Run, where: list[object], recorded: str, tmp_path: Path) -> None:
    """The columns promised, quotes and commas intact, and the file whole or absent."""
    path = tmp_path / "out.csv"

    assert run("export", recorded, "-o", path, *where).code == 0

    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == HEADER
    assert len(rows) == 12
    assert [recorded, "temperature", "2026-11-22T19:33:20Z", str(T0 // 10**6), "20.0", "Cel"] in rows
    assert [recorded, "state", "2026-11-22T19:33:20Z", str(T0 // 10**6), 'on, "really"', ""] in rows
    assert list(tmp_path.glob("*.part")) == []


def test_export_ndjson_keeps_types(run: Run, where: list[object], recorded: str, tmp_path: Path) -> None:
    """One object a line."""
    path = tmp_path / "out.ndjson"

    run("export", recorded, "--format", "ndjson", "--from", T0, "--to", T0 + 1, "-o", path, *where)

    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row["channel"]: row["value"] for row in rows} == {"temperature": 20.0, "state": 'on, "really"'}


def test_export_says_when_readings_were_received(run: Run, where: list[object], recorded: str) -> None:
    """With --received, from a hub and from its files alike."""
    rows = list(csv.DictReader(run("export", recorded, "--received", *where).out.splitlines()))

    assert len(rows) == 11
    assert all(row["received"].startswith("20") for row in rows)


def test_audit_says_complete(run: Run, where: list[object], recorded: str) -> None:
    """A stream without losses is complete, and the series' ledger is shown."""
    outcome = run("audit", recorded, *where)

    assert outcome.code == 0
    assert outcome.out.splitlines()[0] == f"{recorded}: 1 stream, 11 readings, all accounted for"
    assert "1…" in outcome.out
    assert "complete" in outcome.out
    ledger = run("audit", recorded, "--json", *where).json
    assert {(s["channel"], s["accepted"], s["superseded"], s["rows"]) for s in ledger["series"]} == {
        ("temperature", 10, 0, 10), ("state", 1, 0, 1),
    }  # fmt: skip


def data_folder(folder: Path, *frames: Frame, maker: FrameMaker) -> Path:
    """Return a hub's data folder with these frames in journal and store."""
    journal, store = SqliteJournal(folder / "journal.sqlite3"), EmbeddedStore(folder / "readings.sqlite3")
    journal.append(frames, maker.all_series())
    store.write(frames)
    store.close()
    journal.close()
    return folder


def test_audit_names_what_is_missing(run: Run, tmp_path: Path) -> None:
    """A declared loss is accounted for: how many, why, when it was told, of which time; the exit code is 0."""
    maker = FrameMaker()
    data = data_folder(tmp_path, maker.one("pump", 1.0), maker.gap("pump", 3), maker.one("fan", 1.0), maker=maker)

    outcome = run("audit", "--data", data)

    assert outcome.code == 0
    assert outcome.out.splitlines()[:2] == [
        "2 devices, 2 readings, 1 of them without a loss; of the others:",
        "pump: 1 stream, 1 reading; 3 readings missing: 3 lost, the device's spool was full while it could not send",
    ]
    (loss,) = [line for line in outcome.out.splitlines() if "spool was full" in line][1:]
    assert loss.split()[:4] == ["pump", "9f3a000000000001", "2", "3"]
    assert loss.endswith("t        2026-11-22 19:33:20Z  2026-11-22 19:33:20.000Z")


def test_audit_that_does_not_balance_ends_with_1(run: Run, tmp_path: Path) -> None:
    """A row that is gone without a word is found, said first, and fails the command."""
    maker = FrameMaker()
    data = data_folder(tmp_path, maker.batch("pump", [("t", T0, 1.0), ("t", T0 + 1, 2.0)]), maker=maker)
    connection = sqlite3.connect(data / "readings.sqlite3")
    connection.execute("DELETE FROM reading WHERE time_ns = ?", (T0,))
    connection.commit()
    connection.close()

    outcome = run("audit", "--data", data)

    assert outcome.code == 1
    assert outcome.out.startswith(
        "pump: 1 stream, 2 readings: does not balance: 2 rows are expected of 1 series, 1 stored"
    )
    assert run("audit", "--data", data, "--json").code == 1


def test_audit_of_an_empty_hub(run: Run, tmp_path: Path) -> None:
    """Nothing is nothing, and balances."""
    outcome = run("audit", "--data", data_folder(tmp_path, maker=FrameMaker()))

    assert (outcome.code, outcome.out) == (0, "nothing was ever received\n")


@pytest.mark.parametrize(
    "arguments", [("--last", "1 hour"), ("--from", "yesterday"), ("--from", "2026-01-01T00:00:00")]
)
def test_unreadable_range_is_a_usage_error(run: Run, where: list[object], arguments: tuple[str, str]) -> None:
    """What may be written instead is said."""
    outcome = run("query", "x", *arguments, *where)

    assert outcome.code == 2
    assert "use" in outcome.err or "add Z" in outcome.err
