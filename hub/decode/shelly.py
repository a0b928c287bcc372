"""Shelly, both kinds: ``shellies/<id>/relay/0/power`` of the first, ``<prefix>/events/rpc`` of those since 2021.

Owns: which of their messages hold readings, units, and that an update is taken once. Place: before `dispatch`. Pure.
Source: Shelly API documentation, "MQTT" (Gen1) and "Notifications" (Gen2).

A device of the second kind may say each change twice, as a notification with its time and as a status without one:
the status is left out for an hour after a notification. An update holds what changed; what it does not name stays as
it was, so that no more than the update is a reading.
"""

from collections import OrderedDict

from device_sdk.reading import Channel, Value
from hub.decode.base import Decoded, DecodeError, ForeignReading, Publication, Said
from hub.decode.esphome import ONLINE
from hub.decode.moment import near_ns
from hub.decode.naming import shown
from hub.decode.scope import Scope
from hub.decode.value import flatten, load, text_of, word_value

_FIRST = "shellies/"
# By the end of a path; the longest that fits. Energy of relays is in watt-minutes there, and in Wh here.
_FIRST_UNITS = {
    "power": "W", "energy": "W.h", "total": "W.h", "total_returned": "W.h", "voltage": "V", "current": "A",
    "reactive_power": "var", "temperature": "Cel", "humidity": "%RH", "battery": "%EL", "lux": "lx",
}  # fmt: skip
_WATT_MINUTES_PER_WH = 60
_FIRST_NO_CHANNEL = frozenset({"temperature_f", "announce", "info", "command", "set", "status_update"})
_UNITS = (
    ("apower", "W"), ("act_power", "W"), ("aprt_power", "VA"), ("voltage", "V"), ("current", "A"), ("freq", "Hz"),
    ("aenergy.total", "W.h"), ("act_energy", "W.h"), ("act_ret_energy", "W.h"),
    ("total_act", "W.h"), ("total_act_ret", "W.h"), ("tC", "Cel"), ("rh", "%RH"),
    ("battery.V", "V"), ("battery.percent", "%EL"), ("rssi", "dBm"), ("lux", "lx"), ("uptime", "s"),
)  # fmt: skip
# What of a status is no reading: numbers of the part itself, the same in another unit, sums that were said before.
_NO_CHANNEL = frozenset({
    "id", "source", "tF", "minute_ts", "unixtime", "cfg_rev", "kvs_rev", "schedule_rev", "webhook_rev", "ts",
})  # fmt: skip
_NO_BRANCH = ("by_minute", "errors", "available_updates", "calibration", "flags")
# Parts of the device's own software.
_NO_PART = frozenset({"ble", "cloud", "knx", "matter", "mqtt", "script", "ui", "ws", "bthome", "eth"})
_NO_TEXT = frozenset({"sys", "wifi"})
# Devices of which a notification was seen, 200 bytes each; a forgotten one may say something twice.
_MAX_NOTIFIED = 1000
_QUIET_NS = 3600 * 10**9


class Shelly:
    """Knows messages by their topics."""

    __slots__ = ("_notified", "_scope")
    name = "shelly"

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._notified: OrderedDict[str, int] = OrderedDict()

    def decode(self, publication: Publication) -> Decoded | None:
        """Return the readings of a message; see `hub.decode.base.Decoder`."""
        topic = publication.topic
        if topic.startswith(_FIRST):
            return self._first(topic[len(_FIRST) :], publication.payload)
        head, _, tail = topic.rpartition("/")
        if tail == "rpc":
            if head.endswith("/events"):
                return self._notification(head[: -len("/events")], publication)
            if _is_call(publication.payload):
                return Decoded(self.name, ignored="a call, or the answer to one: no reading")
        elif tail == "online" and publication.payload in (b"true", b"false"):
            return self._online(head, publication.payload)
        elif tail == "log" and head.endswith("/debug"):
            return Decoded(self.name, ignored="a device's log, no readings")
        elif head.endswith("/status") and publication.payload[:1] == b"{" and _is_part(tail):
            return self._status(head[: -len("/status")], tail, publication)
        return None

    def _first(self, name: str, payload: bytes) -> Decoded:
        device, _, path = name.partition("/")
        tail = path.rpartition("/")[2]
        if not path or tail in _FIRST_NO_CHANNEL or not payload:
            return Decoded(self.name, ignored="holds no readings")
        if path == "online":
            return self._online(device, payload)
        text = text_of(payload)
        values: list[tuple[str, Value]]
        if text.startswith("{"):
            values = flatten(load(payload), path.replace("/", "."))
        else:
            value = word_value(text)
            values = [] if value is None else [(path.replace("/", "."), value)]
        if tail == "energy":
            values = [
                (name, value / _WATT_MINUTES_PER_WH if isinstance(value, int | float) else value)
                for name, value in values
            ]
        return self._said(device, values, None, _FIRST_UNITS.get(tail))

    def _online(self, device: str, payload: bytes) -> Decoded:
        is_online = payload.strip() == b"true"
        return Decoded(self.name, (Said(self._scope.own(device), (ForeignReading(ONLINE, is_online),)),))

    def _notification(self, prefix: str, publication: Publication) -> Decoded | None:
        document = load(publication.payload)
        method = document.get("method") if isinstance(document, dict) else None
        if not isinstance(document, dict) or not isinstance(method, str):
            return None
        params = document.get("params")
        if method not in ("NotifyStatus", "NotifyFullStatus", "NotifyEvent") or not isinstance(params, dict):
            raise DecodeError(f"a notification {method[:40]!r} with no parts that are known")
        time_ns = near_ns(params.get("ts"), None, publication.received_ns)
        if method == "NotifyEvent":
            return self._events(prefix, params, publication.received_ns)
        self._note(prefix, publication.received_ns)
        values = [found for part, status in params.items() if _is_part(part) for found in _values(part, status)]
        return self._said(prefix, values, time_ns)

    def _events(self, prefix: str, params: dict[str, object], received_ns: int) -> Decoded:
        events = params.get("events")
        readings = []
        device = self._scope.own(prefix)
        for event in events[:100] if isinstance(events, list) else ():
            if not isinstance(event, dict):
                continue
            part, what = event.get("component"), event.get("event")
            if isinstance(part, str) and _is_part(part) and isinstance(what, str) and 0 < len(what) <= 64:
                channel = self._scope.names.channel(device, f"{part}.event")
                readings.append(ForeignReading(channel, what, near_ns(event.get("ts"), None, received_ns)))
        if not readings:
            return Decoded(self.name, ignored="holds no readings")
        return Decoded(self.name, (Said(device, tuple(readings)),))

    def _status(self, prefix: str, part: str, publication: Publication) -> Decoded:
        seen_ns = self._notified.get(prefix)
        if seen_ns is not None and publication.received_ns - seen_ns < _QUIET_NS:
            return Decoded(self.name, ignored="the notification on events/rpc says the same, with its time")
        return self._said(prefix, _values(part, load(publication.payload)), None)

    def _note(self, prefix: str, now_ns: int) -> None:
        self._notified[prefix] = now_ns
        self._notified.move_to_end(prefix)
        if len(self._notified) > _MAX_NOTIFIED:
            self._notified.popitem(last=False)

    def _said(
        self, text: str, values: list[tuple[str, Value]], time_ns: int | None, unit: str | None = None
    ) -> Decoded:
        if not values:
            return Decoded(self.name, ignored="holds no readings")
        device = self._scope.own(text)
        readings, channels = [], []
        for path, value in values:
            channel = self._scope.names.channel(device, path)
            readings.append(ForeignReading(channel, value, time_ns))
            code = unit or next((unit for end, unit in _UNITS if shown(path).endswith(end)), None)
            if code and not isinstance(value, str | bool):
                channels.append(Channel(channel, code))
        return Decoded(self.name, (Said(device, tuple(readings), tuple(channels)),))


def place(scope: Scope, topic: str) -> tuple[str, str] | None:
    """Return which channel of which device a value of the first kind is of; None: it is none."""
    if not topic.startswith(_FIRST):
        return None
    name, _, path = topic[len(_FIRST) :].partition("/")
    device = scope.own(name)
    return (device, scope.names.channel(device, path.replace("/", "."))) if path else None


def _is_call(payload: bytes) -> bool:
    if payload[:1] != b"{":
        return False
    document = load(payload)
    return isinstance(document, dict) and "src" in document and not {"method", "result", "error"}.isdisjoint(document)


def _is_part(text: str) -> bool:
    """Say whether it is a part of a device, ``switch:0`` or ``sys``, that may have readings."""
    kind, colon, number = text.partition(":")
    is_numbered = bool(colon) and number.isdigit() and len(number) <= 4
    return (is_numbered or text in _NO_TEXT) and kind.isidentifier() and kind not in _NO_PART


def _values(part: str, status: object) -> list[tuple[str, Value]]:
    if not isinstance(status, dict):
        return []
    return [
        (f"{part}.{path}", value) for path, value in flatten(status)
        if shown(path).rpartition(".")[2] not in _NO_CHANNEL and not any(f"{branch}." in path for branch in _NO_BRANCH)
        and not (part in _NO_TEXT and isinstance(value, str))
    ]  # fmt: skip
