"""JSON lines, as exported and with anything wrong in them."""

from io import BytesIO

import pytest

from device_sdk.reading import Value
from hub.gateway.export import export_chunks
from hub.importing.lines import Lines
from hub.importing.ndjson import read_ndjson
from hub.importing.row import Blank, Item, Refused, Row
from hub.model import Series
from hub.store.base import Row as StoredRow
from simulators.local_time import parse_time

T0 = 1_700_000_000 * 10**9


def read(data: bytes) -> list[Item]:
    """Return all of a file's items."""
    return list(read_ndjson(Lines(BytesIO(data), len(data)), lambda text: parse_time(text, None)))


def test_export_is_read_back_exactly() -> None:
    """Every type, to the nanosecond and the last bit; what looks like a number in a text stays a text."""
    values: list[Value] = [0.1, -0.0, 5e-324, 7, 2**63 - 1, -(2**63), True, "007", 'é\n"', ""]
    series = [Series(1, "default", "d", "c", unit="Cel")]
    rows = [StoredRow(1, T0 + at, value, None) for at, value in enumerate(values)]

    items = read(b"".join(export_chunks(series, [rows], "ndjson")))

    assert [str(i) for i in items] == [
        str(Row(1 + at, "d", "c", T0 + at, value, "Cel")) for at, value in enumerate(values)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (b'{"device":"d"', ""), (b"[1]", "object"), (b'{"device":"d","channel":"c","value":1}', "time"),
        (b'{"channel":"c","time":"2024-01-01T00:00:00Z","value":1}', "device"),
        (b'{"device":"d","channel":"c","time":"soon","value":1}', "soon"),
        (b'{"device":"d","channel":"c","time":1700000000,"value":[1]}', "value"), (b"\xff", "UTF-8"),
        (b'{"device":"d","channel":"c","time":1700000000,"value":18446744073709551616}', "64 bits"),
        (b'{"device":"d","channel":"c","time":1700000000,"value":-9223372036854775809}', "64 bits"),
    ],
)  # fmt: skip
def test_bad_line_loses_nothing_else(bad: bytes, word: str) -> None:
    """Those around it are read; it is named with its number."""
    good = b'{"device":"d","channel":"c","time_ns":"%d","value":1}\n' % T0

    items = read(good + bad + b"\n\n" + good)

    assert [items[0], items[2]] == [Row(1, "d", "c", T0, 1), Row(4, "d", "c", T0, 1)]
    assert isinstance(items[1], Refused)
    assert items[1].line == 2
    assert word in items[1].reason


def test_null_is_a_blank() -> None:
    """No value, no reading."""
    assert read(b'{"device":"d","channel":"c","time":1700000000,"value":null}') == [Blank(1)]


def test_large_float_is_a_float() -> None:
    """Only an integer is refused for its size."""
    assert read(b'{"device":"d","channel":"c","time_ns":"%d","value":1e300}' % T0) == [Row(1, "d", "c", T0, 1e300)]
