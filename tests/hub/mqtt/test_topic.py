"""Topic names have no wildcards, filters have them where they may, and a filter takes what the standard says."""

import pytest
from paho.mqtt.client import topic_matches_sub

from hub.mqtt.field import WrongPacketError
from hub.mqtt.topic import check_filter, check_name, matches, read_name

_NAMES = ["a", "a/b", "a/b/c", "/a", "a/", "/", "a//c", "$SYS", "$SYS/a", "b", "ü/🌡", "A/b"]
_FILTERS = ["a", "a/b", "#", "+", "+/+", "a/#", "a/+", "a/+/c", "+/b/#", "/+", "/#", "$SYS/#", "+/a", "$SYS/+", "a/b/#",
            "+/", "//", "a//c", "a/+/+/+", "ü/+"]  # fmt: skip


@pytest.mark.parametrize("filter_", _FILTERS)
def test_filters_take_what_paho_says(filter_: str) -> None:
    """The same answer as Eclipse Paho's for each name."""
    assert check_filter(filter_) == filter_
    assert [matches(filter_, name) for name in _NAMES] == [topic_matches_sub(filter_, name) for name in _NAMES]


@pytest.mark.parametrize("filter_", ["", "a#", "#/a", "a/#/b", "a+", "+a/b", "a/b+c", "##", "++"])
def test_filters_with_a_wildcard_out_of_place_are_refused(filter_: str) -> None:
    """A wildcard is a level of its own, ``#`` the last one."""
    with pytest.raises(WrongPacketError):
        check_filter(filter_)


@pytest.mark.parametrize("raw", [b"", b"a/+", b"#", b"a\0", b"\xff"])
def test_names_are_checked_each_time(raw: bytes) -> None:
    """What is kept of names is never one that was refused."""
    for _ in range(2):
        with pytest.raises(WrongPacketError):
            read_name(raw)


@pytest.mark.parametrize("name", ["a", "$SYS/x", "a" * 300, "/"])
def test_names_are_read(name: str) -> None:
    """Short and long ones, the second time too."""
    assert [read_name(name.encode()), read_name(name.encode()), check_name(name)] == [name] * 3
