"""A server that says what a test scripts, byte by byte, and the browser client run in Node against it.

Owns: nothing of the protocol. For what stands between a browser and a hub: proxies, sign-in pages of networks, cuts.
"""

import json
import subprocess
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from tests.support.hub_process import ROOT
from tests.support.node import find

LIMIT_S = 40.0
CLIENT = (ROOT / "hub" / "page" / "client" / "hub-client.js").as_uri()
# Time runs `speed` times faster for the client, so that its waits are those of a page and a test takes no minutes.
_PRELUDE = """
import * as m from "%s";
const [url, speed, a] = JSON.parse(process.argv[1]);
const { setTimeout: after, setInterval: every } = globalThis, now = performance.now.bind(performance);
const pause = (ms) => new Promise((done) => after(done, ms));
globalThis.setTimeout = (call, ms = 0, ...more) => after(call, ms / speed, ...more);
globalThis.setInterval = (call, ms, ...more) => every(call, ms / speed, ...more);
performance.now = () => now() * speed;
const stored = new Map();
globalThis.localStorage = {
  getItem: (key) => stored.get(key) ?? null,
  setItem: (key, text) => stored.set(key, text),
  removeItem: (key) => stored.delete(key),
};
const told = await (async () => { %s })();
console.log(JSON.stringify(told));
process.exit(0);
"""

# Path with query, and the number of the request → bytes to send, or seconds to wait.
Script = Callable[[str, int], Iterable[bytes | float]]


class BadServer:
    """Answers each GET by its script and then closes the connection; ``paths`` are those it was asked for."""

    def __init__(self, script: Script) -> None:
        self.paths: list[str] = []
        self._lock = threading.Lock()
        self._has_ended = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with server._lock:
                    server.paths.append(self.path)
                    number = len(server.paths)
                # Whoever was told enough may leave in the middle.
                with suppress(OSError):
                    for part in script(self.path, number):
                        if isinstance(part, bytes):
                            self.wfile.write(part)
                        elif server._has_ended.wait(part):
                            break
                self.close_connection = True

            def log_message(self, format: str, *arguments: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="bad server")

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def run(self, body: str, argument: object = None, *, speed: float = 1.0) -> Any:
        """Return what ``body`` returns in Node: ``m`` is hub-client.js, ``url`` this server, ``a`` the argument."""
        told = json.dumps([self.url, speed, argument])
        done = subprocess.run(
            [find("node") or "node", "--input-type=module", "-e", _PRELUDE % (CLIENT, body), told],
            timeout=LIMIT_S, capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    def __enter__(self) -> "BadServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._has_ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def answer(status: str, kind: str, *headers: str) -> bytes:
    """Return the head of an answer that ends with its connection."""
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Type: {kind}", "Connection: close", *headers, "", ""]).encode()


def event(op: str, **fields: object) -> bytes:
    """Return one event as the hub sends it."""
    cursor = f"id: {fields['o']}\n" if "o" in fields else ""
    return f"{cursor}event: {op}\ndata: {json.dumps(fields)}\n\n".encode()


SERIES: dict[str, object] = {"s": {"1": {"device": "d", "channel": "n", "unit": None, "type": "int", "label": None}}}


def reading(number: int) -> dict[str, object]:
    """Return the fields of a message with one reading, whose value and time are its number."""
    return {"o": f"r.{number}", "t0": str(number), "tick": 1, "u": [[1, 0, number]]}
