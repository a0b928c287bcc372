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


class Clock(NamedTuple):
    """Two clocks as functions: ``monotonic_s`` for intervals, ``wall_ns`` (UTC epoch) for readings."""

    monotonic_s: Callable[[], float] = time.monotonic
    wall_ns: Callable[[], int] = time.time_ns


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
