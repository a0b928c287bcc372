"""The decision over each device that comes behind a gateway, and what is known of those that came. In RAM alone.

Owns: gateways with their rules and children, what of them is noted and not in the file yet. Place: above
`device_names`, below `children`, which owns the file and the locks. Pure: the time is passed in.

A gateway has a name in its namespace. Its credential says which names of devices it may speak for; here is the rest: a
quota of accepted children, patterns of names that need nobody's word, and each child that ever came, *pending*,
*accepted* or *ignored*. A device that is enrolled by itself, or accepted behind one gateway, is nobody else's child.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from device_sdk.errors import MisuseError, Reason
from device_sdk.reading import check_device_name
from hub.device_names import is_among
from hub.roles import DEFAULT_NAMESPACE

# A radio coordinator holds about 200 devices with its routers; a building's gateway of more says so.
QUOTA = 200
# As many sessions as one connection carries without the others on the hub feeling it; more is another gateway's.
MAX_QUOTA = 1000
# A list that a person can read. Of more, the one not heard of for the longest is forgotten: a loop that invents names
# must not keep out the real one, and a child that is there comes again within seconds.
MAX_PENDING = 100
# When a refused child asks again. Pending: a person has just pressed a button, and looks; on a link that costs by the
# byte, five minutes. The others need a person who changes something.
RETRY_PENDING_MS = 5_000
RETRY_PENDING_METERED_MS = 300_000
RETRY_MS = 60_000
# When a child was last seen is for people: written no more often than this.
SEEN_EVERY_NS = 60 * 10**9


class ChildState(StrEnum):
    """What was decided over a child."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class Child:
    """A device behind a gateway; ``last_ns``: when it last said hello, to the minute."""

    gateway: str
    device: str
    state: ChildState
    first_ns: int
    last_ns: int
    namespace: str = DEFAULT_NAMESPACE

    @property
    def key(self) -> tuple[str, str, str]:
        """The child among all."""
        return (self.namespace, self.gateway, self.device)


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for all children of a gateway."""

    quota: int = QUOTA
    auto_accept: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a child may not speak, in a word and in words, and when it may ask again."""

    reason: Reason
    message: str
    retry_ms: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A child that says hello.

    Args:
        prefixes: patterns of names from the gateway's credential.
        is_metered: it says that its link costs by the byte, so it should not ask often.
    """

    namespace: str
    gateway: str
    prefixes: Sequence[str]
    device: str
    is_metered: bool = False

    def outside(self) -> Refusal | None:
        """Return the refusal of a name that the credential does not cover."""
        if _is_name(self.device) and is_among(self.device, self.prefixes):
            return None
        return Refusal(Reason.CHILD_PREFIX, f"this gateway speaks for {', '.join(self.prefixes)} alone", RETRY_MS)


@dataclass(slots=True)
class Gateway:
    """One gateway and its children."""

    rules: Rules = Rules()
    children: dict[str, Child] = field(default_factory=dict)
    # How many of them were accepted, and the pending ones, not heard of for the longest first.
    accepted: int = 0
    pending: dict[str, None] = field(default_factory=dict)


class ChildBook:
    """All gateways and children. One caller at a time.

    ``noted`` and ``forgotten`` are to be written; ``welcomed`` were accepted by pattern, and nobody was told.
    ``is_held``: a person's decision is on its way to the disk, so nobody else may use up the quota it was made by.
    """

    def __init__(self) -> None:
        self.gateways: dict[tuple[str, str], Gateway] = {}
        # (namespace, device) → the gateway behind which it is accepted.
        self.owners: dict[tuple[str, str], str] = {}
        self.noted: dict[tuple[str, str, str], Child] = {}
        self.forgotten: set[tuple[str, str, str]] = set()
        # What has a row or is about to: the rest needs none removed, or names invented while the disk is full pile up.
        self.kept: set[tuple[str, str, str]] = set()
        self.welcomed: list[Child] = []
        self.is_held = False

    def admit(self, asked: Asked, now_ns: int, *, is_enrolled: bool) -> Refusal | None:
        """Decide over a child, and note that it came; None: it may speak.

        Args:
            is_enrolled: the device has a credential of its own.
        """
        if (outside := asked.outside()) is not None:
            return outside
        gateway, device = asked.gateway, asked.device
        known = self.gateways.setdefault((asked.namespace, gateway), Gateway())
        child = known.children.get(device)
        if child is not None and child.state is ChildState.IGNORED:
            return Refusal(
                Reason.CHILD_IGNORED, f"{device} is ignored: hub children accept {gateway} {device}", RETRY_MS
            )
        owner = self.owners.get((asked.namespace, device), gateway)
        if is_enrolled or owner != gateway:
            whose = "has a token of its own" if is_enrolled else "is behind another gateway"
            return Refusal(Reason.CHILD_TAKEN, f"{device} {whose}: it is not taken over", RETRY_MS)
        if child is not None and child.state is ChildState.ACCEPTED:
            self._note(known, replace(child, last_ns=now_ns))
            return None
        return self._come(known, asked, now_ns)

    def is_accepted(self, namespace: str, gateway: str, device: str) -> bool:
        """Say whether a child may go on speaking."""
        known = self.gateways.get((namespace, gateway))
        child = None if known is None else known.children.get(device)
        return child is not None and child.state is ChildState.ACCEPTED

    def replace(self, rules: Iterable[tuple[str, str, Rules]], children: Iterable[Child]) -> None:
        """Take what the file holds, and on top of it what is noted and not written yet.

        Args:
            rules: (namespace, gateway, its rules).
            children: in the order in which they were last seen.
        """
        self.gateways = {(namespace, name): Gateway(of) for namespace, name, of in rules}
        self.owners, self.kept = {}, set()
        for child in children:
            self.kept.add(child.key)
            self._enter(self._gateway_of(child), child)
        if not self.is_held:
            # Of a write that failed: there is no row after all. While one goes on it may still be undone.
            self.forgotten &= self.kept
        for namespace, gateway, device in self.forgotten:
            known = self.gateways.get((namespace, gateway))
            if known is not None and device in known.pending:
                del known.children[device], known.pending[device]
        for child in self.noted.values():
            known = self._gateway_of(child)
            before = known.children.get(child.device)
            if before is None or before.state is ChildState.PENDING:
                self._enter(known, child)

    def writing(self) -> tuple[dict[tuple[str, str, str], Child], set[tuple[str, str, str]]]:
        """Return what is to be written now, ``noted`` and ``forgotten``; `written` is told when it is durable."""
        self.kept |= self.noted.keys()
        return dict(self.noted), set(self.forgotten)

    def written(self, noted: dict[tuple[str, str, str], Child], forgotten: set[tuple[str, str, str]]) -> None:
        """Forget notes that are durable; what was noted since stays."""
        self.noted = {key: child for key, child in self.noted.items() if noted.get(key) is not child}
        self.forgotten -= forgotten

    def _come(self, known: Gateway, asked: Asked, now_ns: int) -> Refusal | None:
        """Note a child over which nobody has decided: accept it by pattern, or let it wait."""
        gateway, device = asked.gateway, asked.device
        before = known.children.get(device)
        first_ns = now_ns if before is None else before.first_ns
        child = Child(gateway, device, ChildState.PENDING, first_ns, now_ns, asked.namespace)
        is_wanted, has_room = is_among(device, known.rules.auto_accept), known.accepted < known.rules.quota
        if is_wanted and has_room and not self.is_held:
            child = replace(child, state=ChildState.ACCEPTED)
            self._note(known, child)
            self.welcomed.append(child)
            return None
        if before is None and len(known.pending) >= MAX_PENDING:
            self._forget(known, next(iter(known.pending)))
        self._note(known, child)
        if is_wanted and not has_room:
            return Refusal(
                Reason.CHILD_QUOTA, f"gateway {gateway} has all of its {known.rules.quota} children", RETRY_MS
            )
        retry_ms = RETRY_PENDING_METERED_MS if asked.is_metered else RETRY_PENDING_MS
        return Refusal(Reason.CHILD_PENDING, f"{device} waits: hub children accept {gateway} {device}", retry_ms)

    def _note(self, known: Gateway, child: Child) -> None:
        before = known.children.get(child.device)
        is_same = before is not None and before.state is child.state
        if before is not None and is_same and child.last_ns - before.last_ns < SEEN_EVERY_NS:
            child = before
        self._enter(known, child)
        if child is not before:
            self.noted[child.key] = child
            self.forgotten.discard(child.key)

    def _forget(self, known: Gateway, device: str) -> None:
        child = known.children.pop(device)
        del known.pending[device]
        self.noted.pop(child.key, None)
        if child.key in self.kept:
            self.forgotten.add(child.key)

    def _enter(self, known: Gateway, child: Child) -> None:
        before = known.children.get(child.device)
        was_accepted = before is not None and before.state is ChildState.ACCEPTED
        known.accepted += (child.state is ChildState.ACCEPTED) - was_accepted
        known.children[child.device] = child
        # The newest last, also of those that were here.
        known.pending.pop(child.device, None)
        if child.state is ChildState.PENDING:
            known.pending[child.device] = None
        elif child.state is ChildState.ACCEPTED:
            self.owners[child.namespace, child.device] = child.gateway

    def _gateway_of(self, child: Child) -> Gateway:
        return self.gateways.setdefault((child.namespace, child.gateway), Gateway())


def _is_name(device: str) -> bool:
    try:
        check_device_name(device)
    except MisuseError:
        return False
    return True
