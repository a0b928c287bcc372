"""HTTP to one VictoriaMetrics, from any thread.

Owns: connections kept open, time limits, what a bad answer means. Place: below `store.victoria`, which says what is
asked (`store.victoria_wire`). Must not: know readings, or try again: the consumer does.
"""

import base64
import http.client
import threading
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import urlencode, urlsplit

from hub.errors import ConfigError, StoreError

_SCHEMES: dict[str, Callable[..., http.client.HTTPConnection]] = {
    "victoriametrics+http": http.client.HTTPConnection,
    "victoriametrics+https": http.client.HTTPSConnection,
}
_ADDRESS = "the store's address: use victoriametrics+http://HOST:8428, and $HUB_STORE_TOKEN for a password"
# An answer of minutes is a server that cannot be used; the server's own limit of a query is 30 s.
_TIMEOUT_S = 40.0
# Connections that wait for use; more are closed when they come back.
_IDLE_CONNECTIONS = 8
# An export is asked for in pieces of far less; beyond it something else answers.
MAX_ANSWER_BYTES = 256 * 1024 * 1024
_TAKEN, _REDIRECTED, _TOO_MUCH = 204, 300, 422
_NOT_ALLOWED = (401, 403)


class TooMuchError(StoreError):
    """The store's server does not answer such a question, usually for the number of readings it would look at."""

    reason = "too_much"


class Server(Protocol):
    """What a store needs of a server; each method raises as `VictoriaClient.post`."""

    def get(self, path: str) -> bytes:
        """Return the answer to a GET."""

    def ask(self, path: str, form: Mapping[str, str]) -> bytes:
        """Return the answer to a form."""

    def post(self, path: str, body: bytes) -> None:
        """Send a body."""

    def close(self) -> None:
        """Let go of connections; safe to call twice."""


class VictoriaClient:
    """Requests to the server of an address such as ``victoriametrics+http://host:8428``.

    Args:
        token: what the server or the proxy before it asks for: ``USER:PASSWORD``, or a bearer token; empty: nothing.

    Raises:
        ConfigError: the address cannot be read, or holds a password.
    """

    def __init__(self, address: str, token: str = "", *, timeout_s: float = _TIMEOUT_S) -> None:
        parts = urlsplit(address)
        self.name = f"{parts.scheme}://{parts.hostname}"
        try:
            self._make = _SCHEMES[parts.scheme]
            self._port = parts.port
        except (KeyError, ValueError) as error:
            raise ConfigError(_ADDRESS) from error
        if not parts.hostname or parts.username is not None or parts.query or parts.fragment:
            raise ConfigError(_ADDRESS)
        self._host = parts.hostname
        self._path = parts.path.rstrip("/")
        self._headers = _authorization(token)
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []

    def get(self, path: str) -> bytes:
        """Return the answer to a GET; raises as `post`."""
        return self._request("GET", path, None, {})

    def ask(self, path: str, form: Mapping[str, str]) -> bytes:
        """Return the answer to a form; raises as `post`."""
        return self._request(
            "POST", path, urlencode(form).encode(), {"Content-Type": "application/x-www-form-urlencoded"}
        )

    def post(self, path: str, body: bytes) -> None:
        """Send a body, which the server takes with 204.

        Raises:
            StoreError: the server cannot be reached or refuses; whether it took the body is not known.
        """
        # Any other success is of a proxy, or of who asks to sign in: what it swallowed would count as stored.
        self._request("POST", path, body, {"Content-Type": "text/plain"}, lambda status: status == _TAKEN)

    def close(self) -> None:
        """Close what is idle; safe to call twice."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _request(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str],
        is_success: Callable[[int], bool] = lambda status: status < _REDIRECTED,
    ) -> bytes:  # fmt: skip
        connection, is_used = self._take()
        while True:
            try:
                connection.request(method, self._path + path, body, self._headers | headers)
                response = connection.getresponse()
                answer = response.read(MAX_ANSWER_BYTES + 1)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if is_used:
                    # The server closes idle connections; all that is asked may be asked twice.
                    connection, is_used = self._new(), False
                    continue
                raise StoreError(f"{self.name} does not answer: {str(error) or type(error).__name__}") from error
            break
        if len(answer) > MAX_ANSWER_BYTES:
            connection.close()
            raise StoreError(f"{self.name} answered more than {MAX_ANSWER_BYTES} bytes to {path}")
        self._give_back(connection)
        if not is_success(response.status):
            said = answer[:300].decode(errors="replace").strip()
            kind = TooMuchError if response.status == _TOO_MUCH else StoreError
            hint = " (HUB_STORE_TOKEN is what it asks for)" if response.status in _NOT_ALLOWED else ""
            raise kind(f"{self.name} answered {response.status} to {path}: {said}{hint}")
        return answer

    def _take(self) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            if self._idle:
                return self._idle.pop(), True
        return self._new(), False

    def _new(self) -> http.client.HTTPConnection:
        return self._make(self._host, self._port, timeout=self._timeout_s)

    def _give_back(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if len(self._idle) < _IDLE_CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()


def _authorization(token: str) -> dict[str, str]:
    if not token:
        return {}
    if ":" in token:
        return {"Authorization": f"Basic {base64.b64encode(token.encode()).decode()}"}
    return {"Authorization": f"Bearer {token}"}
