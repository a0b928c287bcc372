"""A real hub with an MQTT port, and Eclipse Paho as a client of it."""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from hub.auth import Identities
from tests.support.hub_process import HubProcess, free_port

LIMIT_S = 15.0


class MqttHub(HubProcess):
    """A hub with an MQTT port."""

    def __init__(self, data: Path, *options: str, ca: Path | None = None) -> None:
        self.mqtt_port = free_port()
        super().__init__(data, "--mqtt-port", str(self.mqtt_port), *options, ca=ca)

    def enrol(self, device: str) -> str:
        """Enrol a device beside the running hub; return its token."""
        with closing(Identities(self.data / "identities.sqlite3")) as identities:
            return identities.add_device(device)

    def values(self, device: str, channel: str = "temperature", *, token: str | None = None) -> list[Any]:
        """Return what is stored of a channel."""
        rows = self.get(f"/v1/readings?match={device}/{channel}&last=1h&limit=10000", token)["rows"]
        return [row[2] for row in rows]

    def start(self) -> "MqttHub":
        """Start and wait until it answers."""
        super().start()
        return self

    def __enter__(self) -> "MqttHub":
        return self.start()


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until something holds."""
    limit = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < limit, f"waited in vain for {what}"
        time.sleep(0.02)


class Paho:
    """Eclipse Paho in its own thread; what it was told is in ``heard``.

    Args:
        token: None: no user name and no password.
        certificate: (certificate, key) to show; the hub speaks TLS.
        options: those of Paho; with ``transport="websockets"`` it goes by the hub's other port.
    """

    def __init__(
        self, hub: MqttHub, name: str, token: str | None, version: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5,
        *, certificate: tuple[Path, Path] | None = None, **options: Any,
    ) -> None:  # fmt: skip
        self._port = hub.port if options.get("transport") == "websockets" else hub.mqtt_port
        self.heard: list[tuple[str, bytes]] = []
        self.connected = threading.Event()
        self.refused: list[Any] = []
        self.ended: list[Any] = []
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, options.pop("client_id", f"paho-{name}"), protocol=version,
            reconnect_on_failure=False, **options,
        )  # fmt: skip
        if token is not None:
            self.client.username_pw_set(name, token)
        if self._port == hub.port:
            self.client.ws_set_options(path="/mqtt")
        if hub.ca is not None:
            cert, key = certificate or (None, None)
            self.client.tls_set(str(hub.ca), None if cert is None else str(cert), None if key is None else str(key))
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = lambda *told: self.ended.append(told[3])
        self.client.on_message = lambda client, data, message: self.heard.append(
            (message.topic, bytes(message.payload))
        )
        self._hub = hub

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self.refused.append(reason)
        self.connected.set()

    def publish(self, topic: str, payload: str | bytes) -> None:
        """Publish with QoS 1 and wait for the PUBACK."""
        told = self.client.publish(topic, payload, qos=1)
        told.wait_for_publish(LIMIT_S)
        assert told.is_published()

    def subscribe(self, topic: str) -> list[Any]:
        """Subscribe and return what was granted."""
        granted: list[Any] = []
        done = threading.Event()

        def on_subscribe(client: Any, data: Any, mid: Any, reasons: Any, properties: Any) -> None:
            granted.extend(reasons)
            done.set()

        self.client.on_subscribe = on_subscribe
        self.client.subscribe(topic, qos=1)
        assert done.wait(LIMIT_S)
        return granted

    def __enter__(self) -> "Paho":
        self.client.connect(self._hub.host, self._port)
        self.client.loop_start()
        assert self.connected.wait(LIMIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()
