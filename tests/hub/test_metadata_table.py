"""`hub.metadata_table`: a file that was written is read as it was, and a wrong row spoils no other."""

import csv
import io
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.description import CHANNEL_FIELDS, DEVICE_FIELDS, MAX_SCALE, MIN_SCALE, checked
from hub.errors import BadRequestError
from hub.metadata_table import COLUMNS, TableRow, read_csv, read_toml, write_csv, write_toml

Write = Callable[[list[TableRow]], str]
Read = Callable[[str], list[TableRow]]
FORMS = pytest.mark.parametrize(
    ("write", "read"), [(write_toml, read_toml), (write_csv, read_csv)], ids=["toml", "csv"]
)

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
WORDS = st.text(st.sampled_from("abzé0_.-"), min_size=1, max_size=8)
TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=30).filter(str.strip)
NOTES = st.lists(TEXT, min_size=1, max_size=3).map("\n".join)
DEVICE: dict[str, st.SearchStrategy[Any]] = {
    "label": TEXT, "site": WORDS, "tags": st.lists(WORDS, min_size=1, max_size=5), "lat": st.floats(-90, 90),
    "lon": st.floats(-180, 180), "place": TEXT, "notes": NOTES,
}  # fmt: skip
CHANNEL: dict[str, st.SearchStrategy[Any]] = {
    "label": TEXT, "unit": TEXT.filter(lambda unit: len(unit) <= 32), "decimals": st.integers(0, 9),
    "low": st.floats(-1e300, 1e300), "high": st.floats(-1e300, 1e300), "kind": st.sampled_from(["gauge", "counter"]),
    "scale": st.floats(MIN_SCALE, MAX_SCALE) | st.floats(-MAX_SCALE, -MIN_SCALE), "offset": st.floats(-1e15, 1e15),
    "every_s": st.floats(0.001, 1e7),
}  # fmt: skip


def held(fields: Any, is_channel: bool) -> dict[str, Any]:
    """Return fields as the hub keeps them."""
    table = CHANNEL_FIELDS if is_channel else DEVICE_FIELDS
    return {name: checked(table, name, value) for name, value in fields.items()}


@st.composite
def rows(draw: st.DrawFn) -> list[TableRow]:
    """Draw devices and channels with any fields, as a hub holds them."""
    out = []
    for device in draw(st.lists(NAMES, unique=True, max_size=4)):
        if fields := draw(st.fixed_dictionaries({}, optional=DEVICE)):
            out.append(TableRow(device, None, held(fields, False)))
        for channel in draw(st.lists(NAMES, unique=True, max_size=3)):
            if fields := draw(st.fixed_dictionaries({}, optional=CHANNEL)):
                out.append(TableRow(device, channel, held(fields, True)))
    return out


@pytest.mark.slow
@FORMS
@given(written=rows())
def test_import_of_an_export_changes_nothing(write: Write, read: Read, written: list[TableRow]) -> None:
    """Any fields within their bounds come back as the very same, to the last bit of a number."""
    found = read(write(written))

    assert [row.error for row in found] == [None] * len(written)
    assert {(r.device, r.channel): held(r.fields, r.channel is not None) for r in found} == {
        (r.device, r.channel): dict(r.fields) for r in written
    }


@FORMS
@given(text=st.text(max_size=200))
def test_any_text_is_rows_or_an_error_in_words(write: Write, read: Read, text: str) -> None:
    """Whatever a file holds, reading it ends well or says what is wrong."""
    for attempt in (text, ",".join(COLUMNS) + "\n" + text, "[device.x]\n" + text):
        with suppress(BadRequestError):
            assert all(isinstance(row, TableRow) for row in read(attempt))


def test_no_cell_of_text_is_a_formula() -> None:
    """A spreadsheet that opens the file runs nothing; numbers stay numbers, and all of it comes back."""
    rows = [
        TableRow("a", None, {"label": "=1+1", "site": "-x", "tags": ("+t", "u"), "lat": -5.0, "notes": "'=really"}),
        TableRow("a", "t", {"label": "@SUM(A1)", "unit": "\tCel", "low": -1.5}),
    ]
    text = write_csv(rows)

    cells = [cell for line in csv.reader(io.StringIO(text, newline="")) for cell in line]
    assert {cell for cell in cells if cell.startswith(tuple("=+-@\t\r"))} == {"-5.0", "-1.5"}
    assert [{**row.fields} for row in read_csv(text)] == [
        {**rows[0].fields, "tags": ["+t", "u"]}, dict(rows[1].fields),
    ]  # fmt: skip


def test_wrong_csv_rows_are_named_by_line_and_others_kept() -> None:
    """A row with a word for a number or with too few cells has an error; a byte order mark is no letter."""
    found = read_csv("\ufeffdevice,channel,scale,label,tags\na,t,0.1,,\nb,t,much,,\nc,t\nd,,,D,x y\n")

    assert [(r.device, r.where, bool(r.error)) for r in found] == [
        ("a", "line 2", False), ("b", "line 3", True), ("c", "line 4", True), ("d", "line 5", False),
    ]  # fmt: skip
    assert (found[0].fields, found[3].fields) == ({"scale": 0.1}, {"label": "D", "tags": ["x", "y"]})


def test_wrong_toml_tables_are_named_and_others_kept() -> None:
    """What should be a table and is none has an error."""
    found = read_toml('[device]\na = 1\n[device.b]\nchannel = 2\n[device.c.channel]\nt = 3\nu = {unit = "W"}\n')

    assert [(r.device, r.channel, r.where, bool(r.error)) for r in found] == [
        ("a", None, "device.a", True), ("b", None, "device.b", True), ("c", "t", "device.c.channel.t", True),
        ("c", "u", "device.c.channel.u", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("read", "text"),
    [(read_toml, "[device"), (read_toml, "[devices.x]\n"), (read_toml, "device = 1"), (read_csv, ""),
     (read_csv, "name,label\n"), (read_csv, "device,colour\n"), (read_csv, 'device,label\na,"b'),
     (read_csv, "device\n" + "a\n" * 50_001)],
    ids=lambda found: getattr(found, "__name__", str(found)[:20]),
)  # fmt: skip
def test_file_that_is_something_else_is_refused(read: Read, text: str) -> None:
    """A header or a table that is not known is not skipped in silence."""
    with pytest.raises(BadRequestError):
        read(text)
