"""A hub without a port, and MQTT clients of it without sockets."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub_parts import HubParts, hub_parts
from tests.support.mqtt_clients import MqttWorld


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[HubParts]:
    """Return an empty hub."""
    with hub_parts(tmp_path) as parts:
        yield parts


@pytest.fixture
def world(parts: HubParts) -> MqttWorld:
    """Return it with MQTT clients."""
    return MqttWorld(parts)
