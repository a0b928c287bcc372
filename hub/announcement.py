"""Announces the hub in its network by mDNS, so that devices find it without an address (``hub serve --announce``).

Owns: what is announced and for how long. Place: beside `app`; `hub.server` starts it once the port listens and ends it
before the hub stops. The only importer of ``zeroconf``, an extra. Must not: be a part that the hub needs: without a
network it tries again and everything else works.
"""

import asyncio
import hashlib
import logging
import socket
import threading
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from device_sdk.wire import DEVICE_PATH, DEVICE_SUBPROTOCOL
from hub.certificate import first_fingerprint
from hub.config import Config, is_loopback
from hub.errors import ConfigError

if TYPE_CHECKING:
    from zeroconf import Zeroconf

_log = logging.getLogger("hub.announcement")

SERVICE = "_telemetry-hub._tcp.local."
# A machine that has just booted gets its address in some seconds, or when somebody plugs the cable in.
RETRY_S = 30.0
# A machine with containers has a bridge for each; one answer must fit into a packet.
MAX_ADDRESSES = 8
# Taking the announcement back is a courtesy: a few packets 125 ms apart, and Ctrl-C has 2 s for everything.
_GOODBYE_S = 1.0
# A name has 63 bytes; seven are ours.
_HOST_CHARS = 50


def check_announceable(config: Config) -> None:
    """Raise `ConfigError` when a hub with this configuration cannot be announced; says what to do."""
    try:
        import zeroconf  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise ConfigError("--announce needs zeroconf: pip install 'telemetry-hub[discovery]'") from error
    if config.is_loopback:
        raise ConfigError("--announce: only this machine can reach the hub; use --host 0.0.0.0 with TLS")
    if ":" in config.host and config.host != "::":
        raise ConfigError("--announce tells IPv4 addresses only; use --host 0.0.0.0, :: or an IPv4 address")
    # Here, where somebody reads it; the task that announces has nobody.
    properties(config)


def properties(config: Config) -> dict[str, str]:
    """Return what is said beside name, address and port: protocol, path, TLS, and the certificate's SHA-256.

    Raises:
        ConfigError: the certificate cannot be read.
    """
    told = {"v": DEVICE_SUBPROTOCOL, "path": DEVICE_PATH, "tls": "0"}
    if config.tls_cert is not None:
        try:
            fingerprint = first_fingerprint(config.tls_cert.read_text(encoding="ascii", errors="replace"))
        except OSError as error:
            raise ConfigError(f"{config.tls_cert}: {error}") from error
        if fingerprint is None:
            raise ConfigError(f"{config.tls_cert} holds no certificate in PEM; `hub tls init` makes one")
        told |= {"tls": "1", "fp": fingerprint}
    return told


def instance_name(host: str, node: int, port: int) -> str:
    """Return the name of this hub in its network, the same after a restart: the machine's, and six digits.

    Asking whether a name is taken is not enough: who announced it within the last second does not answer in time (RFC
    6762, section 6), so two hubs that start together, as after a power cut, would both take it. Machines called
    ``raspberrypi`` are many; the digits are of the hardware address and the port.
    """
    digits = hashlib.sha256(f"{node}:{port}".encode()).hexdigest()[:6]
    return f"{host.partition('.')[0][:_HOST_CHARS] or 'hub'}-{digits}"


async def announce(config: Config, *, retry_s: float = RETRY_S) -> None:
    """Announce the hub until cancelled, then take it back; ``config`` has the port it listens on."""
    service = _Service(config, properties(config))
    level = logging.WARNING
    try:
        while not await _is_begun(service, level):
            level = logging.DEBUG  # a hub may stand without a network for weeks
            await asyncio.sleep(retry_s)
        await asyncio.Event().wait()
    finally:
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(service.end), _GOODBYE_S)


async def _is_begun(service: "_Service", level: int) -> bool:
    try:
        await asyncio.to_thread(service.begin)
    except Exception as error:  # whatever the network or the library says, the hub itself is well
        _log.log(level, "not announced in_s=%g reason=%s: %s", RETRY_S, type(error).__name__, error)
        return False
    return True


class _Service:
    """What is registered, if anything; for threads, for registering takes a second of asking who has the name."""

    def __init__(self, config: Config, told: dict[str, str]) -> None:
        self._config = config
        self._told = told
        self._lock = threading.Lock()
        self._is_over = False
        self._network: Zeroconf | None = None

    def begin(self) -> None:
        """Register; raises whatever the network says, and nothing is registered then."""
        from zeroconf import InterfaceChoice, ServiceInfo, Zeroconf

        with self._lock:
            if self._is_over:
                return
            is_any = self._config.host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
            addresses = _own_addresses() if is_any else [socket.gethostbyname(self._config.host)]
            if not addresses:
                raise OSError("this machine has no address in a network")
            name = instance_name(socket.gethostname(), uuid.getnode(), self._config.port)
            info = ServiceInfo(
                SERVICE, f"{name}.{SERVICE}", port=self._config.port, parsed_addresses=addresses,
                properties=self._told, server=f"{name}.local.",
            )  # fmt: skip
            network = Zeroconf(interfaces=InterfaceChoice.All if is_any else addresses)
            try:
                # Names differ by construction; what is left is two machines with copied hardware addresses.
                network.register_service(info, allow_name_change=True)
            except BaseException:
                network.close()
                raise
            self._network = network
            _log.info("announced name=%s port=%d", info.name, self._config.port)

    def end(self) -> None:
        """Take back what is registered; a `begin` that is under way ends first, and a later one does nothing."""
        with self._lock:
            self._is_over = True
            network, self._network = self._network, None
            if network is not None:
                network.close()  # says goodbye for all that is registered


def _own_addresses() -> list[str]:
    found = [a.address for of in psutil.net_if_addrs().values() for a in of if a.family == socket.AF_INET]
    return [address for address in dict.fromkeys(found) if not is_loopback(address)][:MAX_ADDRESSES]
