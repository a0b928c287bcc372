"""Topics as this hub means them: its own ones, and which filters a client may have.

Owns: ``{prefix}/{device}/up|down|state``; what of other people's topics may be subscribed to. Place: after `handler`.
Pure.

The hub is no broker: nobody gets what another has published, so a subscription to anything but one's own ``down`` would
wait for ever, and is refused. But many devices that people own ask for the topics of their commands before they measure
anything, and give up when one is refused. So topics that are *commands by their form* are granted; what comes on them
is what a decoder answers (ThingsBoard's attributes, Sparkplug's rebirth), nearly always nothing. A gateway's program
may also ask for all of its own tree (``zigbee2mqtt/#``), as such programs do for their commands.
"""

from collections.abc import Callable
from typing import NamedTuple

from hub.mqtt.handler import Code

PREFIX = "hub/v1"
UP, DOWN, STATE = "up", "down", "state"
_SHARED = "$share/"
# The last level of what a device is told to do: Tasmota, ESPHome, Shelly, Zigbee2MQTT, Homie, Adafruit IO and others.
_ORDERS = frozenset(
    {"set", "get", "command", "commands", "cmnd", "cmd", "rpc", "request", "control", "throttle", "errors"}
)
# How a topic begins that only the other side publishes on; each is a filter's levels, `+` for any.
_FAMILIES = (
    ("cmnd",),
    ("v1", "devices", "me"),
    ("v1", "gateway"),
    ("v2", "fw"),
    ("v2", "sw"),
    ("provision", "response"),
    ("spBv1.0", "+", "NCMD"),
    ("spBv1.0", "+", "DCMD"),
    ("spBv1.0", "STATE"),
    ("STATE",),
    ("homeassistant", "status"),
    ("homie", "$broadcast"),
    ("esphome", "discover"),
    ("$aws", "things"),
    ("+", "feeds"),
)  # fmt: skip


class Native(NamedTuple):
    """A topic below the prefix; ``part`` may be any text."""

    device: str
    part: str


class Topics:
    """The hub's topics below one prefix."""

    def __init__(self, prefix: str = PREFIX) -> None:
        self._levels = tuple(prefix.split("/"))
        self._start = f"{prefix}/"

    def native(self, topic: str) -> Native | None:
        """Return whose topic it is, and which; None: it is not one of ours."""
        if not topic.startswith(self._start):
            return None
        device, _, part = topic[len(self._start) :].partition("/")
        return Native(device, part)

    def down(self, device: str) -> str:
        """Return the topic on which a device is told."""
        return f"{self._start}{device}/{DOWN}"

    def takes_down(self, filter_: str, device: str) -> bool:
        """Say whether a granted filter takes the messages to a device."""
        return _takes(filter_.split("/"), (*self._levels, device, DOWN))

    def decide(self, filter_: str, is_own: Callable[[str], bool], *, is_gateway: bool) -> Code:
        """Say whether a client may have a filter.

        Args:
            is_own: whether it speaks for a device of this name.
        """
        if filter_.startswith(_SHARED):
            return Code.SHARED_NOT_SUPPORTED
        levels = filter_.split("/")
        if levels[: len(self._levels)] == [*self._levels]:
            return self._decide_native(levels[len(self._levels) :], is_own, is_gateway=is_gateway)
        if _may_take_below(levels, self._levels) or not _is_granted(levels, is_gateway=is_gateway):
            return Code.NOT_AUTHORIZED
        return Code.SUCCESS

    def _decide_native(self, rest: list[str], is_own: Callable[[str], bool], *, is_gateway: bool) -> Code:
        if not rest or not (is_own(rest[0]) or (is_gateway and rest[0] == "+")):
            return Code.NOT_AUTHORIZED
        return Code.SUCCESS if _takes(rest[1:], (DOWN,)) else Code.NOT_AUTHORIZED


def _takes(wanted: list[str], levels: tuple[str, ...]) -> bool:
    """Say whether levels of a filter take levels of a topic; the filter is a valid one."""
    if wanted and wanted[-1] == "#":
        wanted = wanted[:-1]
        levels = levels[: len(wanted)]
    return len(wanted) == len(levels) and all(w in ("+", level) for w, level in zip(wanted, levels, strict=True))


def _may_take_below(wanted: list[str], prefix: tuple[str, ...]) -> bool:
    """Say whether a filter with a wildcard where the prefix has a word takes topics below the prefix."""
    for w, level in zip(wanted, prefix, strict=False):
        if w == "#":
            return True
        if w not in ("+", level):
            return False
    return len(wanted) > len(prefix)


def _is_granted(levels: list[str], *, is_gateway: bool) -> bool:
    if any(_begins(levels, family) for family in _FAMILIES):
        return True
    words = [level for level in levels if level not in ("+", "#")]
    if words and words[-1] in _ORDERS and len(levels) > 1:
        return True
    return is_gateway and levels[0] not in ("+", "#", "")


def _begins(levels: list[str], family: tuple[str, ...]) -> bool:
    return len(levels) >= len(family) and all(f in ("+", level) for f, level in zip(family, levels, strict=False))
