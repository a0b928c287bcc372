"""The grammar of line protocol, with everything it has, and with what it has not."""

import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.decode.point import LineError, Point, WideError, parse_point


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("m f=1 5", Point("m", {}, [("f", 1.0)], 5)),
        ("m,a=b,c=d f=1,g=-2i,h=3u 5\r\n", Point("m", {"a": "b", "c": "d"}, [("f", 1.0), ("g", -2), ("h", 3)], 5)),
        (r"my\ m\,x,t\ a\=g=v\,a\ l f\ \=1=t 5", Point("my m,x", {"t a=g": "v,a l"}, [("f =1", True)], 5)),
        (r'm f="a \"b\" \\ c, d=e \n" 5', Point("m", {}, [("f", r'a "b" \ c, d=e \n')], 5)),
        ("m f=1.5e-3,g=.5,h=2.,i=+1 -5", Point("m", {}, [("f", 0.0015), ("g", 0.5), ("h", 2.0), ("i", 1.0)], -5)),
        ("m a=t,b=T,c=true,d=True,e=TRUE,f=F 1", Point("m", {}, [*((x, True) for x in "abcde"), ("f", False)], 1)),
        (r"m\\\,x\ y,a\,\=\ =\\\,\n f=1", Point(r"m\\,x y", {"a,= ": r"\\,\n"}, [("f", 1.0)], None)),
        (r'm f="\\\"\\\\\n\"\\"', Point("m", {}, [("f", '\\"\\\\\\n"\\')], None)),
        ("m  f=1   5  ", Point("m", {}, [("f", 1.0)], 5)),
        ('m f="" ', Point("m", {}, [("f", "")], None)),
        ("m=n,a=b f=1 5", Point("m=n", {"a": "b"}, [("f", 1.0)], 5)),
        (r"m\x,a=\b f=1 5", Point(r"m\x", {"a": r"\b"}, [("f", 1.0)], 5)),
    ],
)
def test_point_is_read(text: str, point: Point) -> None:
    """Escapes, types, spaces, with and without a time."""
    assert repr(parse_point(text)) == repr(point)


@pytest.mark.parametrize(
    "text",
    [
        "", "m", "m ", "m f", "m f=", "m f= 5", "m f=x 5", "m f=1i2 5", "m f=1 5 6", "m f=1 5.5", "m,a f=1 5",
        "m,=b f=1 5", "m,a= f=1 5", " m f=1 5", 'm f="open 5', 'm f="a"b 5', "m f=nan 5", "m f=1_0 5", "m f=0x1 5",
        "m f=1, 5", "m f=1 99999999999999999999999", f"m f={'9' * 5000}i 5", f"m f=-{'0' * 5000}1u 5",
    ],
)  # fmt: skip
def test_what_is_no_point_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(LineError):
        parse_point(text)


def test_nothing_is_read_behind_the_most_tags_and_fields() -> None:
    """Not even whether it is a point; a tag that comes twice counts twice."""
    assert parse_point("m,a=1,b=2 f=1,g=2", 2) == Point("m", {"a": "1", "b": "2"}, [("f", 1.0), ("g", 2.0)], None)
    for text, what in (("m,a=1,a=2,=", "tags"), ("m f=1,f=2,=", "fields")):
        with pytest.raises(WideError, match=f"more than 2 {what} in one point"):
            parse_point(text, 2)


@pytest.mark.parametrize("text", ["%s f=1", "m,%s=1 f=1", "m %s=1", 'm f="%s"', 'm f="%s'])
def test_long_name_is_taken_as_a_whole(text: str) -> None:
    """Not letter by letter, each of which would be remembered."""
    long = text % ("x" * 100_000)
    tracemalloc.start()
    with suppress(LineError):
        parse_point(long)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 5 * len(long)


@given(st.text(max_size=60))
def test_any_text_is_a_point_or_refused(text: str) -> None:
    """Never another exception."""
    with suppress(LineError):
        parse_point(text)
