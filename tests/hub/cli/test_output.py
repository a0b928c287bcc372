"""Output: plain columns for pipes, JSON with everything, times for people."""

import json
from typing import Any

import pytest

from hub.cli import output

ROWS: list[dict[str, Any]] = [
    {"device": "a", "rate": 1.5, "extra": [1, 2]},
    {"device": "longer", "rate": None, "extra": None},
]


def test_plain_columns_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe each row is a line with aligned columns and nothing cut."""
    output.show_rows(ROWS, ["device", "rate"], as_json=False)

    assert capsys.readouterr().out == "device  rate\na       1.5\nlonger\n"


def test_json_keeps_all_keys(capsys: pytest.CaptureFixture[str]) -> None:
    """A table shows some columns, JSON all."""
    output.show_rows(ROWS, ["device"], as_json=True)

    assert json.loads(capsys.readouterr().out) == ROWS


def test_nothing_is_said_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty listing leaves stdout empty; in JSON it is an empty list."""
    output.show_rows([], ["device"], as_json=False, empty="no device")
    assert capsys.readouterr() == ("", "no device\n")

    output.show_rows([], ["device"], as_json=True)
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (True, "yes"), (1.0, "1"), (0.1 + 0.2, "0.3"), ([1, "a"], "1 a"), ("x", "x")]
)
def test_value_as_text(value: object, text: str) -> None:
    """Cells are short."""
    assert output.show_value(value) == text


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (None, ""),
        (1_452_529_800_000_000_000, "2016-01-11 16:30:00Z"),
        ("1452529800250000000", "2016-01-11 16:30:00.250Z"),
    ],
)
def test_time_as_text(time_ns: int | str | None, text: str) -> None:
    """Times are UTC and say so."""
    assert output.show_time(time_ns) == text
