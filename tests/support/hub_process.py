"""A real hub as a child process: started on a free port, killed or stopped by its process id."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

START_LIMIT_S = 20.0
# Below what kernels give to outgoing connections: one of those, even a client that meets itself on the port of a hub
# that is down, would keep the hub from coming back.
_PORTS = range(20_000, 32_000)
ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """Return a TCP port on loopback that nobody listens on now, and that no outgoing connection is given meanwhile."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class HubProcess:
    """``hub serve`` on loopback with its own data directory; may be killed and started again. MQTT only if asked for.

    Args:
        data: data directory, kept over restarts.
        options: further command-line options, e.g. ``--tls-cert``.
        ca: path of the certificate authority when the hub serves TLS.
        environment: variables beside this process's own.
        host: address it listens on; beyond loopback say ``--insecure-lan`` too.
        runner: command that runs it elsewhere and then becomes it, e.g. ``ip netns exec NAME``.
        program: what Python runs: the hub, or one with a fault (`mutants`).
    """

    def __init__(
        self,
        data: Path,
        *options: str,
        ca: Path | None = None,
        port: int | None = None,
        environment: dict[str, str] | None = None,
        host: str = "127.0.0.1",
        runner: Sequence[str] = (),
        program: Sequence[str] = ("-m", "hub"),
    ) -> None:
        self.data = data
        self.port = port or free_port()
        self.ca = ca
        self.host = host
        self._runner = runner
        self._options = options
        self._environment = environment
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self.log = data.with_name(data.name + ".log")

    @property
    def url(self) -> str:
        """Base URL of HTTP."""
        return f"{'https' if self.ca else 'http'}://{self.host}:{self.port}"

    @property
    def ws_url(self) -> str:
        """Base URL of WebSocket."""
        return f"{'wss' if self.ca else 'ws'}://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the running hub."""
        assert self._process is not None, "start it first"
        return self._process.pid

    @property
    def rss_bytes(self) -> int:
        """Resident memory of the running hub."""
        return int(psutil.Process(self.pid).memory_info().rss)

    @property
    def handle_count(self) -> int:
        """Open file descriptors of the running hub."""
        return int(psutil.Process(self.pid).num_fds())

    @property
    def exit_code(self) -> int | None:
        """Exit code of the ended hub, None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> "HubProcess":
        """Start and wait until it answers; raise with its log when it does not."""
        self.launch()
        return self.wait_ready()

    def launch(self) -> None:
        """Start it and return at once."""
        serve = [sys.executable, *self._program, "serve", "--data", str(self.data)]
        command = [*self._runner, *serve, "--host", self.host, "--port", str(self.port)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self._options], stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=ROOT,
                env={**os.environ, "HUB_MQTT_PORT": "off", **(self._environment or {})},
            )  # fmt: skip

    def wait_ready(self) -> "HubProcess":
        """Wait until it answers; raise with its log when it does not."""
        limit = time.monotonic() + START_LIMIT_S
        while time.monotonic() < limit:
            if self.exit_code is not None:
                break
            try:
                self.get("/healthz")
            except OSError:
                time.sleep(0.02)
            else:
                return self
        self.kill()
        raise AssertionError(f"the hub did not start; its log ends:\n{self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL)."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(10)

    def stop(self, limit_s: float = 10.0) -> float:
        """Ask it to end (SIGINT, as Ctrl-C does); return the seconds it took."""
        assert self._process is not None, "start it first"
        begun = time.monotonic()
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGINT)
        try:
            self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the hub did not stop in {limit_s} s:\n{self.log.read_text()[-3000:]}") from None
        return time.monotonic() - begun

    def request(
        self, method: str, path: str, body: object = None, token: str | None = None, limit_s: float = 30.0
    ) -> tuple[int, Any]:
        """Return (status, parsed JSON or text) of one HTTP request."""
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=limit_s, context=self._tls()) as answer:
                return answer.status, _parsed(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _parsed(error.read())

    def get(self, path: str, token: str | None = None) -> Any:
        """Return the parsed body of a GET; AssertionError unless it is 200."""
        status, body = self.request("GET", path, token=token)
        assert status == 200, f"GET {path}: {status} {body}"
        return body

    def _tls(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=str(self.ca)) if self.ca else None

    def __enter__(self) -> "HubProcess":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="replace")


async def wait_for(condition: Any, limit_s: float = 20.0, what: str = "") -> None:
    """Return when ``condition()`` is true; AssertionError after ``limit_s``."""
    limit = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < limit, f"waited {limit_s} s in vain for {what or condition}"
        await asyncio.sleep(0.01)
