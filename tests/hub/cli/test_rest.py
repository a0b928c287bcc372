"""The REST client: answers, errors and trust."""

import http.server
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hub.cli.exit_code import CliError, ExitCode, UnreachableError
from hub.cli.rest import RestClient
from hub.errors import BadRequestError, NotFoundError, UnauthenticatedError
from hub.tls import make_certificates
from tests.support.hub_process import HubProcess, free_port


class NoHub(http.server.BaseHTTPRequestHandler):
    """A web server that is no hub."""

    def do_GET(self) -> None:
        """Say hello in HTML."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, format: str, *arguments: object) -> None:
        """Be quiet."""


@pytest.fixture
def no_hub() -> Iterator[str]:
    """Return the URL of a web server that is no hub."""
    server = http.server.HTTPServer(("127.0.0.1", 0), NoHub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_answers_are_parsed(hub: HubProcess) -> None:
    """A GET returns the JSON object."""
    assert RestClient(hub.url).get("/healthz")["status"] == "ok"


def test_repeated_parameters_are_sent(hub: HubProcess, recorded: str) -> None:
    """A list becomes one parameter for each entry; None is left out."""
    found = RestClient(hub.url).get("/v1/channels", {"match": [f"{recorded}/temperature", f"{recorded}/state"]})

    assert {channel["channel"] for channel in found["channels"]} == {"temperature", "state"}


@pytest.mark.parametrize("url", ["ftp://x", "http://", "file:///etc/passwd"])
def test_other_addresses_are_refused(url: str) -> None:
    """Only the web's schemes lead to a hub."""
    with pytest.raises(CliError, match="no address of a hub"):
        RestClient(url)


@pytest.mark.parametrize(
    ("url", "rest", "device"),
    [
        ("hub.local:8000", "http://hub.local:8000", "ws://hub.local:8000"),
        ("wss://hub.local:8000/x", "https://hub.local:8000", "wss://hub.local:8000"),
    ],
)
def test_schemes_follow_from_each_other(url: str, rest: str, device: str) -> None:
    """One HUB_URL serves devices and commands."""
    client = RestClient(url)

    assert (client.url, client.device_url) == (rest, device)


def test_statuses_become_errors(hub: HubProcess, admin: str) -> None:
    """Each status is an error of its kind, with the hub's message."""
    with pytest.raises(NotFoundError):
        RestClient(hub.url, admin).delete("/v1/devices/nobody")
    with pytest.raises(BadRequestError):
        RestClient(hub.url, admin).get("/v1/readings", {"limit": "many"})
    with pytest.raises(UnauthenticatedError, match="HUB_TOKEN"):
        RestClient(hub.url, "wrong").get("/v1/devices")


def test_nobody_there_is_unreachable() -> None:
    """A closed port says how to start a hub."""
    with pytest.raises(UnreachableError, match="hub serve") as refused:
        RestClient(f"http://127.0.0.1:{free_port()}").get("/healthz")

    assert refused.value.code is ExitCode.UNREACHABLE


def test_other_server_is_unreachable(no_hub: str) -> None:
    """A web server that is no hub is said to be none."""
    with pytest.raises(UnreachableError, match="no telemetry hub"):
        RestClient(no_hub).get("/healthz")


def test_certificate_needs_its_authority(tmp_path: Path) -> None:
    """https works with the hub's ca.pem, and without it says what to give."""
    files = make_certificates(tmp_path / "tls", ["127.0.0.1"], now=datetime.now(UTC))
    options = ("--tls-cert", str(files.cert), "--tls-key", str(files.key))
    with HubProcess(tmp_path / "data", *options, ca=files.ca) as hub:
        assert RestClient(hub.url, ca=files.ca).get("/healthz")["status"] == "ok"
        with pytest.raises(UnreachableError, match=r"ca\.pem with --ca or HUB_CA"):
            RestClient(hub.url).get("/healthz")


def test_missing_authority_file_is_a_usage_error(tmp_path: Path) -> None:
    """A path that is none is not ignored."""
    with pytest.raises(CliError, match="hub tls init"):
        RestClient("https://x", ca=tmp_path / "no.pem")
