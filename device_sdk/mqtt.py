"""Connections by MQTT 5: to a hub's own endpoint, or to a broker that a hub listens to.

Owns: the topics of a device, which conversation a message belongs to, how much is under way, birth and will. Place:
behind `transport`, used by `courier`. The only importer of ``aiomqtt`` in the SDK, and imported when a URL asks for it.
Must not: know what the messages mean, but for ``welcome`` and ``bye``.

Theory of operation. With a broker in between, the connection is not the conversation. What the hub says may be late,
come twice, or answer what an earlier connection of this device said: a welcome or an ack that is out of date looks like
a hub that was rolled back, and would cost a new stream. So each connection has a number of its own, as a device behind
a gateway has (`envelope`): whatever it says goes under that number, the hub answers under it, and what comes under
another one is not heard. The broker keeps no session for the device, so nothing is delivered that was said while it was
away; and what the device says expires at the broker as soon as the device has given up waiting for the answer, so that
a hub which comes back does not take an old hello for a new one.

PUBACK means that the broker has a message, not that the hub has: only the hub's ``ack`` deletes anything. When the hub
behind a broker goes away nobody hangs up; the session notices, for its answer is overdue, and begins anew. A hub that
starts says ``bye`` without a number to every device whose birth the broker has kept. A birth is said once the hub has
answered: what the broker keeps does not expire, and births of each attempt would fill the queue of a hub that is away.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

import aiomqtt
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from device_sdk.envelope import MAX_ENVELOPE_BYTES, MAX_NUMBER, unwrap, wrap
from device_sdk.errors import AuthenticationError, ConnectionLostError, ProtocolError
from device_sdk.frozen import Frozen
from device_sdk.session import ACK_TIMEOUT_S, WELCOME_TIMEOUT_S
from device_sdk.transport import Access, LinkError, Receiver
from device_sdk.trust import ResumingContext, Trust
from device_sdk.wire import MAX_FRAME_BYTES, Bye, Close, decode_hub_message, encode

# TCP, TLS, CONNECT and SUBSCRIBE together: as much as an upgrade gets on a bad mobile link.
OPEN_TIMEOUT_S = 15.0
# How long a broker may take for our last words before the socket is dropped.
CLOSE_TIMEOUT_S = 2.0
# Without PUBACK, and how many bytes that is: the library keeps as many as it is given. A window of frames and what is
# said beside them is 40; a frame more than this may follow, because it is asked before, not after.
MAX_UNACKED = 64
MAX_UNACKED_BYTES = 2 * MAX_FRAME_BYTES

# Of those, on the wire: the library heeds no broker that takes fewer, and the strictest in use takes 10.
MAX_INFLIGHT = 8
# Between the loss of a line and its reason, when the broker gave one: two turns of the loop.
_REFUSAL_S = 0.05

_BYE = b'{"op":"bye"'
_WELCOME = b'{"op":"welcome"'
# Reason codes of MQTT 5, section 2.4.
_CREDENTIAL_CODES = frozenset({0x85, 0x86, 0x87, 0x8A, 0x8C})
_UNSUPPORTED_VERSION, _TAKEN_OVER, _NOT_AUTHORIZED, _FAILED = 0x84, 0x8E, 0x87, 0x80


class MqttTarget(Frozen):
    """Where a device speaks: the broker, and the topics under ``prefix``. ``keep_alive_s``: of a quiet line."""

    host: str
    port: int
    prefix: str
    is_secure: bool
    device: str
    keep_alive_s: int

    @property
    def name(self) -> str:
        """The broker, for people."""
        return f"broker {self.host}:{self.port}"

    def topic(self, tail: str) -> str:
        """Return one of the device's topics: ``up``, ``down`` or ``state``."""
        return f"{self.prefix}/{self.device}/{tail}"


class MqttConnector:
    """Makes connections for one device; ``boot`` says the boot id for its birth and will."""

    def __init__(self, target: MqttTarget, access: Access, boot: Callable[[], str]) -> None:
        self._target = target
        self._address = access.connect_to or (target.host, target.port)
        self._token = access.token
        self._boot = boot
        self._trust = Trust(access.ca, access.fingerprint, access.certificate, access.clock, _PinnedContext)
        # Each connection has the next one; not from 1, where a process before this one began too.
        self._number = secrets.randbelow(MAX_NUMBER)

    async def connect(self, receiver: Receiver) -> MqttConnection:
        """Return an open connection; see `transport.Connector`."""
        target = self._target
        self._number = self._number % MAX_NUMBER + 1
        tls = self._tls() if target.is_secure else None
        connection = MqttConnection(receiver, target, self._number, self._boot())
        connection.prepare(self._address, self._token, tls)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await connection.open()
        except TimeoutError as error:
            raise ConnectionLostError(f"{target.name} did not answer within {OPEN_TIMEOUT_S:g} s") from error
        except aiomqtt.MqttError as error:
            raise self._refusal(error) from error
        except RuntimeError as error:
            # The interpreter is going down and starts no more threads.
            raise ConnectionLostError(f"{target.name} cannot be reached: {error}") from error
        if tls is not None:
            connection.remember(self._trust)
        return connection

    def _tls(self) -> ResumingContext:
        tls = cast("_PinnedContext", self._trust.context())
        tls.host = self._target.host
        tls.check = lambda sock: self._trust.check(self._target.host, sock)
        return tls

    def _refusal(self, error: aiomqtt.MqttError) -> LinkError:
        """Return why no connection was made; the library hides what the system said behind its own error."""
        name, cause = self._target.name, error.__context__
        if isinstance(cause, ssl.SSLCertVerificationError):
            return self._trust.refusal(name, cause)
        if not isinstance(error, aiomqtt.MqttCodeError) or not isinstance(error.rc, ReasonCode):
            return ConnectionLostError(f"{name} cannot be reached: {cause or error}")
        code = error.rc.value
        if code in _CREDENTIAL_CODES:
            return AuthenticationError(
                f"{name} refused device {self._target.device}: {error.rc}; "
                "the user name is the device's, the password its token"
            )
        if code == _UNSUPPORTED_VERSION:
            return ConnectionLostError(f"{name} does not speak MQTT 5")
        return ConnectionLostError(f"{name} refused the connection: {error.rc}", code=code)


class MqttConnection:
    """One connection, used once: made by `MqttConnector.connect`. ``number``: of its conversation."""

    def __init__(self, receiver: Receiver, target: MqttTarget, number: int, boot: str) -> None:
        self.number = number
        self._opened_for = receiver
        # Present while the connection may be used.
        self._receiver: Receiver | None = None
        self._target = target
        self._boot = boot
        self._loop = asyncio.get_running_loop()
        self._client: aiomqtt.Client | None = None
        self._watching: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._unacked_bytes = 0
        self._was_full = False
        self._has_said_hello = self._is_welcomed = False
        # Why the line is no more, when we did not end it.
        self._gone: asyncio.Future[LinkError] = self._loop.create_future()
        # A hello serves nobody once its device says the next one; a frame is sent again after its ack is overdue.
        self._hello_expiry = _properties(PacketTypes.PUBLISH, MessageExpiryInterval=math.ceil(WELCOME_TIMEOUT_S))
        self._expiry = _properties(PacketTypes.PUBLISH, MessageExpiryInterval=math.ceil(ACK_TIMEOUT_S))

    @property
    def is_writable(self) -> bool:
        """False while too much has no PUBACK."""
        return len(self._sending) < MAX_UNACKED and self._unacked_bytes < MAX_UNACKED_BYTES

    # --- opening -------------------------------------------------------------------------------

    def prepare(self, address: tuple[str, int], token: str | None, tls: ssl.SSLContext | None) -> None:
        """Say how to connect: a clean session, at the broker for as long as the connection lasts."""
        target, largest = self._target, MAX_FRAME_BYTES + MAX_ENVELOPE_BYTES + 1024
        client = aiomqtt.Client(
            *address,
            username=target.device,
            password=token,
            identifier=target.device,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=True,
            properties=_properties(PacketTypes.CONNECT, MaximumPacketSize=largest),
            keepalive=target.keep_alive_s,
            will=aiomqtt.Will(target.topic("state"), self._state(0), qos=1, retain=True),
            tls_context=tls,
            max_inflight_messages=MAX_INFLIGHT,
            timeout=OPEN_TIMEOUT_S,
        )
        client.pending_calls_threshold = 2 * MAX_UNACKED
        # Its own queue is unbounded or loses messages, and costs a task for each.
        _paho(client).on_message = self._take
        _paho(client).on_publish = partial(self._hear_puback, _paho(client).on_publish)
        self._client = client

    async def open(self) -> None:
        """Connect and listen.

        Raises:
            MqttError: not connected. AuthenticationError: the broker lets the device not hear its own topic.
        """
        client, target = self._open_client(), self._target
        try:
            await self._enter(client)
            _paho(client).on_socket_register_write = self._write_soon
            self._watching = self._loop.create_task(self._watch(client), name=f"mqtt-{target.device}")
            await self._subscribe(client, target.topic("down"))
            self._receiver = self._opened_for
        except BaseException:
            self._drop()
            raise

    async def _subscribe(self, client: aiomqtt.Client, topic: str) -> None:
        asking = self._loop.create_task(client.subscribe(topic, qos=1))
        asking.add_done_callback(_seen)
        try:
            # The library would wait for the answer also when the line is gone.
            await asyncio.wait((asking, self._gone), return_when=asyncio.FIRST_COMPLETED)
            if self._gone.done():
                raise self._gone.result()
            (granted,) = asking.result()
        finally:
            asking.cancel()
        if cast(ReasonCode, granted).value >= _FAILED:
            raise AuthenticationError(f"{self._target.name} does not let the device hear {topic}: {granted}")

    async def _enter(self, client: aiomqtt.Client) -> None:
        """Connect; the library does so in a thread that nobody can interrupt: what it opens is closed all the same."""
        entering = self._loop.create_task(client.__aenter__())
        _paho(client).on_disconnect = partial(self._hear_end, _paho(client).on_disconnect)
        try:
            await asyncio.wait((entering, self._gone), return_when=asyncio.FIRST_COMPLETED)
            if not entering.done():
                # A refusal is told before, and heard a turn after.
                await asyncio.wait((entering,), timeout=_REFUSAL_S)
            if entering.done():
                entering.result()
                return
            entering.cancel()
            raise ConnectionLostError(f"{self._target.name} hung up before it answered")
        except asyncio.CancelledError:
            entering.add_done_callback(self._entered_in_vain)
            if _paho(client).socket() is not None:
                entering.cancel()
            await asyncio.wait((entering,), timeout=CLOSE_TIMEOUT_S)
            raise

    def _entered_in_vain(self, entering: asyncio.Task[aiomqtt.Client]) -> None:
        _seen(entering)
        self._drop_socket()

    def remember(self, trust: Trust) -> None:
        """Keep the TLS session for the next connection."""
        sock = _paho(self._open_client()).socket()
        if isinstance(sock, ssl.SSLSocket):
            trust.remember(sock)

    # --- Connection ----------------------------------------------------------------------------

    def send(self, messages: Sequence[bytes]) -> None:
        """Send messages in order, each under the number of this conversation."""
        if self._receiver is None:
            return
        for message in messages:
            expiry = self._expiry if self._has_said_hello else self._hello_expiry
            self._has_said_hello = True
            self._publish(self._target.topic("up"), wrap(self.number, message), expiry)

    def keep_alive(self, interval_s: float) -> None:
        """Nothing: CONNECT has agreed on it; an unanswered ping, or a line that is silent 1.5 times that, ends it."""

    def close(self) -> None:
        """Take back what the birth said, then DISCONNECT; by force after `CLOSE_TIMEOUT_S`."""
        self._receiver = None
        if self._leaving is None:
            self._leaving = self._loop.create_task(self._leave(), name=f"mqtt-{self._target.device}-leaving")

    async def wait_closed(self) -> None:
        """Wait until the socket is gone; at most `CLOSE_TIMEOUT_S` after `close`."""
        if self._leaving is not None:
            await asyncio.shield(self._leaving)

    async def _leave(self) -> None:
        client = self._open_client()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                if self._is_welcomed and not self._gone.done():
                    self._publish(self._target.topic("state"), self._state(0), None, is_retained=True)
                elif self._has_said_hello and not self._gone.done():  # a hub may have answered meanwhile
                    self._publish(self._target.topic("up"), wrap(self.number, encode(Bye())), self._hello_expiry)
                while self._sending and not self._gone.done():
                    waited: list[asyncio.Future[Any]] = [self._gone, *self._sending]
                    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                if not self._gone.done():
                    await client.__aexit__(None, None, None)
        except (aiomqtt.MqttError, TimeoutError):
            pass  # then the broker says it for us: the will
        finally:
            self._drop()

    # --- what arrives --------------------------------------------------------------------------

    def _take(self, paho: PahoClient, userdata: Any, message: MQTTMessage) -> None:
        """Hand on what belongs to this conversation."""
        receiver, data = self._receiver, bytes(message.payload)
        if receiver is None or message.retain:
            return  # the hub retains nothing: it is somebody else's, and of before
        if len(data) > MAX_FRAME_BYTES + MAX_ENVELOPE_BYTES:
            self._end(ConnectionLostError(f"the hub broke the protocol: a message of {len(data)} bytes"))
            return
        if not data.startswith(_BYE):
            try:
                number, data = unwrap(data)
            except ProtocolError:
                return  # a hub answers under the number it was asked under
            if number != self.number:
                return
        if data.startswith(_BYE):
            self._end(_farewell(data))
        elif data.startswith(_WELCOME) and self._is_welcomed:
            pass  # the broker has delivered the hello twice; what it says was true before the frames since
        else:
            if data.startswith(_WELCOME):
                self._is_welcomed = True
                self._publish(self._target.topic("state"), self._state(1), None, is_retained=True)
            receiver.message(data)

    def _hear_puback(self, told: Any, *event: Any) -> None:
        """The broker has a message, or its rules forbid it: of a hello, nobody would say why no hub answers."""
        told(*event)
        if event[3].value == _NOT_AUTHORIZED and not self._is_welcomed:
            self._end(AuthenticationError(f"{self._target.name} does not let the device publish: {event[3]}"))

    def _hear_end(self, told: Any, *event: Any) -> None:
        """The line ended: with a reason of the broker, or of the library, or because we said so."""
        reason = cast(ReasonCode, event[3])
        if self._leaving is not None and not reason.is_failure:
            told(*event)
        else:
            self._line_lost(self._why_lost(reason))

    async def _watch(self, client: aiomqtt.Client) -> None:
        """Wait for faults of the library that end the line; messages come to `_take`."""
        try:
            async for _ in client.messages:
                pass
        except aiomqtt.MqttError as error:
            why = f": {error.__cause__}" if error.__cause__ else ""
            self._line_lost(ConnectionLostError(f"the connection to {self._target.name} was lost{why}"))

    def _why_lost(self, reason: ReasonCode) -> LinkError:
        name = self._target.name
        if reason.value == _TAKEN_OVER:
            return ConnectionLostError(
                f"{name}: another client connected as {self._target.device}", code=Close.TAKEN_OVER
            )
        if reason.value == _NOT_AUTHORIZED:
            return AuthenticationError(f"{name} ended the connection: {reason}")
        # Of a connection that broke the library says "unspecified".
        why = "" if reason.value == _FAILED else f": {reason}"
        return ConnectionLostError(f"the connection to {name} was lost{why}")

    def _line_lost(self, error: LinkError) -> None:
        if not self._gone.done():
            self._gone.set_result(error)
            self._end(error)
            # Not inside the library's own call, which holds a lock.
            self._loop.call_soon(self._drop)

    def _end(self, error: LinkError) -> None:
        """Tell the receiver, once."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.closed(error)

    # --- what is under way ---------------------------------------------------------------------

    def _publish(self, topic: str, payload: bytes, expiry: Properties | None, *, is_retained: bool = False) -> None:
        self._unacked_bytes += len(payload)
        publishing = self._publish_until_acked(topic, payload, expiry, is_retained)
        task = self._loop.create_task(publishing, name=f"mqtt-{self._target.device}-publish")
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        self._was_full = self._was_full or not self.is_writable

    async def _publish_until_acked(
        self, topic: str, payload: bytes, expiry: Properties | None, is_retained: bool
    ) -> None:
        client = self._open_client()
        # A line that is lost says so itself (`_watch`).
        with suppress(aiomqtt.MqttError):
            await client.publish(topic, payload, qos=1, retain=is_retained, properties=expiry, timeout=math.inf)
        self._unacked_bytes -= len(payload)
        # The task itself counts until it has ended.
        self._loop.call_soon(self._make_room)

    def _make_room(self) -> None:
        is_half_empty = len(self._sending) <= MAX_UNACKED // 2 and self._unacked_bytes <= MAX_UNACKED_BYTES // 2
        if self._was_full and is_half_empty:
            self._was_full = False
            if self._receiver is not None:
                self._receiver.writable()

    def _write_soon(self, paho: PahoClient, userdata: Any, sock: Any) -> None:
        """Write when the socket can; the library's own way asks a turn later, when the socket may be closed."""
        self._loop.add_writer(sock.fileno(), self._write, paho)

    def _write(self, paho: PahoClient) -> None:
        try:
            paho.loop_write()
        except (OSError, ValueError) as error:
            self._line_lost(ConnectionLostError(f"the connection to {self._target.name} was lost: {error}"))

    def _open_client(self) -> aiomqtt.Client:
        assert self._client is not None, "a connection is prepared before it is used"
        return self._client

    def _drop(self) -> None:
        """Close the socket now, and forget what was under way."""
        for task in (self._watching, *self._sending):
            if task is not None:
                task.cancel()
        self._drop_socket()

    def _drop_socket(self) -> None:
        # Only its own `DISCONNECT` closes the library's socket; a broker that does not read would keep it open.
        _paho(self._open_client())._sock_close()

    def _state(self, is_on: int) -> bytes:
        return json.dumps({"on": is_on, "boot": self._boot}, separators=(",", ":")).encode()


class _PinnedSocket(ssl.SSLSocket):
    """Compares the pin between the handshake and the first byte; closes itself, which the library would not."""

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands, then check; in a thread that nobody can end, so not for as long as a line may be quiet."""
        try:
            self.settimeout(min(self.gettimeout() or OPEN_TIMEOUT_S, OPEN_TIMEOUT_S))
            super().do_handshake(block)
            cast("_PinnedContext", self.context).check(self)
        except BaseException:
            self.close()
            raise


class _PinnedContext(ResumingContext):
    """Makes such sockets."""

    sslsocket_class = _PinnedSocket
    check: Callable[[Any], None]


def _paho(client: aiomqtt.Client) -> PahoClient:
    """Return the client inside the client. Besides its `_sock_close` the one private name of the library used."""
    return client._client


def _seen(task: asyncio.Task[Any]) -> None:
    """Mark a failure as seen: nobody waits for it any more."""
    if not task.cancelled():
        task.exception()


def _properties(packet: int, **values: int) -> Properties:
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


def _farewell(data: bytes) -> LinkError:
    """Return what a ``bye`` of the hub means for the connection, as a close does elsewhere."""
    try:
        bye = decode_hub_message(data)
    except ProtocolError as error:
        return ConnectionLostError(str(error))
    assert isinstance(bye, Bye), "that is how it begins"
    why = ": ".join(filter(None, ("the hub said bye", bye.reason, bye.message)))
    if bye.retry_ms is None and bye.code in (Close.UNAUTHENTICATED, Close.FORBIDDEN):
        return AuthenticationError(why)
    return ConnectionLostError(why, code=bye.code, retry_ms=bye.retry_ms)
