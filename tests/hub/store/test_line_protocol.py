"""Lines say all that a reading is: its type, every bit, its time to the nanosecond."""

import pytest

from device_sdk.reading import Value
from hub.store.line_protocol import SeriesName, body, line, prefix_of, tags_of

PREFIX = prefix_of(SeriesName("default", "pump-1", "temp.in"))


@pytest.mark.parametrize(
    ("text", "tag", "written"),
    [
        pytest.param("a.b-c_1", "a.b-c_1", "a.b-c_1", id="as ours are"),
        pytest.param("a b,c=d", "a b,c=d", r"a\ b\,c\=d", id="special"),
        pytest.param('it\'s "x"', 'it\'s "x"', 'it\'s\\ "x"', id="quotes"),
        pytest.param("a\\b", "a\\b", "a\\b", id="backslash"),
        pytest.param("a\\", "a\ufffd", "a\ufffd", id="last backslash"),
        pytest.param("a\\,b", "a\ufffd,b", "a\ufffd\\,b", id="backslash before a special one"),
        pytest.param("a\nb\x00\ud800", "a\ufffdb\ufffd\ufffd", "a\ufffdb\ufffd\ufffd", id="no line"),
        pytest.param("温室 🌱", "温室 🌱", "温室\\ 🌱", id="Unicode"),
    ],
)
def test_names_are_escaped(text: str, tag: str, written: str) -> None:
    """What the server reads is what is asked for; what no escape can say is replaced in both."""
    name = SeriesName("n", "d", text)

    assert tags_of(name)["channel"] == tag
    assert prefix_of(name) == f"reading,channel={written},device=d,namespace=n "


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        (21.5, "kind=1i,value=21.5"),
        (1.0, "kind=1i,value=1.0"),
        (5e-324, "kind=1i,value=5e-324"),
        (-0.0, "kind=1i,value=-0.0"),
        (-(2**63), "kind=2i,value_int=-9223372036854775808i"),
        (True, "kind=3i,value_bool=t"),
        (False, "kind=3i,value_bool=f"),
        ('a "b" \\ c', 'kind=4i,value_str="a \\"b\\" \\\\ c"'),
    ],
)
def test_line(value: Value, fields: str) -> None:
    """Each type has its field, and says which it is."""
    expected = f"reading,channel=temp.in,device=pump-1,namespace=default {fields} 1795376000000000001"
    assert line(PREFIX, 1_795_376_000_000_000_001, value) == expected


def test_body_is_lines() -> None:
    """One request is one body."""
    assert body(["a", "ü"]) == "a\nü".encode()
