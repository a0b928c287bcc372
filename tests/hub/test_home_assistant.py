"""Home Assistant: announced once, said in turn at a bounded rate, taken back when a series is gone."""

import json
import tracemalloc

from device_sdk.reading import Channel, ValueType
from hub.devices import Latest, Registry
from hub.home_assistant import LOOK_AT_ONCE, HomeAssistant, Message
from hub.home_assistant_entity import Place

_T0 = 1_795_376_000_000_000_000
_S = 10**9
_PLACE = Place("barn")
_STATE = "telemetry-hub/barn/pump/speed/state"


def _registry(*channels: str, device: str = "pump", namespace: str = "default") -> Registry:
    registry = Registry([])
    _declare(registry, *channels, device=device, namespace=namespace)
    return registry


def _declare(registry: Registry, *channels: str, device: str = "pump", namespace: str = "default") -> None:
    registry.declare(namespace, device, [Channel(name, "Hz", ValueType.FLOAT) for name in channels])
    registry.device(namespace, device).heard(_T0, 1, _T0)


def _value(registry: Registry, channel: str, value: float, at_s: float = 0, device: str = "pump") -> None:
    series = registry.device("default", device).channels[channel]
    registry.latest[series.id] = Latest(_T0 + int(at_s * _S), value, 1)


def _remove(registry: Registry, channel: str, device: str = "pump") -> None:
    series = registry.device("default", device).channels.pop(channel)
    del registry.by_id[series.id]


def _states(messages: list[Message]) -> list[bytes]:
    return [message.payload for message in messages if message.topic.endswith("/state")]


def test_series_is_announced_then_its_device_then_its_value() -> None:
    """All is retained: Home Assistant may start later. The next tick has nothing to say."""
    registry = _registry("speed")
    _value(registry, "speed", 50.5)
    home = HomeAssistant(registry, _PLACE)

    announced, there, value = home.tick(_T0)

    assert announced.topic.startswith("homeassistant/sensor/barn/pump_speed_")
    assert json.loads(announced.payload)["state_topic"] == _STATE
    assert there == Message("telemetry-hub/barn/pump/availability", b"online", 1)
    assert value == Message(_STATE, b"50.5")
    assert all(message.is_retained for message in (announced, there, value))
    assert home.tick(_T0 + _S) == []


def test_value_is_said_at_most_once_a_second_and_the_last_at_last() -> None:
    """Ten readings a second are one message, and the newest is never left unsaid."""
    registry = _registry("speed")
    home = HomeAssistant(registry, _PLACE)
    said = []
    for tenth in range(35):
        _value(registry, "speed", tenth, tenth / 10)
        said += _states(home.tick(_T0 + tenth * _S // 10))
    said += _states(home.tick(_T0 + 4 * _S))

    assert said == [b"0", b"10", b"20", b"30", b"34"]


def test_clock_that_was_set_back_does_not_silence() -> None:
    """A value is due as well when the time of its last message lies ahead."""
    registry = _registry("speed")
    _value(registry, "speed", 1.0)
    home = HomeAssistant(registry, _PLACE)
    home.tick(_T0)
    _value(registry, "speed", 2.0)

    assert _states(home.tick(_T0 - 3600 * _S)) == [b"2.0"]


def test_tick_is_bounded_and_all_have_their_turn() -> None:
    """A fleet's values come in turn, none twice before each has come once."""
    names = [f"c{n}" for n in range(100)]
    registry = _registry(*names)
    for name in names:
        _value(registry, name, 1.0)
    home = HomeAssistant(registry, _PLACE, per_tick=20)
    said: list[Message] = []
    for tick in range(11):
        messages = home.tick(_T0 + tick)
        assert len(messages) <= 22
        said += messages

    states = [message.topic for message in said if message.topic.endswith("/state")]
    assert len(states) == len(set(states)) == 100
    assert home.tick(_T0 + 100) == []


def test_device_that_is_offline_is_said_to_be() -> None:
    """Its values stay; Home Assistant shows them as not available."""
    registry = _registry("speed")
    home = HomeAssistant(registry, _PLACE)
    home.tick(_T0)

    assert home.tick(_T0 + 3600 * _S) == [Message("telemetry-hub/barn/pump/availability", b"offline", 1)]


def test_series_that_goes_is_taken_back() -> None:
    """Announcement, value and, with the last of a device, whether it is there: the broker forgets all."""
    registry = _registry("speed", "power")
    home = HomeAssistant(registry, _PLACE)
    topics = [message.topic for message in home.tick(_T0) if message.topic.endswith("/config")]
    _remove(registry, "speed")

    assert home.tick(_T0) == [Message(topics[0], b"", 1), Message(_STATE, b"", 1)]
    _remove(registry, "power")
    gone = home.tick(_T0)
    assert [message.topic for message in gone] == [
        topics[1], "telemetry-hub/barn/pump/power/state", "telemetry-hub/barn/pump/availability",
    ]  # fmt: skip
    assert {message.payload for message in gone} == {b""}
    assert home.tick(_T0) == []


def test_announcement_changes_with_what_people_say() -> None:
    """A new label or unit is announced at the same topic; another type moves the entity."""
    registry = _registry("speed")
    home = HomeAssistant(registry, _PLACE)
    (before, *_) = home.tick(_T0)
    series = registry.device("default", "pump").channels["speed"]

    series.label = "Drehzahl"
    (after,) = home.tick(_T0)
    assert (after.topic, json.loads(after.payload)["name"]) == (before.topic, "Drehzahl")

    series.type = ValueType.BOOL
    gone, moved = home.tick(_T0)
    assert gone == Message(before.topic, b"", 1)
    assert moved.topic.startswith("homeassistant/binary_sensor/")


def test_announcement_of_an_earlier_life_is_taken_back() -> None:
    """What the broker still has of series that are no more goes; what is ours and lives stays."""
    registry = _registry("speed")
    home = HomeAssistant(registry, _PLACE)
    (alive, *_) = home.tick(_T0)
    old = "homeassistant/sensor/barn/pump_old_00/config"
    home.saw(alive.topic, alive.payload)
    home.saw(old, b'{"state_topic":"telemetry-hub/barn/pump/old/state"}')
    home.saw("homeassistant/sensor/barn/pump_bad_00/config", b'{"state_topic":"home/light/set"}')
    home.saw("homeassistant/sensor/other/x/config", b"{}")
    home.saw(old.replace("old", "new"), b"")

    gone = sorted(home.tick(_T0))
    assert [message.topic for message in gone] == [
        "homeassistant/sensor/barn/pump_bad_00/config", old, "telemetry-hub/barn/pump/old/state",
    ]  # fmt: skip
    assert {message.payload for message in gone} == {b""}


def test_all_is_said_again_on_a_new_connection_and_when_home_assistant_starts() -> None:
    """The broker may have lost what it retained."""
    registry = _registry("speed")
    _value(registry, "speed", 1.0)
    home = HomeAssistant(registry, _PLACE)
    first = home.tick(_T0)

    assert home.connected() == Message("telemetry-hub/barn/status", b"online", 1)
    assert home.tick(_T0) == first
    home.saw("homeassistant/status", b"offline")
    assert home.tick(_T0) == []
    home.saw("homeassistant/status", b"online")
    assert home.tick(_T0) == first
    assert home.will == Message("telemetry-hub/barn/status", b"offline", 1)


def test_only_devices_that_are_wanted_appear() -> None:
    """Not the hub's own events, not other namespaces, not what came from Home Assistant's own broker."""
    registry = _registry("speed")
    for device, namespace in (("plug", "default"), ("pump", "other"), ("$sys", "default")):
        _declare(registry, "speed", device=device, namespace=namespace)
    registry.declare("default", "pump", [Channel("untyped")])

    home = HomeAssistant(registry, _PLACE, is_wanted=lambda name: name != "plug", label=str.upper)

    (announced,) = [json.loads(m.payload) for m in home.tick(_T0) if m.topic.endswith("/config")]
    assert announced["device"] == {"identifiers": ["barn_pump"], "name": "PUMP"}


def test_series_beyond_the_limit_are_left_out() -> None:
    """And counted; one that goes makes room for another."""
    registry = _registry("a", "b", "c")
    home = HomeAssistant(registry, _PLACE, max_series=2)

    assert len([m for m in home.tick(_T0) if m.topic.endswith("/config")]) == 2
    assert home.left_out == 1
    _remove(registry, "a")
    assert [m.topic.split("/")[3].rpartition("_")[0] for m in home.tick(_T0) if m.payload] == ["pump_c"]
    assert home.left_out == 0


def test_bridge_can_tell_what_is_ours() -> None:
    """Else a hub would take its own entities for devices, and announce those."""
    home = HomeAssistant(Registry([]), Place("barn", discovery="my/ha"))

    assert home.is_ours("my/ha/sensor/barn/x/config")
    assert home.is_ours("telemetry-hub/barn/pump/speed/state")
    for topic in ("my/ha/sensor/x/config", "my/ha/sensor/other/x/config", "sensor/barn/x/config", "telemetry-hub/b/c"):
        assert not home.is_ours(topic)
    assert home.filters == ("my/ha/+/barn/+/config", "my/ha/status")


def test_memory_of_a_series_is_small() -> None:
    """What is remembered of a series is bounded, and so is how many."""
    registry = _registry(*[f"c{n}" for n in range(200)])
    home = HomeAssistant(registry, _PLACE, per_tick=10_000)
    tracemalloc.start()
    try:
        home.tick(_T0)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert used / 200 < 800


def test_large_registry_is_looked_through_in_rounds() -> None:
    """A tick looks at so many series; what the broker has of earlier is taken back when all have been looked at."""
    registry = Registry([])
    for number in range(LOOK_AT_ONCE // 100 + 1):
        _declare(registry, *(f"c{n}" for n in range(100)), device=f"d{number}")
    last = registry.device("default", f"d{LOOK_AT_ONCE // 100}").channels["c99"]
    home = HomeAssistant(registry, _PLACE, per_tick=10**6)
    gone = "homeassistant/sensor/barn/gone_1/config"
    for topic in (_PLACE.config(last), gone):
        home.saw(topic, b'{"state_topic":"x"}')

    first, second, third = (home.tick(_T0 + number) for number in range(3))

    configs = [sum(m.topic.endswith("/config") for m in told if m.payload) for told in (first, second, third)]
    assert configs == [LOOK_AT_ONCE, 100, 0]
    assert [m.topic for told in (first, second, third) for m in told if not m.payload] == [gone]


def test_own_announcement_that_comes_back_is_known() -> None:
    """The broker gives each to whoever asked for them: to compare it with all others would cost a tick of its own."""
    registry = _registry("speed")
    home = HomeAssistant(registry, _PLACE)
    for message in home.tick(_T0):
        home.saw(message.topic, message.payload)
    assert home._found == {}

    _remove(registry, "speed")
    assert all(not message.payload for message in home.tick(_T0))
    home.saw("homeassistant/sensor/barn/other_1/config", b"{}")
    assert [message.topic for message in home.tick(_T0)] == ["homeassistant/sensor/barn/other_1/config"]
