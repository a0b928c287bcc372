"""The seam between the courier and a network: one-use connections, and when to try the next one.

Owns: the interfaces `Connection`, `Receiver`, `Connector`; the choice by URL
scheme; `RetryPolicy`. Place: after `session`, before `websocket`. Pure: no
socket, clock or randomness. Must not: import a network library (the module
that a scheme names is imported when a device first names it).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from device_sdk.backoff import Backoff
from device_sdk.clock import Clock, read_boot_id
from device_sdk.errors import AuthenticationError, ConnectionLostError, MisuseError
from device_sdk.frozen import Frozen
from device_sdk.wire import DEVICE_PATH, METERED_PING_S, PING_S

LinkError = ConnectionLostError | AuthenticationError
LINK_ERRORS = (ConnectionLostError, AuthenticationError)

# A refused token, a takeover, a broken message: a person must act, so minutes apart (44xx in `wire.Close`).
PERSON_NEEDED_S = 60.0
_FINGERPRINT_DIGITS = 64
# Of topics, where the URL names no other.
MQTT_PREFIX = "hub/v1"
_MQTT_PORTS = {"mqtt": 1883, "mqtts": 8883}


class Connection(Protocol):
    """One connection to a hub, used once."""

    @property
    def is_writable(self) -> bool:
        """False while the network has not taken what was sent; `Receiver.writable` follows."""
        ...

    def send(self, messages: Sequence[bytes]) -> None:
        """Send messages in order, each as one message; dropped silently when the connection is gone."""
        ...

    def keep_alive(self, interval_s: float) -> None:
        """Probe a quiet line each ``interval_s``; three unanswered end it (`Receiver.closed`)."""
        ...

    def close(self) -> None:
        """Close politely, and by force soon after. ``Receiver`` hears no more of it."""
        ...

    async def wait_closed(self) -> None:
        """Wait until the connection is gone; call after `close`. May be cancelled."""
        ...


class Receiver(Protocol):
    """What a connection calls, always on the loop it lives on."""

    def message(self, data: bytes) -> None:
        """Take one message."""
        ...

    def writable(self) -> None:
        """Send more if there is more: the network has room again."""
        ...

    def closed(self, error: LinkError) -> None:
        """Know that the connection is gone; called once, unless `Connection.close` was."""
        ...


class Connector(Protocol):
    """Makes connections to one hub."""

    async def connect(self, receiver: Receiver) -> Connection:
        """Return an open connection; cancelling leaves nothing behind.

        Raises:
            ConnectionLostError: no network, no hub, or not a hub: retry.
            AuthenticationError: the hub refused the credential.
        """
        ...


class Access(Frozen):
    """What connections to a hub have in common, whichever way they go; see `make_connector`.

    ``certificate``: the device's own, and the file of its key; ``connect_to``: None: where the URL says.
    """

    token: str | None
    ca: str | None
    fingerprint: str | None
    certificate: tuple[str, str | None] | None
    connect_to: tuple[str, int] | None
    clock: Clock

    def __repr__(self) -> str:
        # Whoever logs it must not log the token.
        return "Access(…)"


class RetryPolicy:
    """How long to wait after a connection was lost or not made.

    Args:
        random: returns a float in [0, 1).
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._backoff = Backoff(random)

    def connected(self, now: float) -> None:
        """Note that a hub welcomed this device at ``now`` (monotonic seconds)."""
        self._backoff.connected(now)

    def pause_s(self, error: LinkError, now: float) -> float:
        """Return the seconds to wait. The hub's wish wins; where a person must act, 60 to 120 s."""
        jittered_s = self._backoff.failed(now)
        if isinstance(error, ConnectionLostError) and error.retry_ms is not None:
            return error.retry_ms / 1000
        if needs_person(error):
            return PERSON_NEEDED_S * (1.0 + self._random())
        return jittered_s


def needs_person(error: LinkError) -> bool:
    """Say whether retrying soon is useless: refused credential, or a 44xx close."""
    if isinstance(error, AuthenticationError):
        return True
    return error.code is not None and 4400 <= error.code < 4500


def make_connector(
    url: str,
    *,
    token: str | None,
    ca: Path | str | None,
    fingerprint: str | None,
    certificate: Path | str | None = None,
    key: Path | str | None = None,
    connect_to: tuple[str, int] | None = None,
    clock: Clock | None = None,
    device: str | None = None,
    boot: Callable[[], str] = read_boot_id,
    is_metered: bool = False,
) -> Connector:
    """Return the connector for ``url`` by its scheme.

    Args:
        url: ``wss://host:port`` or ``ws://host:port``, with a path when a proxy needs one; ``mqtts://host:port`` or
            ``mqtt://host:port``, with the prefix of the topics as its path where that is not ``hub/v1``.
        token: sent as ``Authorization: Bearer``; by MQTT as the password.
        ca: path to a PEM file of the CA to trust instead of the system's.
        fingerprint: SHA-256 of the hub's certificate in hex; it alone is trusted.
        certificate: PEM file of the device's own certificate, shown to the hub.
        key: PEM file of its private key; None: in the same file.
        connect_to: (host, port) where TCP is opened instead; all else is as the URL says.
        clock: whose wall clock says whether the dates of certificates can be checked.
        device: whose topics these are, by MQTT; None: a gateway, which has none.
        boot: says the machine's boot id, for the device's birth and will by MQTT.
        is_metered: how often a quiet line is probed, by MQTT, where that is agreed when it begins.

    Raises:
        MisuseError: another scheme, no host, or TLS options without TLS; MQTT without its library.
    """
    parts, port = _split(url)
    is_secure = parts.scheme in ("wss", "mqtts")
    if not is_secure and any(option is not None for option in (ca, fingerprint, certificate)):
        raise MisuseError(
            f"url {url!r} has no TLS, so ca=, fingerprint= and certificate= mean nothing; use {parts.scheme}s://"
        )
    if key is not None and certificate is None:
        raise MisuseError("key= is the key of a certificate: pass certificate= too")
    if token is not None and (not token.isascii() or not token.isprintable() or " " in token):
        raise MisuseError("the token holds characters that no token has; was it copied with a line break?")
    access = Access(
        token, None if ca is None else str(ca), check_fingerprint(fingerprint),
        None if certificate is None else (str(certificate), None if key is None else str(key)),
        connect_to, clock or Clock(),
    )  # fmt: skip
    host = parts.hostname or ""
    if parts.scheme in _MQTT_PORTS:
        keep_alive_s = METERED_PING_S if is_metered else PING_S
        return _mqtt_connector(url, host, port or _MQTT_PORTS[parts.scheme], device, boot, keep_alive_s, access)
    from device_sdk.websocket import Target, WebSocketConnector

    path = parts.path.rstrip("/")
    path = path if path.endswith(DEVICE_PATH) else path + DEVICE_PATH
    return WebSocketConnector(Target(host, port or (443 if is_secure else 80), path, is_secure), access)


def _split(url: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")  # as the look-up does, in a task where nobody would hear of it
    except ValueError as error:
        raise MisuseError(f"url {url!r} is not valid: {error}") from error
    if parts.scheme not in ("ws", "wss", *_MQTT_PORTS) or not parts.hostname:
        raise MisuseError(
            f"url {url!r}: use wss://host:port (or ws://host:port on the same machine), mqtts:// or mqtt:// likewise"
        )
    return parts, port


def _mqtt_connector(
    url: str,
    host: str,
    port: int,
    device: str | None,
    boot: Callable[[], str],
    keep_alive_s: int,
    access: Access,
) -> Connector:
    parts = urlsplit(url)
    prefix = parts.path.strip("/") or MQTT_PREFIX
    if device is None:
        raise MisuseError(f"url {url!r}: a gateway has one connection for all its devices, which is wss://")
    if parts.username is not None:
        raise MisuseError("a URL is no place for a token: pass token=; the user name is the device's")
    if any(sign in prefix for sign in "+#$") or parts.query or parts.fragment:
        raise MisuseError(f"url {url!r}: its path is the prefix of the topics, without + # $ ?")
    try:
        from device_sdk.mqtt import MqttConnector, MqttTarget
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("aiomqtt", "paho"):
            raise
        raise MisuseError(
            f"url {url!r} needs aiomqtt, which is not installed: pip install 'telemetry-device-sdk[mqtt]'"
        ) from error
    target = MqttTarget(host, port, prefix, parts.scheme == "mqtts", device, keep_alive_s)
    return MqttConnector(target, access, boot)


def check_fingerprint(fingerprint: str | None) -> str | None:
    """Return 64 lower-case hex digits; accepts ``SHA256:`` before and colons between."""
    if fingerprint is None:
        return None
    digits = fingerprint.strip().lower().removeprefix("sha256:").replace(":", "")
    if len(digits) != _FINGERPRINT_DIGITS or not all(c in "0123456789abcdef" for c in digits):
        raise MisuseError("fingerprint must be the certificate's SHA-256: 64 hex digits, colons allowed")
    return digits
