"""The one place that asks the machine for time and boot id."""

import sys
import time
from pathlib import Path

from device_sdk.clock import Clock, read_boot_id

NOTHING = ("false",)


def test_clock_reads_the_machine_by_default() -> None:
    """Monotonic seconds and UTC epoch nanoseconds."""
    clock = Clock()

    assert clock.monotonic_s() <= time.monotonic()
    assert abs(clock.wall_ns() - time.time_ns()) < 10**9


def test_clock_is_whatever_is_passed_in() -> None:
    """Tests and simulators bring their own time."""
    clock = Clock(monotonic_s=lambda: 1.5, wall_ns=lambda: 7)

    assert (clock.monotonic_s(), clock.wall_ns()) == (1.5, 7)


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
