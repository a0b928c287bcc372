"""A small file system of its own, which a test fills up: a loop-mounted ext4 or a tmpfs. Needs root."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MIB = 1024 * 1024


@contextmanager
def small_disk(mount: Path, mib: int, *, kind: str) -> Iterator["SmallDisk"]:
    """Mount ``mib`` MiB of ``ext4`` or ``tmpfs`` at ``mount`` (made when absent) until the block ends."""
    mount.mkdir(exist_ok=True)
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(mount)]
    else:
        image = mount.with_name(mount.name + ".img")
        with image.open("wb") as file:
            file.truncate(mib * _MIB)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True, stdin=subprocess.DEVNULL)
        command = ["mount", "-o", "loop", str(image), str(mount)]
    subprocess.run(command, check=True)
    try:
        yield SmallDisk(mount)
    finally:
        subprocess.run(["umount", str(mount)], check=True)


class SmallDisk:
    """The mounted file system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Take all the space that is left."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (64 * 1024, 4096, 512):
                try:
                    while file.write(bytes(size)) == size:
                        os.fsync(file.fileno())
                except OSError:
                    continue

    def free(self) -> None:
        """Give it back."""
        self._filler.unlink()
