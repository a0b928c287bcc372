"""One entry of what the hub tells of itself, as a reading of ``$sys`` will have it.

Owns: its place in its log, and a text short enough for a reading. Place: before `change_log` and `event_log`, which
keep such entries; `hub.system_feed` takes them from both. Must not: know what the texts mean.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

from device_sdk.reading import MAX_STRING_BYTES

# Of each text of a value, the first with which the whole is short enough: with the last, texts of four bytes a
# character or of quotes alone fit as well.
_TEXT = (200, 100, 40)


class SystemEntry(NamedTuple):
    """What the feed takes.

    ``number``: its place in its namespace, from 1, in the channel if its log has several; ``time_ns``: its time, no two
    of a namespace have the same; ``text``: what it says (`as_value`).
    """

    number: int
    time_ns: int
    text: str


def as_value(fields: Mapping[str, object]) -> str:
    """Return fields as the value of a reading: compact JSON within `MAX_STRING_BYTES`; long texts end with "…"."""
    value = ""
    for most in _TEXT:
        shown = {name: _shortened(held, most) if isinstance(held, str) else held for name, held in fields.items()}
        value = json.dumps(shown, ensure_ascii=False, separators=(",", ":"))
        if len(value.encode()) <= MAX_STRING_BYTES:
            break
    return value


def _shortened(text: str, most: int) -> str:
    # A peer may send a lone surrogate, which no file and no reading can hold.
    safe = text.encode("utf-8", "replace").decode()
    return safe if len(safe) <= most else safe[: most - 1] + "…"
