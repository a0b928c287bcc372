"""What two connections of one device do to each other, and which of it is an alarm: words for the log of changes.

Owns: `Incident`. Place: before `session`, which notices them; `hub.app` has them counted in the log. Pure.

- ``takeover``: a connection continued a stream that another still held. It happens to every device whose line breaks.
- ``alarm`` ``cloned_key``: two connections of one device were alive at once, on two streams (`hub.session` says when
  that is sure): its key is in two places.
- ``alarm`` ``chain_conflict`` or ``seq_reuse``: two spools write one stream: a card was copied, or written back.
"""

from collections.abc import Callable
from dataclasses import dataclass

TAKEOVER = "takeover"
ALARM = "alarm"
CLONED_KEY = "cloned_key"


@dataclass(frozen=True, slots=True)
class Incident:
    """One of them; ``peers`` are the addresses of both connections, as far as the hub has seen both."""

    namespace: str
    device: str
    what: str
    outcome: str
    peers: str


Report = Callable[[Incident], None]


def both(*peers: str) -> str:
    """Return two addresses in one order, so that those who fight are one kind; what is not known is left out."""
    return " and ".join(sorted(peer for peer in peers if peer))
