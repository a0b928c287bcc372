"""Hubs that announce themselves in this network by mDNS: `discover`, `FoundHub`.

Owns: the service type, what its properties mean, which of it is believed. Place: beside `device`, which imports it
when it is asked. The only importer of ``zeroconf``, an extra. Must not: trust: anybody in the network can announce
anything, so names are stripped of what a terminal would obey, sizes are bounded, what is malformed is left out.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable, Mapping, Sequence

from device_sdk.errors import MisuseError
from device_sdk.frozen import Frozen
from device_sdk.wire import DEVICE_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from zeroconf import Zeroconf

# The one name for it; the hub announces under the same (`hub.announcement`). Source: RFC 6763, at most 15 characters.
SERVICE = "_telemetry-hub._tcp.local."
# An answer comes within a second of the question (RFC 6762: up to 120 ms of delay, asked again after one second).
TIMEOUT_S = 3.0
# Longer than any network needs; a wrong unit is said instead of waited for.
MAX_TIMEOUT_S = 60.0
# A house has one, a campus a few; who floods the network with more fills nobody's memory.
MAX_HUBS = 64
# Of one text, and for the last look at hubs whose answer came in parts.
_MAX_CHARS = 100
_REST_S = 0.5
# A hub tells eight; of a stranger's thousands no more are looked at.
_MAX_ADDRESSES = 16
_FINGERPRINT_DIGITS = 64
# What needs no escape in a URL: no query, no fragment, nothing that a request line cannot hold.
_PATH = re.compile(r"/[A-Za-z0-9/._~-]*")


class FoundHub(Frozen):
    """One hub as it announced itself; nothing of it is proven.

    ``url``: for `Device`, with its address; ``fingerprint``: SHA-256 of its certificate, None without TLS; ``version``
    of the protocol, such as ``telemetry.v1``.
    """

    url: str
    fingerprint: str | None
    name: str
    version: str


def discover(timeout_s: float = TIMEOUT_S) -> list[FoundHub]:
    """Return the hubs that answer within ``timeout_s``, by name; empty when none does.

    Blocks for that time, and up to half a second more; in a coroutine use ``await asyncio.to_thread(discover)``.

    Raises:
        MisuseError: zeroconf is not installed, no network can be asked, the caller is a coroutine, or ``timeout_s`` is
            not above 0 and at most `MAX_TIMEOUT_S`.
    """
    if not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise MisuseError(f"timeout_s={timeout_s:g}: hubs are looked for above 0 and up to {MAX_TIMEOUT_S:g} seconds")
    try:
        from zeroconf import ServiceBrowser, Zeroconf
    except ImportError as error:
        raise MisuseError("discovery needs zeroconf: pip install 'telemetry-device-sdk[discovery]'") from error
    _check_may_block()
    try:
        network = Zeroconf()
    except OSError as error:
        raise MisuseError(f"no network can be asked for hubs: {error}; connect to one first") from error
    try:
        names = _Names()
        # Closing the network alone would leave the browser's thread behind.
        with ServiceBrowser(network, SERVICE, names):  # type: ignore[arg-type]  # its listener is a class to inherit
            time.sleep(timeout_s)
            hubs = _ask_for(network, list(names.found))
    finally:
        network.close()
    return sorted(hubs, key=lambda hub: (hub.name, hub.url))


class _Names:
    """Keeps the names of what is announced, up to `MAX_HUBS`; called in the browser's thread."""

    def __init__(self) -> None:
        self.found: dict[str, None] = {}

    def add_service(self, _: Zeroconf, kind: str, name: str) -> None:
        # An announcement of this type may point to a name of any other.
        if len(self.found) < MAX_HUBS and name.endswith("." + SERVICE):
            self.found[name] = None

    def remove_service(self, _: Zeroconf, kind: str, name: str) -> None:
        self.found.pop(name, None)

    def update_service(self, _: Zeroconf, kind: str, name: str) -> None:
        self.add_service(_, kind, name)


def _ask_for(network: Zeroconf, names: Iterable[str]) -> list[FoundHub]:
    """Return the hubs behind names; a name that the library refuses is a stranger's, and hides nobody else."""
    from zeroconf import Error, ServiceInfo

    limit = time.monotonic() + _REST_S
    hubs = []
    for name in names:
        left_ms = (limit - time.monotonic()) * 1000
        try:
            info = ServiceInfo(SERVICE, name)
            if not info.load_from_cache(network) and not (left_ms > 0 and info.request(network, left_ms)):
                continue
        except Error:
            continue
        hubs.append(found_hub(name, nearest_first(info.parsed_addresses()), info.port, info.properties))
    return [hub for hub in hubs if hub is not None]


def nearest_first(addresses: Sequence[str]) -> list[str]:
    """Return the addresses that this machine would use, best first; IPv4 before IPv6.

    A hub with containers tells the address of their bridge too, which leads nowhere from elsewhere, or to a bridge of
    this machine's own. Whoever shares a network shares the beginning of the address from which the system would send.
    """
    return sorted(addresses[:_MAX_ADDRESSES], key=lambda address: (":" in address, -_shared_bits(address)))


def _shared_bits(address: str) -> int:
    """Return how many bits an address has in common with the one of this machine that packets to it would bear."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        # Connecting a datagram socket only asks the routing table; no packet leaves.
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            own = probe.getsockname()[0]
        here, there = (int.from_bytes(socket.inet_pton(family, text), "big") for text in (own, address))
    except OSError:
        return -2
    # This machine's own: of a hub that is here too all are, of another one it is a bridge that both have.
    return -1 if here == there else 128 - (here ^ there).bit_length()


def _check_may_block() -> None:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    # The library would join this very loop, which then could not hear a thing.
    raise MisuseError("discover() waits, so nothing else runs meanwhile: use await asyncio.to_thread(discover)")


def found_hub(
    name: str, addresses: Sequence[str], port: int | None, properties: Mapping[bytes, bytes | None]
) -> FoundHub | None:
    """Return what an announcement says, or None when it is not one that a device could use.

    Args:
        name: of the service, ``NAME._telemetry-hub._tcp.local.``
        addresses: the first is used; see `nearest_first`.
        properties: ``v``, ``path``, ``tls`` (``1`` or ``0``) and ``fp``, as bytes.
    """
    texts = {key: _text(properties.get(key.encode())) for key in ("v", "path", "tls", "fp")}
    is_secure, fingerprint = texts["tls"] == "1", texts["fp"].lower()
    if not addresses or not port or not _PATH.fullmatch(texts["path"]) or texts["tls"] not in ("0", "1"):
        return None
    if is_secure and not (len(fingerprint) == _FINGERPRINT_DIGITS and set(fingerprint) <= set("0123456789abcdef")):
        return None
    host = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
    # `Device` adds the usual path itself, and people need not see it.
    path = texts["path"].rstrip("/").removesuffix(DEVICE_PATH)
    url = f"{'wss' if is_secure else 'ws'}://{host}:{port}{path}"
    shown = _text(name.removesuffix("." + SERVICE).encode())
    return FoundHub(url, fingerprint if is_secure else None, shown, texts["v"])


def _text(found: bytes | None) -> str:
    """Return printable text of bounded length; a peer's escape sequences do not reach a terminal."""
    text = (found or b"")[: 4 * _MAX_CHARS].decode("utf-8", "replace")
    return "".join(c for c in text if c.isprintable())[:_MAX_CHARS]
