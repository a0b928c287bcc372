"""Tasmota: ``tele/<topic>/SENSOR`` and its neighbours.

Owns: which of its messages hold readings, their units and times. Place: before `dispatch`. Pure. Source: Tasmota
documentation, "MQTT".

``Time`` is local and says no zone; it counts when the hub was told the zone and the clock is not ahead. One of the two
messages that follow each switching is taken, ``RESULT``.
"""

import re

from device_sdk.reading import Channel
from hub.decode.base import Decoded, DecodeError, ForeignReading, Publication, Said
from hub.decode.esphome import ONLINE
from hub.decode.moment import near_ns
from hub.decode.naming import shown
from hub.decode.scope import Scope
from hub.decode.value import flatten, load, text_of, word_value

# What ends a topic; and the names of commands, whose answers end it where a setting says so.
_TAILS = re.compile(r"[A-Z][A-Z0-9_]*")
_KINDS = frozenset({"tele", "stat", "cmnd"})
_SWITCH = re.compile(r"POWER[0-9]*")
_NO_READINGS = re.compile(r"(?:UPTIME|HASS_STATE|(?:STATUS|INFO)[0-9]*)")
# Of a RESULT, which also answers questions for settings.
_STATES = re.compile(r"(?:POWER[0-9]*|Dimmer|CT|Shutter[0-9]+\..*)")
_PLACE = re.compile(r"\.[0-9]{1,2}$")
_NO_CHANNEL = frozenset({"Time", "Epoch", "TempUnit", "PressureUnit", "SpeedUnit", "TotalStartTime", "Id"})
_UNITS = {
    "Humidity": "%RH", "Power": "W", "ApparentPower": "VA", "ReactivePower": "var", "Voltage": "V", "Current": "A",
    "Total": "kW.h", "TotalTariff": "kW.h", "Yesterday": "kW.h", "Today": "kW.h", "ExportActive": "kW.h",
    "Frequency": "Hz", "Illuminance": "lx", "CarbonDioxide": "[ppm]", "eCO2": "[ppm]", "TVOC": "[ppb]", "PM1": "ug/m3",
    "PM10": "ug/m3", "Signal": "dBm", "UptimeSec": "s", "Vcc": "V", "Weight": "kg",
}  # fmt: skip
_TEMPERATURES = {"C": "Cel", "F": "[degF]"}


class Tasmota:
    """Knows messages by the last part of their topic, with ``tele`` or ``stat`` before them."""

    __slots__ = ("_scope",)
    name = "tasmota"

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def decode(self, publication: Publication) -> Decoded | None:
        """Return the readings of a message; see `hub.decode.base.Decoder`."""
        topic = publication.topic
        if topic.startswith("tasmota/discovery/"):
            return Decoded(self.name, ignored="what a device says of itself; units come with its readings")
        found = _parts(topic)
        if found is None:
            return None
        kind, text, tail = found
        device = self._scope.own(text)
        if tail == "LWT" and publication.payload:
            is_online = publication.payload.lower() == b"online"
            return Decoded(self.name, (Said(device, (ForeignReading(ONLINE, is_online),)),))
        if kind == "cmnd" or not publication.payload:
            return Decoded(self.name, ignored="a command to a device, not a reading")
        if tail in ("SENSOR", "STATE", "RESULT", "STATUS8", "STATUS10"):
            return self._report(device, tail, publication)
        if kind == "tele" and not _NO_READINGS.fullmatch(tail):
            return self._event(device, tail, publication.payload)
        why = "RESULT says the same" if _SWITCH.fullmatch(tail) else "holds no readings"
        return Decoded(self.name, ignored=why)

    def _event(self, device: str, tail: str, payload: bytes) -> Decoded:
        """Return what a message of one value says, as ``POWER_LOW``."""
        text = text_of(payload)
        value = None if text.startswith("{") else word_value(text)
        if value is None:
            return Decoded(self.name, ignored="holds no readings")
        return Decoded(self.name, (Said(device, (ForeignReading(self._scope.names.channel(device, tail), value),)),))

    def _report(self, device: str, tail: str, publication: Publication) -> Decoded:
        document = load(publication.payload)
        if isinstance(document, dict) and tail.startswith("STATUS"):
            document = document.get("StatusSNS", {})
        if not isinstance(document, dict):
            raise DecodeError("no JSON object, which such a message of Tasmota is")
        time_ns = near_ns(document.get("Time"), self._scope.zone, publication.received_ns)
        readings, channels = [], []
        for path, value in flatten(document):
            # A meter of three phases has a list: `ENERGY.Power.0`.
            said = shown(path)
            last = _PLACE.sub("", said).rpartition(".")[2]
            if last in _NO_CHANNEL or not _counts(tail, said, value):
                continue
            channel = self._scope.names.channel(device, path)
            readings.append(ForeignReading(channel, value, time_ns))
            unit = "ug/m3" if said.endswith("PM2.5") else _unit_of(last, document)
            if unit:
                channels.append(Channel(channel, unit))
        if not readings:
            return Decoded(self.name, ignored="holds no readings")
        return Decoded(self.name, (Said(device, tuple(readings), tuple(channels)),))


def place(scope: Scope, topic: str) -> tuple[str, str] | None:
    """Return whose a message with readings is; None: it is none of Tasmota. Its values name the channels."""
    found = _parts(topic)
    return None if found is None or found[0] == "cmnd" else (scope.own(found[1]), "")


def _parts(topic: str) -> tuple[str, str, str] | None:
    """Return kind, device and last part of ``tele/<topic>/SENSOR``, wherever the kind stands: that is a setting."""
    if "tele/" not in topic and "stat/" not in topic and "cmnd/" not in topic:
        return None
    *levels, tail = topic.split("/")
    kind = next((level for level in levels if level in _KINDS), None)
    if kind is None or len(levels) < 2 or not (kind == "cmnd" or _TAILS.fullmatch(tail)):
        return None
    levels.remove(kind)
    return kind, "/".join(levels), tail


def _counts(tail: str, path: str, value: object) -> bool:
    if tail == "RESULT":
        return _STATES.fullmatch(path) is not None
    # Of a STATE, texts are names of networks and modes.
    return tail != "STATE" or not isinstance(value, str)


def _unit_of(last: str, document: dict[str, object]) -> str | None:
    """Return the unit of a value by the last part of its path, and by what the message says of units."""
    if last in ("Temperature", "DewPoint"):
        return _TEMPERATURES.get(str(document.get("TempUnit", "C")))
    if last in ("Pressure", "SeaPressure"):
        unit = document.get("PressureUnit", "hPa")
    elif last == "Speed":
        unit = document.get("SpeedUnit")
    else:
        return _UNITS.get(last)
    return unit[:16] or None if isinstance(unit, str) else None
