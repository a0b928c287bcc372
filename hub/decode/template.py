"""The templates of Home Assistant's discovery that only pick a value, without Jinja.

Owns: which templates those are, and what they give. Place: before `home_assistant`. Pure.

``{{ value_json.a.b | float | round(1) }}``, ``{{ value_json['a'][0] }}``, ``{{ value }}``, with the filters ``float``,
``int``, ``round``, ``default`` and ``is_defined``. A template that calculates is none of them: half of it would give a
wrong value. A default is no value of the device: where it would be used, nothing is read.
"""

import re
from math import isfinite
from typing import NamedTuple

# Longer ones are programs.
_MAX_CHARS = 500
_WHOLE = re.compile(r"\s*\{\{-?\s*(value_json|value)\b(.*?)-?\}\}\s*", re.DOTALL)
_STEP = re.compile(r"""\s*(?:\.([A-Za-z_][A-Za-z0-9_]*)|\[\s*(?:'([^'\\]*)'|"([^"\\]*)"|([0-9]{1,4}))\s*\])""")
_FILTER = re.compile(r"\s*\|\s*(float|int|round|default|d|is_defined)\s*(?:\(\s*([^()]*?)\s*\))?")
_DEFAULT = re.compile(r"-?[0-9.]+|[Nn]one|'[^']*'")
_DIGITS = re.compile(r"([0-9]{1,2})(?:\s*,\s*'?\w*'?)?")

# Nothing is there: the message says nothing of this value.
MISSING = object()


class Template(NamedTuple):
    """A template that picks.

    Args:
        is_json: of the message as JSON, else of its text.
        steps: names and places on the way to the value.
        filters: what is done with it; of `round` to how many digits.
    """

    is_json: bool
    steps: tuple[str | int, ...]
    filters: tuple[tuple[str, int], ...]

    @property
    def path(self) -> str:
        """The way as `hub.decode.value.flatten` writes it."""
        return ".".join(map(str, self.steps))

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
        for name, digits in self.filters:
            found = _filtered(found, name, digits)
        return found


def parse(text: str) -> Template | None:
    """Return the template; None: it is none that only picks."""
    whole = _WHOLE.fullmatch(text) if len(text) <= _MAX_CHARS else None
    if whole is None:
        return None
    rest, at = whole[2], 0
    steps: list[str | int] = []
    while step := _STEP.match(rest, at):
        named = next((name for name in step.groups()[:3] if name is not None), None)
        steps.append(int(step[4]) if named is None else named)
        at = step.end()
    filters = []
    while found := _FILTER.match(rest, at):
        filtered = _filter(found[1], found[2] or "")
        if filtered is None:
            return None
        filters.append(filtered)
        at = found.end()
    is_json = whole[1] == "value_json"
    # A message as text has no parts.
    if rest[at:].strip() or (steps and not is_json):
        return None
    return Template(is_json, tuple(steps), tuple(filters))


def _filter(name: str, argument: str) -> tuple[str, int] | None:
    """Return what a filter does to a value that is there; None: it is none of ours."""
    if name == "round":
        digits = _DIGITS.fullmatch(argument or "0")
        return None if digits is None else (name, int(digits[1]))
    return (name, 0) if not argument or _DEFAULT.fullmatch(argument) else None


def _filtered(value: object, name: str, digits: int) -> object:
    if name in ("default", "d", "is_defined"):
        return value
    try:
        got = float(value) if isinstance(value, str | int | float) else None
    except ValueError:
        return MISSING
    if got is None or not isfinite(got):
        return MISSING
    # `round` without digits gives 21.0 there too.
    return int(got) if name == "int" else round(got, digits) if name == "round" else got
