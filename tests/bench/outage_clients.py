"""The device's process in `tests.bench.outage`: one client library, 200 readings at 50 a second.

``python -m tests.bench.outage_clients CLIENT PORT FIRST LAST [FOLDER TOKEN]``, run with the interpreter that
has that client. Prints ``ready``, waits for a line on stdin, then says with the time of the monotonic clock:
``begun``, ``take n`` before each send, ``sent n`` or ``failed n`` after it, ``done`` when it has drained.

Each client is used as its documentation says for messages that must arrive:

* paho: fixed client id, ``clean_session=False``, QoS 1, queue unlimited, its own thread and reconnecting. QoS 0 alike.
* aiomqtt: the reconnect loop of its documentation (5 s), ``clean_session=False``, QoS 1, ``await publish``. A
  publish that raised was one reading; the loop goes on with the next one.
* AWS (awscrt's MQTT 5 client, without the TLS that its cloud demands): QoS 1, session rejoined and kept for an hour,
  offline queue and flow control at their defaults, no ack time limit (with one the client gives messages up).
* ThingsBoard: ``send_telemetry`` as its documentation shows it, QoS 1 (its default), reconnecting by itself.
* ours: ``with Device(…)``, spool on disk, all defaults.
"""

import asyncio
import concurrent.futures
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

PERIOD_S = 1 / 50
TOPIC = "bench/n"
CLIENT_ID = "bench-device"
START_NS = 1_790_000_000_000_000_000
# How long a client may take after the last reading to bring in what it still holds.
DRAIN_S = 30.0
# For what can tell nobody that it arrived.
UNACKED_DRAIN_S = 2.0
CONNECT_LIMIT_S = 10.0
# Source: aiomqtt's documentation, "Reconnection".
AIOMQTT_RECONNECT_S = 5.0
SESSION_S = 3600


class Client(Protocol):
    """A client whose send call returns before the message has arrived."""

    def send(self, n: int) -> None:
        """Hand over reading ``n``."""

    def drain(self) -> None:
        """Wait until all that was handed over is acked, at most `DRAIN_S`."""


class Sampling:
    """The sensor: readings FIRST … LAST - 1, each due one period after the one before. Tells what happens."""

    def __init__(self, first: int, last: int) -> None:
        self._next, self._first, self._last = first, first, last
        say("ready")
        sys.stdin.readline()
        self._begun = time.monotonic()
        say("begun")

    @property
    def is_over(self) -> bool:
        """All readings were taken."""
        return self._next >= self._last

    def take(self) -> int:
        """Take the next reading; late when the loop is."""
        n, self._next = self._next, self._next + 1
        say("take", n)
        return n

    def until_next_s(self) -> float:
        """Seconds until the next reading is due, 0 when it is overdue."""
        return max(0.0, self._begun + (self._next - self._first) * PERIOD_S - time.monotonic())


def say(word: str, n: int = -1, error: object = "") -> None:
    """Print one line of the protocol; at once, for this process may be killed at any time."""
    print(f"{word} {n} {time.monotonic():.6f} {str(error)[:80]!r}", flush=True)


def run(client: Client, first: int, last: int) -> None:
    """Sample and send."""
    sampling = Sampling(first, last)
    while not sampling.is_over:
        n = sampling.take()
        try:
            client.send(n)
        except Exception as error:
            say("failed", n, error)
        else:
            say("sent", n)
        time.sleep(sampling.until_next_s())
    client.drain()


class Paho:
    """paho-mqtt."""

    def __init__(self, port: int, qos: int) -> None:
        from paho.mqtt.client import Client as PahoClient
        from paho.mqtt.enums import CallbackAPIVersion

        self._qos, self._sent, self._acked = qos, 0, 0
        connected = threading.Event()
        self._client = PahoClient(CallbackAPIVersion.VERSION2, client_id=CLIENT_ID, clean_session=False)
        self._client.max_queued_messages_set(0)
        self._client.on_connect = lambda *_: connected.set()
        self._client.on_publish = self._published
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert connected.wait(CONNECT_LIMIT_S), "the broker takes the connection"

    def _published(self, *_: object) -> None:
        self._acked += 1

    def send(self, n: int) -> None:
        """Publish; without a connection QoS 1 is queued, QoS 0 refused by the return code."""
        self._client.publish(TOPIC, str(n), qos=self._qos)
        self._sent += 1

    def drain(self) -> None:
        """Wait for the acks."""
        if self._qos:
            wait_until(lambda: self._acked >= self._sent)
        else:
            time.sleep(UNACKED_DRAIN_S)


class Aws:
    """AWS IoT's MQTT 5 client."""

    def __init__(self, port: int) -> None:
        from awscrt import mqtt5

        self._mqtt5 = mqtt5
        connected = threading.Event()
        self._client = mqtt5.Client(
            mqtt5.ClientOptions(
                host_name="127.0.0.1",
                port=port,
                connect_options=mqtt5.ConnectPacket(client_id=CLIENT_ID, session_expiry_interval_sec=SESSION_S),
                session_behavior=mqtt5.ClientSessionBehaviorType.REJOIN_POST_SUCCESS,
                offline_queue_behavior=mqtt5.ClientOperationQueueBehaviorType.FAIL_QOS0_PUBLISH_ON_DISCONNECT,
                on_lifecycle_event_connection_success_fn=lambda _: connected.set(),
            )
        )
        self._client.start()
        self._futures: list[concurrent.futures.Future[object]] = []
        assert connected.wait(CONNECT_LIMIT_S), "the broker takes the connection"

    def send(self, n: int) -> None:
        """Publish."""
        qos = self._mqtt5.QoS.AT_LEAST_ONCE
        self._futures.append(self._client.publish(self._mqtt5.PublishPacket(topic=TOPIC, payload=str(n), qos=qos)))

    def drain(self) -> None:
        """Wait for the acks."""
        concurrent.futures.wait(self._futures, timeout=DRAIN_S)


class ThingsBoard:
    """ThingsBoard's client SDK."""

    def __init__(self, port: int) -> None:
        from tb_device_mqtt import TBDeviceMqttClient

        self._client = TBDeviceMqttClient("127.0.0.1", port=port, username=CLIENT_ID, client_id=CLIENT_ID)
        self._client.connect()
        wait_until(self._client.is_connected, CONNECT_LIMIT_S)
        # It asks for its limits first.
        wait_until(lambda: bool(self._client.rate_limits_received), CONNECT_LIMIT_S)
        self._messages: list[object] = []

    def send(self, n: int) -> None:
        """Publish."""
        self._messages += self._client.send_telemetry({"n": n}).message_info

    def drain(self) -> None:
        """Wait for the acks."""
        wait_until(lambda: all(_is_published(message) for message in self._messages))


def _is_published(message: object) -> bool:
    with suppress(RuntimeError, ValueError):
        return bool(message.is_published())  # type: ignore[attr-defined]
    return False


class Ours:
    """`device_sdk`."""

    def __init__(self, port: int, folder: str, token: str) -> None:
        from device_sdk import Device

        self._device = Device("d", f"ws://127.0.0.1:{port}", token=token, spool=Path(folder))
        self._device.open()
        wait_until(lambda: self._device.status.online, CONNECT_LIMIT_S)

    def send(self, n: int) -> None:
        """Record."""
        self._device.record({"n": n}, time=START_NS + n)

    def drain(self) -> None:
        """Wait for the acks."""
        self._device.flush(DRAIN_S)
        self._device.close()


async def run_aiomqtt(port: int, first: int, last: int) -> None:
    """Sample and send in aiomqtt's loop: publish, reconnect after an error."""
    import aiomqtt

    client = aiomqtt.Client("127.0.0.1", port, identifier=CLIENT_ID, clean_session=False)
    sampling: Sampling | None = None
    n = first
    while sampling is None or not sampling.is_over:
        try:
            async with client:
                sampling = sampling or Sampling(first, last)
                while not sampling.is_over:
                    n = sampling.take()
                    await client.publish(TOPIC, str(n), qos=1)
                    say("sent", n)
                    await asyncio.sleep(sampling.until_next_s())
        except aiomqtt.MqttError as error:
            say("failed", n, error)
            await asyncio.sleep(AIOMQTT_RECONNECT_S)


def wait_until(is_true: Callable[[], bool], limit_s: float = DRAIN_S) -> None:
    """Return when it is true, or after the limit."""
    end = time.monotonic() + limit_s
    while not is_true() and time.monotonic() < end:
        time.sleep(0.01)


def main(kind: str, port: int, first: int, last: int, *options: str) -> None:
    """Be the device with that client."""
    makers: dict[str, Callable[[], Client]] = {
        "paho-1": lambda: Paho(port, 1),
        "paho-0": lambda: Paho(port, 0),
        "aws": lambda: Aws(port),
        "thingsboard": lambda: ThingsBoard(port),
        "ours": lambda: Ours(port, *options),
    }
    if kind == "aiomqtt":
        asyncio.run(run_aiomqtt(port, first, last))
    else:
        run(makers[kind](), first, last)
    say("done")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
