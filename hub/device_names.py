"""Patterns of names of devices: a name with ``*``, as claims and gateways have them.

Owns: what such a pattern may be, and which names it means. Place: after `errors`. Pure. Patterns over channels are
`hub.live.patterns`.
"""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from hub.errors import BadRequestError

# No more of `fnmatch`, whose `[` nobody would expect.
_NAMES = re.compile(r"[A-Za-z0-9_.*-]{1,64}")


def check_names(pattern: str, what: str = "match") -> str:
    """Return the pattern; raise `BadRequestError` when it is none."""
    if not _NAMES.fullmatch(pattern):
        raise BadRequestError(f"{what} {pattern[:80]!r}: use a device's name with *, e.g. greenhouse-*")
    return pattern


def is_among(name: str, patterns: Iterable[str]) -> bool:
    """Say whether one of the patterns means a device of this name."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
