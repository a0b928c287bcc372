"""`hub.folder_lock`: one hub at a time, told who has the folder; nothing is left over by one that was killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hub.errors import JournalError
from hub.folder_lock import LOCK, held

HOLDER = """
import sys
from pathlib import Path
from hub.folder_lock import held

with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_is_told_who_has_the_folder(tmp_path: Path) -> None:
    """And what to do; when the first has let go the next one may."""
    with held(tmp_path):
        with pytest.raises(JournalError, match=rf"process {os.getpid()}\).*stop it.*--data"), held(tmp_path):
            pass
        (other := tmp_path / "other").mkdir()
        with held(other):
            pass
    with held(tmp_path):
        assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"


def test_killed_holder_leaves_nothing(tmp_path: Path) -> None:
    """The lock goes with the process."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(JournalError, match=f"process {process.pid}"), held(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    with held(tmp_path):
        pass


def test_folder_that_may_not_be_written_is_said(tmp_path: Path) -> None:
    """Which file, and what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"cannot make .*hub\.lock.*a folder"), held(tmp_path / "file"):
        pass
