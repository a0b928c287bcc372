"""``hub query``, ``export``, ``audit``: what was stored, as a table, a file, a ledger."""

import csv
import json
from pathlib import Path

import pytest

from tests.hub.cli.conftest import T0, Run
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
        "value": 0, "unit": "Cel",
    }  # fmt: skip


def test_query_in_buckets(run: Run, where: list[object], recorded: str) -> None:
    """One row a bucket with the aggregates asked for."""
    rows = run(
        "query", f"{recorded}/temperature", "--from", T0, "--bucket", "5s", "--agg", "min,max,count", "--json", *where
    ).json

    assert [(row["min"], row["max"], row["count"]) for row in rows] == [(20.0, 24.0, 5), (25.0, 29.0, 5)]


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

    assert "complete" in outcome.out
    ledger = run("audit", recorded, "--json", *where).json
    assert {(s["channel"], s["accepted"], s["superseded"], s["rows"]) for s in ledger["series"]} == {
        ("temperature", 10, 0, 10), ("state", 1, 0, 1),
    }  # fmt: skip


@pytest.mark.parametrize(
    "arguments", [("--last", "1 hour"), ("--from", "yesterday"), ("--from", "2026-01-01T00:00:00")]
)
def test_unreadable_range_is_a_usage_error(run: Run, where: list[object], arguments: tuple[str, str]) -> None:
    """What may be written instead is said."""
    outcome = run("query", "x", *arguments, *where)

    assert outcome.code == 2
    assert "use" in outcome.err or "add Z" in outcome.err
