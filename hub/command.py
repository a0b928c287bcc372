"""What a command is inside the hub: the order, what became of it at each device, and the bounds.

Owns: `Order`, `Outcome`, `State`. Place: after `errors`; the book, the file and REST speak of these. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from device_sdk import wire

DEFAULT_TIMEOUT_S = 10.0
# A person or a script waits; what may take longer is queued.
MAX_TIMEOUT_S = 3600.0
# A device that is away for longer than a month gets today's orders, not those of then.
MAX_EXPIRY_S = 30 * 86400.0
# One request: three times the fleet this hub is made for.
MAX_DEVICES = 10_000
# Unanswered commands of one device: a hand full of orders, not a job queue; all are sent again at each connection.
MAX_WAITING_EACH = 32
# Their arguments together: what one connection is given at once.
MAX_WAITING_BYTES_EACH = 256 * 1024
# Unanswered in all: about 40 MB in RAM.
MAX_WAITING = 100_000
MAX_ID_CHARS = 64


class State(StrEnum):
    """What became of a command at one device; all but the first two are final."""

    QUEUED = "queued"  # the device is not connected
    SENT = "sent"  # it may have it: answered when it has run
    DONE = "done"
    FAILED = "failed"  # the device ran it, or not, and says why
    TIMED_OUT = "timed_out"  # sent, no answer until the expiry: it may or may not have taken effect
    EXPIRED = "expired"  # it did not run before its expiry, and will not
    REFUSED = "refused"  # never sent: offline, unknown, wrong arguments, too many waiting
    CANCELLED = "cancelled"


OPEN = frozenset({State.QUEUED, State.SENT})
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Order:
    """One command to some devices. ``selector``: how they were chosen; ``who`` asked."""

    namespace: str
    id: str
    name: str
    args: Mapping[str, object]
    selector: str
    who: str
    made_ns: int
    expires_ns: int
    is_queued: bool
    size: int = 0

    @property
    def key(self) -> Key:
        """What names it: the namespace and the id."""
        return self.namespace, self.id

    def message(self) -> wire.Command:
        """Return what is sent, each time the same."""
        return wire.Command(self.id, self.name, dict(self.args), self.expires_ns)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A command at one device came into a state. ``value`` is JSON text, None for none."""

    key: Key
    device: str
    state: State
    at_ns: int
    value: str | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What is known of a command at one device."""

    device: str
    state: State
    value: str | None = None
    error: str = ""
    sent_ns: int | None = None
    ended_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """An order with its results, in the order of the selector; ``number``: its place among all orders of the hub."""

    order: Order
    results: list[Result] = field(default_factory=list)
    number: int = 0
