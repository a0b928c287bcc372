"""A real VictoriaMetrics as a child process: on a free port of the loopback, killed or stopped by its process id."""

import shutil
import socket
import subprocess
import time
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path

PROGRAM = shutil.which("victoria-metrics")
START_LIMIT_S = 15.0
_STOP_LIMIT_S = 30.0


class VictoriaMetrics:
    """A server with a folder of its own; may be killed and started again on the same port.

    Args:
        folder: where its data and its log are.
        flags: instead of the one that a hub asks for.
    """

    def __init__(self, folder: Path, *flags: str) -> None:
        self._folder = folder
        self._flags = flags or ("-dedup.minScrapeInterval=1ms",)
        with closing(socket.socket()) as found:
            found.bind(("127.0.0.1", 0))
            self.port: int = found.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """What `--store` is told."""
        return f"victoriametrics+http://127.0.0.1:{self.port}"

    def start(self) -> "VictoriaMetrics":
        """Start and wait until it answers; raise with its log when it does not."""
        assert PROGRAM is not None, "there is no victoria-metrics on this machine"
        command = [PROGRAM, f"-storageDataPath={self._folder / 'data'}", f"-httpListenAddr=127.0.0.1:{self.port}"]
        command += ["-retentionPeriod=100y", "-search.latencyOffset=0s", *self._flags]
        log_path = self._folder / "victoria-metrics.log"
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + START_LIMIT_S
        while self._process.poll() is None and time.monotonic() < end:
            if self._answers():
                return self
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"victoria-metrics did not start; its log ends:\n{log_path.read_text()[-2000:]}")

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_LIMIT_S)

    def stop(self) -> None:
        """Let it end as it wants to (SIGTERM): it writes what it has."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_STOP_LIMIT_S)

    def _answers(self) -> bool:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=1)) as connection:
            try:
                connection.request("GET", "/health")
                return connection.getresponse().status == 200
            except (OSError, HTTPException):
                return False

    def __enter__(self) -> "VictoriaMetrics":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()
