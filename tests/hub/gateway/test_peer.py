"""A transport says who is on the other end; certificates are covered with real TLS by `test_websocket`."""

import pytest

from hub.gateway.peer import address_of, certificate_of
from tests.support.transport import FakeTransport


@pytest.mark.parametrize(
    ("peername", "address"),
    [(("10.0.0.7", 5), "10.0.0.7:5"), (("fe80::1", 5, 0, 0), "[fe80::1]:5"), ("", "local"), (None, "local")],
)
def test_address_has_host_and_port(peername: object, address: str) -> None:
    """IPv6 in brackets; a socket of the file system has none."""
    transport = FakeTransport(peername=peername)  # type: ignore[arg-type]
    assert address_of(transport) == address


def test_connection_without_tls_has_no_certificate() -> None:
    """Nobody is asked for one."""
    assert certificate_of(FakeTransport()) is None
