"""A claim reaches the right hub only, survives a lost answer, and leaves settings that nobody else reads."""

import json
import shlex
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from device_sdk.claim import Claimed, claim, environment, main
from device_sdk.errors import AuthenticationError, ConnectionLostError, MisuseError, ProtocolError
from tests.support.certificate import ServerCertificate, make_certificate

CODE = "c0123456789ab.abcdefghijklmnopqrstuvwxyz"
TOKEN = "d0123456789ab.0123456789012345678901234567890123456789abc"
CLAIMED = {"device": "pi-1", "token": TOKEN, "namespace": "default"}
Answer = tuple[int, object] | None


class FakeHub:
    """Answers claims as it was told, one after the other; None: the answer gets lost; status 0: raw bytes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[Answer] = []
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []


@contextmanager
def serving(context: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> Iterator[FakeHub]:
    """Give a hub on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            fake.paths.append(self.path)
            fake.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            answer = fake.answers.pop(0) if fake.answers else (200, CLAIMED)
            if answer is None:
                return
            if answer[0] == 0:
                assert isinstance(answer[1], bytes), "status 0: these bytes and no more"
                self.wfile.write(answer[1])
                return
            data = answer[1] if isinstance(answer[1], bytes) else json.dumps(answer[1]).encode()
            self.send_response(answer[0])
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that does not trust the certificate is meant."""

    server = Server((address, 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    fake = FakeHub(f"{'http' if context is None else 'https'}://{address}:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """A hub without TLS."""
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ServerCertificate:
    """A certificate for loopback, and its authority."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


def refusal(message: str) -> dict[str, Any]:
    """Return an error as hubs say it."""
    return {"error": {"reason": "any", "message": message}}


def test_a_code_becomes_a_token(hub: FakeHub) -> None:
    """Name, token and namespace come back; the code travels in the body, never in the address."""
    claimed = claim(hub.url, CODE, "pi-1")

    assert claimed == ("pi-1", TOKEN, "default")
    assert (hub.bodies[0]["code"], hub.bodies[0]["device"]) == (CODE, "pi-1")
    assert hub.paths == ["/v1/claim"]


def test_what_a_qr_code_holds_is_enough(hub: FakeHub) -> None:
    """The address with the code behind ``#``, and no name."""
    claim(f"{hub.url}/#claim={CODE}")

    assert (hub.bodies[0]["code"], "device" in hub.bodies[0]) == (CODE, False)


def test_a_lost_answer_is_asked_for_again(hub: FakeHub) -> None:
    """With the same secret, by which the hub knows the device; each claim makes up another one."""
    hub.answers = [None]
    claimed = claim(hub.url, CODE, timeout_s=10)
    claim(hub.url, CODE)

    assert claimed.token == TOKEN
    first, again, other = (body["retry"] for body in hub.bodies)
    assert first == again != other
    assert len(first) >= 16


@pytest.mark.parametrize(
    "length", [b"Content-Length: 200\r\n\r\n{", b"Content-Le", b"\r\n"], ids=["body", "head", "none"]
)
def test_an_answer_that_broke_off_is_asked_for_again(hub: FakeHub, length: bytes) -> None:
    """Half a head or half a body is no answer, though `http.client` takes it for one."""
    hub.answers = [(0, b"HTTP/1.0 200 OK\r\n" + length)]

    assert claim(hub.url, CODE, timeout_s=10).token == TOKEN


@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_that_has_no_time_is_asked_again(hub: FakeHub, status: int) -> None:
    """Too many attempts, or a full disk: later it works."""
    hub.answers = [(status, refusal("later"))]

    assert claim(hub.url, CODE, timeout_s=10).token == TOKEN


@pytest.mark.parametrize(
    ("status", "kind"), [(400, MisuseError), (403, AuthenticationError), (409, AuthenticationError)]
)
def test_a_refusal_is_final_and_in_the_hubs_words(hub: FakeHub, status: int, kind: type[Exception]) -> None:
    """Asking again would not help."""
    hub.answers = [(status, refusal("get a new code"))]

    with pytest.raises(kind, match="get a new code"):
        claim(hub.url, CODE)

    assert len(hub.bodies) == 1


@pytest.mark.parametrize("answer", [(200, b"<html>"), (200, []), (404, b""), (302, b""), (200, {"device": "x"})])
def test_what_is_no_hub_is_said_to_be_none(hub: FakeHub, answer: Answer) -> None:
    """Whatever another server answers, also a redirect, which is not followed."""
    hub.answers = [answer]

    with pytest.raises(ProtocolError, match="no hub"):
        claim(hub.url, CODE)


def test_nobody_there_is_said_after_the_time_is_up() -> None:
    """The error names the hub; it does not name the code."""
    with pytest.raises(ConnectionLostError, match=r"127\.0\.0\.1:1 ") as lost:
        claim("http://127.0.0.1:1", CODE, timeout_s=0.1)

    assert CODE not in str(lost.value)


@pytest.mark.parametrize("url", ["http://192.0.2.1:8000", "ws://hub.local:8000"])
def test_without_tls_a_code_does_not_leave_this_machine(url: str) -> None:
    """Another machine is refused before anything is sent, unless it is said."""
    with pytest.raises(MisuseError, match="--insecure-lan"):
        claim(url, CODE)

    assert environment(url, Claimed("d", "t", "n"), insecure_lan=True).startswith("HUB_URL=ws://")


@pytest.mark.parametrize(
    ("url", "code", "options", "words"),
    [
        ("https://hub.local", None, {}, "no claim code"),
        ("ftp://hub.local", CODE, {}, "use https"),
        ("https://hub:port", CODE, {}, "url"),
        ("http://127.0.0.1", CODE, {"ca": "ca.pem"}, "no TLS"),
        ("https://hub.local", CODE, {"fingerprint": "ab"}, "64 hex"),
        ("https://hub.local", CODE, {"name": "a b"}, "letters, digits"),
        ("https://127.0.0.1:1", CODE, {"ca": "missing.pem"}, "missing.pem"),
    ],
)
def test_misuse_is_said_at_once(url: str, code: str | None, options: dict[str, Any], words: str) -> None:
    """What cannot work is refused with the word to change."""
    with pytest.raises(MisuseError, match=words):
        claim(url, code, **options)


def test_only_the_trusted_hub_is_sent_a_code(certificate: ServerCertificate) -> None:
    """By authority or by fingerprint; any other certificate ends it before a byte is sent."""
    with serving(certificate.context) as hub:
        by_ca = claim(hub.url, CODE, ca=certificate.ca)
        by_pin = claim(hub.url, CODE, fingerprint=f"SHA256:{certificate.fingerprint.upper()}")
        with pytest.raises(ConnectionLostError, match="not trusted"):
            claim(hub.url, CODE)
        with pytest.raises(ConnectionLostError, match="nothing was sent"):
            claim(hub.url, CODE, fingerprint="0" * 64)
    # Another name than those in the certificate.
    with serving(certificate.context, "127.0.0.2") as other, pytest.raises(ConnectionLostError, match="not trusted"):
        claim(other.url, CODE, ca=certificate.ca)

    assert by_ca == by_pin
    assert (len(hub.bodies), other.bodies) == (2, [])


def test_settings_are_what_a_device_reads(tmp_path: Path) -> None:
    """ws or wss, the name, the token, the authority as a full path; quoted where a shell or systemd would split."""
    ca = tmp_path / 'my "ca".pem'
    text = environment("https://hub.local:8000/", Claimed("pi-1", TOKEN, "default"), ca=ca)
    dear = tmp_path / "$HOME `id` \\.pem"
    script = environment("https://hub.local:8000/", Claimed("pi-1", TOKEN, "default"), ca=dear) + 'printf %s "$HUB_CA"'

    shell = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, timeout=10)

    assert shell.stdout == str(dear)
    assert dict(line.split("=", 1) for line in shlex.split(text)) == {
        "HUB_URL": "wss://hub.local:8000", "DEVICE_NAME": "pi-1", "HUB_TOKEN": TOKEN, "HUB_CA": str(ca),
    }  # fmt: skip


def test_the_command_writes_a_private_file(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mode 0600, in place of what was there; nothing of the secret is printed, and `Device.from_env` takes it."""
    from device_sdk import Device

    out = tmp_path / "environment"
    out.write_text("old")

    code = main([hub.url, CODE, "--out", str(out)])

    printed = capsys.readouterr()
    assert (code, printed.out) == (0, "")
    assert TOKEN not in printed.err
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["environment"]
    for line in out.read_text().splitlines():
        monkeypatch.setenv(*line.split("=", 1))
    assert Device.from_env().name == "pi-1"


def test_a_place_that_cannot_be_written_uses_no_code_up(hub: FakeHub, tmp_path: Path) -> None:
    """It is tried before the code is sent."""
    assert main([hub.url, CODE, "--out", str(tmp_path / "no" / "environment")]) == 1
    assert hub.bodies == []


def test_a_refused_code_leaves_the_old_settings(hub: FakeHub, tmp_path: Path) -> None:
    """And no half-written file."""
    hub.answers = [(403, refusal("no"))]
    out = tmp_path / "environment"
    out.write_text("old")

    assert main([hub.url, CODE, "--out", str(out)]) == 1
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_the_command_runs_as_a_module(hub: FakeHub) -> None:
    """``python -m device_sdk claim`` prints the settings; another word says what there is."""
    command = [sys.executable, "-W", "error", "-m", "device_sdk"]
    root = Path(__file__).parents[2]

    done = subprocess.run([*command, "claim", hub.url, CODE], capture_output=True, text=True, timeout=30, cwd=root)
    other = subprocess.run([*command, "fly"], capture_output=True, text=True, timeout=30, cwd=root)

    assert (done.returncode, other.returncode) == (0, 2)
    assert done.stdout.splitlines()[1:] == ["DEVICE_NAME=pi-1", f"HUB_TOKEN={TOKEN}"]
    assert "claim URL" in other.stderr
