"""A server that keeps what it is asked and answers what it is told.

Owns: `Recorder`, for tests of what is sent, to the byte.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit


class Recorder(ThreadingHTTPServer):
    """``requests``: (path, query, Authorization, body) of each; ``answer``: status and text, or what becomes JSON;
    ``headers``: of each answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Recording)
        self.requests: list[tuple[str, dict[str, str], str, bytes]] = []
        self.answer: tuple[int, object] = (204, "")
        self.headers: dict[str, str] = {}
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Recording(BaseHTTPRequestHandler):
    """One connection of it."""

    server: Recorder

    def do_POST(self) -> None:
        """Keep the request, and answer."""
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        query = {key: value[0] for key, value in parse_qs(parts.query).items()}
        self.server.requests.append((parts.path, query, self.headers.get("Authorization", ""), body))
        status, answer = self.server.answer
        said = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(said)))
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
