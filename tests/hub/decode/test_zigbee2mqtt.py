"""Zigbee2MQTT's messages are read as they are."""

from collections.abc import Generator
from typing import Any

import pytest

from hub.decode.base import Decoded
from hub.decode.scope import Scope
from hub.decode.zigbee2mqtt import Zigbee2Mqtt
from tests.support.foreign_messages import cases, check, publication


@pytest.mark.parametrize("case", cases("zigbee2mqtt"))
def test_message_is_read(case: dict[str, Any]) -> None:
    """Each message of tests/vectors/decode/zigbee2mqtt.json says what stands there."""
    check(case)


@pytest.mark.parametrize("base", ["zigbee2mqtt", "house/zigbee"])
def test_there_is_a_pause_behind_each_device_of_a_list(base: str) -> None:
    """And none in what is short; either way it is read the same."""
    exposes = [{"property": "power", "unit": "W"}]
    listed = [
        {"ieee_address": "0", "friendly_name": f"plug {at}", "definition": {"exposes": exposes}} for at in range(9)
    ]
    for topic, payload, pauses in (("bridge/devices", listed, 9), ("plug 1", {"power": 3}, 0)):
        message = publication(f"{base}/{topic}", payload)
        found: list[Decoded | None] = []
        reading = Zigbee2Mqtt(Scope()).reading(message)
        assert sum(1 for _ in _to_its_end(reading, found)) == pauses
        assert found == [Zigbee2Mqtt(Scope()).decode(message)]


def _to_its_end(
    reading: Generator[None, None, Decoded | None], found: list[Decoded | None]
) -> Generator[None, None, None]:
    found.append((yield from reading))
