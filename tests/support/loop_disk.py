"""A disk of one's own to cut the power of: an ext4 file system in a file, mounted over a loop device. Needs root."""

import fcntl
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path
from types import TracebackType

PROGRAMS = ("mkfs.ext4", "mount", "umount")
# A sparse file; the longest run writes a tenth of it.
_IMAGE_BYTES = 512 * 1024 * 1024
# FS_IOC_SHUTDOWN with NOLOGFLUSH: from this instant nothing reaches the disk, not even the file system's own log.
_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = struct.pack("I", 2)
# A killed process may hold its files for a moment.
_BUSY_LIMIT_S = 10.0


def missing_programs() -> list[str]:
    """Return which programs this machine lacks."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


class LoopDisk:
    """A mounted file system while the block runs; nothing of it is left afterwards, whatever happened."""

    def __init__(self, folder: Path) -> None:
        self._image = folder / "disk.img"
        self.path = folder / "disk"

    def cut_power(self) -> None:
        """Lose everything that is not on the medium; every write and fsync fails from now on."""
        directory = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, _SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(directory)

    def come_back(self) -> None:
        """Unmount and mount again, as a machine that starts; its processes must be dead."""
        limit = time.monotonic() + _BUSY_LIMIT_S
        while (result := _run("umount", str(self.path))).returncode:
            assert time.monotonic() < limit, f"cannot unmount: {result.stderr}"
            time.sleep(0.02)
        self._mount()

    def _mount(self) -> None:
        result = _run("mount", "-o", "loop", str(self._image), str(self.path))
        assert not result.returncode, f"cannot mount: {result.stderr}"

    def __enter__(self) -> "LoopDisk":
        self.path.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(_IMAGE_BYTES)
        result = _run("mkfs.ext4", "-q", "-F", str(self._image))
        assert not result.returncode, f"cannot make a file system: {result.stderr}"
        self._mount()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if _run("umount", str(self.path)).returncode:
            _run("umount", "--lazy", str(self.path))  # the loop device goes with the last open file
        self._image.unlink(missing_ok=True)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
