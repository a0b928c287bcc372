"""Whole appends, fsync, and the lock, on a real disk."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from device_sdk import disk
from device_sdk.errors import SpoolError


def test_append_writes_all(tmp_path: Path) -> None:
    """Appends add up, whatever was there."""
    (tmp_path / "f").write_bytes(b"old")
    fd = disk.open_append(tmp_path / "f")

    disk.append(fd, b"a" * 100_000)
    disk.append(fd, b"b")
    disk.sync_file(fd)
    disk.sync_directory(tmp_path)
    os.close(fd)

    assert (tmp_path / "f").read_bytes() == b"old" + b"a" * 100_000 + b"b"


def test_append_writes_nothing_when_not_all_fits(tmp_path: Path) -> None:
    """A half record would be damage; what was written in part is cut off again."""
    fd = disk.open_append(tmp_path / "f")
    disk.append(fd, b"good")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            disk.append(fd, b"x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    disk.append(fd, b"more")
    os.close(fd)

    assert (tmp_path / "f").read_bytes() == b"goodmore"


def test_lock_is_exclusive_and_freed_by_close(tmp_path: Path) -> None:
    """One holder at a time, also between processes; the message names the directory."""
    fd = disk.lock(tmp_path / "lock")
    code = f"import pathlib; from device_sdk import disk; disk.lock(pathlib.Path({str(tmp_path / 'lock')!r}))"

    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])

    assert other.returncode != 0
    assert f"spool {tmp_path} is in use by another process" in other.stderr
    with pytest.raises(SpoolError):
        disk.lock(tmp_path / "lock")
    os.close(fd)
    os.close(disk.lock(tmp_path / "lock"))
