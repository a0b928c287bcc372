"""A real InfluxDB 1.x as a child process, and the few lines that let today's client write to it.

Owns: `Influxd`, `Shim`. The client writes to ``/api/v2/write``, which InfluxDB has from 1.8 on; Debian's 1.6 has
``/write`` alone.
"""

import http.client
import shutil
import signal
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from tests.support.hub_process import free_port

PROGRAM = shutil.which("influxd")
DATABASE = "hub"
_START_LIMIT_S = 30.0


class Shim(BaseHTTPRequestHandler):
    """Hands each request to the server behind it; a write under its older name."""

    protocol_version = "HTTP/1.1"
    # Head and body of an answer are two packets; the second would wait for the first one's acknowledgement.
    disable_nagle_algorithm = True
    port = 0

    def do_POST(self) -> None:
        """Pass a request on."""
        target = self.path
        parts = urllib.parse.urlsplit(target)
        if parts.path == "/api/v2/write":
            asked = urllib.parse.parse_qs(parts.query)
            query = {"db": asked["bucket"][0], "precision": asked["precision"][0]}
            target = f"/write?{urllib.parse.urlencode(query)}"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as server:
                server.request("POST", target, body, {"Content-Type": self.headers.get("Content-Type", "")})
                answer = server.getresponse()
                said = answer.read()
        except OSError:
            # As when nobody listens.
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(said)))
        self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Influxd:
    """A server on a free port of the loopback; may be killed and started again. Stopped by its process id.

    Args:
        folder: its data, which outlive the process.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._configuration, self._log = folder / "influxdb.conf", folder / "influxd.log"
        self._configuration.write_text(
            f"""reporting-disabled = true
bind-address = "127.0.0.1:{free_port()}"
[meta]
dir = "{folder}/meta"
[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
query-log-enabled = false
[monitor]
store-enabled = false
[http]
bind-address = "127.0.0.1:{self.port}"
log-enabled = false
"""
        )
        self._process: subprocess.Popen[bytes] | None = None
        handler = type("BoundShim", (Shim,), {"port": self.port})
        self._shim = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._shim.daemon_threads = True
        threading.Thread(target=self._shim.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._shim.server_address[1]}"
        self.address = f"influxdb+{self.url}/{DATABASE}"

    def start(self) -> Self:
        """Start it, wait until it answers, make the database."""
        assert PROGRAM is not None, "apt-get install influxdb"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, "-config", str(self._configuration)], stdout=log, stderr=log)
        limit = time.monotonic() + _START_LIMIT_S
        while True:
            try:
                self.ask(f"CREATE DATABASE {DATABASE}")
            except OSError as error:
                if time.monotonic() > limit or self._process.poll() is not None:
                    raise RuntimeError(self._log.read_text()[-2000:]) from error
                time.sleep(0.05)
            else:
                return self

    def ask(self, question: str) -> bytes:
        """Ask it directly."""
        form = urllib.parse.urlencode({"db": DATABASE, "epoch": "ns", "q": question}).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/query", form, timeout=10) as answer:
            found: bytes = answer.read()
            return found

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None, "start it first"
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def close(self) -> None:
        """End it and the shim."""
        self._shim.shutdown()
        self._shim.server_close()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()
