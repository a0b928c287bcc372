"""Where the devices of `tests.bench.outage` send to, and what arrived there: a hub, or mosquitto and a recorder."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from paho.mqtt.client import Client as Paho
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from hub.auth import Identities
from tests.bench.outage_clients import START_NS, TOPIC
from tests.support.hub_process import HubProcess, free_port
from tests.support.mosquitto import Mosquitto

# Without a message for so long the recorder has them all.
QUIET_S = 1.0
TELEMETRY_TOPIC = "v1/devices/me/telemetry"
LIMITS_TOPIC = "v1/devices/me/rpc/request/"
# What a ThingsBoard server without rate limits answers to a device that asks for its limits.
LIMITS_ANSWER = '{"maxPayloadSize":65536,"maxInflightMessages":100,"rateLimits":{}}'


class Side(Protocol):
    """Where the device sends to, and what arrived there."""

    @property
    def port(self) -> int:
        """TCP port on loopback."""

    @property
    def arguments(self) -> Sequence[str]:
        """What its device must know besides."""

    def start(self) -> object:
        """Start again."""

    def kill(self) -> None:
        """End at once."""

    def save(self) -> None:
        """Write to disk what a restart needs; the device is connected."""

    def stored(self) -> tuple[set[int], int]:
        """Return which readings are there, and how many extra copies, when all that was sent has settled."""


class Hub:
    """A real hub with one enrolled device."""

    def __init__(self, hub: HubProcess, spool: Path, token: str) -> None:
        self.port, self.start, self.kill = hub.port, hub.start, hub.kill
        self.arguments = (str(spool), token)
        self._hub = hub

    def save(self) -> None:
        """Nothing: what it acked is on disk."""

    def stored(self) -> tuple[set[int], int]:
        """Return what history shows; a copy is a row too many, or one that the audit says was written over."""
        rows = self._hub.get("/v1/readings?match=d/n&limit=10000&from=0")["rows"]
        found = {int(row[2]) for row in rows if int(row[0]) == START_NS + row[2]}
        accepted = sum(series["accepted"] for series in self._hub.get("/v1/audit?device=d")["series"])
        return found, accepted - len(found)


@contextmanager
def running_hub(folder: Path) -> Iterator[Side]:
    """A hub with its data in ``folder``."""
    data = folder / "data"
    data.mkdir()
    identities = Identities(data / "identities.sqlite3")
    token = str(identities.add_device("d"))
    identities.close()
    with HubProcess(data) as hub:
        yield Hub(hub, folder / "spool", token)


class Broker:
    """mosquitto and the recorder."""

    def __init__(self, broker: Mosquitto) -> None:
        self.port, self.start, self.kill, self.save = broker.port, broker.start, broker.kill, broker.save
        self.arguments: Sequence[str] = ()
        self._payloads: list[bytes] = []
        self._last_s = time.monotonic()
        subscribed = threading.Event()
        self._recorder = Paho(CallbackAPIVersion.VERSION2, client_id="recorder", clean_session=False)
        self._recorder.on_message = self._received
        self._recorder.on_subscribe = lambda *_: subscribed.set()
        self._recorder.connect("127.0.0.1", broker.port)
        self._recorder.subscribe([(topic, 1) for topic in (TOPIC, TELEMETRY_TOPIC, f"{LIMITS_TOPIC}+")])
        self._recorder.loop_start()
        assert subscribed.wait(10), "the recorder is subscribed"

    def stored(self) -> tuple[set[int], int]:
        """Return the payloads, when none has come for a while."""
        end = time.monotonic() + 10
        while time.monotonic() < min(end, self._last_s + QUIET_S) or not self._recorder.is_connected():
            assert time.monotonic() < end, "the recorder finds its broker again"
            time.sleep(0.05)
        # ThingsBoard's are [{"n":17}].
        found = [int(payload.strip(b'[{"n:}]')) for payload in self._payloads]
        return set(found), len(found) - len(set(found))

    def close(self) -> None:
        """Disconnect."""
        self._recorder.disconnect()
        self._recorder.loop_stop()

    def _received(self, client: Paho, _: object, message: MQTTMessage) -> None:
        if message.topic.startswith(LIMITS_TOPIC):
            client.publish(message.topic.replace("request", "response"), LIMITS_ANSWER, qos=1)
            return
        self._last_s = time.monotonic()
        self._payloads.append(bytes(message.payload))


@contextmanager
def running_broker(folder: Path) -> Iterator[Side]:
    """A broker that keeps its sessions in ``folder``, and its recorder."""
    with Mosquitto(folder, free_port(), "max_queued_messages 0", "queue_qos0_messages true") as broker:
        side = Broker(broker)
        try:
            yield side
        finally:
            side.close()
