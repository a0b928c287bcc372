"""Zigbee2MQTT's messages are read as they are."""

from typing import Any

import pytest

from tests.support.foreign_messages import cases, check


@pytest.mark.parametrize("case", cases("zigbee2mqtt"))
def test_message_is_read(case: dict[str, Any]) -> None:
    """Each message of tests/vectors/decode/zigbee2mqtt.json says what stands there."""
    check(case)
