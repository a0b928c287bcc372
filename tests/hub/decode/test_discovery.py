"""What a discovery message announces, in both forms and with what devices leave out."""

import pytest

from hub.decode.base import DecodeError
from hub.decode.discovery import as_text, is_config, read_config

CONFIG = "homeassistant/sensor/node/t/config"


@pytest.mark.parametrize(
    ("topic", "is_one"),
    [
        (CONFIG, True), ("homeassistant/sensor/t/config", True), ("homeassistant/device/x/config", True),
        ("homeassistant/t/config", False), ("homeassistant/a/b/c/d/config", False), ("home/sensor/t/config", False),
        ("homeassistant/sensor/t/state", False),
    ],
)  # fmt: skip
def test_topic_of_discovery(topic: str, is_one: bool) -> None:
    """With a node or without."""
    assert is_config(topic) is is_one


@pytest.mark.parametrize(
    ("device", "text", "like"),
    [
        ({"identifiers": ["x", "y"], "name": "Office"}, "x", "Office"),
        ({"ids": "x"}, "x", "x"),
        ({"identifiers": [7]}, "7", "7"),
        ({"cns": [["mac", "02:5b"]], "name": "Office"}, "02:5b", "Office"),
        ({}, "t", "t"),
        (None, "t", "t"),
        ({"identifiers": {}, "connections": [[]], "name": 7}, "t", "t"),
    ],
)
def test_device_of_an_entity(device: object, text: str, like: str) -> None:
    """Its first identifier says which it is, its name what it is called; without either the topic does."""
    entity = read_config(CONFIG, {"state_topic": "a", "device": device}).entities[0]

    assert (entity.device, entity.device_like) == (text, like)


@pytest.mark.parametrize(
    ("config", "like"),
    [
        ({"object_id": "office_t", "name": "Temperature"}, "temperature"),
        ({"object_id": "office_t"}, "office_t"),
        ({"name": "Office Air Temperature", "device": {"ids": "x", "name": "office"}}, "air temperature"),
        ({"name": "Air Temperature"}, "air temperature"),
        ({"name": None, "device_class": "temperature"}, "temperature"),
        ({}, "t"),
    ],
)
def test_name_of_an_entity(config: dict[str, object], like: str) -> None:
    """What people would call it."""
    assert read_config(CONFIG, {"state_topic": "a", **config}).entities[0].channel_like == like


def test_base_topic_is_put_in() -> None:
    """At either end, and of a device for its components."""
    announced = read_config(CONFIG, {"~": "a/b", "stat_t": "~/state", "avty_t": "there/~"})
    device = read_config(
        "homeassistant/device/x/config", {"~": "a/b", "cmps": {"t": {"p": "sensor", "stat_t": "~/t"}, "u": 7}}
    )

    assert [entity.topic for entity in (*announced.entities, *device.entities)] == ["a/b/state", "a/b/t"]
    assert announced.availabilities[0].topic == "there/a/b"


def test_states_of_a_switch() -> None:
    """As it says, else ON and OFF."""
    given: list[tuple[str, dict[str, object]]] = [
        ("switch", {}), ("switch", {"pl_on": 1, "stat_on": "yes", "pl_off": False}), ("sensor", {"pl_on": 1}),
    ]  # fmt: skip

    found = [
        read_config(f"homeassistant/{kind}/t/config", {"state_topic": "a", **config}).entities[0]
        for kind, config in given
    ]

    assert [(entity.on, entity.off) for entity in found] == [("ON", "OFF"), ("yes", "false"), ("", "")]
    assert as_text(True) == "true"


@pytest.mark.parametrize(
    "config",
    [{"state_topic": 7}, {"state_topic": "x" * 300}, {}, {"availability": ["x", {"topic": "a", "val_tpl": "{{ 1 }}"}]}],
)
def test_what_is_not_announced_well_is_left_out(config: dict[str, object]) -> None:
    """The rest of the message holds."""
    announced = read_config(CONFIG, config)

    assert (announced.entities, announced.availabilities) == ((), ())


def test_components_are_bounded() -> None:
    """A device has some dozen."""
    with pytest.raises(DecodeError, match="200"):
        read_config("homeassistant/device/x/config", {"cmps": {str(at): {} for at in range(201)}})
