"""What a hub is told of a broker, checked before anything is connected."""

import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from hub.config import Config
from hub.errors import ConfigError
from hub.gateway.mqtt_broker import (
    HANDSHAKE_S,
    Broker,
    Settings,
    bridge_settings,
    home_assistant_settings,
    tls_context,
)
from hub.tls import make_certificates


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("mqtt://broker", Broker("broker", 1883)),
        ("mqtts://broker", Broker("broker", 8883, True)),
        ("mqtt://hub:s%40t@10.0.0.7:11883/", Broker("10.0.0.7", 11883, False, "hub", "s@t")),
    ],
)
def test_url_says_where_the_broker_is(url: str, broker: Broker) -> None:
    """With the port of the scheme, where it names none."""
    assert Broker.parse(url) == broker


@pytest.mark.parametrize("url", ["http://broker", "mqtt://", "broker:1883", "mqtt://u:secret@b/topic", "mqtt://b:port"])
def test_url_that_is_none_is_refused_without_its_password(url: str) -> None:
    """It may end in a log."""
    with pytest.raises(ConfigError, match="--mqtt-url") as caught:
        Broker.parse(url)

    assert "secret" not in str(caught.value)


def test_session_at_the_broker_is_this_hubs_and_of_these_filters() -> None:
    """A broker keeps a session's old filters: other ones need another session."""
    settings = Settings(Broker("b", 1883), hub_id="one")
    sessions = {
        settings.session(),
        settings._replace(hub_id="two").session(),
        settings._replace(topics=("tele/#",)).session(),
        settings._replace(group="hubs").session(),
    }

    assert len(sessions) == 4
    assert settings._replace(client_id="mine").session() == "mine"
    assert settings.session() == Settings(Broker("b", 1883), hub_id="one").session()


def test_authority_needs_tls_and_a_file(tmp_path: Path) -> None:
    """Said before anything is connected."""
    plain, secure = Broker("b", 1883), Broker("b", 8883, True)
    for broker, why in ((plain, "needs a broker with TLS"), (secure, "nowhere.pem")):
        with pytest.raises(ConfigError, match=why):
            tls_context(Settings(broker, ca=tmp_path / "nowhere.pem"))

    assert tls_context(Settings(plain)) is None


def test_bridge_needs_its_extra_and_says_so() -> None:
    """A hub without a broker does not import it."""
    code = (
        "import sys; sys.modules['aiomqtt'] = None\n"
        "from hub.errors import ConfigError\n"
        "from hub.config import Config\n"
        "from hub.gateway.mqtt_broker import bridge_settings\n"
        "try: bridge_settings(Config(mqtt_url='mqtt://broker'))\n"
        "except ConfigError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "pip install 'telemetry-hub[mqtt]'" in done.stdout


def test_settings_of_a_hub_say_whether_there_is_a_broker(tmp_path: Path) -> None:
    """Wrong ones are said before the hub starts. Its session is its data's: neither folder nor machine change it."""
    url = SecretStr("mqtt://hub:secret@broker")
    one = bridge_settings(Config(data=tmp_path / "one", mqtt_url=url, mqtt_topic=["tele/#"], mqtt_group="hubs"), "a1")
    moved = Config(data=tmp_path / "two", mqtt_url=url, mqtt_topic=["tele/#"], mqtt_group="hubs")
    two, other = bridge_settings(moved, "a1"), bridge_settings(moved, "b2")

    assert one is not None
    assert two is not None
    assert other is not None
    assert (one.broker, one.topics, one.group) == (Broker("broker", 1883, False, "hub", "secret"), ("tele/#",), "hubs")
    assert one.session() == two.session() != other.session()
    assert bridge_settings(Config()) is None
    with pytest.raises(ConfigError, match="--mqtt-url"):
        bridge_settings(Config(mqtt_url=SecretStr("http://broker")))


def test_home_assistants_broker_is_another_setting(tmp_path: Path) -> None:
    """Its faults are said under its own name; an authority of the other broker means nothing without TLS."""
    told = home_assistant_settings(Config(ha_discovery=SecretStr("mqtt://ha"), mqtt_ca=tmp_path / "ca.pem"))

    assert told is not None
    assert (told.broker, told.ca) == (Broker("ha", 1883), None)
    assert home_assistant_settings(Config()) is None
    with pytest.raises(ConfigError, match="--ha-discovery"):
        home_assistant_settings(Config(ha_discovery=SecretStr("http://ha")))


def test_handshake_has_less_time_than_a_quiet_line(tmp_path: Path) -> None:
    """Whatever the library allows: a thread waits for it, and the hub's end for the thread."""
    made = make_certificates(tmp_path, ["127.0.0.1"], now=datetime.now(UTC))
    context = tls_context(Settings(Broker("127.0.0.1", 8883, True), ca=made.ca))
    assert context is not None
    ours, other = socket.socketpair()
    with context.wrap_socket(ours, server_hostname="127.0.0.1", do_handshake_on_connect=False) as secure:
        secure.settimeout(900)
        other.close()
        with pytest.raises(OSError):
            secure.do_handshake()
        assert secure.gettimeout() == HANDSHAKE_S
        assert secure.fileno() == -1
