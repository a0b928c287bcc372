"""The templates of Home Assistant's discovery that pick a number and scale it, without Jinja.

Owns: which templates those are, and what they give. Place: before `home_assistant`. Pure.

``{{ value_json.a.b | float | round(1) }}``, ``{{ value_json['a'][0] }}``, ``{{ value }}``, with the filters ``float``,
``int``, ``round``, ``default`` and ``is_defined``, and scaled by numbers, ``{{ float(value_json.pa) * 0.01 }}``. A
template that does more is none of them: half of it would give a wrong value. A default is no value of the device: where
it would be used, nothing is read.

Grammar, as Jinja binds (a filter stronger than ``*``)::

    sum:    term (("*" | "/" | "+" | "-") NUMBER filter*)*
    term:   ("value" | "value_json" step* | ("float" | "int")? "(" sum ")") filter*
"""

import re
from collections.abc import Callable, Mapping
from math import isfinite
from operator import add, mul, sub, truediv
from typing import NamedTuple

from hub.decode.value import path_of

# Longer ones are programs.
_MAX_CHARS = 500
_WHOLE = re.compile(r"\s*\{\{-?(.*?)-?\}\}\s*", re.DOTALL)
_SPACE = re.compile(r"\s*")
_ROOT = re.compile(r"(value_json|value)\b")
_OPEN = re.compile(r"(float|int|)\s*\(")
_CLOSE = re.compile(r"\s*\)")
_STEP = re.compile(r"""\s*(?:\.([A-Za-z_][A-Za-z0-9_]*)|\[\s*(?:'([^'\\]*)'|"([^"\\]*)"|([0-9]{1,4}))\s*\])""")
_FILTER = re.compile(r"\s*\|\s*(float|int|round|default|d|is_defined)\b\s*(?:\(\s*([^()]*?)\s*\))?")
_DEFAULT = re.compile(r"-?[0-9.]+|[Nn]one|'[^']*'")
_DIGITS = re.compile(r"([0-9]{1,2})(?:\s*,\s*'?\w*'?)?")
_OPERATION = re.compile(r"\s*([*/+-])\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)")

# Nothing is there: the message says nothing of this value.
MISSING = object()


class Template(NamedTuple):
    """A template that picks.

    Args:
        is_json: of the message as JSON, else of its text.
        steps: names and places on the way to the value.
        actions: what is done with it, in their order: filters, `round` with its digits, and operations with a number.
    """

    is_json: bool
    steps: tuple[str | int, ...]
    actions: tuple[tuple[str, float], ...]

    @property
    def path(self) -> str:
        """The way as `hub.decode.value.flatten` writes it."""
        return path_of(self.steps)

    @property
    def is_scaled(self) -> bool:
        """Whether the value is not the one in the message."""
        return any(name in _CALCULATE for name, _ in self.actions)

    def pick(self, document: object) -> object:
        """Return the value in a message, `MISSING` when it has none."""
        found = document
        for step in self.steps:
            if isinstance(found, dict):
                found = found.get(step, MISSING)
            elif isinstance(found, list) and isinstance(step, int) and step < len(found):
                found = found[step]
            else:
                return MISSING
        for name, number in self.actions:
            found = _acted(found, name, number)
        return found


def parse(text: str) -> Template | None:
    """Return the template; None: it is none of those."""
    whole = _WHOLE.fullmatch(text) if len(text) <= _MAX_CHARS else None
    if whole is None:
        return None
    reader = _Reader(whole[1])
    try:
        reader.sum(8)
    except _OtherError:
        return None
    if not reader.is_at_end():
        return None
    return Template(reader.is_json, tuple(reader.steps), tuple(reader.actions))


class _OtherError(ValueError):
    """It is another kind of template."""


class _Reader:
    """Reads a template from left to right, as the grammar above says."""

    def __init__(self, text: str) -> None:
        self.is_json = False
        self.steps: list[str | int] = []
        self.actions: list[tuple[str, float]] = []
        self._text = text
        self._at = 0

    def is_at_end(self) -> bool:
        return not self._text[self._at :].strip()

    def sum(self, depth: int) -> None:
        self._term(depth)
        is_added = False
        while found := self._take(_OPERATION):
            operation, number = found[1], _literal(found[2])
            # What multiplies behind a + would have to be done first.
            if is_added and operation in "*/":
                raise _OtherError
            is_added = is_added or operation in "+-"
            for name, digits in self._filters():
                number = round(number, int(digits)) if name == "round" else number
            self.actions.append((operation, number))

    def _term(self, depth: int) -> None:
        self._take(_SPACE)
        if root := self._take(_ROOT):
            self.is_json = root[1] == "value_json"
            while step := self._take(_STEP) if self.is_json else None:
                named = next((name for name in step.groups()[:3] if name is not None), None)
                self.steps.append(int(step[4]) if named is None else named)
        elif depth and (opened := self._take(_OPEN)):
            self.sum(depth - 1)
            if not self._take(_CLOSE):
                raise _OtherError
            if opened[1]:
                self.actions.append((opened[1], 0))
        else:
            raise _OtherError
        self.actions += self._filters()

    def _filters(self) -> list[tuple[str, float]]:
        filters: list[tuple[str, float]] = []
        while found := self._take(_FILTER):
            name, argument = found[1], found[2] or ""
            if name == "round":
                digits = _DIGITS.fullmatch(argument or "0")
                if digits is None:
                    raise _OtherError
                filters.append((name, int(digits[1])))
            elif argument and not _DEFAULT.fullmatch(argument):
                raise _OtherError
            elif name in ("float", "int"):
                filters.append((name, 0))
        return filters

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found


_CALCULATE: Mapping[str, Callable[[float, float], float]] = {"*": mul, "/": truediv, "+": add, "-": sub}


def _acted(value: object, name: str, number: float) -> object:
    try:
        got = float(value) if isinstance(value, str | int | float) else None
        if got is None or not isfinite(got):
            return MISSING
        if calculate := _CALCULATE.get(name):
            # Not with a text, however it looks; a whole number stays one where it can.
            return calculate(value, number) if isinstance(value, int | float) else MISSING
    except (ValueError, ArithmeticError):
        return MISSING
    # `round` without digits gives 21.0 there too.
    return int(got) if name == "int" else round(got, int(number)) if name == "round" else got


def _literal(text: str) -> float:
    return float(text) if "." in text else int(text)
