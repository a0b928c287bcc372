"""What became of requests with readings: of one, and of all since the start.

Owns: which reading or line was refused and why, the figures of HTTP ingest. Place: before `posts`, which fills both;
the gateway tells of each request what it read, and why it failed. Pure.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple, Protocol

from hub.errors import HubError

# Readings that a request names as refused; all are counted.
MAX_NAMED = 100
# What becomes of a request that was read to its end: everything is stored, a part, nothing.
STORED, IN_PART, REFUSED = "stored", "in_part", "refused"


class Refused(NamedTuple):
    """A reading, or a line or record of a request, that is not stored; ``at`` counts lines or records from 1."""

    at: int
    device: str
    channel: str
    reason: str
    why: str


@dataclass(slots=True)
class Outcome:
    """What became of a request so far; ``retry_s``: when it is worth sending again, though nothing was changed."""

    accepted: int = 0
    rejected: int = 0
    named: list[Refused] = field(default_factory=list)
    retry_s: float | None = None

    def in_order(self) -> list[Refused]:
        """Return what is named in the order of the request."""
        return sorted(self.named, key=itemgetter(0))

    def refuse(self, refused: Refused, count: int = 1) -> None:
        """Count readings that are not stored, and name the first of them."""
        self.rejected += count
        if len(self.named) < MAX_NAMED:
            self.named.append(refused)


class Received(Protocol):
    """The body of a request."""

    @property
    def received(self) -> int:
        """Return how many bytes of it have arrived, packed as they were."""


@dataclass(slots=True)
class Figures:
    """Counted since the start.

    ``requests``: by `STORED`, `IN_PART`, `REFUSED`, else by the reason of the error. ``accepted``, ``rejected``:
    readings, when they are durable or refused, whoever still waits for the answer. ``quarantined``: frames. ``known``:
    requests with parts that were stored before, under the same Idempotency-Key. ``bytes``: of bodies, as they came.
    """

    requests: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    rejected: int = 0
    quarantined: int = 0
    known: int = 0
    bytes: int = 0

    @contextmanager
    def request(self, body: Received) -> Iterator[None]:
        """Count what was read of a request, and the error by which it failed; `ended` counts all others."""
        try:
            yield
        except Exception as error:
            self.failed(error)
            raise
        finally:
            self.bytes += body.received

    def failed(self, error: Exception) -> None:
        """Count a request that is answered by an error."""
        self.requests[str(error.reason if isinstance(error, HubError) else HubError.reason)] += 1

    def ended(self, accepted: int, rejected: int) -> None:
        """Count a request that was read to its end, by what its answer says of its readings."""
        self.requests[(IN_PART if accepted else REFUSED) if rejected else STORED] += 1

    def durable(self, accepted: int, rejected: int, quarantined: int) -> None:
        """Count what has just become durable."""
        self.accepted += accepted
        self.rejected += rejected
        self.quarantined += quarantined
