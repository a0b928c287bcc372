"""Topic names and topic filters: which are valid, and which filter takes which name.

Owns: chapter 4.7 of MQTT. Place: below `hub.mqtt.packet`. Pure.
"""

from functools import lru_cache

from hub.mqtt.field import WrongPacketError, read_text

# Names that come again and again are read once: 0.06 µs instead of 0.5. Longer ones are not kept: 2 MB at most.
_KEPT_NAMES = 4096
_MAX_KEPT_BYTES = 200
SHARED = "$share/"


def read_name(raw: bytes) -> str:
    """Return a topic name of at least one character.

    Raises:
        WrongPacketError: it is none.
    """
    return _read_short_name(raw) if len(raw) <= _MAX_KEPT_BYTES else _read_name(raw)


def check_name(name: str) -> str:
    """Return ``name`` if messages can be published on it.

    Raises:
        WrongPacketError: it has a wildcard, or is empty.
    """
    if not name:
        raise WrongPacketError("an empty topic name")
    if "+" in name or "#" in name:
        raise WrongPacketError("a topic name with a wildcard")
    return name


def check_filter(text: str) -> str:
    """Return ``text`` if it is a topic filter.

    Raises:
        WrongPacketError: it is empty, or has a wildcard that is not a level of its own, or one behind ``#``.
    """
    if not text:
        raise WrongPacketError("an empty topic filter")
    if "+" in text or "#" in text:
        levels = text.split("/")
        for number, level in enumerate(levels, 1):
            is_right = level in ("+", "#") or not ("+" in level or "#" in level)
            if not is_right or (level == "#" and number < len(levels)):
                raise WrongPacketError("a topic filter with a wildcard out of place")
    return text


def matches(filter_: str, name: str) -> bool:
    """Say whether a topic filter takes a topic name; both are valid.

    Wildcards in the first level take no name that begins with ``$`` (MQTT-4.7.2-1).
    """
    if "+" not in filter_ and "#" not in filter_:
        return filter_ == name
    if name[0] == "$" and filter_[0] != "$":
        return False
    wanted, levels = filter_.split("/"), name.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        # `a/#` takes `a` too.
        if len(levels) < len(wanted):
            return False
        levels = levels[: len(wanted)]
    return len(wanted) == len(levels) and all(w in ("+", level) for w, level in zip(wanted, levels, strict=True))


def _read_name(raw: bytes) -> str:
    return check_name(read_text(raw))


_read_short_name = lru_cache(_KEPT_NAMES)(_read_name)
