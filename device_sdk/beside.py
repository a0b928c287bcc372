"""What a device says beside its frames, on one connection.

Owns: which channels and commands the hub was told of, what waits to be said. Place: after `wire`, inside
`session`. Pure.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from typing import Any

from device_sdk import wire
from device_sdk.reading import Channel

logger = logging.getLogger("device_sdk.session")

# Replies and reported states that wait while the hub asks for a pause: a few MB at most, mostly some KB. Beyond, the
# oldest go; who said them says them again when the hub asks again, or once `Welcomed`.
MAX_SAID = 100


class Beside:
    """What is said beside the frames on one connection: channels the hub does not know yet, replies, reported state."""

    def __init__(self) -> None:
        self.commands: dict[str, Any] | None = None
        self.begin()

    def begin(self) -> None:
        """A new connection: nothing is declared on it, and what was said on the one before is forgotten."""
        self._declared: dict[str, Channel] = {}
        self._told: dict[str, Any] | None = None
        self.is_schema_due = True
        self.said: deque[bytes] = deque(maxlen=MAX_SAID)

    def say(self, message: wire.Reply | wire.Reported, device: str) -> None:
        """Keep a message until it can be sent; what no JSON can carry costs that message alone, and is logged."""
        try:
            self.said.append(wire.encode(message))
        except (TypeError, ValueError, RecursionError) as error:  # a lone surrogate, say
            logger.error("not said device=%s what=%s: %s", device, type(message).__name__, error)
            if isinstance(message, wire.Reply):
                failed = wire.Reply(message.id, False, error="the reply cannot be written as JSON")
                self.said.append(wire.encode(failed))

    def take(self, channels: Mapping[str, Channel]) -> list[bytes]:
        """Return what is to be sent now, before any frame."""
        said = list(self.said)
        self.said.clear()
        if self.is_schema_due:
            # First the flag, then the look: a channel declared meanwhile sets it again.
            self.is_schema_due = False
            changed = tuple(c for c in channels.values() if self._declared.get(c.name) != c)
            commands = None if self.commands is self._told else self.commands
            if changed or commands is not None:
                self._declared, self._told = dict(channels), self.commands
                said.insert(0, wire.encode(wire.Schema(changed, commands)))
        return said
