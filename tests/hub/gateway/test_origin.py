"""`hub.gateway.origin`: what counts as this machine and as the page's own origin."""

import pytest

from hub.gateway.origin import is_loopback_address, is_loopback_host, is_same_origin


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("::ffff:127.0.0.1", True),
        ("192.168.1.4", False), ("::ffff:10.0.0.1", False), ("fe80::1%eth0", False), ("localhost", False), ("", False),
    ],
    ids=str,
)  # fmt: skip
def test_loopback_address(address: str, expected: bool) -> None:
    """Only addresses of the loopback network are loopback; names never are."""
    assert is_loopback_address(address) is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost:8000", True), ("LOCALHOST", True), ("127.0.0.1:8000", True), ("[::1]:8000", True),
        ("hub.localhost", True), ("localhost.", True), ("evil.example:8000", False), ("localhost.evil.example", False),
        ("127.0.0.1.nip.io", False),
        ("", False), ("[::1", False), ("192.168.1.4", False), ("evil@localhost:1@x", False),
    ],
    ids=str,
)  # fmt: skip
def test_loopback_host(host: str, expected: bool) -> None:
    """A Host header that a rebound DNS name would carry is refused."""
    assert is_loopback_host(host) is expected


@pytest.mark.parametrize(
    ("origin", "host", "expected"),
    [
        (None, "hub.local:8000", True), ("https://hub.local:8000", "hub.local:8000", True),
        ("http://Hub.local", "hub.local", True), ("https://panel.example", "hub.local", True),
        ("null", "hub.local", False), ("https://evil.example", "hub.local", False), ("hub.local", "hub.local", False),
        ("https://", "", False), ("https://hub.local:9000", "hub.local:8000", False),
        ("file://hub.local", "hub.local", False),
    ],
    ids=str,
)  # fmt: skip
def test_same_origin(origin: str | None, host: str, expected: bool) -> None:
    """Only no Origin, the host's own one, or one that was allowed may act for the user."""
    assert is_same_origin(origin, host, allowed=("https://panel.example",)) is expected


def test_page_of_a_hub_with_tls_has_tls() -> None:
    """Whoever is on the way can make a page of http:// with the hub's name and port; it is another site's."""
    assert is_same_origin("https://hub.local:8000", "hub.local:8000", is_tls=True)
    assert not is_same_origin("http://hub.local:8000", "hub.local:8000", is_tls=True)
    assert is_same_origin("http://hub.local:8000", "hub.local:8000", is_tls=True, allowed=["http://hub.local:8000"])
