"""The one place that asks the machine for time and boot id."""

import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from device_sdk.clock import RELEASED_NS, Clock, read_boot_id

NOTHING = ("false",)


def test_clock_reads_the_machine_by_default() -> None:
    """Monotonic seconds, UTC epoch nanoseconds, and nanoseconds since boot, which every process counts alike."""
    clock = Clock()

    assert clock.monotonic_s() <= time.monotonic()
    assert abs(clock.wall_ns() - time.time_ns()) < 10**9
    other = subprocess.run(
        [sys.executable, "-c", "from device_sdk.clock import Clock; print(Clock().boot_ns())"],
        capture_output=True, text=True, check=True, timeout=30, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert 0 <= clock.boot_ns() - int(other.stdout) < 30 * 10**9


def test_clock_is_whatever_is_passed_in() -> None:
    """Tests and simulators bring their own time."""
    clock = Clock(monotonic_s=lambda: 1.5, wall_ns=lambda: 7, boot_ns=lambda: 9)

    assert (clock.monotonic_s(), clock.wall_ns(), clock.boot_ns()) == (1.5, 7, 9)


def test_release_is_no_later_than_any_release_in_the_changelog() -> None:
    """A set clock is never taken for an unset one: the constant is a date before the first release."""
    text = (Path(__file__).parents[2] / "CHANGELOG.md").read_text(encoding="utf-8")
    days = re.findall(r"^## .*(\d{4}-\d\d-\d\d)", text, re.MULTILINE)
    released = [datetime.fromisoformat(day).replace(tzinfo=UTC) for day in days]

    assert datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 10**9 == RELEASED_NS
    assert all(RELEASED_NS <= day.timestamp() * 10**9 for day in released)


def test_boot_id_comes_from_the_file(tmp_path: Path) -> None:
    """Linux says it in /proc; dashes are dropped."""
    (tmp_path / "boot_id").write_text("51c0aa00-0000-4000-8000-000000000001\n")

    assert read_boot_id(tmp_path / "boot_id", NOTHING) == "51c0aa00000040008000000000000001"


def test_boot_id_comes_from_the_command_without_the_file(tmp_path: Path) -> None:
    """MacOS says it by sysctl."""
    command = (sys.executable, "-c", "print('A-B')")

    assert read_boot_id(tmp_path / "absent", command) == "AB"


def test_boot_id_is_fresh_where_nothing_says_it(tmp_path: Path) -> None:
    """Then every kill counts as a power cut: a loss may be declared for nothing, none is hidden."""
    for command in (NOTHING, ("no-such-command-exists",)):
        assert read_boot_id(tmp_path / "absent", command, lambda: "fresh-1") == "fresh1"
    assert read_boot_id(tmp_path / "absent", NOTHING) != read_boot_id(tmp_path / "absent", NOTHING)


def test_boot_id_of_this_machine_does_not_change() -> None:
    """Two starts of a program on one boot agree."""
    assert read_boot_id() == read_boot_id()
