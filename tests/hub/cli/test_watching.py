"""Following live: lines a program can read, and a table that fits."""

import json

import pytest

from device_sdk import Client, WatchedReading
from hub.cli.watching import line_of, run, table_of
from tests.hub.cli.conftest import T0
from tests.support.hub_process import HubProcess


def test_table_shows_what_fits() -> None:
    """The newest value of each channel, and how many more there are."""
    newest = {("d", f"c{n}"): WatchedReading("d", f"c{n}", T0, n) for n in range(10)}

    table = table_of(newest, max_rows=6)

    assert table.row_count == 5


def test_late_reading_says_so() -> None:
    """A line out of order is explained where it stands."""
    reading = WatchedReading("pump", "flow", T0, 1.5, "L/min", late=True)

    assert line_of(reading) == "2026-11-22 19:33:20Z pump/flow 1.5 L/min  (late)"


def test_json_is_one_object_a_reading(hub: HubProcess, recorded: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Types are kept; times are text, because JavaScript would round them."""
    run(Client(hub.url), [f"{recorded}/state"], "2026-11-22T19:33:00Z", 1, as_json=True)

    assert json.loads(capsys.readouterr().out) == {
        "device": recorded, "channel": "state", "time_ns": str(T0), "value": 'on, "really"', "unit": None,
        "late": False,
    }  # fmt: skip


def test_history_arrives_once_and_in_order(hub: HubProcess, recorded: str, capsys: pytest.CaptureFixture[str]) -> None:
    """From before the first reading on, each one exactly once."""
    run(Client(hub.url), [f"{recorded}/temperature"], "2026-11-22T19:33:00Z", 10, as_json=True)

    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["time_ns"], row["value"]) for row in rows] == [(str(T0 + n * 10**9), 20.0 + n) for n in range(10)]
