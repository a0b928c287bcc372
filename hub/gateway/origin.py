"""Who is on the other end: loopback addresses, the Host header, the Origin of browsers.

Owns: the checks against pages of other sites (DNS rebinding, cross-site
WebSockets). Place: below `hub.gateway.websocket` and `hub.gateway.http`. Pure.

A browser lets any page open a WebSocket or send a simple request to
127.0.0.1; what it does not let it forge is ``Host`` and ``Origin``.
Source: RFC 6455, 10.2; OWASP ASVS 4.4.2.
"""

from collections.abc import Collection
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost"})


def is_loopback_address(address: str) -> bool:
    """Return whether an address (not a name) is of the loopback network, IPv4-mapped ones included."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return (mapped or ip).is_loopback


def host_name(host: str) -> str:
    """Return the name of a Host header without its port, in lower case; empty when it is not readable."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_loopback_host(host: str) -> bool:
    """Return whether a Host header names this machine itself, as ``localhost:8000`` or ``[::1]`` do."""
    name = host_name(host)
    return name in LOOPBACK_NAMES or name.endswith(".localhost") or is_loopback_address(name)


def is_same_origin(origin: str | None, host: str, *, allowed: Collection[str] = (), is_tls: bool = False) -> bool:
    """Return whether a request may act for the user: no Origin (not a browser), the page's own, or one allowed.

    Args:
        origin: the Origin header, None when absent. ``null`` (a sandboxed page) is never the same.
        host: the Host header of the same request.
        allowed: further origins, as ``https://panel.example``.
        is_tls: the port speaks TLS, so its page does: whoever is on the way can make one of ``http://`` with its name.
    """
    if origin is None or origin in allowed:
        return True
    scheme, _, rest = origin.partition("://")
    return scheme in (("https",) if is_tls else ("http", "https")) and rest != "" and rest.lower() == host.lower()
