"""No token, code or password is in a log, an error or a file of the hub, whatever was done with it."""

import base64
import io
import logging
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_sdk import Device
from hub.auth import Identities
from hub.roles import Role
from tests.support.hub_process import HubProcess

pytestmark = pytest.mark.end_to_end

PASSWORD, OTHER_PASSWORD, WRONG_PASSWORD = "battery-horse-staple", "correct-horse-staple", "guessed-horse-staple"
# Of a secret: a tail cut off where a message is cut must not let the rest through.
SHORTEST = 12


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    """A hub that logs all it can, reachable as from elsewhere."""
    with HubProcess(tmp_path / "data", "--log-level", "debug") as hub:
        yield hub


@pytest.fixture
def device_log() -> Iterator[io.StringIO]:
    """All that the SDK and its libraries log in this process, at the finest level."""
    text = io.StringIO()
    handler, root = logging.StreamHandler(text), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.setLevel(level)
    root.removeHandler(handler)


class Secrets:
    """Asks the hub, and keeps each secret and each error answer."""

    def __init__(self, hub: HubProcess, token: str) -> None:
        self.hub = hub
        self.token = token
        self.all = {token, PASSWORD, OTHER_PASSWORD, WRONG_PASSWORD}
        self.errors: list[str] = []

    def ask(self, method: str, path: str, body: object = None, token: str | None = None) -> Any:
        """Return the parsed answer; keep what it says when it is an error."""
        status, answer = self.hub.request(method, path, body, self.token if token is None else token)
        if status >= 400:
            self.errors.append(f"{method} {status} {answer}")
        return answer

    def new(self, answer: dict[str, Any], field: str) -> str:
        """Keep a secret that the hub has just made."""
        self.all.add(answer[field])
        return str(answer[field])

    def parts(self) -> list[bytes]:
        """Return what must be nowhere: of each secret its first characters behind the id, also as base64."""
        secrets = [secret.rpartition(".")[2] for secret in self.all]
        texts = [secret[:SHORTEST].encode() for secret in secrets]
        return texts + [base64.b64encode(secret.encode())[:SHORTEST] for secret in secrets]


def enrol(secrets: Secrets) -> str:
    """Make every kind of credential; return a device's token."""
    token = secrets.new(secrets.ask("POST", "/v1/devices", {"device": "pump-1"}), "token")
    code = secrets.new(secrets.ask("POST", "/v1/devices/pump-2/claim", {}), "code")
    secrets.new(secrets.ask("POST", "/v1/claim", {"code": code, "device": "pump-2"}), "token")
    secrets.ask("POST", "/v1/claim", {"code": code, "device": "pump-3"})
    secrets.new(secrets.ask("POST", "/v1/tokens", {"role": "watcher", "name": "wall"}), "token")
    secrets.new(secrets.ask("POST", "/v1/devices/pump-2/rotate", {}), "token")
    secrets.ask("POST", "/v1/users", {"name": "anna", "role": "admin", "password": PASSWORD})
    invite = secrets.new(secrets.ask("POST", "/v1/users", {"name": "berta", "role": "watcher"}), "invite")
    secrets.ask("POST", "/v1/invite", {"code": invite, "password": OTHER_PASSWORD})
    secrets.ask("POST", "/v1/invite", {"code": invite, "password": OTHER_PASSWORD})
    secrets.ask("POST", "/v1/users/berta/password", {"password": PASSWORD})
    return token


def sign_in(secrets: Secrets) -> None:
    """Sign in, right and wrong; the cookie is a secret too."""
    secrets.ask("POST", "/v1/login", {"name": "anna", "password": WRONG_PASSWORD})
    secrets.ask("POST", "/v1/login", {"name": WRONG_PASSWORD, "password": PASSWORD})
    request = urllib.request.Request(
        secrets.hub.url + "/v1/login", data=f'{{"name": "anna", "password": "{PASSWORD}"}}'.encode(), method="POST"
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        cookie = answer.headers["Set-Cookie"].partition(";")[0].partition("=")[2]
    secrets.all.add(cookie)


def misuse(secrets: Secrets) -> None:
    """Put secrets where none belongs, and say what no hub understands."""
    for secret in sorted(secrets.all):
        wrong = secret[:-1] + ("A" if secret[-1] != "A" else "B")
        for token in (wrong, secret + "x", "d0123456789ab." + wrong.rpartition(".")[2]):
            secrets.ask("GET", "/v1/devices", token=token)
            secrets.ask("POST", "/v1/devices", {"device": "x"}, token)
        secrets.ask("DELETE", f"/v1/tokens/{wrong}")
        secrets.ask("GET", f"/login?code={secret}")
        secrets.ask("POST", "/v1/claim", {"code": wrong, "device": "pump-9"})
        secrets.ask("POST", "/v1/login", {"name": "anna", "password": secret * 9})
        secrets.ask("POST", "/v1/users/anna/password", {"password": {"text": secret}})
        raw(secrets.hub, f"GET /v1/devices HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\x00\r\n\r\n")
        raw(secrets.hub, f"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{{'password': {secret}")
        upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n"
        raw(secrets.hub, f"GET /v1/device HTTP/1.1\r\nHost: x\r\n{upgrade}Authorization: Bearer {wrong}\r\n\r\n")


def raw(hub: HubProcess, text: str) -> None:
    """Send bytes and go away."""
    with socket.create_connection(("127.0.0.1", hub.port), timeout=10) as connection:
        connection.sendall(text.encode())
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


@pytest.mark.slow
def test_no_secret_is_in_any_log_error_or_file(hub: HubProcess, device_log: io.StringIO, tmp_path: Path) -> None:
    """After all that is done with credentials, right and wrong, no byte of one is where somebody else may read it.

    Slow: a hub, some hundred requests, a few password hashes.
    """
    identities = Identities(hub.data / "identities.sqlite3")
    secrets = Secrets(hub, identities.add_token(Role.ADMIN, name="tests")[1])
    identities.close()

    token = enrol(secrets)
    with Device("pump-1", hub.ws_url, token=token, spool=tmp_path / "spool") as device:
        device.record({"level": 1.0})
        device.flush(20)
    sign_in(secrets)
    misuse(secrets)
    log = str(secrets.ask("GET", "/v1/log?limit=1000"))
    hub.stop()

    files = {path.name: path.read_bytes() for path in [*hub.data.iterdir(), *(tmp_path / "spool").rglob("*")]
             if path.is_file()}  # fmt: skip
    told = {
        **files, "hub log": hub.log.read_bytes(), "device log": device_log.getvalue().encode(),
        "log of changes": log.encode(), "errors": "\n".join(secrets.errors).encode(),
    }  # fmt: skip
    assert {"changes.sqlite3", "users.sqlite3", "identities.sqlite3"} <= set(files)
    assert "POST /v1/users" in log
    assert len(secrets.errors) > 50
    assert len(told["hub log"]) > 100
    assert len(told["device log"]) > 100
    found = {(where, part) for where, text in told.items() for part in secrets.parts() if part in text}
    assert found == set()
