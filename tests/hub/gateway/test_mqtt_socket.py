"""`hub.gateway.mqtt_socket`: when a connection is read and written, and how it ends; on a fake transport."""

import asyncio

import pytest

from hub.gateway.mqtt_socket import (
    HIGH_WATER_BYTES,
    MAX_BUFFER_BYTES,
    STALL_S,
    SUBPROTOCOL,
    MqttConnection,
    MqttEndpoint,
    MqttPeer,
    MqttWebSocket,
)
from hub.gateway.sweep import Sweep
from hub.gateway.websocket import CLOSE_S, TURN_BYTES, Accept, Refuse, UpgradeRequest
from hub.mqtt.conversation import FIRST_PACKET_S, MAX_TURN
from hub.mqtt.handler import Code, Received
from tests.support import mqtt_packets as say
from tests.support.fake_connection import FakeConnection, split_frames
from tests.support.mqtt_handler import RecordingHandler
from tests.support.transport import FakeTransport


class Rig:
    """An endpoint whose seconds the test counts; each connection has a handler that keeps what it is told."""

    def __init__(self, *, is_prompt: bool = True) -> None:
        self.sweep = Sweep(3600)
        self.now = 1000.0
        self.handlers: list[RecordingHandler] = []
        self.peers: list[MqttPeer] = []
        self._is_prompt = is_prompt
        self.endpoint = MqttEndpoint(self._make, sweep=self.sweep, clock=lambda: self.now)

    def connect(
        self, version: int = 4, *, can_half_close: bool = True, keep_alive_s: int = 0
    ) -> tuple[MqttConnection, FakeTransport, RecordingHandler]:
        """A connection that has said CONNECT."""
        connection, transport = self.endpoint.tcp(), FakeTransport(can_half_close=can_half_close)
        assert isinstance(connection, MqttConnection)
        connection.connection_made(transport)
        connection.data_received(say.connect(version=version, keep_alive_s=keep_alive_s))
        assert transport.take()[:1] == b"\x20"
        return connection, transport, self.handlers[-1]

    def sweeps(self, count: int) -> None:
        """Let ``count`` seconds pass."""
        for _ in range(count):
            self.now += 1
            self.sweep.run()

    def _make(self, peer: MqttPeer) -> RecordingHandler:
        self.peers.append(peer)
        self.handlers.append(RecordingHandler(is_prompt=self._is_prompt))
        return self.handlers[-1]


@pytest.mark.asyncio
async def test_answers_of_one_read_leave_in_one_write() -> None:
    """And the handler is told who connects."""
    rig = Rig()
    connection, transport, handler = rig.connect()

    connection.data_received(say.publish("a", b"", 1) + say.PINGREQ + say.publish("a", b"", 2)[:4])
    connection.data_received(say.publish("a", b"", 2)[4:])

    assert transport.writes == [say.puback(1) + say.PINGRESP, say.puback(2)]
    assert len(handler.received) == 2
    assert rig.peers == [MqttPeer("127.0.0.1:50000", False, None)]


@pytest.mark.asyncio
async def test_acks_of_one_commit_leave_in_one_write_for_each_connection() -> None:
    """At the end of the turn in which the handler was told."""
    rig = Rig(is_prompt=False)
    both = [rig.connect() for _ in range(2)]
    for connection, _, _ in both:
        connection.data_received(say.publish("a", b"", 1) + say.publish("a", b"", 2))

    for _, _, handler in both:
        handler.store()
    assert [transport.writes for _, transport, _ in both] == [[], []]
    await asyncio.sleep(0)

    assert [transport.writes for _, transport, _ in both] == [[say.puback(1) + say.puback(2)]] * 2


@pytest.mark.asyncio
async def test_client_is_not_read_while_nothing_can_be_stored() -> None:
    """It goes on with a second, or with an ack; keep-alive stands still meanwhile."""
    rig = Rig()
    connection, transport, handler = rig.connect(keep_alive_s=10)
    handler.has_room = False

    connection.data_received(say.publish("a", b"", 1) + say.PINGREQ)
    rig.sweeps(60)
    assert (transport.is_reading_paused, transport.is_closed, handler.received) == (True, False, [])

    handler.has_room = True
    rig.sweeps(1)
    assert (transport.is_reading_paused, transport.written) == (False, say.puback(1) + say.PINGRESP)


@pytest.mark.asyncio
async def test_connection_that_is_written_to_has_one_turn_like_any() -> None:
    """It goes on by its acks and by itself, once for both."""
    rig = Rig(is_prompt=False)
    connection, _, handler = rig.connect()
    connection.data_received(say.publish("a", b"", 1) + say.publish("a") * 3 * MAX_TURN)
    handler.store()
    await asyncio.sleep(0)

    assert len(handler.received) == 2 * MAX_TURN


@pytest.mark.asyncio
async def test_held_publications_go_on_with_the_acks_that_make_room() -> None:
    """In the same turn, without waiting for a second."""
    rig = Rig(is_prompt=False)
    connection, transport, handler = rig.connect()
    connection.data_received(b"".join(say.publish("a", b"", number) for number in range(1, 1003)))
    for _ in range(1000 // MAX_TURN):
        await asyncio.sleep(0)
    assert (len(handler.received), transport.is_reading_paused) == (1000, True)

    handler.store(2)
    await asyncio.sleep(0)

    assert (len(handler.received), transport.is_reading_paused) == (1002, False)


@pytest.mark.asyncio
async def test_large_read_waits_for_the_turn_of_the_others() -> None:
    """One that sends all the time would hold the others' acks."""
    connection, transport, _ = Rig().connect()

    connection.data_received(say.publish("a", bytes(TURN_BYTES)))
    assert transport.is_reading_paused
    await asyncio.sleep(0)

    assert not transport.is_reading_paused


# --- clients that take nothing ------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_client_that_takes_no_answers_is_not_read_and_then_cut_off() -> None:
    """After 30 seconds without progress; progress begins them anew."""
    rig = Rig()
    connection, transport, handler = rig.connect(keep_alive_s=1)
    assert transport.limits == (HIGH_WATER_BYTES, None)
    transport.buffered = HIGH_WATER_BYTES + 1
    connection.pause_writing()
    assert transport.is_reading_paused

    rig.sweeps(STALL_S)
    transport.buffered -= 1
    rig.sweeps(STALL_S)
    before = transport.is_aborted
    rig.sweeps(2)

    assert (before, transport.is_aborted) == (False, True)
    connection.connection_lost(None)
    assert [is_clean for is_clean, _ in handler.ended] == [False]


@pytest.mark.asyncio
async def test_client_that_reads_again_is_read_again() -> None:
    """As soon as the buffer has drained; the next time it has as long."""
    rig = Rig()
    connection, transport, _ = rig.connect()
    for _ in range(2):
        connection.pause_writing()
        rig.sweeps(STALL_S)
        connection.resume_writing()
        assert not transport.is_reading_paused

    assert not transport.is_aborted


@pytest.mark.asyncio
async def test_buffer_of_a_client_that_takes_nothing_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the handler says on; QoS 0 waits for nothing."""
    connection, transport, handler = Rig().connect()
    connection.data_received(say.subscribe(1, ("a", 0)))
    transport.buffered = MAX_BUFFER_BYTES + 1
    connection.pause_writing()
    assert handler.line is not None

    handler.line.publish("a", b"x", 0)
    await asyncio.sleep(0)

    assert transport.is_aborted
    assert "too slow mqtt peer=127.0.0.1:50000" in caplog.text


# --- the end ------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_silent_connection_is_closed() -> None:
    """No CONNECT within five seconds; nothing is said, and the handler never hears of it."""
    rig = Rig()
    connection, transport = rig.endpoint.tcp(), FakeTransport()
    assert isinstance(connection, MqttConnection)
    connection.connection_made(transport)

    rig.sweeps(int(FIRST_PACKET_S) - 1)
    before = transport.is_closed
    rig.sweeps(1)

    assert (before, transport.is_closed, transport.written) == (False, True, b"")
    connection.connection_lost(None)
    assert (rig.handlers[0].ended, len(rig.endpoint), len(rig.sweep)) == ([], 0, 0)


@pytest.mark.asyncio
async def test_clean_end_closes_at_once() -> None:
    """The handler is told when the socket is gone."""
    rig = Rig()
    connection, transport, handler = rig.connect()

    connection.data_received(say.DISCONNECT)
    assert (transport.is_closed, handler.ended) == (True, [])
    connection.connection_lost(None)

    assert handler.ended == [(True, "the client has gone")]
    assert (len(rig.endpoint), len(rig.sweep)) == (0, 0)


@pytest.mark.asyncio
@pytest.mark.parametrize("can_half_close", [True, False], ids=["tcp", "tls"])
async def test_end_with_words_lets_the_client_read_them(*, can_half_close: bool) -> None:
    """The connection is half-closed where that can be, and cut off if the client does not close; once."""
    rig = Rig()
    connection, transport, handler = rig.connect(5, can_half_close=can_half_close)

    connection.data_received(say.publish("a", b"", 1, 5, qos=2))
    assert transport.take()[:1] == b"\xe0"
    assert (transport.has_written_end, transport.is_closed) == (can_half_close, not can_half_close)
    connection.data_received(say.publish("a", b"", 1, 5))
    rig.sweeps(CLOSE_S)
    before = transport.is_aborted
    rig.sweeps(1)

    assert (before, transport.is_aborted) == (False, True)
    assert (transport.written, handler.received) == (b"", [])


@pytest.mark.asyncio
async def test_client_that_was_not_read_is_read_to_its_end() -> None:
    """So that its own close is seen, and what it had sent is taken by nobody."""
    rig = Rig()
    connection, transport, handler = rig.connect(5)
    handler.has_room = False
    connection.data_received(say.publish("a", b"", 1, 5))
    assert handler.line is not None

    handler.line.end(Code.BANNED, "")
    await asyncio.sleep(0)

    assert (transport.has_written_end, transport.is_reading_paused, handler.received) == (True, False, [])


@pytest.mark.asyncio
async def test_handler_ends_a_connection_from_outside() -> None:
    """Another connection took it over."""
    _, transport, handler = Rig().connect(5)
    assert handler.line is not None

    handler.line.end(Code.TAKEN_OVER, "")
    await asyncio.sleep(0)

    assert (transport.written, transport.has_written_end) == (b"\xe0\x01\x8e", True)


@pytest.mark.asyncio
async def test_publication_that_is_stored_after_the_end_is_not_written() -> None:
    """The connection is gone."""
    connection, transport, handler = Rig(is_prompt=False).connect()
    connection.data_received(say.publish("a", b"", 1))

    connection.connection_lost(ConnectionResetError("reset"))
    handler.store()
    await asyncio.sleep(0)

    assert (transport.written, handler.ended) == (b"", [(False, "connection lost: reset")])


@pytest.mark.asyncio
async def test_half_closed_connection_is_closed() -> None:
    """By the transport itself, which is what the answer says."""
    connection, _, _ = Rig().connect()
    assert connection.eof_received() is False


@pytest.mark.asyncio
async def test_fault_of_a_handler_ends_its_connection_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Logged here, told as an unspecified error there."""
    rig = Rig()
    bad, bad_transport, bad_handler = rig.connect(5)
    good, good_transport, _ = rig.connect(5)

    def fail(received: Received) -> None:
        raise ZeroDivisionError

    bad_handler.on_received = fail
    bad.data_received(say.publish("a", b"", 1, 5))
    good.data_received(say.publish("a", b"", 1, 5))

    assert bad_transport.written[2:3] == b"\x80"
    assert good_transport.written == say.puback(1)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.mark.asyncio
async def test_fault_in_a_held_publication_or_at_the_end_is_contained(caplog: pytest.LogCaptureFixture) -> None:
    """Wherever the handler is called from."""
    rig = Rig()
    connection, transport, handler = rig.connect(5)
    handler.has_room = False
    connection.data_received(say.publish("a", b"", 1, 5))

    def fail(received: Received) -> None:
        raise ZeroDivisionError

    handler.on_received = fail
    handler.has_room = True
    rig.sweeps(1)
    assert transport.written[2:3] == b"\x80"
    assert len(caplog.records) == 1

    again, _, handler = rig.connect()
    handler.ended = None  # type: ignore[assignment]
    again.connection_lost(None)
    assert len(caplog.records) == 2
    assert len(rig.sweep) == 1


@pytest.mark.asyncio
async def test_stopping_hub_ends_all_connections() -> None:
    """MQTT 5 hears why; none is left open for who does not close."""
    rig = Rig()
    _, old, _ = rig.connect()
    _, new, _ = rig.connect(5)

    rig.endpoint.stop()

    assert new.written[:1] == b"\xe0"
    assert new.written[2] == Code.SERVER_SHUTTING_DOWN
    assert (old.written, old.is_closed, new.has_written_end) == (b"", True, True)


# --- WebSocket ----------------------------------------------------------------------------------------------


def upgrade(*subprotocols: str) -> UpgradeRequest:
    """What a client of MQTT over WebSocket asks for."""
    return UpgradeRequest("/mqtt", {}, {}, "127.0.0.1:50000", False, subprotocols)


def opened(rig: Rig) -> tuple[MqttWebSocket, FakeConnection]:
    """A WebSocket whose handshake is done."""
    answer = rig.endpoint.web_socket(upgrade("other", "mqtt"))
    assert isinstance(answer, Accept)
    assert (answer.subprotocol, isinstance(answer.handler, MqttWebSocket)) == (SUBPROTOCOL, True)
    assert isinstance(answer.handler, MqttWebSocket)
    connection = FakeConnection()
    answer.handler.opened(connection)
    return answer.handler, connection


def taken(connection: FakeConnection) -> bytes:
    """The bytes of all messages sent."""
    data, connection.received = b"".join(connection.received), []
    return b"".join(split_frames(data))


@pytest.mark.asyncio
@pytest.mark.parametrize("subprotocols", [(), ("mqttv3.1",)])
async def test_upgrade_without_the_subprotocol_is_refused(subprotocols: tuple[str, ...]) -> None:
    """MQTT-6.0.0-3."""
    answer = Rig().endpoint.web_socket(upgrade(*subprotocols))
    assert isinstance(answer, Refuse)
    assert answer.status == 400


@pytest.mark.asyncio
async def test_packets_lie_in_messages_as_they_like() -> None:
    """Several in one, or one in several (MQTT-6.0.0-2); answers are binary, one message a read."""
    rig = Rig()
    socket, connection = opened(rig)
    stream = say.connect() + say.publish("a", b"x" * 200, 1)

    socket.message(stream[:5], False)
    socket.message(stream[5:50], False)
    socket.message(stream[50:] + say.PINGREQ, False)

    assert [frame[0] for frame in connection.received] == [0x82, 0x82]
    assert taken(connection) == say.CONNACK_4 + say.puback(1) + say.PINGRESP
    assert rig.peers == [MqttPeer("127.0.0.1:50000", False, None)]


@pytest.mark.asyncio
async def test_text_ends_a_websocket() -> None:
    """MQTT-6.0.0-1."""
    rig = Rig()
    socket, connection = opened(rig)
    socket.message(say.connect(), False)

    socket.message(b"hello", True)
    socket.message(say.publish("a", b"", 1), False)
    socket.closed(1000, "")

    assert connection.closed_with == (1000, "")
    assert (rig.handlers[0].received, len(rig.handlers[0].ended), len(rig.endpoint)) == ([], 1, 0)


@pytest.mark.asyncio
async def test_websocket_is_not_read_while_nothing_can_be_stored() -> None:
    """And again when it can."""
    rig = Rig()
    socket, connection = opened(rig)
    socket.message(say.connect(), False)
    taken(connection)
    rig.handlers[0].has_room = False

    socket.message(say.publish("a", b"", 1), False)
    assert connection.is_held
    rig.handlers[0].has_room = True
    rig.sweeps(1)

    assert (connection.is_held, taken(connection)) == (False, say.puback(1))


@pytest.mark.asyncio
async def test_stopping_hub_ends_websockets() -> None:
    """With a close frame; what was lost before is told with its code."""
    rig = Rig()
    (first, connection), (second, _) = opened(rig), opened(rig)
    for socket in (first, second):
        socket.message(say.connect(version=5), False)
    second.closed(1006, "")
    taken(connection)

    rig.endpoint.stop()

    assert taken(connection)[2] == Code.SERVER_SHUTTING_DOWN
    assert connection.closed_with == (1000, "")
    assert rig.handlers[1].ended == [(False, "connection lost (1006)")]
