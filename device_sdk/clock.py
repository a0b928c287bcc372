"""Where time and the boot id come from: the one place of the SDK that asks the machine.

Owns: `Clock`, handed to everything that needs time, so that tests pass their own.
Place: a shell beside `device`; the pure modules get ``now`` as an argument.
"""

import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_LINUX_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MACOS_BOOT_ID = ("sysctl", "-n", "kern.bootsessionuuid")
# 2026-11-01, when this version was about to be released: a wall clock before it was never set, or lost its battery.
RELEASED_NS = 1_793_491_200_000_000_000
# Linux's monotonic clock stands still while the machine sleeps; this one does not.
_BOOT_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", -1)


def read_boot_ns() -> int:
    """Return nanoseconds since the machine booted: the same for every process of one boot."""
    return time.clock_gettime_ns(_BOOT_CLOCK) if _BOOT_CLOCK >= 0 else time.monotonic_ns()


class Clock(NamedTuple):
    """Three clocks as functions.

    ``monotonic_s`` for intervals, ``wall_ns`` (UTC epoch) for readings, ``boot_ns`` (since
    boot) for readings while the wall clock is not set.
    """

    monotonic_s: Callable[[], float] = time.monotonic
    wall_ns: Callable[[], int] = time.time_ns
    boot_ns: Callable[[], int] = read_boot_ns


def is_set(wall_ns: int) -> bool:
    """Say whether a wall clock shows a time that can be: not before this SDK was released."""
    return wall_ns >= RELEASED_NS


def read_boot_id(
    path: Path = _LINUX_BOOT_ID,
    command: tuple[str, ...] = _MACOS_BOOT_ID,
    new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
) -> str:
    """Return an id that stays the same until the machine boots again.

    Linux says it in a file, macOS by sysctl. A machine that says neither gets a
    fresh id each time: then every start that follows a kill counts as a power
    cut, which declares a loss that may not have happened, and never hides one.
    """
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        text = _command_output(command)
    return text.replace("-", "") or new_id().replace("-", "")


def _command_output(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError, ValueError):
        return ""
    return done.stdout.strip()
