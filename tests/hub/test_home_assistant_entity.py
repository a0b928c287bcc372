"""A series as an entity of Home Assistant: units as it writes them, classes only where they are sure."""

import pytest

from device_sdk.reading import Value, ValueType
from hub.description import ChannelDescription
from hub.home_assistant_entity import Place, classes, config, state
from hub.model import Series

_PLACE = Place("barn", version="1.2.3")


def _series(channel: str = "temperature", kind: ValueType = ValueType.FLOAT, **fields: str) -> Series:
    return Series(7, "default", "greenhouse-7", channel, kind, **fields)  # type: ignore[arg-type]


def test_number_is_a_sensor_with_unit_and_classes() -> None:
    """What people see of a channel, where its values come, and whose it is."""
    assert config(_series(unit="Cel", label="Air"), _PLACE, "Greenhouse 7") == {
        "name": "Air",
        "unique_id": "barn_greenhouse-7_temperature_9125287062",
        "state_topic": "telemetry-hub/barn/greenhouse-7/temperature/state",
        "unit_of_measurement": "°C",
        "device_class": "temperature",
        "state_class": "measurement",
        "availability": [
            {"topic": "telemetry-hub/barn/status"},
            {"topic": "telemetry-hub/barn/greenhouse-7/availability"},
        ],
        "availability_mode": "all",
        "device": {"identifiers": ["barn_greenhouse-7"], "name": "Greenhouse 7"},
        "origin": {"name": "telemetry-hub", "sw_version": "1.2.3"},
    }


def test_switch_is_a_binary_sensor_and_text_has_no_class() -> None:
    """Neither has a unit or is counted."""
    switch, text = _series("door", ValueType.BOOL), _series("mode", ValueType.STR)

    assert _PLACE.config(switch).startswith("homeassistant/binary_sensor/barn/greenhouse-7_door_")
    assert _PLACE.config(text).startswith("homeassistant/sensor/barn/greenhouse-7_mode_")
    assert config(switch, _PLACE, None)["payload_on"] == "ON"
    assert {"state_class", "unit_of_measurement"}.isdisjoint(config(text, _PLACE, None))
    assert config(text, _PLACE, None)["device"]["name"] == "greenhouse-7"


def test_what_a_person_said_goes_before() -> None:
    """Label, unit, decimals and scale are those that the page has."""
    series = _series(unit="Cel")
    series.described = ChannelDescription(label="Luft", unit="degF", decimals=1, scale=1.8, offset=32.0)

    found = config(series, _PLACE, None)

    assert (found["name"], found["unit_of_measurement"], found["suggested_display_precision"]) == ("Luft", "°F", 1)
    assert state(series, 100.0) == b"212.0"


@pytest.mark.parametrize(
    ("channel", "unit", "kind", "expected"),
    [
        ("temperature", "Cel", None, ("temperature", "measurement")),
        ("color", "K", None, (None, "measurement")),
        ("humidity", "%RH", None, ("humidity", "measurement")),
        ("air.humidity", "%", None, ("humidity", "measurement")),
        ("load", "%", None, (None, "measurement")),
        ("charge", "%EL", None, ("battery", "measurement")),
        ("co2", "ppm", None, ("carbon_dioxide", "measurement")),
        ("co2", "[ppm]", None, ("carbon_dioxide", "measurement")),
        ("methane", "ppm", None, (None, "measurement")),
        ("SDS0X1.PM2.5", "ug/m3", None, ("pm25", "measurement")),
        ("pm10", "ug/m3", None, ("pm10", "measurement")),
        ("no2", "ug/m3", None, (None, "measurement")),
        ("energy", "kW.h", None, ("energy", "total_increasing")),
        ("battery.stored", "W.h", None, ("energy_storage", "measurement")),
        ("energy", "kWh", "gauge", ("energy_storage", "measurement")),
        ("rain", "mm", None, ("precipitation", "measurement")),
        ("rain", "mm", "counter", ("precipitation", "total_increasing")),
        ("gust", "m/s", None, ("wind_speed", "measurement")),
        ("flow", "m/s", None, ("speed", "measurement")),
        ("tank", "l", None, (None, "measurement")),
        ("water", "m3", "counter", ("volume", "total_increasing")),
        ("pulses", None, "counter", (None, "total_increasing")),
        ("odd", "V", "counter", (None, "total_increasing")),
        ("pressure", "hPa", None, ("pressure", "measurement")),
        ("anything", None, None, (None, "measurement")),
        ("anything", "furlong", None, (None, "measurement")),
    ],
)
def test_class_is_said_only_where_it_is_sure(
    channel: str, unit: str | None, kind: str | None, expected: tuple[str | None, str]
) -> None:
    """Home Assistant refuses a class that does not go with its unit, and counts a total that is none wrong."""
    assert classes(channel, unit, kind) == expected


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [(ValueType.FLOAT, 21.5, b"21.5"), (ValueType.INT, 3, b"3"), (ValueType.BOOL, False, b"OFF"),
     (ValueType.BOOL, True, b"ON"), (ValueType.STR, "é" * 300, "é".encode() * 255)],
)  # fmt: skip
def test_state_is_text(kind: ValueType, value: Value, expected: bytes) -> None:
    """A text longer than Home Assistant keeps is cut, not refused."""
    assert state(_series(kind=kind), value) == expected


def test_ids_of_two_series_are_never_the_same() -> None:
    """Signs that an id may not have become one; what was different stays so."""
    names = [("a", "b.c"), ("a", "b_c"), ("a_b", "c"), ("a.b", "c"), ("a", "b-c"), ("x" * 64, "y" * 128)]
    topics = {_PLACE.config(Series(1, "default", device, channel, ValueType.INT)) for device, channel in names}

    assert len(topics) == len(names)
    assert all(len(topic.split("/")) == 5 for topic in topics)
