"""The devices behind one gateway's connection: each message to its own session, each answer with its number. Pure.

Owns: which device has which number on the connection. Place: after `session` and `children`; a shell uses it as it uses
one `DeviceSession`. Must not: decide who may speak (`Children.admit` does), know what a device says after its hello.

Behind a gateway a device is a device: its session has the journal, acks, commands and takeover of any other. What one
of them does wrong ends that one, by an enveloped ``bye``. A message that belongs to nobody is the gateway's own fault,
and ends the connection.
"""

import logging
from collections.abc import Callable, Collection
from typing import Protocol

from device_sdk import wire
from device_sdk.envelope import unwrap, wrap
from device_sdk.errors import ProtocolError, Reason
from device_sdk.wire import Close
from hub.child_book import MAX_QUOTA, RETRY_MS, Asked, Refusal
from hub.errors import UnavailableError
from hub.model import Frame
from hub.roles import Identity, Verb
from hub.session import DeviceSession
from hub.streams import Owner
from hub.validate import MalformedError, parse_message, unpacked

_log = logging.getLogger("hub.session")

# Sessions of one connection, about 4 KiB each: the most that can be accepted, one session each.
MAX_CHILDREN = MAX_QUOTA
# It could not be seen whether a device may speak: the file is being written, for a second at most.
RETRY_UNAVAILABLE_MS = 1_000


class Admission(Protocol):
    """Who decides over children (`hub.children.Children`)."""

    def admit(self, asked: Asked) -> Refusal | None:
        """Decide over a child that says hello."""

    def is_accepted(self, namespace: str, gateway: str, device: str) -> bool:
        """Say whether a child may go on speaking."""


class ChildSessions:
    """One gateway connection; feed `receive`, then take ``frames``, `take_output` and ``closing`` as of a session.

    Args:
        gateway: whose credential opened the connection.
        admission: decides over each device.
        begin: makes the session of a device in the gateway's namespace.

    The shell sets ``flush``: it writes `take_output` when something other than `receive` made output; and ``probe``, as
    of a `DeviceSession`: a gateway that answers is a sign of life of all behind it.
    """

    def __init__(self, gateway: Identity, admission: Admission, begin: Callable[[str], DeviceSession]) -> None:
        self.namespace, self.gateway = gateway.namespace, gateway.name
        self.frames: list[Frame] = []
        self.flush: Callable[[], None] = _nothing
        self.probe: Callable[[Callable[[], None]], None] = _never
        self.closing: tuple[int, str] | None = None
        self.displaced: list[Owner] = []
        # As often as the device needs it that needs it most.
        self.ping_s = wire.PING_S
        self._prefixes = gateway.patterns(Verb.WRITE)
        self._admission = admission
        self._begin_session = begin
        self._sessions: dict[int, DeviceSession] = {}
        self._numbers: dict[str, int] = {}
        self._output: list[bytes] = []

    @property
    def devices(self) -> Collection[str]:
        """The devices that have a session now."""
        return self._numbers.keys()

    def receive(self, data: bytes, is_text: bool, now_ns: int, *, can_accept: bool = True) -> None:
        """Take one complete message; see `DeviceSession.receive`."""
        if self.closing is not None:
            return
        try:
            number, message = unwrap(data)
        except ProtocolError as error:
            self._end(Close.BAD_MESSAGE, str(error))
            return
        session = self._sessions.get(number) or self._greet(number, message)
        if session is None:
            return
        session.receive(message, message[:1] == b"{", now_ns, can_accept=can_accept)
        self.ping_s = session.ping_s if len(self._sessions) == 1 else min(self.ping_s, session.ping_s)
        self.frames += session.frames
        session.frames = []
        self.displaced += session.displaced
        session.displaced = []
        self._collect(number, session)

    def take_output(self) -> list[bytes]:
        """Return and clear the text messages to send, in order."""
        output, self._output = self._output, []
        return output

    def recheck(self, enrolled: Collection[str] = (), missing: Collection[str] = ()) -> None:
        """End who may not speak any more; the shell flushes then.

        Args:
            enrolled: devices that have a credential of their own now.
            missing: devices that have none, which says nothing of a child.
        """
        for device, number in list(self._numbers.items()):
            if device in enrolled or not self._admission.is_accepted(self.namespace, self.gateway, device):
                refusal = self._refusal(device)
                if refusal is not None:
                    self._refuse(number, refusal)

    def closed(self, why: str = "") -> None:
        """The connection ended, and with it every session."""
        for session in self._sessions.values():
            session.closed(f"gateway: {why}")
        self._sessions.clear()
        self._numbers.clear()

    def _greet(self, number: int, data: bytes) -> DeviceSession | None:
        """Return a new session for a hello that is admitted; all else is told no."""
        try:
            hello = parse_message(unpacked(data), True)
        except MalformedError as error:
            hello = None
            why = str(error)
        else:
            why = f"device number {number} is not in use: say hello first"
        if isinstance(hello, wire.Bye):
            return None
        if not isinstance(hello, wire.Hello):
            self._say(number, wire.Bye(code=Close.BAD_MESSAGE, reason=Reason.BAD_MESSAGE, message=why))
            return None
        refusal = self._refusal(hello.device, is_metered=hello.link == "metered")
        older = self._numbers.get(hello.device)
        if refusal is None and older is None and len(self._sessions) >= MAX_CHILDREN:
            refusal = Refusal(Reason.CHILD_QUOTA, f"{MAX_CHILDREN} devices are on this connection", RETRY_MS)
        if refusal is not None:
            self._refuse(number, refusal)
            return None
        if older is not None:
            # The device has begun anew, and nobody has told: one session each, or numbers were memory.
            self._sessions[older].end(Close.TAKEN_OVER, "the device said hello again under another number")
            self._collect(older, self._sessions[older])
        return self._enter(number, hello.device)

    def _enter(self, number: int, device: str) -> DeviceSession:
        session = self._begin_session(device)
        session.flush = lambda: self._flush_of(number, session)
        session.probe = lambda answered: self.probe(answered)
        self._sessions[number] = session
        self._numbers[device] = number
        return session

    def _refusal(self, device: str, *, is_metered: bool = False) -> Refusal | None:
        try:
            return self._admission.admit(Asked(self.namespace, self.gateway, self._prefixes, device, is_metered))
        except UnavailableError as error:
            _log.warning("child not decided gateway=%s device=%s reason=%s", self.gateway, device[:64], error)
            return Refusal(Reason.STORE_BEHIND, "identities are being changed: try again", RETRY_UNAVAILABLE_MS)

    def _refuse(self, number: int, refusal: Refusal) -> None:
        _log.debug("refused gateway=%s number=%d reason=%s", self.gateway, number, refusal.reason)
        session = self._sessions.get(number)
        if session is not None:
            session.closed(refusal.reason)
            self._forget(number, session)
        self._say(number, wire.Bye(refusal.retry_ms, Close.FORBIDDEN, refusal.reason, refusal.message))

    def _flush_of(self, number: int, session: DeviceSession) -> None:
        self._collect(number, session)
        self.flush()

    def _collect(self, number: int, session: DeviceSession) -> None:
        """Take what a session says; forget one that has ended, and tell the device unless it said bye itself."""
        self._output += [wrap(number, message) for message in session.take_output()]
        if session.closing is None or self._sessions.get(number) is not session:
            return
        code, why = session.closing
        self._forget(number, session)
        if code != 1000:
            self._say(number, wire.Bye(code=code, reason=_WORDS.get(code, Reason.BAD_MESSAGE), message=why))

    def _forget(self, number: int, session: DeviceSession) -> None:
        del self._sessions[number]
        if self._numbers.get(session.device) == number:
            del self._numbers[session.device]

    def _say(self, number: int, message: wire.HubMessage) -> None:
        self._output.append(wrap(number, wire.encode(message)))

    def _end(self, code: int, reason: str) -> None:
        self.closing = (code, reason)
        self.closed(reason)


_WORDS = {
    Close.TAKEN_OVER: Reason.TAKEN_OVER,
    Close.FORBIDDEN: Reason.FORBIDDEN,
    Close.INTERNAL: Reason.STORE_BEHIND,
}


def _nothing() -> None:
    """The flush of a connection that no shell holds."""


def _never(answered: Callable[[], None]) -> None:
    """The probe of a connection that no shell holds: nobody answers."""
