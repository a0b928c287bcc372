"""A real mosquitto as a child process: started on a free port of the loopback, killed or stopped by its process id."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

# Debian puts it where a user's PATH does not lead.
PROGRAM = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
START_LIMIT_S = 10.0


class Mosquitto:
    """A broker for anybody on loopback; may be killed and started again.

    Args:
        folder: where its configuration, its log and its database are; sessions outlive it from `save` on.
        port: TCP port.
        lines: further lines of its configuration.
    """

    def __init__(self, folder: Path, port: int, *lines: str) -> None:
        self.port = port
        self._configuration = folder / "mosquitto.conf"
        self._log = folder / "mosquitto.log"
        self._database = folder / "mosquitto.db"
        # As root it would become a user who may not write here.
        always = [f"user {getpass.getuser()}", f"listener {port} 127.0.0.1", "allow_anonymous true"]
        always += ["persistence true", f"persistence_location {folder}/"]
        self._configuration.write_text("\n".join((*always, *lines, "")))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running broker."""
        assert self._process is not None, "start it first"
        return self._process.pid

    def start(self) -> "Mosquitto":
        """Start and wait until it takes connections; raise with its log when it does not."""
        assert PROGRAM is not None, "there is no mosquitto on this machine"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, "-c", str(self._configuration)], stdout=log, stderr=log)
        end = time.monotonic() + START_LIMIT_S
        while self._process.poll() is None and time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return self
        self.kill()
        raise AssertionError(f"mosquitto did not start; its log ends:\n{self._log.read_text()[-2000:]}")

    def save(self) -> None:
        """Make it write its database now (SIGUSR1), as it does each half hour; return when it has."""
        # It writes on its next turn, which may be the next message's, and puts a new file in the old one's place.
        self._database.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR1)
        end = time.monotonic() + START_LIMIT_S
        while not self._database.exists():
            assert time.monotonic() < end, f"mosquitto did not write {self._database}"
            time.sleep(0.01)

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def __enter__(self) -> "Mosquitto":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()
