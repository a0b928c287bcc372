"""ThingsBoard's MQTT API of devices and gateways: its devices move here by changing the host.

Owns: its topics, what telemetry may look like, what such devices want to be told. Place: one of the decoders. Pure.

Telemetry is readings. Attributes are not: they say how a device is, and nobody asks for their history. Whoever asks for
attributes is told that there are none, and whoever calls a function of the platform that it has none such, but for
``getSessionLimits``, without whose answer ThingsBoard's own clients wait: devices go on, with what they have built in.
Source: ThingsBoard's MQTT device and gateway API, versions 3 and 4.
"""

import json
from collections.abc import Generator, Iterator
from typing import Any

from device_sdk.wire import MAX_FRAME_READINGS
from hub.decode.base import Answer, Decoded, DecodeError, ForeignReading, Publication, Said
from hub.decode.moment import since_epoch_ns
from hub.decode.scope import Scope
from hub.decode.value import flatten, load

# Devices of one message of a gateway: each is looked up, and may be one that waits for a person.
MAX_DEVICES = 200
_DEVICE = "v1/devices/me/"
_GATEWAY = "v1/gateway/"
_TELEMETRY = "telemetry"
# The short names that ThingsBoard has for the same topics; ``/j``: JSON, whatever the device's profile says.
_SHORT = {
    "v2/t": _TELEMETRY, "v2/t/j": _TELEMETRY, "v2/a": "attributes", "v2/a/j": "attributes",
    "v2/r": "rpc", "v2/c": "claim",
}  # fmt: skip
_SHORT_REQUESTS = (
    ("v2/a/req/", "v2/a/res/", "attributes"), ("v2/a/req/j/", "v2/a/res/j/", "attributes"),
    ("v2/r/req/", "v2/r/res/", "rpc"), ("v2/r/req/j/", "v2/r/res/j/", "rpc"),
)  # fmt: skip
# What a client calls it that is connected by a device's credential.
ME = "me"
# What ThingsBoard itself takes in one message, and hands over unanswered. No limits of rate: clients look for them
# under different names, and one that is empty leaves a client as it began, without.
_SESSION_LIMITS: dict[str, Any] = {
    "maxPayloadSize": 65_536, "maxInflightMessages": 100, "rateLimits": {}, "gatewayRateLimits": {}, "rateLimit": {},
}  # fmt: skip
_IGNORED = {
    "attributes": "attributes say how a device is, not what it measured",
    "claim": "claiming is ThingsBoard's own: claim the device at the hub",
    "disconnect": "a device behind the gateway went away",
    "rpc": "the answer to a call of ThingsBoard",
}


class ThingsBoard:
    """Reads both APIs; see `hub.decode.base.Decoder`."""

    __slots__ = ("_scope",)
    name = "thingsboard"

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def decode(self, publication: Publication) -> Decoded | None:
        """Return the telemetry of a message, or the answer that its sender waits for."""
        topic = publication.topic
        if topic.startswith(_DEVICE):
            return self._of_device(topic.removeprefix(_DEVICE), topic, publication)
        if topic.startswith(_GATEWAY):
            return self._of_gateway(topic.removeprefix(_GATEWAY), publication)
        if topic in _SHORT:
            return self._of_device(_SHORT[topic], topic, publication)
        for request, response, kind in _SHORT_REQUESTS:
            number = topic.removeprefix(request)
            if number != topic and number.isdigit():
                return self._asked(kind, f"{response}{number}", publication)
        if topic.startswith("v2/fw/"):
            return Decoded(self.name, ignored="firmware is ThingsBoard's own")
        return None

    def reading(self, publication: Publication) -> Generator[None, None, Decoded | None]:
        """Do as `decode`; of telemetry with a pause after each value and each object."""
        topic = publication.topic
        if topic == f"{_DEVICE}{_TELEMETRY}" or _SHORT.get(topic) == _TELEMETRY:
            device = self._scope.own(ME)
            readings: list[ForeignReading] = []
            yield from self._read(device, load(publication.payload), readings)
            return self._decoded((Said(device, tuple(readings)),))
        if topic == f"{_GATEWAY}{_TELEMETRY}":
            said: list[Said] = []
            yield from self._devices(load(publication.payload), said)
            return self._decoded(tuple(said))
        return self.decode(publication)

    def _of_device(self, kind: str, topic: str, publication: Publication) -> Decoded:
        if kind == _TELEMETRY:
            device = self._scope.own(ME)
            readings: list[ForeignReading] = []
            for _ in self._read(device, load(publication.payload), readings):
                pass
            return self._decoded((Said(device, tuple(readings)),))
        if kind.startswith(("attributes/request/", "rpc/request/")):
            return self._asked(kind.partition("/")[0], topic.replace("/request/", "/response/"), publication)
        word = kind.partition("/")[0]
        return Decoded(self.name, ignored=_IGNORED.get(word, f"{kind!r} is none of the topics that hold readings"))

    def _of_gateway(self, kind: str, publication: Publication) -> Decoded:
        if kind == _TELEMETRY:
            said: list[Said] = []
            for _ in self._devices(load(publication.payload), said):
                pass
            return self._decoded(tuple(said))
        if kind == "connect":
            return Decoded(self.name, (Said(self._named(load(publication.payload))),), ignored="a device is announced")
        if kind == "attributes/request":
            return self._asked_by_gateway(publication)
        word = kind.partition("/")[0]
        return Decoded(self.name, ignored=_IGNORED.get(word, f"{kind!r} is none of the topics that hold readings"))

    def _devices(self, document: object, said: list[Said]) -> Iterator[None]:
        if not isinstance(document, dict) or len(document) > MAX_DEVICES:
            raise DecodeError(f"telemetry of a gateway is an object of at most {MAX_DEVICES} devices")
        count = 0
        for name, telemetry in document.items():
            device, prefix = self._place(name)
            readings: list[ForeignReading] = []
            yield from self._read(device, telemetry, readings, prefix)
            count += len(readings)
            if count > MAX_FRAME_READINGS:
                raise DecodeError(f"more than {MAX_FRAME_READINGS} values in one message")
            said.append(Said(device, tuple(readings)))

    def _read(self, device: str, telemetry: object, readings: list[ForeignReading], prefix: str = "") -> Iterator[None]:
        """Add the values of an object, of one with a time, or of a list of both."""
        entries = telemetry if isinstance(telemetry, list) else [telemetry]
        for entry in entries:
            if not isinstance(entry, dict):
                raise DecodeError("telemetry is an object of values, one with ts and values, or a list of such")
            values, time_ns = entry, None
            if "ts" in entry and isinstance(entry.get("values"), dict):
                values, time_ns = entry["values"], _time_ns(entry["ts"])
            for path, value in flatten(values, prefix):
                if len(readings) == MAX_FRAME_READINGS:
                    raise DecodeError(f"more than {MAX_FRAME_READINGS} values in one message")
                readings.append(ForeignReading(self._scope.names.channel(device, path or "value"), value, time_ns))
                yield
            yield

    def _decoded(self, said: tuple[Said, ...]) -> Decoded:
        return Decoded(self.name, said, ignored="" if any(one.readings for one in said) else "no value")

    def _asked(self, kind: str, topic: str, publication: Publication) -> Decoded:
        """Answer a device that asks the platform."""
        if kind == "attributes":
            return self._answered(topic, {}, "there are no attributes")
        request = load(publication.payload)
        method = request.get("method") if isinstance(request, dict) else None
        if method == "getSessionLimits":
            return self._answered(topic, _SESSION_LIMITS, "a question about limits")
        return self._answered(topic, {"error": "no such function"}, "a call of a function that the hub does not have")

    def _asked_by_gateway(self, publication: Publication) -> Decoded:
        request = load(publication.payload)
        if not isinstance(request, dict) or type(request.get("id")) is not int:
            raise DecodeError("a request for attributes without an id")
        self._named(request)  # raises where no device is named
        answer = {"id": request["id"], "device": request["device"], "values": {}}
        return self._answered(f"{_GATEWAY}attributes/response", answer, "there are no attributes")

    def _answered(self, topic: str, answer: dict[str, Any], ignored: str) -> Decoded:
        payload = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()
        return Decoded(self.name, answers=(Answer(topic, payload, qos=1),), ignored=ignored)

    def _named(self, document: object) -> str:
        name = document.get("device") if isinstance(document, dict) else None
        return self._place(name)[0]

    def _place(self, name: object) -> tuple[str, str]:
        """Return a device behind a gateway, and what its channels' names begin with."""
        if not isinstance(name, str) or not name:
            raise DecodeError("a gateway names the devices it speaks for")
        # A client that is one device by its credential is no gateway: all is of it.
        return (self._scope.device, name) if self._scope.device else (self._scope.names.device(name), "")


def _time_ns(ts: object) -> int | None:
    """Return the time of a number of milliseconds; None: the device's clock is not set."""
    if isinstance(ts, str) and ts.isdecimal() and len(ts) < 20:
        ts = int(ts)
    return since_epoch_ns(ts, 10**6) if isinstance(ts, int | float) and not isinstance(ts, bool) else None
