"""A disk that fails writes, without privileges: a limit on the size of files.

A write beyond it fails with EFBIG, which SQLite reports as an I/O error, not as a full disk.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def failing_disk(path: Path) -> Iterator[None]:
    """Let each write beyond the present end of the file fail, in this process, until the block ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
