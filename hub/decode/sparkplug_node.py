"""What the hub knows of one edge node of Sparkplug: its metrics, its place in the sequence, whether births are due.

Owns: the table of aliases and names, holes in the sequence, when a rebirth is asked for. Place: after
`sparkplug_payload`, before `sparkplug`. Pure: the time is passed in.

Theory of operation. Every message of a node has a number, 0 to 255 and over again. A number that was passed over may
still come; after `REORDER_NS` it is taken as lost, and with it may be a birth, so that aliases mean something else by
now: new births are wanted. They are wanted too when data comes before any birth, or does not fit it. As long as they
are wanted each message of the node may be the occasion to ask for them, but never sooner after the last request than
`ASK_AGAIN_NS`, and ever more rarely while no birth follows: a node that cannot answer is not flooded.
"""

from typing import NamedTuple

# How long a message may be on its way beside the next one; hosts take 2 to 5 s.
REORDER_NS = 5 * 10**9
# Births of a large node are a second of work for it.
ASK_AGAIN_NS = 10 * 10**9
ASK_SELDOM_NS = 600 * 10**9
_NUMBERS = 256


class Known(NamedTuple):
    """What a birth said of a metric. ``channel`` is empty when it is no reading: a control, a data set."""

    device: str
    channel: str
    datatype: int


class Node:
    """One edge node, from its first message on.

    Args:
        max_metrics: of it and its devices; further ones are not remembered.
    """

    __slots__ = (
        "_asked_ns", "_by_alias", "_by_name", "_last", "_max_metrics", "_missing", "_missing_ns", "_wait_ns", "_wants",
        "bd_seq", "is_born",
    )  # fmt: skip

    def __init__(self, max_metrics: int) -> None:
        self.is_born = False
        self.bd_seq: int | None = None
        self._max_metrics = max_metrics
        self._by_alias: dict[int, Known] = {}
        self._by_name: dict[tuple[str, str], Known] = {}
        self._last: int | None = None
        self._missing: set[int] = set()
        self._missing_ns = 0
        self._wants = False
        self._asked_ns: int | None = None
        self._wait_ns = ASK_AGAIN_NS

    def __len__(self) -> int:
        """Return how many metrics are remembered."""
        # A name may come with many aliases, an alias with many names: neither may grow behind the other's back.
        return max(len(self._by_name), len(self._by_alias))

    def begin(self, seq: int | None, bd_seq: int | None) -> None:
        """Take the node's birth: all known of it before is over."""
        self.end()
        self.is_born = True
        self.bd_seq = bd_seq
        self.saw(seq, 0)
        self._wants = False
        self._wait_ns = ASK_AGAIN_NS

    def end(self) -> None:
        """Take the node's death: nothing of it has a meaning until the next birth."""
        self.is_born = False
        self.bd_seq = None
        self._by_alias.clear()
        self._by_name.clear()
        self._last = None
        self._missing.clear()

    def forget(self, device: str) -> None:
        """Take a device's death, or what comes before its next birth."""
        for key in [key for key in self._by_name if key[0] == device]:
            del self._by_name[key]
        for alias in [alias for alias, known in self._by_alias.items() if known.device == device]:
            del self._by_alias[alias]

    def learn(self, name: str, alias: int | None, known: Known) -> None:
        """Remember a metric of a birth."""
        if len(self) >= self._max_metrics:
            return
        self._by_name[known.device, name] = known
        if alias is not None:
            self._by_alias[alias] = known

    def find(self, device: str, name: str, alias: int | None) -> Known | None:
        """Return what is known of a metric; an alias of another device is none of this one's."""
        known = self._by_name.get((device, name)) if name else self._by_alias.get(-1 if alias is None else alias)
        return known if known is not None and known.device == device else None

    def saw(self, seq: int | None, now_ns: int) -> None:
        """Take the number of a message other than the node's birth and death."""
        if seq is None or not 0 <= seq < _NUMBERS:
            return
        if seq in self._missing:
            self._missing.discard(seq)
        elif self._last is None or seq == self._last:
            # The first, or the same message once more.
            self._last = seq
        else:
            passed = [number % _NUMBERS for number in range(self._last + 1, self._last + (seq - self._last) % _NUMBERS)]
            if passed and not self._missing:
                self._missing_ns = now_ns
            self._missing.update(passed)
            self._last = seq

    def want_births(self) -> None:
        """Note that something came that only a new birth can explain."""
        self._wants = True

    def is_due(self, now_ns: int) -> bool:
        """Say whether births are to be asked for now; whoever asks calls `asked`."""
        if self._missing and not 0 <= now_ns - self._missing_ns < REORDER_NS:
            self._wants = True
            self._missing.clear()
        if not self._wants:
            return False
        # A clock that was set back must not silence the hub.
        return self._asked_ns is None or not 0 <= now_ns - self._asked_ns < self._wait_ns

    def asked(self, now_ns: int) -> None:
        """Note that births were asked for."""
        if self._asked_ns is not None:
            self._wait_ns = min(2 * self._wait_ns, ASK_SELDOM_NS)
        self._asked_ns = now_ns
