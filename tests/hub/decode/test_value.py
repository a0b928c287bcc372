"""What of a payload is a value, and that documents are bounded."""

import pytest

from device_sdk.reading import Value
from device_sdk.wire import MAX_FRAME_BYTES
from hub.decode.base import DecodeError
from hub.decode.naming import shown
from hub.decode.value import (
    MAX_CONTAINERS,
    MAX_DEPTH,
    MAX_MEMBERS,
    MAX_NO_NUMBERS,
    MAX_VALUES,
    flatten,
    json_value,
    load,
    path_of,
    text_of,
    word_value,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("21.5", 21.5), ("-3", -3), ("+7", 7), (".5", 0.5), ("1e3", 1000.0), ("9" * 19, 1e19), ("1e999", None),
        ("ON", True), ("off", False), ("true", True), ("nan", None), ("", None), ("unavailable", None),
        ("heating", "heating"), ("1_000", "1_000"), ("0x10", "0x10"), ("٣", "٣"), ("x" * 1024, "x" * 1024),
    ],
)  # fmt: skip
def test_word_is_a_value(text: str, value: Value | None) -> None:
    """Numbers and switches as devices write them, the words for no value, else text."""
    assert (word_value(text), type(word_value(text))) == (value, type(value))


@pytest.mark.parametrize("text", ["x" * 1025, "é" * 513])
def test_document_is_no_reading(text: str) -> None:
    """A page of text at a topic is no state of anything."""
    with pytest.raises(DecodeError, match="1024 bytes"):
        word_value(text)


@pytest.mark.parametrize(
    ("leaf", "value"),
    [(1, 1), (1.5, 1.5), (True, True), ("ON", True), ("OFF", False), ("on", "on"), (2**63, 2.0**63),
     (None, None), (float("inf"), None), ("NaN", None), ("x" * 1025, None), ({}, None)],
)  # fmt: skip
def test_leaf_is_a_value(leaf: object, value: Value | None) -> None:
    """Of the type that JSON gives it; only what Home Assistant's friends write for switches is one."""
    assert (json_value(leaf), type(json_value(leaf))) == (value, type(value))


def test_no_number_is_null() -> None:
    """As printf writes it, which is no JSON; not in a text."""
    assert load(b'{"a":nan,"b":-inf,"c":[NaN, 1],"d":1}') == {"a": None, "b": None, "c": [None, 1], "d": 1}
    assert load(b'{"a":"x, nan, y"}') == {"a": "x, nan, y"}
    for payload in (b"{nan}", b'{"a":nan', b"{"):
        with pytest.raises(DecodeError, match="no JSON"):
            load(payload)


def test_message_larger_than_a_frame_has_so_many_parts() -> None:
    """More would take long to read; what stands behind them is not looked at. A smaller one has as many as fit."""
    parts, space = b"[" + b"{}," * (MAX_CONTAINERS - 1), b" " * MAX_FRAME_BYTES

    assert load(parts + space + b"1]") == [{}] * (MAX_CONTAINERS - 1) + [1]
    assert load(parts + b"{},[]]") == [{}] * MAX_CONTAINERS + [[]]
    with pytest.raises(DecodeError, match=f"more than {MAX_CONTAINERS} objects and lists in more than"):
        load(parts + space + b"{}?")


def test_no_numbers_are_so_many_at_most() -> None:
    """Each is work; of more than a message may have values the rest is not looked at."""
    assert load(b"[%s1]" % (b"nan," * MAX_NO_NUMBERS)) == [None] * MAX_NO_NUMBERS + [1]
    with pytest.raises(DecodeError, match=f"more than {MAX_NO_NUMBERS} times nan or inf"):
        load(b"[%s1]" % (b"nan," * (MAX_NO_NUMBERS + 1)))


def test_document_is_made_flat() -> None:
    """Paths with points; lists count."""
    document = {"a": {"b": 1, "c": [2, {"d": 3}]}, "e": None, "f": {}, "g": "x" * 2000}

    assert flatten(document) == [("a.b", 1), ("a.c.0", 2), ("a.c.1.d", 3)]
    assert flatten(7, "x") == [("x", 7)]


@pytest.mark.parametrize(
    "document",
    [
        {"a.b": 1, "a": {"b": 2}}, {"a": {"b.c": 1, "b": {"c": 2}}, "a.b": {"c": 3}, "a.b.c": 4},
        {"a": [{"b.c": 1}], "a.0": {"b": {"c": 2}, "b.c": 3}}, {"a.b": {"c": 1}, "a": {"b.c": 2}},
    ],
)  # fmt: skip
def test_dot_in_a_key_is_no_step(document: dict[str, object]) -> None:
    """Two values have two paths, which people read as one."""
    paths = [path for path, _ in flatten(document)]

    assert len(set(paths)) == len(paths) > len({shown(path) for path in paths}) == 1


def test_path_is_written_as_in_a_document() -> None:
    """By who knows the steps of the way, whatever stands before."""
    document = {"PM2.5": 1, "a": [{"x": 2}, {"b.c": 3, "d": {"e.f.g": 4}}]}
    steps: list[tuple[str | int, ...]] = [("PM2.5",), ("a", 0, "x"), ("a", 1, "b.c"), ("a", 1, "d", "e.f.g")]

    assert flatten(document) == [(path_of(way), at) for at, way in enumerate(steps, 1)]
    assert flatten({"b.c": 3}, "x") == [("x." + path_of(("b.c",)), 3)]
    assert (path_of(("a", 0, "x")), path_of(())) == ("a.0.x", "")


def test_document_is_bounded() -> None:
    """In depth, width and the length of names; at the bound it is taken."""
    deep: object = 1
    for _ in range(MAX_DEPTH):
        deep = {"a": deep}

    assert len(flatten(deep)) == 1
    assert len(flatten([1] * MAX_VALUES)) == MAX_VALUES
    for document in ({"a": deep}, [1] * (MAX_VALUES + 1), {"a": {"b" * 255: 1}}):
        with pytest.raises(DecodeError, match="more than"):
            flatten(document)


@pytest.mark.parametrize("member", [None, [], {}, [None]])
def test_what_is_no_value_is_bounded_too(member: object) -> None:
    """It is looked at as what is one; a list with something in it is two."""
    most = MAX_MEMBERS // 2 if member == [None] else MAX_MEMBERS

    assert flatten([member] * most) == []
    for document in ([member] * (most + 1), {"a": [member] * most}):
        with pytest.raises(DecodeError, match=f"more than {MAX_MEMBERS} members"):
            flatten(document)


def test_text_is_what_stands_in_the_payload() -> None:
    """Without line ends and the NUL that C programs send along."""
    assert text_of(b" 21.5\r\n\0") == "21.5"
    with pytest.raises(DecodeError, match="neither text"):
        text_of(b"\xff\xfe")
