"""Following the event stream: every reading once, whatever the connection does."""

import json

import pytest

from hub.cli.rest import RestClient
from hub.cli.watching import Event, Feed, WatchedReading, follow, read_events, table_of
from tests.hub.cli.conftest import T0
from tests.support.hub_process import HubProcess

SERIES = Event("series", {"s": {"7": {"device": "a", "channel": "t", "unit": "Cel", "type": "float"}}}, None)


def test_stream_is_taken_apart() -> None:
    """Names, data, cursors; comments and a torn last event are left out."""
    lines = [b": ping\n", b"\n", b"retry: 2000\n", b"\n", b"id: r.5\n", b"event: data\n", b'data: {"a":1}\n', b"\n",
             b"event: live\r\n", b"data: {}\r\n", b"\r\n", b"event: data\n", b'data: {"torn"']  # fmt: skip

    assert list(read_events(lines)) == [Event("data", {"a": 1}, "r.5"), Event("live", {}, None)]


def test_feed_names_series_and_adds_times() -> None:
    """A row is series number, ticks after t0, value."""
    feed = Feed()
    feed.take(SERIES)

    readings = feed.take(Event("data", {"t0": str(T0), "tick": 1000, "u": [[7, 0, 1.5], [7, "3", 2.5]]}, "r.5"))

    assert readings == [
        WatchedReading(T0, "a", "t", 1.5, "Cel"),
        WatchedReading(T0 + 3000, "a", "t", 2.5, "Cel"),
    ]
    assert feed.cursor == "r.5"


def test_feed_reads_large_integers() -> None:
    """An integer beyond 2**53 travels as text and is a number again."""
    feed = Feed()
    feed.take(Event("series", {"s": {"7": {"device": "a", "channel": "n", "type": "int"}}}, None))

    (reading,) = feed.take(Event("data", {"t0": "0", "tick": 1, "u": [[7, 0, "9007199254740993"]]}, "r.1"))

    assert reading.value == 9_007_199_254_740_993


def test_event_without_id_keeps_the_cursor() -> None:
    """Only what was applied moves it."""
    feed = Feed("r.4")

    feed.take(SERIES)

    assert feed.cursor == "r.4"


def test_history_of_a_real_hub_arrives_once(hub: HubProcess, recorded: str) -> None:
    """From before the first reading on, each one exactly once."""
    readings = follow(RestClient(hub.url), [f"{recorded}/temperature"], "2026-11-22T19:33:00Z")

    found = [next(readings) for _ in range(10)]

    assert [(r.time_ns, r.value) for r in found] == [(T0 + n * 10**9, 20.0 + n) for n in range(10)]


def test_table_shows_what_fits() -> None:
    """The newest value of each channel, and how many more there are."""
    newest = {("d", f"c{n}"): WatchedReading(T0, "d", f"c{n}", n, None) for n in range(10)}

    table = table_of(newest, max_rows=6)

    assert table.row_count == 5


def test_json_lines_round_trip(hub: HubProcess, recorded: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` writes one object a reading; times are text."""
    from hub.cli.watching import run

    run(RestClient(hub.url), [f"{recorded}/state"], "2026-11-22T19:33:00Z", 1, as_json=True)

    assert json.loads(capsys.readouterr().out) == {
        "time_ns": str(T0), "device": recorded, "channel": "state", "value": 'on, "really"', "unit": None,
    }  # fmt: skip
