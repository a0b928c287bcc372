"""The native conversation by MQTT: what comes on ``up`` to a device's session, what it says onto ``down``.

Owns: the sessions of one client, its own or those of the devices behind it; when PUBACK may leave. Place: after
`compact` and `clients`, before `client`. Pure. Must not: decide who may speak (`Admission` does), know packets.

PUBACK of a message leaves when everything that was accepted up to it is stored, or when ``down`` has said why it was
not taken (``slow``, ``out_of_order``, ``bye``): a device that speaks this conversation reads ``down``. So its PUBACK
means *stored* unless ``down`` has said otherwise, and a message that brings no frame has it at once.

A device may give each of its conversations a number (`device_sdk.envelope`): then it is answered under that number, and
what comes under an older one is over. Behind a broker this is what tells the answer to this hello from an older one's.
There a message may also come that belongs to no conversation known here, for the hub began anew, or one that the broker
delivers again, marked or, after it was killed and read an old file, not: a hello of that kind would look like a card
that was written back, so it is not taken; the device is asked to say another.
"""

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from functools import partial
from typing import NamedTuple

from device_sdk import wire
from device_sdk.envelope import unwrap, wrap
from device_sdk.errors import ProtocolError, Reason
from device_sdk.wire import Close
from hub.child_book import RETRY_MS, Asked, Refusal
from hub.child_sessions import MAX_CHILDREN, RETRY_UNAVAILABLE_MS
from hub.errors import UnavailableError
from hub.mqtt.clients import Parts
from hub.mqtt.compact import is_rows, read_rows
from hub.mqtt.handler import Code, Done
from hub.roles import Identity, Role, Verb
from hub.session import DeviceSession
from hub.streams import StreamState

_log = logging.getLogger("hub.mqtt")

# A commit takes milliseconds.
SETTLE_S = 0.05
# How a session ends that the device ended.
_BYE = 1000
_HELLO, _SAYS_BYE = b'{"op":"hello"', b'{"op":"bye"'
# Sessions of one connection to a broker, about 4 KiB each. Those that are not enrolled have a gateway's quota besides.
MAX_BEHIND_BROKER = 10_000
# Devices that were asked to say hello, and have not: of a window of frames each, one is answered.
MAX_ASKED = 10_000
# Conversations of a device whose numbers are remembered: those of a hello that may still wait somewhere.
NUMBERS = 16
# Old hellos come in one burst, when the hub or the broker is back; a card that was written back says the same for ever.
DOUBT_NS = 10 * 10**9


class Brokered:
    """What is known of the devices behind a broker, over all connections to it.

    Args:
        again_ms: when a device whose conversation is not known should say hello again.
    """

    def __init__(self, again_ms: Callable[[], int]) -> None:
        self.again_ms = again_ms
        self._numbers: OrderedDict[str, deque[int]] = OrderedDict()
        # Since when hellos of a device show less than is stored.
        self._doubted: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._numbers)

    def note(self, device: str, number: int) -> None:
        """A conversation of this number begins."""
        self._numbers.setdefault(device, deque(maxlen=NUMBERS)).append(number)
        self._numbers.move_to_end(device)
        if len(self._numbers) > MAX_ASKED:
            self._numbers.popitem(last=False)

    def has(self, device: str, number: int | None) -> bool:
        """Say whether one of this number has begun before."""
        return number in self._numbers.get(device, ())

    def is_doubtful(self, device: str, shows_less: bool, now_ns: int) -> bool:
        """Say whether a hello is to be asked for once more, before it counts as that of a card that was written back.

        A hub that began anew knows no number: an old hello, which the broker held and does not mark, shows less than
        is stored, as such a card's does. The device is asked, and one that is well says another.
        """
        if not shows_less:
            self._doubted.pop(device, None)
            return False
        since_ns = self._doubted.setdefault(device, now_ns)
        if len(self._doubted) > MAX_ASKED:
            self._doubted.popitem(last=False)
        return 0 <= now_ns - since_ns < DOUBT_NS


class _Waiting(NamedTuple):
    stream: StreamState
    seq: int
    done: Done


class _Link:
    """One device's session on this connection, and the messages whose PUBACK waits. ``number``: of the conversation."""

    __slots__ = ("number", "session", "waiting")

    def __init__(self, session: DeviceSession, number: int | None) -> None:
        self.session = session
        self.number = number
        self.waiting: deque[_Waiting] = deque()

    def settle(self) -> None:
        """Tell whose frames are stored, and whose were taken back or belong to a stream that was left."""
        while self.waiting:
            stream, seq, done = self.waiting[0]
            if stream.mark.stored >= seq:
                code = Code.SUCCESS
            elif stream.accepted < seq or stream is not self.session.stream:
                code = Code.QUOTA_EXCEEDED
            else:
                return
            self.waiting.popleft()
            done(code)


class Native:
    """The sessions of one client.

    Args:
        peer: address of the other end.
        say: publishes to a device's ``down``, where the client has subscribed to it: (device, message).
        end: ends the connection.
        brokered: None: the connection is the device's or gateway's own.

    Has what `hub.gateway.gateways` asks of a gateway's connection: ``namespace``, ``devices``, `recheck`, `flush`.
    """

    __slots__ = ("_asked", "_brokered", "_end", "_identity", "_is_gateway", "_links", "_parts", "_peer", "_say",
                 "namespace")  # fmt: skip

    def __init__(
        self,
        parts: Parts,
        identity: Identity,
        peer: str,
        say: Callable[[str, bytes], None],
        end: Callable[[Code, str], None],
        brokered: Brokered | None = None,
    ) -> None:
        self.namespace = identity.namespace
        self._parts = parts
        self._identity = identity
        self._is_gateway = identity.role is Role.GATEWAY
        self._peer = peer
        self._say = say
        self._end = end
        self._brokered = brokered
        self._links: dict[str, _Link] = {}
        self._asked: OrderedDict[str, int | None] = OrderedDict()

    @property
    def devices(self) -> Collection[str]:
        """The devices that have a session now."""
        return self._links.keys()

    def receive(self, device: str, data: bytes, now_ns: int, done: Done, *, is_again: bool = False) -> bool:
        """Take one message of ``up``; return whether the device has a running session now.

        Args:
            is_again: the sender has said before that it sent this.
        """
        number, data = _unwrapped(data)
        link = self._links.get(device)
        if self._is_over(device, link, number, data, now_ns, is_again=is_again):
            if not data.startswith(_SAYS_BYE) and (link is None or link.number != number):
                self._ask_again(device, number)
            done(Code.SUCCESS)
            return link is not None
        if link is not None and link.number != number:
            self._part(device, link, "the device began a new conversation")
            link = None
        if link is None:
            refusal = self._refusal(device)
            if refusal is not None:
                bye = wire.Bye(refusal.retry_ms, Close.FORBIDDEN, refusal.reason, refusal.message)
                self._note_asked(device, number)
                self._say_bye(device, number, bye)
                done(Code.NOT_AUTHORIZED)
                return False
            link = self._enter(device, number)
        session, can_take = link.session, self._parts.can_take()
        if is_rows(data):
            read = partial(read_rows, stream="" if session.stream is None else session.stream.mark.key.stream)
            session.receive_rows(read, data, now_ns, can_take)
        else:
            session.receive(data, _is_text(data), now_ns, can_accept=can_take)
        if session.frames:
            frames, session.frames = session.frames, []
            self._parts.submit(frames)
        stream = session.stream
        if stream is None or stream.accepted <= stream.mark.stored or session.closing is not None:
            self._flush(device, link)
            done(Code.SUCCESS)
        else:
            link.waiting.append(_Waiting(stream, stream.accepted, done))
            self._flush(device, link)
        while session.displaced:
            session.displaced.pop().flush()
        return device in self._links

    def flush(self) -> None:
        """Publish what sessions have to say."""
        for device, link in list(self._links.items()):
            self._flush(device, link)

    def recheck(self, enrolled: Collection[str] = (), missing: Collection[str] = ()) -> None:
        """End who may not speak any more; `flush` follows.

        Args:
            enrolled: devices that have a credential of their own now.
            missing: devices that have none, which says nothing of a child.
        """
        if not self._is_gateway:
            return
        for device, link in list(self._links.items()):
            gateway = self._identity.name
            if device in enrolled or not self._parts.admission.is_accepted(self.namespace, gateway, device):
                refusal = self._refusal(device)
                if refusal is not None:
                    link.session.end(Close.FORBIDDEN, refusal.message)

    def closed(self, why: str) -> None:
        """The connection ended, and with it every session; frames that were accepted are still stored."""
        links, self._links = self._links, {}
        for link in links.values():
            link.session.closed(why)
            self._settle_later(link)

    def left(self, device: str, why: str) -> None:
        """End the session of a device that is gone."""
        link = self._links.get(device)
        if link is not None:
            self._part(device, link, why)

    def farewell(self) -> None:
        """Tell all devices when to come back."""
        for device, link in self._links.items():
            self._say_bye(device, link.number, wire.Bye(0 if self._brokered is None else self._brokered.again_ms()))

    def ask_again(self, device: str) -> None:
        """Have a device that has no session here say hello, whatever its conversation."""
        if device not in self._links:
            self._asked.pop(device, None)
            self._ask_again(device, None)

    def _is_over(
        self, device: str, link: _Link | None, number: int | None, data: bytes, now_ns: int, *, is_again: bool
    ) -> bool:
        """Say whether a message is of a conversation that is not known here, or not any more."""
        is_hello = data.startswith(_HELLO)
        if link is not None and link.number == number:
            return is_hello and number is not None  # a number has one hello: this one came twice
        if not is_hello:
            return link is not None or self._brokered is not None
        if self._brokered is None or is_again or self._brokered.has(device, number):
            return self._brokered is not None
        session = self._parts.begin(self._peer, self.namespace, device)
        return self._brokered.is_doubtful(device, session.shows_less(data), now_ns)

    def _ask_again(self, device: str, number: int | None) -> None:
        """Answer what belongs to no conversation; of several messages of one, the first."""
        if self._brokered is None or (device in self._asked and self._asked[device] == number):
            return
        self._note_asked(device, number)
        bye = wire.Bye(
            self._brokered.again_ms(), reason=Reason.GOING_AWAY, message="the hub does not know this conversation"
        )
        self._say_bye(device, number, bye)

    def _note_asked(self, device: str, number: int | None) -> None:
        self._asked[device] = number
        if len(self._asked) > MAX_ASKED:
            self._asked.popitem(last=False)

    def _part(self, device: str, link: _Link, why: str) -> None:
        del self._links[device]
        link.session.closed(why)
        self._settle_later(link)

    def _enter(self, device: str, number: int | None) -> _Link:
        self._asked.pop(device, None)
        if self._brokered is not None and number is not None:
            self._brokered.note(device, number)
        link = self._links[device] = _Link(self._parts.begin(self._peer, self.namespace, device), number)
        link.session.flush = partial(self._flush, device, link)
        return link

    def _flush(self, device: str, link: _Link) -> None:
        session = link.session
        for message in session.take_output():
            self._say(device, message if link.number is None else wrap(link.number, message))
        link.settle()
        if session.closing is None or self._links.get(device) is not link:
            return
        code, why = session.closing
        del self._links[device]
        self._settle_later(link)
        if code == _BYE:
            return
        self._say_bye(
            device, link.number, wire.Bye(code=code, reason=_WORDS.get(code, Reason.BAD_MESSAGE), message=why)
        )
        if not self._is_gateway:
            self._end(_CODES.get(code, Code.PROTOCOL_ERROR), why)

    def _settle_later(self, link: _Link) -> None:
        """Look again and again at a session that ended: nobody else tells what becomes of its last frames."""
        link.settle()
        if link.waiting:
            self._parts.later(SETTLE_S, partial(self._settle_later, link))

    def _refusal(self, device: str) -> Refusal | None:
        """Return why a device behind a gateway may not speak; its own a device always may."""
        if not self._is_gateway:
            return None
        most = MAX_CHILDREN if self._brokered is None else MAX_BEHIND_BROKER
        if len(self._links) >= most and device not in self._links:
            return Refusal(Reason.CHILD_QUOTA, f"{most} devices are on this connection", RETRY_MS)
        asked = Asked(self.namespace, self._identity.name, self._identity.patterns(Verb.WRITE), device)
        try:
            return self._parts.admission.admit(asked)
        except UnavailableError as error:
            _log.warning("child not decided gateway=%s device=%s reason=%s", self._identity.name, device[:64], error)
            return Refusal(Reason.STORE_BEHIND, "identities are being changed: try again", RETRY_UNAVAILABLE_MS)

    def _say_bye(self, device: str, number: int | None, bye: wire.Bye) -> None:
        message = wire.encode(bye)
        self._say(device, message if number is None else wrap(number, message))


_WORDS = {
    Close.TAKEN_OVER: Reason.TAKEN_OVER,
    Close.FORBIDDEN: Reason.FORBIDDEN,
    Close.INTERNAL: Reason.STORE_BEHIND,
}
_CODES = {
    Close.TAKEN_OVER: Code.TAKEN_OVER,
    Close.FORBIDDEN: Code.NOT_AUTHORIZED,
    Close.INTERNAL: Code.UNSPECIFIED,
}


def _unwrapped(data: bytes) -> tuple[int | None, bytes]:
    """Return the number of the conversation, if there is one, and the message."""
    try:
        return unwrap(data)
    except ProtocolError:
        return None, data


def _is_text(data: bytes) -> bool:
    """Say whether it is a text message: as a WebSocket says by its opcode, and only of valid UTF-8."""
    if data[:1] != b"{":
        return False
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            return False
    return True
