"""Cursor text, the run table, and where a subscription begins."""

import pytest

from hub.journal.base import Run
from hub.live.cursor import Cursor, ResetReason, RunTable, Start, parse_cursor, resolve_since

RUNS = RunTable([Run("aaaaaaaa", 1), Run("bbbbbbbb", 101), Run("cccccccc", 101), Run("dddddddd", 201)])


@pytest.mark.parametrize(
    ("text", "cursor"),
    [
        ("7f3a0001.12", Cursor("7f3a0001", 12)),
        ("7f3a0001.12.1795376000000000000", Cursor("7f3a0001", 12, 1_795_376_000_000_000_000)),
        ("7f3a0001.12.-1", Cursor("7f3a0001", 12, -1)),
        ("7f3a0001.12.last", Cursor("7f3a0001", 12, is_last=True)),
    ],
)
def test_cursor_round_trips(text: str, cursor: Cursor) -> None:
    """Each form parses to its parts and prints as it was."""
    assert parse_cursor(text) == cursor
    assert str(cursor) == text


@pytest.mark.parametrize(
    "text", ["last", "-15m", "2026-01-01T00:00:00Z", "1795376000", "7f3a.1", "7F3A0001.1", "7f3a0001.-1", "7f3a0001."]
)
def test_other_text_is_no_cursor(text: str) -> None:
    """Times, `last` and near misses are not taken for cursors."""
    assert parse_cursor(text) is None


@pytest.mark.parametrize(
    ("offset", "text"),
    [(0, "aaaaaaaa.0"), (1, "aaaaaaaa.1"), (99, "aaaaaaaa.99"), (100, "cccccccc.100"), (150, "cccccccc.150"),
     (200, "dddddddd.200"), (999, "dddddddd.999")],
)  # fmt: skip
def test_offsets_are_named_by_the_run_that_knows_them(offset: int, text: str) -> None:
    """An offset is named by its run, at the edge by the newer one; every name is valid when it comes back."""
    assert RUNS.cursor(offset) == text

    cursor = parse_cursor(text)
    assert cursor is not None
    assert RUNS.knows(cursor, head=999)


@pytest.mark.parametrize(
    ("run", "offset", "is_known"),
    [
        ("aaaaaaaa", 0, True), ("aaaaaaaa", 100, True), ("aaaaaaaa", 101, False),
        ("bbbbbbbb", 100, True), ("bbbbbbbb", 99, False), ("bbbbbbbb", 101, False),
        ("cccccccc", 200, True), ("cccccccc", 201, False),
        ("dddddddd", 200, True), ("dddddddd", 250, True), ("dddddddd", 251, False), ("dddddddd", 199, False),
        ("eeeeeeee", 150, False),
    ],
)  # fmt: skip
def test_run_bounds_a_cursor(run: str, offset: int, is_known: bool) -> None:
    """A cursor is good from its run's first offset - 1 to that run's last; the newest run ends at the head."""
    assert RUNS.knows(Cursor(run, offset), head=250) is is_known


def parse(text: str, now_ns: int) -> int:
    """Stand in for the hub's reader of times."""
    assert text == "-1s"
    return now_ns - 10**9


@pytest.mark.parametrize(
    ("since", "start"),
    [
        (None, Start(250)),
        ("last", Start(250, is_last=True)),
        ("-1s", Start(250, 4 * 10**9)),
        ("dddddddd.220", Start(220, resumes=True)),
        ("cccccccc.150.77", Start(150, 78, resumes=True)),
        ("dddddddd.220.last", Start(220, is_last=True, resumes=True)),
        ("dddddddd.251", Start(250, reset=ResetReason.RUN)),
        ("eeeeeeee.1.77", Start(250, reset=ResetReason.RUN)),
    ],
    ids=str,
)
def test_since_decides_where_to_begin(since: str | None, start: Start) -> None:
    """Head, newest values, history or a resumed cursor; a cursor of another history begins at the head with a reset."""
    assert resolve_since(since, RUNS, 250, 5 * 10**9, parse) == start


@pytest.mark.parametrize("digits", ["9999999999999999999", "-9999999999999999999", str(2**63 - 1)])
def test_a_cursors_time_stays_within_what_a_store_takes(digits: str) -> None:
    """Digits that a client changed ask for a time that exists."""
    start = resolve_since(f"dddddddd.200.{digits}", RUNS, 250, 0, lambda text, now_ns: now_ns)

    assert start.time_ns is not None
    assert -(2**63) <= start.time_ns < 2**63
