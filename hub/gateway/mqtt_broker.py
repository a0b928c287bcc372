"""Where somebody else's MQTT broker is, and what a hub wants of it: settings, checked before anything is connected.

Owns: the reading of ``--mqtt-url`` and its siblings, the name of the hub's session at the broker, TLS towards it.
Place: gateway, before `mqtt_bridge`. Must not: connect.
"""

import hashlib
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from hub.config import Config
from hub.errors import ConfigError

EVERYTHING = "#"
# The library's newer versions allow as much, older ones the keep-alive.
HANDSHAKE_S = 5.0
_PORTS = {"mqtt": 1883, "mqtts": 8883}


class Broker(NamedTuple):
    """Where a broker is, and as whom the hub is there."""

    host: str
    port: int
    is_secure: bool = False
    username: str | None = None
    password: str | None = None

    @classmethod
    def parse(cls, url: str, option: str = "--mqtt-url") -> "Broker":
        """Return what ``mqtt://user:password@host:1883`` or ``mqtts://…`` says.

        Raises:
            ConfigError: something else. Never repeats the URL: it holds a password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"{option}: not a valid URL: {error}") from error
        if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
            raise ConfigError(f"{option}: use mqtt://USER:PASSWORD@HOST:1883 or mqtts://…; topics are --mqtt-topic")
        username, password = (None if word is None else unquote(word) for word in (parts.username, parts.password))
        return cls(parts.hostname, port or _PORTS[parts.scheme], parts.scheme == "mqtts", username, password)

    @property
    def name(self) -> str:
        """The broker, for people."""
        return f"{self.host}:{self.port}"


class Settings(NamedTuple):
    """What a bridge is told.

    Args:
        topics: filters of foreign topics; the hub's own are always asked for.
        group: several hubs share the foreign topics under this name: each message goes to one of them.
        ca: authority that the broker's certificate is checked against, instead of the system's.
        client_id: of the session at the broker; by default made of ``hub_id``, so that a hub finds its own again.
        hub_id: tells this hub from others, for as long as its data live: a container that is made anew has another
            host name, and would leave what waits for it at the broker.
    """

    broker: Broker
    topics: Sequence[str] = (EVERYTHING,)
    group: str = ""
    ca: Path | None = None
    client_id: str = ""
    hub_id: str = ""

    def session(self) -> str:
        """Return the client id: another one for other filters, or the broker would keep the old ones as well."""
        if self.client_id:
            return self.client_id
        told = "\n".join((self.hub_id, self.group, *self.topics))
        return f"telemetry-hub-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def bridge_settings(config: Config, hub_id: str = "") -> Settings | None:
    """Return what a hub is told of a broker; None: there is none.

    Args:
        hub_id: see `Settings`; not needed to find out whether they are right.

    Raises:
        ConfigError: it is wrong, or ``aiomqtt`` is not installed.
    """
    url = config.mqtt_url.get_secret_value()
    if not url:
        return None
    topics, group = tuple(config.mqtt_topic), config.mqtt_group
    settings = Settings(Broker.parse(url), topics, group, config.mqtt_ca, "", hub_id)
    _check_installed("--mqtt-url")
    tls_context(settings)
    return settings


def home_assistant_settings(config: Config, hub_id: str = "") -> Settings | None:
    """Return what a hub is told of Home Assistant's broker; None: there is none. As `bridge_settings` otherwise."""
    url = config.ha_discovery.get_secret_value()
    if not url:
        return None
    broker = Broker.parse(url, "--ha-discovery")
    settings = Settings(broker, ca=config.mqtt_ca if broker.is_secure else None, hub_id=hub_id)
    _check_installed("--ha-discovery")
    tls_context(settings)
    return settings


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return what checks the broker's certificate and name; None without TLS.

    Raises:
        ConfigError: the authority's file cannot be read, or means nothing without TLS.
    """
    if not settings.broker.is_secure:
        if settings.ca is not None:
            raise ConfigError("--mqtt-ca needs a broker with TLS: --mqtt-url mqtts://…")
        return None
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if settings.ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(settings.ca)
    except OSError as error:
        raise ConfigError(f"--mqtt-ca {settings.ca}: {error}") from error
    return context


class _Socket(ssl.SSLSocket):
    """Closes itself when the handshake fails, which the library does not."""

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands, in a thread for which the end of the hub waits."""
        try:
            self.settimeout(min(self.gettimeout() or HANDSHAKE_S, HANDSHAKE_S))
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


class _Context(ssl.SSLContext):
    """Makes such sockets; certificates and names are checked."""

    sslsocket_class = _Socket


def _check_installed(option: str) -> None:
    try:
        import aiomqtt  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(f"{option} needs aiomqtt: pip install 'telemetry-hub[mqtt]'") from error
