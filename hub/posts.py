"""What devices send by request: readings without numbers, and numbered frames; answered when they are durable.

Owns: what becomes of the parts of a request, and of one that is sent again. Place: above `foreign`, `numbered` and
`children`, below the gateway. Lives on the event loop. Must not: know HTTP, or any format.

Theory of operation. The readings of a request are cut into parts, by device and `PART_READINGS`, from nothing but the
bytes of the request. A request may name itself (an idempotency key). Then each part is remembered under that name in
the commit that stores it: sent again, before or after a kill of the hub, a part that is stored gives the same outcome
and nothing else, and one that is not is stored now. Without a name a request that is sent again is stored again, but
for readings with a time of their own, which a store has once.
"""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from typing import Protocol

from device_sdk.errors import Reason, explain
from device_sdk.reading import Channel
from device_sdk.wire import Rejection
from hub.child_book import Asked
from hub.children import Children
from hub.decode.base import Publication, Said
from hub.decode.rows import Part, Rows, parts_of
from hub.decode.scope import Scope
from hub.devices import Registry
from hub.errors import BadRequestError, ConflictError, HubError, JournalError, UnavailableError
from hub.foreign import Foreign, Receipt
from hub.hooks.ingest import Ingest
from hub.journal.base import Journal, PostedPart
from hub.model import Frame, Kind, Posted, StreamKey
from hub.numbered import Numbered, Taken
from hub.post_outcome import MAX_NAMED, Figures, Outcome, Refused
from hub.roles import Identity, Role, Verb
from hub.streams import Streams

# Requests that are under way, of all and of one sender; more are told to come again. What they hold is a block of
# readings each, 3 MB at most, and only until it is stored: what waits for the disk is bounded by the writer's queue.
MAX_ACTIVE, MAX_ACTIVE_OF_ONE = 256, 16
# Of a part, which is a frame: two milliseconds of the loop.
PART_READINGS = 500
# Whoever changes where a body is cut changes this: a request that was begun by an older hub is refused then, not stored
# a second time in other parts.
CUT = b"1"
MAX_KEY_CHARS = 255
# Parts of a request with a name, each a row that is kept for two days: half a million readings.
MAX_NAMED_PARTS = 1_000
# Senders whose names are remembered, 256 KiB each at most.
MAX_SCOPES = 64
_DIGEST_BYTES = 16


class KeyReusedError(BadRequestError):
    """An idempotency key that was used for another request: take another key."""

    status = 422
    reason = "key_reused"


class TooLargeToNameError(BadRequestError):
    """A request with an idempotency key that is larger than is remembered: send it in several, each with its own."""

    status = 413
    reason = "too_large_to_name"


class Posts:
    """Takes requests of devices and gateways.

    ``turn`` is held by whoever reads or gives readings, over pauses in which others are heard: of many large requests
    one is worked on at a time, or each would add its piece of work to what a device waits for between two of its own.

    Args:
        can_accept: False while the writer's queue is full, or the disk budget exceeded.
        clock: wall time in ns.
    """

    def __init__(
        self,
        foreign: Foreign,
        numbered: Numbered,
        children: Children,
        journal: Journal,
        can_accept: Callable[[], bool],
        clock: Callable[[], int],
    ) -> None:
        self.clock = clock
        self.foreign = foreign
        self.figures = Figures()
        self.turn = asyncio.Lock()
        self._numbered = numbered
        self._children = children
        self._journal = journal
        self._can_accept = can_accept
        self._waiting: set[asyncio.Future[None]] = set()
        self._busy: set[bytes] = set()
        self._active: Counter[tuple[str, str]] = Counter()
        self._failure: Exception | None = None
        self._scopes: OrderedDict[tuple[str, str], Scope] = OrderedDict()

    @contextmanager
    def request(self, sender: Identity, fallback: str = "", name: str | None = None) -> "Iterator[Request]":
        """Begin a request of readings without numbers.

        Args:
            fallback: the device of readings that name none; of a gateway alone, for a device is itself.
            name: what the sender calls the request, the same when it is sent again.

        Raises:
            UnavailableError: too many are under way.
            ConflictError: one of the same name is under way.
            BadRequestError: no name.
        """
        key = None if name is None else _key(sender, name)
        who = (sender.namespace, sender.name)
        if self._active.total() >= MAX_ACTIVE or self._active[who] >= MAX_ACTIVE_OF_ONE:
            raise UnavailableError("too many requests with readings are under way: send the same again")
        if key in self._busy:
            raise _under_way()
        self._active[who] += 1
        request = Request(self, sender, fallback, key)
        if key is not None:
            self._busy.add(key)
        try:
            yield request
            self.figures.ended(request.outcome.accepted, request.outcome.rejected)
        finally:
            self._active[who] -= 1
            if not self._active[who]:
                del self._active[who]
            if key is not None:
                request.when_done(lambda: self._busy.discard(key))

    async def take_numbered(
        self, sender: Identity, device: str, stream: str, bodies: Sequence[bytes], *,
        before: str | None = None, seen: str | None = None,
    ) -> Taken:  # fmt: skip
        """Store what is new of numbered frames; return when all of them are durable.

        Raises:
            ForbiddenError: the sender may not speak for the device. What else `Numbered.take` raises.
        """
        self._check_room()
        refused = self.refusal(sender, device)
        if refused is not None:
            raise refused
        future = self.future()
        key = StreamKey(sender.namespace, device, stream)
        taken = self._numbered.take(key, bodies, self.clock(), partial(told, future), before=before, seen=seen)
        future.add_done_callback(partial(self._count_frames, taken))
        await asyncio.wait([future])
        future.result()
        self.figures.ended(taken.accepted, taken.rejected)
        return taken

    def refusal(self, sender: Identity, device: str) -> "NotAllowedError | None":
        """Return why a sender may not speak for a device; a child that nobody has decided over waits for a person."""
        if sender.role is Role.DEVICE:
            return None if device == sender.name else NotAllowedError(
                f"this credential is for device {sender.name!r}, not {device[:64]!r}", Reason.FORBIDDEN, None
            )  # fmt: skip
        refusal = self._children.admit(Asked(sender.namespace, sender.name, sender.patterns(Verb.WRITE), device))
        if refusal is None:
            return None
        return NotAllowedError(refusal.message, refusal.reason, refusal.retry_ms / 1000)

    def scope(self, sender: Identity) -> Scope:
        """Return what is remembered of a sender's names."""
        key = (sender.namespace, sender.name)
        scope = self._scopes.get(key)
        if scope is None:
            scope = self._scopes[key] = Scope(sender.name if sender.role is Role.DEVICE else "")
            scope.names.know(partial(self.foreign.has, sender.namespace))
            if len(self._scopes) > MAX_SCOPES:
                self._scopes.popitem(last=False)
        self._scopes.move_to_end(key)
        return scope

    async def posted(self, key: bytes) -> dict[int, PostedPart]:
        """Return what is stored of a request by its key."""
        return await asyncio.to_thread(self._journal.posted, key)

    def give(self, namespace: str, said: Said, publication: Publication, receipt: Receipt) -> "asyncio.Future[None]":
        """Give one part; return what tells when it is durable.

        Raises:
            UnavailableError: there is no room now.
        """
        self._check_room()
        future = self.future()
        future.add_done_callback(partial(self._count_part, receipt))
        self.foreign.take(namespace, said, publication, partial(told, future), receipt)
        return future

    def future(self) -> "asyncio.Future[None]":
        """Return one that ends with the journal, if by nothing else."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        future.add_done_callback(self._ended)
        return future

    def failed(self, error: Exception) -> None:
        """Answer all: the journal takes nothing more."""
        self._failure = error
        for future in list(self._waiting):
            told(future, error)

    def _ended(self, future: "asyncio.Future[None]") -> None:
        self._waiting.discard(future)
        if not future.cancelled():
            future.exception()  # whoever asked may be gone

    def _count_part(self, receipt: Receipt, durable: "asyncio.Future[None]") -> None:
        if _is_stored(durable):
            self.figures.durable(receipt.accepted, receipt.rejected, bool(receipt.quarantined))

    def _count_frames(self, taken: Taken, durable: "asyncio.Future[None]") -> None:
        if _is_stored(durable):
            quarantined = sum(frame.kind is Kind.QUARANTINE for frame in taken.frames)
            self.figures.durable(taken.accepted, taken.rejected, quarantined)

    def _check_room(self) -> None:
        if self._failure is not None:
            raise JournalError("the journal has failed and takes nothing more: the hub starts again") from self._failure
        if not self._can_accept():
            raise UnavailableError("more waits for the hub's disk than it takes, or its disk budget is exceeded")


class Holder(Protocol):
    """What a hub has before it takes requests (`hub.app.Hub`)."""

    @property
    def streams(self) -> Streams: ...
    @property
    def registry(self) -> Registry: ...
    @property
    def children(self) -> Children: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def ingest(self) -> Ingest: ...
    def submit(self, frames: list[Frame]) -> None: ...
    def can_take(self) -> bool: ...


def make_posts(hub: Holder, soon: Callable[[Callable[[], None]], object]) -> Posts:
    """Return the posts of a hub, with ``foreign`` and all else that they stand on; ``soon``: as of `Foreign`."""
    has_hooks = hub.ingest.has_hooks
    submit = hub.ingest.take if has_hooks else hub.submit
    foreign = Foreign(hub.streams, hub.registry, submit, soon, has_hooks=has_hooks)
    numbered = Numbered(hub.streams, hub.registry, submit, has_hooks=has_hooks)
    return Posts(foreign, numbered, hub.children, hub.journal, hub.can_take, time.time_ns)


class NotAllowedError(HubError):
    """The credential may not speak for this device, or not yet."""

    status = 403
    reason = "forbidden"

    def __init__(self, message: str, reason: Reason, retry_s: float | None) -> None:
        super().__init__(message)
        self.reason = str(reason)
        self.retry_s = retry_s


class Request:
    """One request of readings without numbers; `take` its blocks in order, then read ``outcome``."""

    def __init__(self, posts: Posts, sender: Identity, fallback: str, key: bytes | None) -> None:
        self.outcome = Outcome()
        self.scope = posts.scope(sender)
        self.turn = posts.turn
        self._posts = posts
        self._sender = sender
        self._fallback = sender.name if sender.role is Role.DEVICE else fallback
        self._key = key
        self._known: dict[int, PostedPart] | None = None if key is not None else {}
        self._parts = 0
        self._is_known = False
        self._futures: list[asyncio.Future[None]] = []

    def now_ns(self) -> int:
        """Return the time at which what is read now has come."""
        return self._posts.clock()

    async def take(self, found: Rows, digest: bytes, block: Publication) -> None:
        """Store a block of the request; return when it is durable.

        May be cancelled; what was given by then is stored. A block must be cut by its bytes alone, not by when they
        came.

        Args:
            found: what was read of ``block``, which is what a quarantine would keep of it.
            digest: of all bytes of the request up to the end of this block.

        Raises:
            KeyReusedError: the request was another one when it came with this key before.
            TooLargeToNameError: it has more parts than are remembered of one; those before are stored.
            UnavailableError, DiskFullError, JournalError: the rest is not stored; send all of it again.
        """
        if self._known is None:
            assert self._key is not None, "without a key nothing is looked up"
            self._known = await self._posts.posted(self._key)
        for fault in found.faults:
            self._refuse(Refused(fault.at, "", "", fault.reason, fault.why))
        given: list[tuple[Part, Receipt]] = []
        self._futures = []
        try:
            async with self.turn:
                for part in _cut(parts_of(found, self._fallback)):
                    receipt = self._give(part, digest, block)
                    if receipt is not None:
                        given.append((part, receipt))
                    await asyncio.sleep(0)
        finally:
            # Not `gather`, which would cancel them with this: they are on their way, and the key is busy until then.
            if self._futures:
                await asyncio.wait(self._futures)
        for future in self._futures:
            future.result()
        for part, receipt in given:
            self._count(part, receipt)

    def when_done(self, call: Callable[[], object]) -> None:
        """Call it when nothing of the request is on its way any more."""
        left = [future for future in self._futures if not future.done()]
        if not left:
            call()
            return
        count = len(left)

        def ended(_: object) -> None:
            nonlocal count
            count -= 1
            if not count:
                call()

        for future in left:
            future.add_done_callback(ended)

    def _give(self, part: Part, digest: bytes, block: Publication) -> Receipt | None:
        """Give one part to the journal, unless it is stored already or may not be."""
        number, self._parts = self._parts, self._parts + 1
        if self._key is not None and number >= MAX_NAMED_PARTS:
            raise TooLargeToNameError(f"more than {MAX_NAMED_PARTS} parts of {PART_READINGS} readings with one name")
        device = part.said.device
        known = (self._known or {}).get(number)
        if known is not None:
            if known.body != digest:
                raise KeyReusedError("this Idempotency-Key came before with another body: take a new key for each")
            receipt = Receipt()
            receipt.accepted, receipt.rejected, receipt.named = known.accepted, known.rejected, known.named
            self._posts.figures.known += not self._is_known
            self._is_known = True
            return receipt
        if not device:
            self._refuse(*_all_of(part, Reason.UNKNOWN_DEVICE, "it names no device: add ?device=NAME"))
            return None
        refusal = self._posts.refusal(self._sender, device)
        if refusal is not None:
            self._refuse(*_all_of(part, refusal.reason, str(refusal)))
            if refusal.retry_s is not None:
                self.outcome.retry_s = max(self.outcome.retry_s or 0.0, refusal.retry_s)
            return None
        posted = None if self._key is None else Posted(self._key, number, digest)
        receipt = Receipt(posted)
        said = part.said._replace(channels=self._with_labels(part.said))
        self._futures.append(self._posts.give(self._sender.namespace, said, block, receipt))
        return receipt

    def _with_labels(self, said: Said) -> tuple[Channel, ...]:
        """Return what was learnt of channels, and of those with a name made fit what they are called."""
        told = {channel.name for channel in said.channels}
        names = dict.fromkeys(reading.channel for reading in said.readings if reading.channel not in told)
        # The scope knows a name by the device that it was made for: the sender itself, or the one that was named.
        label_of = partial(self.scope.names.label, self.scope.device or said.device)
        further = [Channel(name, label=label) for name in names if (label := label_of(name)) is not None]
        return (*said.channels, *further)

    def _count(self, part: Part, receipt: Receipt) -> None:
        outcome, device = self.outcome, part.said.device
        outcome.accepted += receipt.accepted
        if receipt.quarantined:
            outcome.refuse(*_all_of(part, Reason.MALFORMED, f"in quarantine: {receipt.quarantined}"))
            return
        outcome.rejected += receipt.rejected
        for rejection, at in zip(receipt.named, _places(part, receipt.named), strict=True):
            if len(outcome.named) == MAX_NAMED:
                break
            reason = str(rejection.reason)
            outcome.named.append(Refused(at, device, rejection.channel, reason, explain(reason)))

    def _refuse(self, refused: Refused, count: int = 1) -> None:
        """Refuse what the journal is not given; of what it is given it says itself what it refused."""
        self.outcome.refuse(refused, count)
        self._posts.figures.rejected += count


def told(future: "asyncio.Future[None]", error: Exception | None) -> None:
    """End a future by what is told of it."""
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _is_stored(durable: "asyncio.Future[None]") -> bool:
    return not durable.cancelled() and durable.exception() is None


def digest_of(*parts: bytes) -> "blake2b":
    """Return the digest that a request's blocks are known by, begun with what decides how its body is read."""
    digest = blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(4, "little") + part)
    return digest


def _key(sender: Identity, name: str) -> bytes:
    if not 0 < len(name) <= MAX_KEY_CHARS:
        raise BadRequestError(f"an Idempotency-Key has 1 to {MAX_KEY_CHARS} characters")
    told = (sender.namespace, sender.role.value, sender.name, name)
    return digest_of(*(text.encode("utf-8", "surrogatepass") for text in told)).digest()


def _under_way() -> ConflictError:
    error = ConflictError("a request with this Idempotency-Key is under way: ask again for its outcome")
    error.retry_s = 1.0
    return error


def _cut(parts: Sequence[Part]) -> Iterator[Part]:
    for said, at in parts:
        for begin in range(0, len(said.readings), PART_READINGS):
            end = begin + PART_READINGS
            yield Part(said._replace(readings=said.readings[begin:end]), at[begin:end])


def _all_of(part: Part, reason: str, why: str) -> tuple[Refused, int]:
    return Refused(part.at[0], part.said.device, "", str(reason), why), len(part.said.readings)


def _places(part: Part, named: Sequence[Rejection]) -> list[int]:
    """Return where in the request each of these readings stands; they are told by their place in their channel."""
    if not named:
        return []
    by_channel: dict[str, list[int]] = {}
    for reading, at in zip(part.said.readings, part.at, strict=True):
        by_channel.setdefault(reading.channel, []).append(at)
    return [by_channel[rejection.channel][rejection.index] for rejection in named]
