"""The states of a device's conversation with its hub, as one literal table.

Owns: `State`, `Trigger`, the transitions, the one setter; what a conversation has to tell its shell. Place: before
`session`, which says what each trigger means. Pure.

A conversation lasts as long as a connection. It greets (hello is sent), runs
when welcomed, pauses while the hub is slow, and is ending once either side has
said so: then nothing that arrives counts any more, because it speaks of the
stream as it was. Whatever is in doubt is settled by the next hello.
"""

from __future__ import annotations

import logging
from enum import Enum

from device_sdk.errors import ProtocolError
from device_sdk.frozen import Frozen
from device_sdk.wire import Command, Desired

logger = logging.getLogger("device_sdk.conversation")


class State(Enum):
    """Where the conversation on the present connection stands."""

    OFFLINE = "offline"
    GREETING = "greeting"
    RUNNING = "running"
    PAUSED = "paused"
    ENDING = "ending"


class Trigger(Enum):
    """What can happen to a conversation."""

    CONNECTED = "connected"
    WELCOME = "welcome"
    NEW_STREAM = "new_stream"
    ACK = "ack"
    ERROR = "error"
    SLOW = "slow"
    CONTROL = "control"
    RESUME = "resume"
    BYE = "bye"
    END = "end"
    DISCONNECTED = "disconnected"


TRANSITIONS: dict[tuple[State, Trigger], State] = {
    (State.OFFLINE, Trigger.CONNECTED): State.GREETING,
    (State.GREETING, Trigger.WELCOME): State.RUNNING,
    (State.GREETING, Trigger.NEW_STREAM): State.ENDING,
    (State.GREETING, Trigger.SLOW): State.ENDING,
    (State.GREETING, Trigger.BYE): State.ENDING,
    (State.GREETING, Trigger.END): State.ENDING,
    (State.GREETING, Trigger.DISCONNECTED): State.OFFLINE,
    (State.RUNNING, Trigger.ACK): State.RUNNING,
    (State.RUNNING, Trigger.ERROR): State.RUNNING,
    (State.RUNNING, Trigger.CONTROL): State.RUNNING,
    (State.RUNNING, Trigger.NEW_STREAM): State.ENDING,
    (State.RUNNING, Trigger.SLOW): State.PAUSED,
    (State.RUNNING, Trigger.BYE): State.ENDING,
    (State.RUNNING, Trigger.END): State.ENDING,
    (State.RUNNING, Trigger.DISCONNECTED): State.OFFLINE,
    (State.PAUSED, Trigger.ACK): State.PAUSED,
    (State.PAUSED, Trigger.ERROR): State.PAUSED,
    (State.PAUSED, Trigger.CONTROL): State.PAUSED,
    (State.PAUSED, Trigger.NEW_STREAM): State.ENDING,
    (State.PAUSED, Trigger.SLOW): State.PAUSED,
    (State.PAUSED, Trigger.RESUME): State.RUNNING,
    (State.PAUSED, Trigger.BYE): State.ENDING,
    (State.PAUSED, Trigger.END): State.ENDING,
    (State.PAUSED, Trigger.DISCONNECTED): State.OFFLINE,
    (State.ENDING, Trigger.WELCOME): State.ENDING,
    (State.ENDING, Trigger.NEW_STREAM): State.ENDING,
    (State.ENDING, Trigger.ACK): State.ENDING,
    (State.ENDING, Trigger.ERROR): State.ENDING,
    (State.ENDING, Trigger.SLOW): State.ENDING,
    (State.ENDING, Trigger.CONTROL): State.ENDING,
    (State.ENDING, Trigger.BYE): State.ENDING,
    (State.ENDING, Trigger.END): State.ENDING,
    (State.ENDING, Trigger.DISCONNECTED): State.OFFLINE,
}


class Welcomed(Frozen):
    """The hub took the hello; frames flow. ``time_ns`` is the hub's wall clock."""

    time_ns: int
    ping_s: float


class Acknowledged(Frozen):
    """Every frame ≤ ``stored`` of ``stream`` is durable at the hub."""

    stored: int
    stream: str


class Closing(Frozen):
    """This connection must end; come back after ``retry_s`` (None: as the backoff says)."""

    why: str
    retry_s: float | None = None


# A command or a desired state comes as the message it is.
SessionEvent = Welcomed | Acknowledged | Closing | Command | Desired


class Conversation:
    """The present state and the only way to change it."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._state = State.OFFLINE

    @property
    def state(self) -> State:
        """Where the conversation stands."""
        return self._state

    def apply(self, trigger: Trigger) -> None:
        """Go where the table says.

        Raises:
            ProtocolError: the trigger does not belong in this state; nothing changed.
        """
        target = TRANSITIONS.get((self._state, trigger))
        if target is None:
            raise ProtocolError(f"{trigger.value} does not belong in state {self._state.value}")
        if target is not self._state:
            logger.debug("= device=%s %s -> %s by %s", self._device, self._state.value, target.value, trigger.value)
        self._state = target
