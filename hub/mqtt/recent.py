"""Publications that a client sends again though the hub has them: told by identifier and bytes, for a short while.

Owns: of each client, over its connections, marks of what was acknowledged last, and what was not acknowledged yet when
its connection ended. Place: beside `hub.mqtt.conversation`, which asks. Pure: time is what `advance` said.

QoS 1 has no stable identifier. A client whose connection ends before it saw a PUBACK sends the publication again, with
DUP set and the same packet identifier. It is the same one only if the last publication of that identifier had the same
bytes, and not long ago: a sensor may well say the same value under the same identifier an hour later. What the hub's
process took before it started is not known here.
"""

from array import array
from collections import OrderedDict
from collections.abc import Callable

from hub.mqtt.handler import Code

# Clients have 20 publications (paho) or fewer on their way, and resend when they are back.
MARKS = 64
# Of one that has more on its way: a little more than MQTT 5 is allowed (`hub.mqtt.opening`).
MAX_MARKS = 1024
# Beyond `MARKS` of all clients, 16 bytes each; the client not asked for longest is forgotten first.
MAX_MORE = 512 * 1024
# Reconnecting takes a client seconds; the longest pause between two attempts is a minute or two (paho: 120 s).
WINDOW_S = 120.0
# 1.5 KiB each at most, but for what `MAX_MORE` allows.
MAX_CLIENTS = 10_000

_ID_BITS = 0xFFFF

# Told the code with which a publication was dealt with.
Told = Callable[[Code], None]


def mark_of(packet_id: bytes, topic: str, payload: bytes) -> int:
    """Return 64 bits: the identifier, and a keyed hash of the rest that no client can foresee."""
    return hash((topic, payload)) & 0xFFFF_FFFF_FFFF_0000 | packet_id[0] << 8 | packet_id[1]


class Memory:
    """What is remembered of one client. It may outlive its place in `Recent`."""

    __slots__ = ("_marks", "_next", "_recent", "_times", "_waiting", "is_kept", "width")

    def __init__(self, recent: "Recent") -> None:
        self.width = MARKS
        # Whether it has a place in `Recent`.
        self.is_kept = True
        self._recent = recent
        self._marks = array("Q")
        self._times = array("d")
        self._next = 0
        # Publications of connections that are gone, taken and not yet dealt with: what else is told of their end.
        self._waiting: dict[int, list[Told]] = {}

    def remember(self, mark: int, among: int = 1) -> None:
        """A publication was acknowledged, or would have been; ``among``: how many are on their way, with it."""
        among = max(among, len(self._waiting))
        if among > self.width:
            self._widen(among)
        if len(self._marks) < self.width:
            self._marks.append(mark)
            self._times.append(self._recent.now)
            return
        at = self._next
        self._marks[at] = mark
        self._times[at] = self._recent.now
        self._next = (at + 1) % self.width

    def has(self, mark: int) -> bool:
        """Say whether the last publication of this identifier was this one, and is not long ago."""
        wanted = mark & _ID_BITS
        # From the newest to the oldest.
        for number in range(len(self._marks)):
            at = self._next - 1 - number
            if self._marks[at] & _ID_BITS == wanted:
                return self._marks[at] == mark and self._recent.now - self._times[at] <= WINDOW_S
        return False

    def _widen(self, count: int) -> None:
        wider = min(MAX_MARKS, max(count, 2 * self.width))
        more, self.width = wider - self.width, wider
        # The oldest first, as in a ring that is not full.
        self._marks = self._marks[self._next :] + self._marks[: self._next]
        self._times = self._times[self._next :] + self._times[: self._next]
        self._next = 0
        if self.is_kept:
            self._recent.widened(more)

    def leave(self, mark: int) -> None:
        """A publication is still being stored while its connection ends."""
        self._waiting.setdefault(mark, [])

    def join(self, mark: int, told: Told) -> bool:
        """Return whether such a publication is being stored; then ``told`` is called when it has been."""
        waiting = self._waiting.get(mark)
        if waiting is None:
            return False
        waiting.append(told)
        return True

    def settle(self, mark: int, code: Code) -> None:
        """A publication that was left has been dealt with."""
        for told in self._waiting.pop(mark, ()):
            told(code)


class Recent:
    """The memories of all clients of an endpoint; ``now`` is the last time that any of their connections knew."""

    def __init__(self, max_clients: int = MAX_CLIENTS) -> None:
        self.now = 0.0
        self._max_clients = max_clients
        self._more = 0
        self._memories: OrderedDict[str, Memory] = OrderedDict()

    def __len__(self) -> int:
        return len(self._memories)

    def of(self, client: str) -> Memory:
        """Return what is remembered of a client; the one not asked for longest is forgotten for a new one."""
        memory = self._memories.get(client)
        if memory is None:
            memory = self._memories[client] = Memory(self)
            if len(self._memories) > self._max_clients:
                self._forget()
        else:
            self._memories.move_to_end(client)
        return memory

    def widened(self, more: int) -> None:
        """A memory has room for so many marks more."""
        self._more += more
        while self._more > MAX_MORE:
            self._forget()

    def _forget(self) -> None:
        _, memory = self._memories.popitem(last=False)
        memory.is_kept = False
        self._more -= memory.width - MARKS
