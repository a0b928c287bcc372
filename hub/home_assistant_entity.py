"""One series as an entity of Home Assistant: its configuration for MQTT discovery, its state as text.

Owns: which unit, device class and state class a series has there. Place: before `home_assistant`. Pure.

Home Assistant refuses a class that does not go with its unit, and counts a total wrong that is none: a class is said
only where unit, or unit and name, leave no doubt. What a person said of a channel (`kind`) goes before.
Source: Home Assistant's MQTT sensor and binary sensor, and its tables of device classes, 2025.
"""

import re
from collections.abc import Mapping
from hashlib import blake2s
from typing import Any, NamedTuple

from device_sdk.reading import Value, ValueType
from hub.description import Nature
from hub.model import Series
from hub.unit import unit_shown

# Home Assistant's own bound of a state.
MAX_STATE_CHARS = 255
_MAX_ID_CHARS = 100

_BY_UNIT: Mapping[str, str] = {
    "°C": "temperature", "°F": "temperature",
    **dict.fromkeys(("Pa", "hPa", "kPa", "bar", "mbar", "psi", "mmHg", "inHg"), "pressure"),
    **dict.fromkeys(("W", "kW", "MW"), "power"), **dict.fromkeys(("Wh", "kWh", "MWh"), "energy"),
    **dict.fromkeys(("V", "mV"), "voltage"), **dict.fromkeys(("A", "mA"), "current"),
    **dict.fromkeys(("Hz", "kHz", "MHz"), "frequency"), "lx": "illuminance", "VA": "apparent_power",
    "var": "reactive_power", "dBm": "signal_strength", "W/m²": "irradiance", "µS/cm": "conductivity",
    **dict.fromkeys(("ms", "s", "min", "h", "d"), "duration"), **dict.fromkeys(("m", "cm", "km"), "distance"),
    **dict.fromkeys(("m/s", "km/h"), "speed"), **dict.fromkeys(("g", "kg"), "weight"),
    **dict.fromkeys(("B", "kB", "MB", "GB"), "data_size"), **dict.fromkeys(("B/s", "kB/s", "MB/s"), "data_rate"),
    **dict.fromkeys(("m³/h", "m³/s", "L/min"), "volume_flow_rate"),
}  # fmt: skip
_BY_CODE: Mapping[str, str] = {"%RH": "humidity", "%EL": "battery"}
# Unit, what is in the name, class.
_BY_NAME: tuple[tuple[str, re.Pattern[str], str], ...] = tuple(
    (unit, re.compile(rf"(?:^|[._-])(?:{words})(?:[._-]|$)", re.IGNORECASE), kind)
    for unit, words, kind in (
        ("%", "humidity|rh", "humidity"), ("%", "battery", "battery"), ("%", "moisture", "moisture"),
        ("ppm", "co2|carbon[._-]dioxide", "carbon_dioxide"), ("ppm", "co|carbon[._-]monoxide", "carbon_monoxide"),
        ("µg/m³", "pm2[._]?5", "pm25"), ("µg/m³", "pm10", "pm10"), ("µg/m³", "pm1(?:[._]0)?", "pm1"),
        ("mm", "rain|precipitation", "precipitation"), ("m/s", "wind|gust", "wind_speed"),
        ("km/h", "wind|gust", "wind_speed"), ("dB", "noise|sound", "sound_pressure"),
    )
)  # fmt: skip
# Classes whose values may count only upwards; ``energy`` and ``volume`` may not be anything else.
_MAY_COUNT = frozenset({"data_size", "distance", "duration", "energy", "precipitation", "volume", "weight"})
_IS_STORED = re.compile(r"(?:^|[._-])(?:stored|remaining|capacity|available)(?:[._-]|$)", re.IGNORECASE)
_OTHER = re.compile(r"[^A-Za-z0-9_-]+")


class Place(NamedTuple):
    """Where a hub's entities are on the broker.

    Args:
        hub: tells this hub from others on the same broker: letters, digits, ``_``, ``-``.
        discovery: prefix that Home Assistant watches.
        topic: prefix of states.
        version: of the hub, told to people.
    """

    hub: str
    discovery: str = "homeassistant"
    topic: str = "telemetry-hub"
    version: str = ""

    @property
    def status(self) -> str:
        """Return the topic that says whether the hub is there."""
        return f"{self.topic}/{self.hub}/status"

    def availability(self, device: str) -> str:
        """Return the topic that says whether a device is there."""
        return f"{self.topic}/{self.hub}/{device}/availability"

    def state(self, series: Series) -> str:
        """Return the topic of a series' values."""
        return f"{self.topic}/{self.hub}/{series.device}/{series.channel}/state"

    def config(self, series: Series) -> str:
        """Return the topic that announces a series."""
        kind = "binary_sensor" if series.type is ValueType.BOOL else "sensor"
        return f"{self.discovery}/{kind}/{self.hub}/{_object_id(series)}/config"


def config(series: Series, place: Place, device_label: str | None) -> dict[str, Any]:
    """Return what announces a series whose type is known."""
    of = series.effective()
    unit = unit_shown(of.unit) or None
    found: dict[str, Any] = {
        "name": of.label or series.channel,
        "unique_id": f"{place.hub}_{_object_id(series)}",
        "state_topic": place.state(series),
    }
    if series.type is ValueType.BOOL:
        found |= {"payload_on": "ON", "payload_off": "OFF"}
    elif series.type is not ValueType.STR:
        device_class, state_class = classes(series.channel, of.unit, of.kind)
        found |= {"unit_of_measurement": unit, "device_class": device_class, "state_class": state_class,
                  "suggested_display_precision": of.decimals}  # fmt: skip
    found |= {
        "availability": [{"topic": place.status}, {"topic": place.availability(series.device)}],
        "availability_mode": "all",
        "device": {"identifiers": [f"{place.hub}_{series.device}"], "name": device_label or series.device},
        "origin": {"name": "telemetry-hub", **({"sw_version": place.version} if place.version else {})},
    }
    return {name: value for name, value in found.items() if value is not None}


def classes(channel: str, code: str | None, kind: str | None) -> tuple[str | None, str]:
    """Return device class and state class of a channel of numbers.

    Args:
        code: of its unit.
        kind: what a person said of it (`Nature`), if anybody did.
    """
    unit = unit_shown(code) or ""
    by_name = (found for of, words, found in _BY_NAME if of == unit and words.search(channel))
    device_class = _BY_CODE.get(code or "") or next(by_name, None) or _BY_UNIT.get(unit)
    if device_class == "energy":
        if kind == Nature.GAUGE or (kind is None and _IS_STORED.search(channel)):
            return "energy_storage", "measurement"
        return "energy", "total_increasing"
    if kind != Nature.COUNTER:
        return device_class, "measurement"
    if unit in ("L", "m³"):
        device_class = "volume"
    return device_class if device_class in _MAY_COUNT else None, "total_increasing"


def state(series: Series, value: Value) -> bytes:
    """Return a value as Home Assistant reads it."""
    if isinstance(value, bool):
        return b"ON" if value else b"OFF"
    if isinstance(value, str):
        return value[:MAX_STATE_CHARS].encode()
    scaling = series.scaling
    return str(value if scaling is None else scaling.value(value)).encode()


def _object_id(series: Series) -> str:
    """Return an id of letters, digits, ``_`` and ``-``, never the same for two series."""
    text = f"{series.device}/{series.channel}"
    digits = blake2s(text.encode(), digest_size=5).hexdigest()
    return f"{_OTHER.sub('_', text)[:_MAX_ID_CHARS]}_{digits}"
