"""CSV files of both layouts, with everything that may be wrong in them."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.reading import Value
from hub.gateway.export import COLUMNS, export_chunks
from hub.importing.lines import Lines
from hub.importing.row import Blank, Item, Refused, Row
from hub.importing.table import (
    EXPORTED,
    ChannelColumn,
    Layout,
    Wide,
    exported_layout,
    plain_value,
    read_csv,
)
from hub.model import Series
from hub.store.base import Row as StoredRow
from simulators.local_time import parse_time

T0 = 1_700_000_000 * 10**9
ISO = "2023-11-14T22:13:20Z"
WIDE = Wide(0, (ChannelColumn(1, "d", "t", "Cel", plain_value), ChannelColumn(2, "d", "h", None, plain_value)))


def time_of(text: str) -> int:
    """Return a time as the hub reads it."""
    return parse_time(text, None)


def read(text: str, layout: Layout = WIDE, width: int = 3) -> list[Item]:
    """Return all of a file's items."""
    data = text.encode()
    lines = Lines(BytesIO(data), len(data))
    next(lines)
    return list(read_csv(lines, layout, time_of, width))


def test_wide_rows_are_a_reading_a_cell() -> None:
    """With the line, the column's unit, and blanks counted as such; blank lines are nothing."""
    assert read(f"time,t,h\n{ISO},20.5,\n\n{ISO}, 21 ,true\n") == [
        Row(2, "d", "t", T0, 20.5, "Cel"), Blank(2), Row(4, "d", "t", T0, 21.0, "Cel"), Row(4, "d", "h", T0, True),
    ]  # fmt: skip


def test_device_may_be_named_by_a_column() -> None:
    """One file, many devices; what is no name is refused with its line."""
    layout = Wide(0, (ChannelColumn(2, None, "t", None, plain_value),), device_at=1)

    items = read(f"time,who,t\n{ISO},a,1\n{ISO},b c,2\n", layout)

    assert items[0] == Row(2, "a", "t", T0, 1.0)
    assert isinstance(items[1], Refused)
    assert items[1].line == 3


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ("yesterday,1,2", "time"), (f"{ISO},1", "2 cells"), (f"{ISO},1,2,3", "4 cells"), (f'{ISO},"1,2', "data"),
        (f'{ISO},"1"x,2', "expected"), (f"{ISO},1,\x00", ""),
    ],
    ids=["time", "too few", "too many", "open quote", "text behind a quote", "null"],
)  # fmt: skip
def test_bad_line_loses_nothing_else(bad: str, word: str) -> None:
    """Whatever is wrong with a line, those before and behind it are read, and it is named."""
    good = [f"{ISO},{n},{n}" for n in range(1, 6)]

    items = read("\n".join(["time,t,h", *good[:2], bad, *good[2:]]) + "\n")

    assert [item.value for item in items if isinstance(item, Row) and item.channel == "t"][:2] == [1.0, 2.0]
    assert [item.value for item in items if isinstance(item, Row) and item.channel == "t" and item.line > 4] == [
        3.0, 4.0, 5.0,
    ]  # fmt: skip
    refused = [item for item in items if isinstance(item, Refused)]
    assert all(item.line == 4 for item in refused)
    assert all(word in item.reason for item in refused)
    assert bool(refused) or "\x00" in bad


def test_number_with_a_comma_is_asked_about() -> None:
    """As a text it would be stored in silence, and its channel be one of texts for ever."""
    (item, other) = read(f'time,t,h\n{ISO},"-20,5","a, 1,5"\n')

    assert isinstance(item, Refused)
    assert "--decimal-comma" in item.reason
    assert isinstance(other, Row)
    assert other.value == "a, 1,5"


def test_quote_that_is_never_closed_costs_one_line_also_among_quotes() -> None:
    """The next quote would close it and make two lines one; their cells do not count up."""
    items = read(f'time,t,h\n{ISO},"1,1\n{ISO},"2","2"\n{ISO},3,"3\n3"\n')

    assert [(i.line, i.value) for i in items if isinstance(i, Row)] == [
        (3, 2.0), (3, 2.0), (4, 3.0), (4, "3\n3"),
    ]  # fmt: skip
    assert [i.line for i in items if isinstance(i, Refused)] == [2]


def test_quotes_that_open_one_another_are_read_in_bounded_memory() -> None:
    """Each line closes one quote and opens the next: they are one row without an end, and no line may cost them all."""
    count = 20_000
    data = b"time,t,h\n" + b'a","x\n' * count
    lines = Lines(BytesIO(data), len(data))
    next(lines)
    most = found = 0

    for item in read_csv(lines, WIDE, time_of, 3):
        most = max(most, lines.position - 6 * (lines.number - 1))
        found += isinstance(item, Refused)
        if found == 50:
            break

    assert most < 50_000


def test_bad_cell_costs_itself_alone() -> None:
    """The other cells of its row are readings; the reason names the channel."""
    items = read(f"time,t,h\n{ISO},{'x' * 2000},2\n")

    assert isinstance(items[0], Refused)
    assert items[0].reason.startswith("t: ")
    assert items[1] == Row(2, "d", "h", T0, 2.0)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" 19.890000000000001", 19.89), ("7", 7.0), ("n/a", None), ("NaN", None), ("TRUE", True), ("1_000", "1_000"),
        ("ok", "ok"), ("1e3", 1000.0),
    ],
)  # fmt: skip
def test_plain_values_are_what_a_person_takes_them_for(text: str, value: Value | None) -> None:
    """Padding is trimmed; what is neither blank, number nor switch is text."""
    assert plain_value(text) == value
    assert type(plain_value(text)) is type(value)


@given(
    st.one_of(
        st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**63), 2**63 - 1), st.booleans(),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        st.sampled_from(["007", "1e5", "+1", "-0", "1_0", " 7", "TRUE", "nan", "0x1"]),
    )
)  # fmt: skip
def test_what_is_exported_is_read_back_to_the_same_text(value: Value) -> None:
    """Export → import → export gives the same cell; only text that is written like a number becomes that number."""
    series = Series(1, "default", "d", "c", unit="Cel")
    data = b"".join(export_chunks([series], [[StoredRow(1, T0 + 1, value, None)]], "csv"))
    lines = Lines(BytesIO(data), len(data))
    layout = exported_layout(next(lines).rstrip().split(","))
    assert layout is not None

    (item,) = read_csv(lines, layout, time_of, len(EXPORTED))

    assert isinstance(item, Row)
    assert (item.time_ns, item.unit) == (T0 + 1, "Cel")
    again = b"".join(export_chunks([series], [[StoredRow(1, T0 + 1, item.value, None)]], "csv"))
    assert again == data


def test_layout_of_exports_is_the_exporters() -> None:
    """The header that is known here is the one that is written there, with and without receive times."""
    assert EXPORTED == COLUMNS
    assert exported_layout([*COLUMNS, "received"]) is not None
    assert exported_layout(["device", "time"]) is None
