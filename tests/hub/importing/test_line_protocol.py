"""Line protocol with everything its grammar has, and with what it has not."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.reading import Value
from hub.importing.line_protocol import read_line_protocol
from hub.importing.lines import Lines
from hub.importing.naming import Template
from hub.importing.row import Item, Refused, Row
from hub.store.line_protocol import SeriesName, body, line, prefix_of

S = 1_700_000_000
T0 = S * 10**9


def read(data: str | bytes, precision: str = "ns") -> list[Item]:
    """Return all of a file's items, named by host, measurement and field."""
    data = data if isinstance(data, bytes) else data.encode()
    lines = Lines(BytesIO(data), len(data))
    return list(read_line_protocol(lines, Template("{device}", "{host}"), Template("{measurement}.{field}"), precision))


def test_fields_are_readings_of_a_host() -> None:
    """Comments and blank lines are none; each field its own channel; names are made fit."""
    assert read(f"# DDL\nCREATE DATABASE x\n\ncpu,host=pi\\ 4 user=1.5,idle=2i {T0}\n") == [
        Row(4, "pi-4", "cpu.user", T0, 1.5), Row(4, "pi-4", "cpu.idle", T0, 2),
    ]  # fmt: skip


@pytest.mark.parametrize("precision", ["ns", "us", "ms", "s"])
def test_times_have_the_precision_that_is_said(precision: str) -> None:
    """Nothing is guessed from their size."""
    per_s = {"ns": 10**9, "us": 10**6, "ms": 10**3, "s": 1}[precision]

    assert read(f"m,host=a f=1 {S * per_s}", precision) == [Row(1, "a", "m.f", T0, 1.0)]


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ("m,host=b f=1", "no time"), (f"m f=1 {T0}", "host"), (f'm,host=b f="open {T0}', "no end"),
        ("m,host=b f=1 5", "2000"), (f"m,host=b f=18446744073709551615u {T0}", "64 bits"), ("rubbish", "fields"),
    ],
)  # fmt: skip
def test_bad_line_loses_nothing_else(bad: str, word: str) -> None:
    """Also when a text never ends and would take the lines behind it, one of which is no UTF-8."""
    good = f"m,host=a f=1 {T0}\n".encode()

    items = read(good + bad.encode() + b"\n" + good + b"\xff\n" + good)

    rows = [item.line for item in items if isinstance(item, Row)]
    refused = {item.line: item.reason for item in items if isinstance(item, Refused)}
    assert rows == [1, 3, 5]
    assert list(refused) == [2, 4]
    assert word in refused[2]


@given(
    st.lists(
        st.one_of(
            st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**63), 2**63 - 1), st.booleans(),
            st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        ),
        min_size=1,
    )
)  # fmt: skip
def test_what_a_hub_wrote_to_influxdb_comes_back(values: list[Value]) -> None:
    """Names, types and values, with quotes, backslashes and line ends in texts."""
    prefix = prefix_of(SeriesName("default", "pump-1", "a.b_c"))

    items = read(body(line(prefix, T0 + at, value) for at, value in enumerate(values)))

    assert [(i.device, i.channel, i.time_ns, type(i.value), i.value) for i in items if isinstance(i, Row)] == [
        ("pump-1", "a.b_c", T0 + at, type(value), value) for at, value in enumerate(values)
    ]
    assert len(items) == len(values)


def test_what_a_hub_wrote_is_known_field_by_field() -> None:
    """A tool that exports each field on a line of its own leaves `kind` alone."""
    text = (
        f"reading,channel=c,device=d,namespace=n kind=2i {T0}\nreading,channel=c,device=d,namespace=n value_int=7i {T0}"
    )

    assert read(text) == [Row(2, "d", "c", T0, 7)]
