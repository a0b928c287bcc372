"""What a discovery message of Home Assistant announces: entities, their topics and units.

Owns: both forms of the message, its abbreviations and ``~``. Place: before `home_assistant`, which reads the states.
Pure. Source: Home Assistant documentation, "MQTT discovery".
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from hub.decode.base import DecodeError
from hub.decode.naming import label_of
from hub.decode.template import Template, parse
from hub.unit import PERCENT, unit_code

PREFIX = "homeassistant/"
# Of one message; a device has some dozen.
_MAX_COMPONENTS = 200
_MAX_AVAILABILITIES = 10
_MAX_ID_CHARS = 200

# Only of what is read here.
_ABBREVIATIONS = {
    "stat_t": "state_topic", "val_tpl": "value_template", "stat_val_tpl": "state_value_template",
    "unit_of_meas": "unit_of_measurement", "dev_cla": "device_class", "stat_cla": "state_class",
    "uniq_id": "unique_id", "obj_id": "object_id",
    "dev": "device", "cmps": "components", "p": "platform", "pl_on": "payload_on", "pl_off": "payload_off",
    "stat_on": "state_on", "stat_off": "state_off", "avty_t": "availability_topic", "avty": "availability",
    "avty_tpl": "availability_template", "pl_avail": "payload_available", "pl_not_avail": "payload_not_available",
    "curr_temp_t": "current_temperature_topic", "curr_temp_tpl": "current_temperature_template",
    "temp_stat_t": "temperature_state_topic", "temp_stat_tpl": "temperature_state_template",
    "curr_hum_t": "current_humidity_topic", "curr_hum_tpl": "current_humidity_template",
    "pos_t": "position_topic", "pos_tpl": "position_template",
}  # fmt: skip
_OF_DEVICE = {"ids": "identifiers", "cns": "connections"}
_OF_AVAILABILITY = {
    "t": "topic", "pl_avail": "payload_available", "pl_not_avail": "payload_not_available", "val_tpl": "value_template"
}  # fmt: skip
# Topics that are read, their templates, and what is said of the channel: its end, its unit.
_TOPICS = (
    ("state_topic", ("value_template", "state_value_template"), "", ""),
    ("current_temperature_topic", ("current_temperature_template",), "current-temperature", "Cel"),
    ("temperature_state_topic", ("temperature_state_template",), "set-temperature", "Cel"),
    ("current_humidity_topic", ("current_humidity_template",), "current-humidity", "%RH"),
    ("position_topic", ("position_template",), "position", "%"),
)
# Their states are no readings: a picture, an event to act on, a person's place.
_NOT_READ = frozenset({"camera", "image", "device_automation", "tag", "device_tracker", "update", "button", "scene"})
_SWITCHES = frozenset({"binary_sensor", "switch", "light", "fan", "siren", "humidifier"})


class Entity(NamedTuple):
    """One value that is read.

    Args:
        device, device_like: which device, and what people call it; see `hub.decode.naming.Names`.
        channel, channel_like: the same of the value.
        template: what picks it out of a message; None: the message is the value.
        on, off: what switches say; empty for what is no switch.
        is_number: a text that looks like a number is one.
    """

    topic: str
    device: str
    device_like: str
    channel: str
    channel_like: str
    label: str
    unit: str | None
    template: Template | None
    on: str
    off: str
    is_number: bool


class Availability(NamedTuple):
    """Where a device says that it is there."""

    topic: str
    template: Template | None
    on: str
    off: str


class Announced(NamedTuple):
    """What a message announces; ``unread``: names of entities whose templates do more than pick."""

    entities: tuple[Entity, ...] = ()
    availabilities: tuple[Availability, ...] = ()
    unread: tuple[str, ...] = ()


def is_config(topic: str) -> bool:
    """Say whether a topic is one of discovery."""
    return topic.startswith(PREFIX) and topic.endswith("/config") and topic.count("/") in (3, 4)


def read_config(topic: str, document: object) -> Announced:
    """Return what a discovery message announces.

    Raises:
        DecodeError: it is none.
    """
    if not isinstance(document, dict):
        raise DecodeError("no JSON object, which a discovery message is")
    _, component, *ids, _ = topic.split("/")
    root = _full(document, _ABBREVIATIONS)
    entities: list[Entity] = []
    unread: list[str] = []
    for kind, object_id, config in _components(component, ids[-1], root):
        for found in _entities(kind, object_id, config):
            if isinstance(found, str):
                unread.append(found)
            else:
                entities.append(found)
    return Announced(tuple(entities), tuple(_availabilities(root)), tuple(unread))


def _components(component: str, object_id: str, root: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    if component != "device":
        yield component, object_id, root
        return
    components = root.pop("components", None)
    if not isinstance(components, Mapping) or len(components) > _MAX_COMPONENTS:
        raise DecodeError(f"no components, or more than {_MAX_COMPONENTS}")
    for key, config in components.items():
        if isinstance(config, dict):
            merged = {**root, **_full({"~": root.get("~"), **config}, _ABBREVIATIONS)}
            yield str(merged.get("platform", "")), key, merged


def _full(config: Mapping[str, Any], abbreviations: Mapping[str, str]) -> dict[str, Any]:
    """Return it with names in full, and topics with what ``~`` stands for."""
    base = config.get("~")
    full = {abbreviations.get(name, name): value for name, value in config.items()}
    if isinstance(base, str):
        for name, value in full.items():
            if name.endswith("topic") and isinstance(value, str):
                full[name] = _with_base(value, base)
    return full


def _with_base(topic: str, base: str) -> str:
    if topic.startswith("~"):
        return base + topic[1:]
    return topic[:-1] + base if topic.endswith("~") else topic


def _entities(kind: str, object_id: str, config: dict[str, Any]) -> Iterator[Entity | str]:
    """Yield entities, and names of such as cannot be read."""
    if kind in _NOT_READ:
        return
    device, device_like = _device(config, object_id)
    unit = _text(config, "unit_of_measurement")
    device_class = _text(config, "device_class")
    code = unit_code(unit[:32])
    if code == "%":
        code = PERCENT.get(device_class, code)
    label = label_of(_text(config, "name"))
    shown = _without(label, device_like) or device_class or _text(config, "object_id") or object_id
    for topic_name, template_names, end, own_unit in _TOPICS:
        topic = _text(config, topic_name)
        if not topic or len(topic) > _MAX_ID_CHARS:
            continue
        source = next((text for name in template_names if (text := _text(config, name))), "")
        template = parse(source) if source else None
        if source and template is None:
            yield label or object_id
            continue
        is_switch = kind in _SWITCHES and not end
        text = _text(config, "unique_id") or object_id
        yield Entity(
            topic, device, device_like, f"{text}.{end}" if end else text,
            f"{shown} {end}".strip().lower()[:_MAX_ID_CHARS], label, own_unit or code, template,
            _state(config, "on") if is_switch else "", _state(config, "off") if is_switch else "",
            bool(unit or end or "state_class" in config or kind == "number"),
        )  # fmt: skip


def _without(label: str, device: str) -> str:
    """Return ``Temperature`` of ``Office Temperature``: older firmware says the device in each name."""
    start = f"{device} ".lower()
    return label[len(start) :] if label.lower().startswith(start) else label


def _device(config: Mapping[str, Any], object_id: str) -> tuple[str, str]:
    """Return which device it is, and what people call it."""
    device = config.get("device")
    full = _full(device, _OF_DEVICE) if isinstance(device, Mapping) else {}
    ids, connections = full.get("identifiers"), full.get("connections")
    first = ids[0] if isinstance(ids, list) and ids else ids
    if not isinstance(first, str | int):
        pair = connections[0] if isinstance(connections, list) and connections else None
        first = pair[1] if isinstance(pair, list) and len(pair) == 2 else object_id
    name = full.get("name")
    text = str(first)[:_MAX_ID_CHARS] or object_id
    return text, name[:_MAX_ID_CHARS] if isinstance(name, str) and name else text


def _availabilities(config: Mapping[str, Any]) -> Iterator[Availability]:
    topic = _text(config, "availability_topic")
    found = config.get("availability")
    entries = found[:_MAX_AVAILABILITIES] if isinstance(found, list) else []
    base = config.get("~")
    if topic:
        entries = [{**config, "topic": topic, "value_template": config.get("availability_template")}]
    for entry in entries:
        if not isinstance(entry, Mapping):
            continue
        full = _full({"~": base, **entry}, _OF_AVAILABILITY)
        topic, source = _text(full, "topic"), _text(full, "value_template")
        template = parse(source) if source else None
        if topic and len(topic) <= _MAX_ID_CHARS and bool(template) == bool(source):
            yield Availability(
                topic, template, _text(full, "payload_available") or "online",
                _text(full, "payload_not_available") or "offline",
            )  # fmt: skip


def _state(config: Mapping[str, Any], which: str) -> str:
    for name in (f"state_{which}", f"payload_{which}"):
        value = config.get(name)
        if isinstance(value, str | bool | int | float) and value != "":
            return as_text(value)
    return which.upper()


def as_text(value: object) -> str:
    """Return a value as a payload that is compared with another has it: ``true``, ``1``, ``ON``."""
    return str(value).lower() if isinstance(value, bool) else str(value)[:_MAX_ID_CHARS]


def _text(config: Mapping[str, Any], name: str) -> str:
    value = config.get(name)
    return value if isinstance(value, str) else ""
