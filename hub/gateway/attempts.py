"""How often somebody may try a secret: per address and in total, in bounded memory. Pure.

Owns: the counts. Place: below `access`; what checks a secret of strangers asks here first. Must not: know what is
tried.

What succeeds costs nothing, so a fleet behind one address is not slowed down; what fails is counted for its address.
All attempts together have a limit as well, which bounds the work that a flood of addresses can make. Of that limit an
attempt that succeeded is given back: such work is bounded by the secrets that there are.
"""

import ipaddress
from dataclasses import dataclass

# A person mistypes a few times; a guesser of 128 bits gains nothing in any case.
FAILURES, FAILURE_EVERY_S = 10.0, 6.0
# So many under way, then so many a second that gave nothing. Each is a look into a file, and an fsync where it
# succeeds: well below what a Raspberry Pi can do.
ATTEMPTS, ATTEMPTS_PER_S = 500.0, 100.0
# About 2 MB; the one that failed longest ago is forgotten first, which the limit in total makes harmless.
MAX_ADDRESSES = 10_000


@dataclass(slots=True)
class _Budget:
    """What is left of a burst, and when that was so."""

    left: float
    at_s: float

    def refill(self, now: float, per_s: float, burst: float) -> None:
        self.left = min(burst, self.left + max(now - self.at_s, 0.0) * per_s)
        self.at_s = now


class Attempts:
    """Counts attempts; times are monotonic seconds. Not safe from several threads: it belongs to the event loop."""

    def __init__(self) -> None:
        self._total = _Budget(ATTEMPTS, 0.0)
        self._addresses: dict[str, _Budget] = {}

    def __len__(self) -> int:
        return len(self._addresses)

    def begin(self, address: str, now: float) -> float:
        """Count an attempt; return 0.0 when it may be made, else the seconds to wait.

        Call `failed` when it failed, `succeeded` when it did. Many may be under way at once, as when a fleet is
        switched on: each is charged when it has failed.
        """
        budget = self._addresses.get(_key(address))
        if budget is not None:
            budget.refill(now, 1 / FAILURE_EVERY_S, FAILURES)
            if budget.left < 1:
                return (1 - budget.left) * FAILURE_EVERY_S
        self._total.refill(now, ATTEMPTS_PER_S, ATTEMPTS)
        if self._total.left < 1:
            return (1 - self._total.left) / ATTEMPTS_PER_S
        self._total.left -= 1
        return 0.0

    def succeeded(self) -> None:
        """Give an attempt back that used a secret up, or a part of its quota."""
        self._total.left = min(self._total.left + 1, ATTEMPTS)

    def failed(self, address: str, now: float) -> None:
        """Charge a failure to its address."""
        key = _key(address)
        budget = self._addresses.pop(key, None) or _Budget(FAILURES, now)
        self._addresses[key] = budget
        if len(self._addresses) > MAX_ADDRESSES:
            del self._addresses[next(iter(self._addresses))]
        budget.refill(now, 1 / FAILURE_EVERY_S, FAILURES)
        # Those that were under way together are paid for as well, up to one more burst.
        budget.left = max(budget.left - 1, -FAILURES)


def _key(address: str) -> str:
    """Return what one subscriber has: an IPv4 address, or the half of an IPv6 address that is the network's."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found.packed, 64), strict=False))
