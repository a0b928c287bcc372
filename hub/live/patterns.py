"""Patterns over ``device/channel``: what a watcher, a token or a query selects.

Owns: the grammar, matching, and the question whether two patterns can meet.
Place: after `model`; used by `live`, `query` and the gateway. Pure.

``*`` stands for any characters inside one part, ``**`` for a whole part, and a
pattern without ``/`` means ``P/**``. A device beginning with ``$`` (reserved)
is matched only by a pattern that writes its name out.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

# A subscription of a page names a handful of devices; 32 bounds the work of deciding one series.
MAX_PATTERNS = 32
# The longest exact name is 64 + 1 + 128; some stars more.
MAX_PATTERN_CHARS = 200
_DEVICE = re.compile(r"\$[A-Za-z0-9_.-]+|[A-Za-z0-9_.*-]+")
_CHANNEL = re.compile(r"[A-Za-z0-9_.*-]+")
_STARS = re.compile(r"\*+")


@dataclass(frozen=True, slots=True)
class Glob:
    """One part of a pattern, with runs of ``*`` made one.

    Matching takes linear time: a regular expression with many ``*`` would take
    time that a client chooses.
    """

    text: str
    prefix: str
    middle: tuple[str, ...]
    suffix: str | None

    def matches(self, name: str) -> bool:
        """Return whether the whole name fits."""
        if self.suffix is None:
            return name == self.text
        end = len(name) - len(self.suffix)
        at = len(self.prefix)
        if at > end or not name.startswith(self.prefix) or not name.endswith(self.suffix):
            return False
        for piece in self.middle:
            found = name.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True

    def overlaps(self, other: "Glob") -> bool:
        """Return whether some name fits both (exact: with a ``*`` on both sides the middles can follow each other)."""
        if self.suffix is None:
            return other.matches(self.text)
        if other.suffix is None:
            return self.matches(other.text)
        return _agree(self.prefix, other.prefix) and _agree(self.suffix[::-1], other.suffix[::-1])


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern in normal form: ``str(pattern)`` is equal for patterns that were written differently."""

    device: Glob
    channel: Glob

    def __str__(self) -> str:
        return f"{self.device.text}/{self.channel.text}"

    def matches(self, device: str, channel: str) -> bool:
        """Return whether the series ``device/channel`` is selected."""
        if device[:1] == "$" and self.device.text[:1] != "$":
            return False
        return self.device.matches(device) and self.channel.matches(channel)

    def overlaps(self, other: "Pattern") -> bool:
        """Return whether some series could fit both."""
        if (self.device.text[:1] == "$") != (other.device.text[:1] == "$"):
            return False
        return self.device.overlaps(other.device) and self.channel.overlaps(other.channel)


class PatternSet:
    """Patterns of which one must match, and others of which none may.

    Args:
        match: at least one pattern to select anything.
        exclude: patterns that take series out again.

    Raises:
        ValueError: a pattern that cannot be read, or more than `MAX_PATTERNS`; the message says which and why.
    """

    def __init__(self, match: Sequence[str], exclude: Sequence[str] = ()) -> None:
        for patterns in (match, exclude):
            if len(patterns) > MAX_PATTERNS:
                raise ValueError(f"{len(patterns)} patterns: use at most {MAX_PATTERNS}, with * for several names")
        self.match = tuple(parse_pattern(text) for text in match)
        self.exclude = tuple(parse_pattern(text) for text in exclude)

    def matches(self, device: str, channel: str) -> bool:
        """Return whether the series is selected."""
        return any(p.matches(device, channel) for p in self.match) and not any(
            p.matches(device, channel) for p in self.exclude
        )

    def key(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return a normal form: equal for sets that select alike by the same patterns, whatever their order."""
        return tuple(sorted({str(p) for p in self.match})), tuple(sorted({str(p) for p in self.exclude}))


def parse_pattern(text: str) -> Pattern:
    """Return the pattern.

    Raises:
        ValueError: too long, more than one ``/``, an empty part, a character no name has.
    """
    if len(text) > MAX_PATTERN_CHARS:
        raise ValueError(f"pattern {text[:40]!r}…: {len(text)} characters; the limit is {MAX_PATTERN_CHARS}")
    device, slash, channel = text.partition("/")
    if not slash:
        channel = "**"
    if _DEVICE.fullmatch(device) is None or _CHANNEL.fullmatch(channel) is None:
        raise ValueError(
            f"pattern {text!r}: write DEVICE/CHANNEL with letters, digits, '_', '.', '-' and '*', "
            "e.g. 'greenhouse-*/temperature', '*/battery', '**'"
        )
    return Pattern(_glob(device), _glob(channel))


def split_granted(wanted: Sequence[str], granted: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return (granted, denied) of the wanted patterns: denied ones can meet nothing that is granted.

    A granted pattern may still be wider than the grant; each series is checked against both.
    """
    allowed = [parse_pattern(text) for text in granted]
    yes: list[str] = []
    no: list[str] = []
    for text in wanted:
        pattern = parse_pattern(text)
        (yes if any(pattern.overlaps(a) for a in allowed) else no).append(text)
    return yes, no


def _glob(part: str) -> Glob:
    text = _STARS.sub("*", part)
    pieces = text.split("*")
    if len(pieces) == 1:
        return Glob(text, text, (), None)
    return Glob(text, pieces[0], tuple(pieces[1:-1]), pieces[-1])


def _agree(one: str, other: str) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]
