"""Who is on the other end of a socket: its address for logs and limits, and the certificate it showed.

Owns: what a transport says of its peer. Place: below the gateway's connections.
"""

import asyncio
import ssl

from hub.certificate import Certificate, read_certificate


def address_of(transport: asyncio.BaseTransport) -> str:
    """Return ``address:port`` of the other end, ``local`` where it has none."""
    peername: object = transport.get_extra_info("peername")
    if not isinstance(peername, tuple) or len(peername) < 2:
        return "local"
    host, port = peername[0], peername[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def certificate_of(transport: asyncio.BaseTransport) -> Certificate | None:
    """Return the client's certificate; without ``--tls-client-ca`` nobody is asked for one, and none is taken."""
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    fields = None if tls is None else tls.getpeercert()
    if tls is None or not fields:
        return None
    return read_certificate(fields, tls.getpeercert(binary_form=True) or b"")
