"""Replay: every good value of a file at its own time; every bad row named before anything is sent."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from simulators.csv_map import ColumnMap, CsvMap, load_map
from simulators.ledger import Ledger, load
from simulators.link import Link
from simulators.local_time import parse_zone
from simulators.replay import Fault, Row, Scan, read_header, read_rows, rebase_to_now, run_replay, scan
from tests.support.fake_hub import FakeHub

SECOND = 10**9
T0 = 1_452_529_800 * SECOND
MAP = CsvMap("date", (ColumnMap("T", "kitchen", "temperature", "Cel"), ColumnMap("P", "house", "power", "W")))
FILE = """"date","T","P"
"2016-01-11 17:30:00"," 19.890000000000001","  50"
"2016-01-11 17:40:00","","60"
"2016-01-11 17:50:00","20.1","70"
"""
HOME_ENERGY = Path(
    os.environ.get("TELEMETRY_TEST_DATA", Path(__file__).parents[3] / "shared" / "data" / "home-energy.csv")
)
HOME_ENERGY_MAP = Path(__file__).with_name("home_energy.toml")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a small file."""
    path = tmp_path / "data.csv"
    path.write_text(FILE)
    return path


def test_rows_hold_values_by_device(file: Path) -> None:
    """Padding is trimmed, blanks are skipped and counted, times are in the zone given."""
    rows = list(read_rows(file, MAP, parse_zone("+01:00")))

    assert rows == [
        Row(2, T0, {"kitchen": {"temperature": 19.89}, "house": {"power": 50.0}}, 0),
        Row(3, T0 + 600 * SECOND, {"house": {"power": 60.0}}, 1),
        Row(4, T0 + 1200 * SECOND, {"kitchen": {"temperature": 20.1}, "house": {"power": 70.0}}, 0),
    ]


def test_scan_counts_rows_readings_and_blanks(file: Path) -> None:
    """The scan says what a replay will send."""
    found = scan(file, MAP, parse_zone("+01:00"))

    assert found == Scan(rows=3, readings=5, blanks=1, first_ns=T0, last_ns=T0 + 1200 * SECOND, faults=[])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param("2016-03-27 02:10:00,1,2", "does not exist in Europe/Brussels", id="clocks went forward"),
        pytest.param("2016-10-30 02:10:00,1,2", "ambiguous in Europe/Brussels", id="clocks went back"),
        pytest.param("2016-01-11 17:30:00,warm,2", "a value cannot be read", id="word for a number"),
        pytest.param("2016-01-11 17:30:00,1", "2 fields; the header has 3", id="short row"),
    ],
)
def test_bad_row_is_named_by_row_and_line(tmp_path: Path, line: str, says: str) -> None:
    """The row is not sent and not guessed; its number in the data and its line in the file are given."""
    path = tmp_path / "data.csv"
    path.write_text(f"date,T,P\n2016-01-11 17:20:00,1,2\n\n{line}\n")

    first, fault = read_rows(path, MAP, parse_zone("Europe/Brussels"))

    assert isinstance(first, Row)
    assert isinstance(fault, Fault)
    assert str(fault).startswith("row 2 (line 4): ")
    assert says in str(fault)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_seen_in_the_header(tmp_path: Path, delimiter: str) -> None:
    """Spreadsheets of many countries are read as they are; a byte order mark is no part of a name."""
    path = tmp_path / "data.csv"
    path.write_text(FILE.replace(",", delimiter), encoding="utf-8-sig")

    assert read_header(path) == (["date", "T", "P"], delimiter)


def test_empty_file_is_refused(tmp_path: Path) -> None:
    """A file without a header cannot be mapped."""
    path = tmp_path / "data.csv"
    path.write_text("\n")

    with pytest.raises(ValueError, match="must hold the column names"):
        read_header(path)


def test_rebase_without_speed_ends_now() -> None:
    """As fast as acks allow: all of the file becomes history that ends now."""
    move = rebase_to_now(Scan(rows=2, first_ns=T0, last_ns=T0 + 60 * SECOND), 10**18, None)

    assert move(T0 + 60 * SECOND) == 10**18
    assert move(T0) == 10**18 - 60 * SECOND


def test_rebase_with_speed_begins_now() -> None:
    """With a speed, each row's time is the time it is sent."""
    move = rebase_to_now(Scan(rows=2, first_ns=T0, last_ns=T0 + 60 * SECOND), 10**18, 30.0)

    assert move(T0) == 10**18
    assert move(T0 + 60 * SECOND) == 10**18 + 2 * SECOND


def test_replay_sends_every_value_at_its_time(file: Path, tmp_path: Path) -> None:
    """What the hub has is what the file holds, and the ledger saw each of it."""
    zone = parse_zone("+01:00")
    ledger = Ledger(tmp_path / "ledger")
    with FakeHub() as hub:
        link = Link(hub.url, dict.fromkeys(MAP.devices, "x"))
        found = scan(file, MAP, zone)

        summary = asyncio.run(run_replay(link, read_rows(file, MAP, zone), MAP, found, ledger=ledger))

    ledger.close()
    assert (summary.devices, summary.recorded, summary.acked, summary.pending) == (2, 5, 5, 0)
    assert sorted(hub.model.readings) == [
        ("power", T0, 50.0),
        ("power", T0 + 600 * SECOND, 60.0),
        ("power", T0 + 1200 * SECOND, 70.0),
        ("temperature", T0, 19.89),
        ("temperature", T0 + 1200 * SECOND, 20.1),
    ]
    assert {name: w.produced for name, w in load(tmp_path / "ledger").items()} == {"house": 3, "kitchen": 2}


def test_speed_paces_the_rows(file: Path) -> None:
    """1,200 s of a file at 6,000 times real time take 0.2 s, not nothing."""
    zone = parse_zone("+01:00")
    with FakeHub() as hub:
        link = Link(hub.url, dict.fromkeys(MAP.devices, "x"))
        start = time.monotonic()

        asyncio.run(run_replay(link, read_rows(file, MAP, zone), MAP, scan(file, MAP, zone), speed=6000.0))

    assert 0.2 <= time.monotonic() - start < 10


@pytest.mark.skipif(not HOME_ENERGY.is_file(), reason=f"no {HOME_ENERGY.name}: set TELEMETRY_TEST_DATA to its path")
class TestHomeEnergy:
    """The real file of a house: 4,932 rows, twelve devices."""

    def test_every_reading_is_parsed(self) -> None:
        """138,096 readings of 12 devices and 28 channels, none blank, times of fixed UTC+01:00."""
        header, delimiter = read_header(HOME_ENERGY)
        csv_map = load_map(HOME_ENERGY_MAP, header)

        found = scan(HOME_ENERGY, csv_map, parse_zone("+01:00"), delimiter)

        assert (len(csv_map.devices), len(csv_map.columns)) == (12, 28)
        assert (found.rows, found.readings, found.blanks, found.faults) == (4932, 138_096, 0, [])
        assert (found.first_ns, found.last_ns) == (T0, 1_464_367_200 * SECOND)

    def test_times_that_brussels_skipped_are_reported(self) -> None:
        """In Europe/Brussels the three rows of 2016-03-27 02:xx do not exist; no other row is touched."""
        header, delimiter = read_header(HOME_ENERGY)

        found = scan(HOME_ENERGY, load_map(HOME_ENERGY_MAP, header), parse_zone("Europe/Brussels"), delimiter)

        assert found.rows == 4929
        assert [fault.text.partition(" does not exist")[0] for fault in found.faults] == [
            "2016-03-27 02:10:00", "2016-03-27 02:20:00", "2016-03-27 02:50:00",
        ]  # fmt: skip
        assert [fault.row for fault in found.faults] == [2680, 2681, 2682]
