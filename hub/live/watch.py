"""A watcher's conversation over one connection: messages in, subscriptions driven, positions told.

Owns: the ops of ``watch.v1``, the limits of a connection, the order in which
its subscriptions catch up (one page at a time, in turn). Place: after
`subscription`; `hub.gateway.watch_socket` is its shell. Pure.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol, assert_never

import orjson

from device_sdk.wire import PING_S, Close
from hub.errors import BadRequestError, ConflictError, ForbiddenError, HubError, NotFoundError
from hub.live import message as messages
from hub.live import outgoing
from hub.live.cursor import Start, resolve_since
from hub.live.figures import SubscriptionFigures
from hub.live.patterns import MAX_PATTERNS, PatternSet, split_granted
from hub.live.room import RoomKey
from hub.live.rooms import Live
from hub.live.subscription import Need, Phase, Subscription
from hub.roles import Identity, Verb

_log = logging.getLogger("hub.live")

# A page needs one per list or chart; each may hold one page of history at a time.
MAX_SUBS = 64
# A person clicks a few times a second; a new set of patterns costs one look at every series.
MESSAGES_BURST = 200
MESSAGES_PER_S = 20.0
# What may wait while hooks are asked: 64 subscriptions with 32 patterns of 200 characters each are less.
MAX_HELD_BYTES = 512 * 1024

ParseTime = Callable[[str, int], int]
# Told what is granted, or why nothing is.
Decided = Callable[[Sequence[str] | HubError], None]
# Given the patterns asked for: says later, once and never inside the call, what of the credential's is granted.
Decide = Callable[[Sequence[str], Decided], None]


class Link(Protocol):
    """The connection, as the conversation needs it."""

    kind: str
    """Equal for links whose `frame` gives equal bytes, and for no others: these share what is encoded."""

    @property
    def is_full(self) -> bool:
        """Whether so much is unsent that pages must wait."""

    def frame(self, payload: bytes) -> bytes:
        """Return the transport's bytes of one text message (equal for every link of the kind)."""

    def write(self, frame: bytes) -> None:
        """Send bytes made by `frame`."""

    def close(self, code: int, reason: str) -> None:
        """Begin closing."""

    def identify(self, token: str) -> Identity:
        """Go on as who the token speaks for; a `HubError` when it may not, and nothing has changed."""

    def wake(self) -> None:
        """Schedule calls of `WatchSession.step` (never inside this call)."""


class SocketOutlet:
    """One subscription's bytes on a connection: ``op`` and ``sub`` in front, then what is shared."""

    __slots__ = ("_link", "_name", "key", "write")

    def __init__(self, link: Link, name: str) -> None:
        self.key = f"{link.kind}/{name}"
        self.write = link.write
        self._link = link
        self._name = name.encode()

    def wrap(self, op: str, tail: bytes, cursor: str | None) -> bytes:
        """Return one framed message."""
        return self._link.frame(b'{"op":"%s","sub":"%s",%s' % (op.encode(), self._name, tail))

    @property
    def is_full(self) -> bool:
        """Whether the connection is full: all its subscriptions wait together."""
        return self._link.is_full


class WatchSession:
    """One watcher. Feed `receive`; call `step` until it answers False whenever `Link.wake` was called.

    Args:
        live: the live core.
        namespace, granted: from the credential; every series must match a granted pattern too.
        link: the connection.
        parse_time: (text, now_ns) → epoch ns, for ``since``.
        name: of the connection, for logs and `welcome`.
        decide: asked for each subscription (hooks); None: ``granted`` holds. Messages that come meanwhile wait.
        identity: whose credential it is, for `welcome`; None: not told.
    """

    __slots__ = (
        "_allowance", "_behind", "_decide", "_granted", "_granted_to", "_has_ended", "_heard_at", "_held",
        "_held_bytes", "_identity",
        "_is_deciding", "_link", "_live", "_name", "_namespace", "_parse_time", "_reading", "_subs",
    )  # fmt: skip

    def __init__(
        self,
        live: Live,
        namespace: str,
        granted: Sequence[str],
        link: Link,
        parse_time: ParseTime,
        name: str,
        *,
        decide: Decide | None = None,
        identity: Identity | None = None,
    ) -> None:
        self._live = live
        self._namespace = namespace
        self._granted = tuple(granted)
        self._link = link
        self._parse_time = parse_time
        self._name = name
        self._decide = decide
        self._identity = identity
        self._is_deciding = self._has_ended = False
        # At most as many as `_is_allowed` lets pass while hooks are asked.
        self._held: list[tuple[bytes, int]] = []
        self._held_bytes = 0
        self._granted_to: dict[str, Sequence[str]] = {}
        self._subs: dict[str, tuple[messages.Sub, Subscription]] = {}
        # Lists, of a few: an empty deque takes 760 bytes, of each watcher.
        self._behind: list[Subscription] = []
        self._allowance = float(MESSAGES_BURST)
        self._heard_at = 0.0
        self._reading: Subscription | None = None

    def receive(self, data: bytes, is_text: bool, now: float, now_ns: int) -> None:
        """Take one message received at monotonic ``now`` and wall time ``now_ns``; answers echo its ``id``."""
        if not is_text:
            self._link.close(Close.BAD_MESSAGE, "watch.v1 is JSON text")
            return
        if len(data) > messages.MAX_MESSAGE_BYTES:
            self._link.close(Close.TOO_LARGE, f"{len(data)} bytes; a message may have {messages.MAX_MESSAGE_BYTES}")
            return
        if not self._is_allowed(now):
            self._link.close(Close.RATE_LIMITED, f"more than {MESSAGES_PER_S:g} messages a second")
            return
        if self._is_deciding:
            self._hold(data, now_ns)
            return
        self._take(data, now_ns)

    def _hold(self, data: bytes, now_ns: int) -> None:
        if self._held_bytes + len(data) > MAX_HELD_BYTES:
            self._link.close(Close.RATE_LIMITED, f"more than {MAX_HELD_BYTES} bytes before a hook has answered")
            return
        self._held.append((data, now_ns))
        self._held_bytes += len(data)

    def _take(self, data: bytes, now_ns: int) -> None:
        try:
            parsed = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            self._link.close(Close.BAD_MESSAGE, f"not JSON: {error}")
            return
        try:
            self._dispatch(messages.check_message(parsed), now_ns)
        except HubError as error:
            self._say_error(parsed, error)

    def step(self) -> Need | bool:
        """Write at most one page of one subscription.

        True: call again soon. False: nothing to do until `Link.wake` or the connection has drained. A `Need`: read
        it, hand the answer to `reader`, call again.
        """
        reading = self._reading
        if reading is not None and reading.has_page and self._behind[0] is not reading:
            # Its page is written before another is read: a connection that stalls holds one, not one per subscription.
            self._behind.remove(reading)
            self._behind.insert(0, reading)
        while self._behind and not self._link.is_full:
            sub = self._behind[0]
            answer = sub.step()
            self._behind.pop(0)
            if sub.phase in (Phase.LIVE, Phase.ENDED):
                continue
            self._behind.append(sub)
            self._reading = sub
            return answer
        return False

    @property
    def reader(self) -> Subscription:
        """The subscription that asked for the last `Need`."""
        assert self._reading is not None, "step() answered with a Need before"
        return self._reading

    def tick(self) -> None:
        """Tell quiet subscriptions their position; called each ping interval."""
        for _, sub in self._subs.values():
            sub.tick()
        if self._behind:
            self._link.wake()

    def figures(self) -> list[SubscriptionFigures]:
        """Return how the subscriptions stand."""
        return [sub.figures() for _, sub in self._subs.values()]

    def end(self) -> None:
        """Leave every room: the connection is gone."""
        self._has_ended = True
        self._held.clear()
        for _, sub in self._subs.values():
            sub.end()
        self._subs.clear()
        self._behind.clear()

    # --- ops -----------------------------------------------------------------------------------------------

    def _dispatch(self, message: messages.ClientMessage, now_ns: int) -> None:
        match message:
            case messages.Hello():
                self._hello(message, now_ns)
            case messages.Sub():
                start = resolve_since(message.since, self._live.runs, self._live.head, now_ns, self._parse_time)
                self._ask_for(message, start)
            case messages.Unsub():
                self._end_sub(message.sub)
                self._say_ok(message)
            case messages.Set():
                self._set(message)
            case messages.Auth():
                self._auth(message, now_ns)
            case _:
                assert_never(message)

    def _hello(self, hello: messages.Hello, now_ns: int) -> None:
        welcome: outgoing.Welcome = {
            "id": hello.id, "op": "welcome", "conn": self._name, "namespace": self._namespace,
            "credential": None if self._identity is None else self._identity.id,
            "head": self._live.position(), "ttl": self._ttl_s(now_ns), "ping": PING_S,
            "limits": {
                "subs": MAX_SUBS, "patterns": MAX_PATTERNS, "max_hz": messages.MAX_HZ,
                "message_bytes": messages.MAX_MESSAGE_BYTES,
            },
        }  # fmt: skip
        self._say(welcome)

    def _ask_for(self, message: messages.Sub, start: Start) -> None:
        if self._decide is None:
            self._sub(message, start, self._granted)
            return

        def decided(granted: Sequence[str] | HubError) -> None:
            if self._has_ended:
                return
            self._is_deciding = False
            try:
                if isinstance(granted, HubError):
                    raise granted
                self._sub(message, start, granted)
            except HubError as error:
                self._say_error({"sub": message.sub, "id": message.id}, error)
            while self._held and not self._is_deciding:
                held, held_ns = self._held.pop(0)
                self._held_bytes -= len(held)
                self._take(held, held_ns)

        self._is_deciding = True
        self._decide(message.match, decided)

    def _sub(self, message: messages.Sub, start: Start, given: Sequence[str]) -> None:
        if message.sub in self._subs:
            raise ConflictError(f"subscription {message.sub!r} exists: unsub it first, or use another name")
        if len(self._subs) >= MAX_SUBS:
            raise BadRequestError(f"{MAX_SUBS} subscriptions on this connection: name several patterns in one")
        key, granted, denied = room_key(message, self._namespace, given)

        def opened(recovered: bool) -> None:
            ok: outgoing.SubOk = {
                "id": message.id, "op": "ok", "sub": message.sub, "granted": granted, "denied": denied,
                "from": sub.cursor(), "head": self._live.position(), "recovered": recovered,
            }  # fmt: skip
            self._say(ok)

        sub = self._begin(message, key, start, opened)
        # Behind what may fail: names that never were subscriptions must not add up.
        self._granted_to[message.sub] = given

    def _set(self, message: messages.Set) -> None:
        known = self._subs.get(message.sub)
        if known is None:
            raise NotFoundError(f"no subscription {message.sub!r} on this connection")
        old, sub = known
        if old.mode != "latest":
            raise BadRequestError(f"max_hz belongs to mode latest; this subscription is {old.mode}")
        if not sub.is_open or sub.phase not in (Phase.LIVE, Phase.BEHIND):
            raise ConflictError("still sending history: set max_hz after `live`")
        offset = sub.offset
        given = self._granted_to[message.sub]
        self._end_sub(message.sub)
        new = old.model_copy(update={"max_hz": message.max_hz})
        key, _, _ = room_key(new, self._namespace, given)
        self._granted_to[message.sub] = given
        self._begin(new, key, Start(offset), lambda _: None)
        self._say_ok(message)

    def _auth(self, message: messages.Auth, now_ns: int) -> None:
        if self._decide is not None:
            raise BadRequestError("hooks decide here what each connection sees: connect again with the new token")
        self._identity = self._link.identify(message.token)
        given = self._granted = self._identity.patterns(Verb.READ)
        told: dict[str, outgoing.Grant] = {}
        ended: list[str] = []
        for name, (asked, sub) in list(self._subs.items()):
            try:
                key, granted, denied = room_key(asked, self._namespace, given)
            except ForbiddenError:
                self._end_sub(name)
                ended.append(name)
                continue
            told[name] = {"granted": granted, "denied": denied}
            if key != sub.key:
                here = sub.here()
                self._end_sub(name)
                if not sub.is_open:
                    self._sub(asked, here, given)
                    continue
                self._begin(asked, key, here, lambda _: None)
            self._granted_to[name] = given
        ok: outgoing.AuthOk = {
            "id": message.id, "op": "ok", "ttl": self._ttl_s(now_ns), "subs": told, "ended": ended,
        }  # fmt: skip
        self._say(ok)

    def _begin(self, message: messages.Sub, key: RoomKey, start: Start, opened: Callable[[bool], None]) -> Subscription:
        outlet = SocketOutlet(self._link, message.sub)
        sub = Subscription(self._live, key, start, outlet, lambda: self._fell_behind(sub), opened)
        self._subs[message.sub] = (message, sub)
        self._behind.append(sub)
        self._link.wake()
        return sub

    def _end_sub(self, name: str) -> None:
        known = self._subs.pop(name, None)
        self._granted_to.pop(name, None)
        if known is None:
            raise NotFoundError(f"no subscription {name!r} on this connection")
        known[1].end()
        # While the connection is full nobody else takes it out, and it holds its room.
        with suppress(ValueError):
            self._behind.remove(known[1])

    # --- inside ----------------------------------------------------------------------------------------------

    def _ttl_s(self, now_ns: int) -> float | None:
        ends_ns = None if self._identity is None else self._identity.ends_ns
        return None if ends_ns is None else max(0.0, round((ends_ns - now_ns) / 1e9, 3))

    def _fell_behind(self, sub: Subscription) -> None:
        self._behind.append(sub)
        self._link.wake()

    def _is_allowed(self, now: float) -> bool:
        earned = max(now - self._heard_at, 0.0) * MESSAGES_PER_S
        self._heard_at = now
        self._allowance = min(self._allowance + earned, MESSAGES_BURST) - 1
        return self._allowance >= 0

    def _say(self, message: Mapping[str, object]) -> None:
        self._link.write(self._link.frame(orjson.dumps(message)))

    def _say_ok(self, message: messages.Unsub | messages.Set) -> None:
        ok: outgoing.Ok = {"id": message.id, "op": "ok", "sub": message.sub}
        self._say(ok)

    def _say_error(self, parsed: object, error: HubError) -> None:
        answer: dict[str, object] = {"op": "error", "reason": error.reason, "message": str(error)}
        for name in ("sub", "id"):
            echoed = parsed.get(name) if isinstance(parsed, dict) else None
            if isinstance(echoed, int) or (isinstance(echoed, str) and len(echoed) <= 64):
                answer = {name: echoed, **answer}
        _log.debug("< error conn=%s reason=%s", self._name, error.reason)
        self._say(answer)


def room_key(message: messages.Sub, namespace: str, granted: Sequence[str]) -> tuple[RoomKey, list[str], list[str]]:
    """Return the room of a subscription, and which of its patterns are granted and denied.

    Raises:
        BadRequestError: a pattern that cannot be read.
        ForbiddenError: nothing of it is granted.
    """
    try:
        yes, no = split_granted(message.match, granted)
        match, exclude = PatternSet(yes, message.exclude).key()
        allowed, _ = PatternSet(granted).key()
    except ValueError as error:
        raise BadRequestError(str(error)) from error
    if not yes:
        hint = (
            " (no * means $sys: its scope must name it)" if any(text.startswith("$") for text in message.match) else ""
        )
        raise ForbiddenError(f"this credential may see {', '.join(granted)[:100]}, nothing of what was asked for{hint}")
    rate = message.max_hz if message.mode == "latest" else None
    selector = None if message.selector is None else " ".join(sorted(set(message.selector.split())))
    key = RoomKey(namespace, match, exclude, allowed, rate, message.agg is not None, message.every or 1, selector)
    return key, yes, no
