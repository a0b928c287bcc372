"""Devices made for other platforms, at a hub instead: only host and token are changed."""

import json
import time
from collections.abc import Iterator

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from hub.decode.sparkplug_payload import DataType
from tests.end_to_end.conftest import admin_token
from tests.support.mqtt_hub import MqttHub, Paho, until
from tests.support.sparkplug import EdgeNode

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MqttHub]:
    """One hub for all tests."""
    with MqttHub(tmp_path_factory.mktemp("families") / "data") as hub:
        yield hub


def gateway(hub: MqttHub, name: str) -> str:
    """Return the token of a gateway behind which every device is accepted."""
    asked = {"role": "gateway", "name": name, "match": ["*"], "auto_accept": ["*"]}
    status, answer = hub.request("POST", "/v1/tokens", asked, token=admin_token(hub))
    assert status == 201, answer
    return str(answer["token"])


def heard(client: Paho, topic: str) -> list[bytes]:
    """Return what came on a topic."""
    return [payload for at, payload in client.heard if at == topic]


def test_thingsboard_device_delivers_by_its_token_alone(hub: MqttHub) -> None:
    """As its SDK does: the token is the user name, calls and attributes are subscribed to, limits are asked for."""
    now_ms = time.time_ns() // 1_000_000
    client = Paho(hub, "", None, MQTTProtocolVersion.MQTTv311)
    client.client.username_pw_set(hub.enrol("tb"))
    with client:
        for topic in ("v1/devices/me/attributes", "v1/devices/me/attributes/response/+",
                      "v1/devices/me/rpc/request/+", "v1/devices/me/rpc/response/+"):  # fmt: skip
            assert [granted.is_failure for granted in client.subscribe(topic)] == [False]
        client.publish("v1/devices/me/rpc/request/1", '{"method":"getSessionLimits","params":{"timeout":5000}}')
        until(lambda: heard(client, "v1/devices/me/rpc/response/1"), "the limits")
        telemetry = json.dumps(
            [{"ts": now_ms, "values": {"temperature": 42.1}}, {"ts": now_ms + 5, "values": {"temperature": 42.2}}]
        )
        for _ in range(2):
            client.publish("v1/devices/me/telemetry", telemetry)
    until(lambda: len(hub.values("tb")) == 2, "two rows")

    assert hub.values("tb") == [42.1, 42.2]


def test_thingsboard_gateway_delivers_for_its_devices(hub: MqttHub) -> None:
    """Each is a device here, after somebody or a pattern has accepted it."""
    with Paho(hub, "tb-gateway", gateway(hub, "tb-gateway"), MQTTProtocolVersion.MQTTv311) as client:
        for topic in ("v1/gateway/attributes", "v1/gateway/attributes/response", "v1/gateway/rpc"):
            assert [granted.is_failure for granted in client.subscribe(topic)] == [False]
        client.publish("v1/gateway/connect", '{"device":"Device A"}')
        telemetry = {name: [{"ts": time.time_ns() // 1_000_000, "values": {"temperature": value}}]
                     for name, value in (("Device A", 1.5), ("Device B", 2.5))}  # fmt: skip
        client.publish("v1/gateway/telemetry", json.dumps(telemetry))
    until(lambda: hub.values("Device-A") and hub.values("Device-B"), "the rows")

    assert (hub.values("Device-A"), hub.values("Device-B")) == ([1.5], [2.5])


def test_sparkplug_node_that_waits_for_its_host_is_called_and_asked_for_its_birth(hub: MqttHub) -> None:
    """It speaks when its host is there; data by an alias that nobody knows is answered by a request for births."""
    node, now_ms = EdgeNode(), time.time_ns() // 1_000_000
    with Paho(hub, "plant", gateway(hub, "plant"), MQTTProtocolVersion.MQTTv311) as client:
        for topic in ("spBv1.0/STATE/scada", "spBv1.0/Plant/NCMD/Press", "spBv1.0/Plant/DCMD/Press/+"):
            assert [granted.is_failure for granted in client.subscribe(topic)] == [False]
        until(lambda: heard(client, "spBv1.0/STATE/scada"), "the host")
        force = {"name": "Force", "alias": 1, "datatype": DataType.DOUBLE, "value": 1.5, "timestamp": now_ms}
        client.publish("spBv1.0/Plant/NDATA/Press", node.data({"alias": 1, "value": 9.5, "datatype": DataType.DOUBLE}))
        until(lambda: heard(client, "spBv1.0/Plant/NCMD/Press"), "the request")
        client.publish("spBv1.0/Plant/NBIRTH/Press", node.birth(force))
        client.publish("spBv1.0/Plant/NDATA/Press", node.data({"alias": 1, "datatype": DataType.DOUBLE, "value": 2.5,
                                                               "timestamp": now_ms + 1000}))  # fmt: skip
    until(lambda: len(hub.values("Plant-Press", "Force")) == 2, "two rows")

    assert json.loads(heard(client, "spBv1.0/STATE/scada")[0])["online"] is True
    assert hub.values("Plant-Press", "Force") == [1.5, 2.5]
