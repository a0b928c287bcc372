"""HTTP to a server: connections are kept, a broken one is replaced, what goes wrong is an error of the store."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hub.errors import ConfigError, StoreError
from hub.store.victoria_client import VictoriaClient


class Answering(ThreadingHTTPServer):
    """Answers by the path; ``seen``: (connection's port, path, body, authorization) of each request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[int, str, bytes, str | None]] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        assert isinstance(self.server, Answering)
        self.server.seen.append((self.client_address[1], self.path, body, self.headers.get("Authorization")))
        is_taken = self.path.endswith("/w")
        statuses = {"/busy": 503, "/denied": 401}
        status = statuses.get(self.path.removeprefix("/vm"), 204 if is_taken else 200)
        self.send_response(status)
        self.send_header("Content-Length", "0" if is_taken else "2")
        self.end_headers()
        self.wfile.write(b"" if is_taken else b"ok")
        # As a server does that let an idle connection go, without saying so before.
        self.close_connection = self.path.endswith("/closing")


@pytest.fixture
def server() -> Iterator[Answering]:
    """A server on loopback."""
    with Answering() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(server: Answering) -> Iterator[VictoriaClient]:
    """A client of it, with a password and below a path."""
    client = VictoriaClient(f"victoriametrics+http://127.0.0.1:{server.server_port}/vm/", "me:s t")
    yield client
    client.close()


def test_requests(server: Answering, client: VictoriaClient) -> None:
    """One connection carries them all; forms are encoded; who asks is said each time."""
    assert client.get("/metrics") == b"ok"
    assert client.ask("/q", {"match[]": "{a}"}) == b"ok"
    client.post("/w", b"x y 1\n")

    assert [one[1:3] for one in server.seen] == [
        ("/vm/metrics", b""), ("/vm/q", b"match%5B%5D=%7Ba%7D"), ("/vm/w", b"x y 1\n"),
    ]  # fmt: skip
    assert len({one[0] for one in server.seen}) == 1
    assert {one[3] for one in server.seen} == {"Basic bWU6cyB0"}


def test_closed_connection_is_replaced(server: Answering, client: VictoriaClient) -> None:
    """A connection that the server closed while it was idle costs no request."""
    client.get("/closing")

    assert client.get("/metrics") == b"ok"
    assert len({one[0] for one in server.seen}) == 2


def test_refusal(client: VictoriaClient) -> None:
    """An answer that is no success is an error that says what was asked and answered."""
    with pytest.raises(StoreError, match="answered 503 to /busy: ok"):
        client.get("/busy")
    with pytest.raises(StoreError, match=r"answered 401 to /denied: ok .*HUB_STORE_TOKEN"):
        client.get("/denied")


def test_lines_are_taken_with_204_alone(client: VictoriaClient) -> None:
    """A page of success that somebody in between made has stored nothing."""
    with pytest.raises(StoreError, match="answered 200 to /login: ok"):
        client.post("/login", b"x y 1\n")


def test_nobody_answers(server: Answering) -> None:
    """A server that is not there is an error of the store; it names no password."""
    client = VictoriaClient("victoriametrics+http://127.0.0.1:1", "secret")

    with pytest.raises(StoreError, match="does not answer") as caught:
        client.get("/metrics")

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "rest",
    ["", "x:y", "x?a=b", "me:secret@x"],
)
def test_address_that_cannot_be_read(rest: str) -> None:
    """What names no server, or a password, is refused at once, with an address that does; the password is not told."""
    with pytest.raises(ConfigError, match=r"victoriametrics\+http://HOST:8428") as caught:
        VictoriaClient(f"victoriametrics+http://{rest}")

    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError):
        VictoriaClient("http://x:8428")
    assert VictoriaClient("victoriametrics+https://x", "abc")._headers == {"Authorization": "Bearer abc"}
