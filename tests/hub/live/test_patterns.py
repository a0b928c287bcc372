"""Patterns over device/channel: what they match, what they refuse, when two can meet."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.live.patterns import PatternSet, parse_pattern, split_granted


@pytest.mark.parametrize(
    ("pattern", "device", "channel", "is_match"),
    [
        ("**", "greenhouse-1", "temperature", True),
        ("greenhouse-*/temperature", "greenhouse-1", "temperature", True),
        ("greenhouse-*/temperature", "greenhouse-1", "humidity", False),
        ("greenhouse-*/temperature", "house-1", "temperature", False),
        ("*/battery", "any.thing", "battery", True),
        ("greenhouse-1", "greenhouse-1", "anything", True),
        ("greenhouse-1", "greenhouse-12", "anything", False),
        ("greenhouse-*", "greenhouse-12", "anything", True),
        ("**/debug", "d", "debug", True),
        ("a*b*c/x", "abc", "x", True),
        ("a*b*c/x", "a-bb-c", "x", True),
        ("a*b*c/x", "acb", "x", False),
        ("a*a/x", "a", "x", False),
        ("a*a/x", "aa", "x", True),
        ("*ab*ab*/x", "abab", "x", True),
        ("*ab*ab*/x", "abaab", "x", True),
        ("*aba*aba*/x", "ababa", "x", False),
        ("**", "$sys", "rate", False),
        ("*/rate", "$sys", "rate", False),
        ("$sys/*", "$sys", "rate", True),
        ("$sys", "sys", "rate", False),
        ("d/x.*", "d", "x.y", True),
        ("d/x.*", "d", "xy", False),
    ],
)
def test_pattern_matches(pattern: str, device: str, channel: str, is_match: bool) -> None:
    """`*` stays inside a part, no `/` means the whole device, wildcards never match `$` devices."""
    assert PatternSet([pattern]).matches(device, channel) is is_match


@pytest.mark.parametrize(
    "text", ["", "/", "a/", "/b", "a/b/c", "a b", "ä", "a/$b", "$*", "$s*/x", "$", "a?", "[a]", "x" * 201]
)
def test_unreadable_pattern_is_refused(text: str) -> None:
    """What no name can contain is a ValueError that shows the pattern."""
    with pytest.raises(ValueError, match="pattern"):
        parse_pattern(text)


def test_too_many_patterns_are_refused() -> None:
    """33 patterns are refused, matching or excluding."""
    with pytest.raises(ValueError, match="33"):
        PatternSet(["a"] * 33)
    with pytest.raises(ValueError, match="33"):
        PatternSet(["a"], ["a"] * 33)


def test_excluded_patterns_win() -> None:
    """A series that an exclude pattern matches is not selected."""
    patterns = PatternSet(["**"], ["*/debug"])

    assert patterns.matches("d", "x")
    assert not patterns.matches("d", "debug")


def test_key_is_equal_for_the_same_selection_written_differently() -> None:
    """Order, doubles, runs of stars and a missing channel part do not make another room."""
    one = PatternSet(["b/**", "a", "a"], ["x***y/z"])
    other = PatternSet(["a/*", "b"], ["x*y/z"])

    assert one.key() == other.key()


def test_hostile_pattern_takes_linear_time() -> None:
    """A pattern full of stars costs what any pattern costs: no backtracking."""
    pattern = PatternSet(["a*" * 90 + "b"])

    begin = time.perf_counter()
    for _ in range(100):
        assert not pattern.matches("a" * 64, "x")

    assert time.perf_counter() - begin < 0.5


_PART = st.text("ab*", min_size=1, max_size=5)


@given(_PART, st.text("ab", min_size=1, max_size=6))
def test_glob_agrees_with_a_regular_expression(part: str, name: str) -> None:
    """The greedy matcher and the textbook translation answer alike."""
    expected = re.fullmatch(re.sub(r"\*+", ".*", part), name) is not None

    assert PatternSet([f"{part}/x"]).matches(name, "x") is expected


@given(_PART, _PART)
def test_overlap_agrees_with_search(one: str, other: str) -> None:
    """Two patterns overlap exactly when a search over both finds a name that fits both."""
    a, b = parse_pattern(f"{one}/x"), parse_pattern(f"{other}/x")

    name = _common_name(a.device.text, b.device.text)

    assert a.overlaps(b) is (name is not None)
    if name:
        assert a.matches(name, "x")
        assert b.matches(name, "x")


def _common_name(one: str, other: str) -> str | None:
    """Search a common name breadth first over positions of both patterns."""
    queue, seen = [(0, 0, "")], set()
    while queue:
        i, j, name = queue.pop(0)
        if (i, j) in seen or i > len(one) or j > len(other):
            continue
        seen.add((i, j))
        if i == len(one) and j == len(other):
            return name
        x, y = one[i : i + 1], other[j : j + 1]
        if x == "*":
            queue += [(i + 1, j, name)] + ([(i, j + 1, name + y.strip("*"))] if y else [])
        if y == "*":
            queue += [(i, j + 1, name)] + ([(i + 1, j, name + x.strip("*"))] if x else [])
        if x and x == y != "*":
            queue.append((i + 1, j + 1, name + x))
    return None


def test_split_granted_denies_what_can_never_meet_the_grant() -> None:
    """A pattern that overlaps the grant is granted even when it is wider; the rest is denied."""
    granted, denied = split_granted(["**", "house-1/power", "shop-*", "house-*/secret"], ["house-*/power", "house-2"])

    assert granted == ["**", "house-1/power", "house-*/secret"]
    assert denied == ["shop-*"]
