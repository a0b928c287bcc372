"""A board without a battery: a real device process whose wall clock starts in 1970 with each boot.

`Board` is the test's end, ``python -m tests.support.board`` the device's. True time is this
machine's plus what was skipped: a file in libfaketime's form, which the hub's clock follows too.
The board's own clock follows another file: it says 1970 from boot on, until `set_clock` links it
to the true one. Uptime is this machine's plus the same skips; nothing monotonic is faked.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from device_sdk import Device
from device_sdk.clock import Clock, read_boot_ns
from device_sdk.courier import SYNC_S
from tests.support.hub_process import ROOT

S = 10**9
# Where Debian's package `faketime` has it.
_LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
_ANSWER_LIMIT_S = 60.0


class Recorded(NamedTuple):
    """One reading of the board: its value, and the true time when it was recorded."""

    value: int
    true_ns: int


def can_fake_time() -> bool:
    """Say whether libfaketime is installed."""
    return bool(_LIBRARIES)


class TrueTime:
    """The true time of a test, in a file that processes under libfaketime follow."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.skip(0)

    def skip(self, seconds: int) -> None:
        """Let ``seconds`` pass at once."""
        write_skipped(self.file, (self.skipped_s if self.file.exists() else 0) + seconds)

    @property
    def skipped_s(self) -> int:
        """How far true time is ahead of this machine's clock."""
        return read_skipped(self.file)

    def now_ns(self) -> int:
        """Return the true time."""
        return time.time_ns() + self.skipped_s * S


def faked(file: Path) -> dict[str, str]:
    """Return the environment of a process whose wall clock follows ``file``."""
    return {
        "LD_PRELOAD": str(_LIBRARIES[0]), "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1", "TZ": "UTC",
    }  # fmt: skip


class Board:
    """The board and its card; ``spool`` is what is on the card.

    Args:
        folder: of the test; spools and clock files lie in it.
        url, token: of the hub.
        true_time: see `TrueTime`.
        max_spool: bytes of the spool.
    """

    def __init__(self, folder: Path, url: str, token: str, true_time: TrueTime, max_spool: int) -> None:
        self.folder = folder
        self.true_time = true_time
        self.recorded: list[Recorded] = []
        self.boots_ns: list[int] = []
        self._where = [url, token, str(max_spool)]
        self._wall = folder / "board.time"
        self._process: subprocess.Popen[str] | None = None
        self._synced: Path | None = None

    @property
    def spool(self) -> Path:
        """The spool of the present boot."""
        return self.folder / f"spool-{len(self.boots_ns)}"

    def boot(self) -> None:
        """Start in 1970, with what the card holds."""
        before = self._synced
        self.boots_ns.append(self.true_time.now_ns())
        if before is not None:
            shutil.copytree(before, self.spool)
        self._wall.unlink(missing_ok=True)
        self._wall.write_text("@1970-01-01 00:00:10\n")
        clocks = [str(self.true_time.file), str(time.time_ns() - read_boot_ns()), str(self.boots_ns[-1])]
        command = [sys.executable, "-m", "tests.support.board", *self._where, str(self.spool), *clocks]
        self._process = subprocess.Popen(
            [*command, f"boot-{len(self.boots_ns)}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=ROOT, env={**os.environ, **faked(self._wall)},
        )  # fmt: skip

    def record(self, count: int, *, every_s: int, at_once: int = 1) -> list[Recorded]:
        """Record ``count`` readings, ``at_once`` of them each ``every_s`` true seconds; return them."""
        answer = self._do("record", len(self.recorded), count, every_s, at_once)
        made = [Recorded(*item) for item in answer]
        self.recorded += made
        return made

    def flush(self) -> None:
        """Wait until all is at the hub."""
        self._do("flush")

    def set_clock(self) -> None:
        """Let NTP set the wall clock to the true time."""
        self._wall.unlink()
        self._wall.symlink_to(self.true_time.file)

    def sync(self) -> None:
        """Wait for the SDK's own sync of each second: what a power cut leaves is what the card holds now."""
        time.sleep(2 * SYNC_S)
        self._synced = self.folder / f"card-{len(self.boots_ns)}"
        shutil.copytree(self.spool, self._synced)

    def cut_power(self) -> None:
        """End everything at once; the card holds what it held at the last `sync`."""
        assert self._process is not None, "boot it first"
        self._process.kill()
        self._process.communicate()
        self._process = None

    def shut_down(self) -> None:
        """Close the device and end."""
        assert self._process is not None, "boot it first"
        self._process.communicate(timeout=_ANSWER_LIMIT_S)
        assert self._process.returncode == 0
        self._process = None

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.cut_power()

    def _do(self, *command: object) -> Any:
        assert self._process is not None, "boot it first"
        assert self._process.stdin is not None, "it is a pipe"
        assert self._process.stdout is not None, "it is a pipe"
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the board ended with {self._process.wait(_ANSWER_LIMIT_S)}; its error is in the test's output"
        return json.loads(line)


# --- clock files ----------------------------------------------------------------------------------


def write_skipped(file: Path, seconds: int) -> None:
    """Replace a clock file in one step: a reader sees the old or the new."""
    new = file.with_suffix(".new")
    new.write_text(f"+{seconds}\n")
    os.replace(new, file)


def read_skipped(file: Path) -> int:
    """Return the seconds that a clock file is ahead."""
    return int(file.read_text())


# --- the device's end -----------------------------------------------------------------------------


def main(
    url: str, token: str, max_spool: str, spool: str, true_file: str, epoch_ns: str, boot_ns: str, boot: str
) -> None:
    """Obey one command a line until the input ends. ``epoch_ns``: the true time of this machine's boot, unskipped."""
    file, skipped = Path(true_file), [read_skipped(Path(true_file))]

    def true_ns() -> int:
        return int(epoch_ns) + read_boot_ns() + skipped[0] * S

    clock = Clock(boot_ns=lambda: true_ns() - int(boot_ns))
    assert clock.wall_ns() < 365 * 86400 * S, "libfaketime is not loaded"
    device = Device("board", url, token=token, spool=spool, max_spool=int(max_spool), clock=clock, boot_id=boot)

    def record(first: int, count: int, every_s: int, at_once: int) -> Iterator[Recorded]:
        for value in range(first, first + count):
            if (value - first) % at_once == 0:
                skipped[0] += every_s
                write_skipped(file, skipped[0])
            device.record(n=value)
            yield Recorded(value, true_ns())

    with device:
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            if name == "record":
                print(json.dumps(list(record(*arguments))), flush=True)
            else:
                device.flush(60)
                print("null", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
