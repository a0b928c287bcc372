"""The hub's disk fails an fsync: what was acked before is there, what was not comes again, and nobody has to act.

The fault is real to the hub: strace answers each fsync of one file with EIO while it is attached.
"""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from device_sdk import Device
from tests.end_to_end.conftest import enrol
from tests.support.hub_process import HubProcess

T0 = 1_790_000_000_000_000_000
LIMIT_S = 30.0
pytestmark = pytest.mark.privileged


@contextmanager
def failing_fsync(pid: int, path: Path) -> Iterator[None]:
    """Let the process's fsyncs of the file fail until the block ends."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace; it is in requirements/debian.txt")
    command = [
        "strace", "-f", "-p", str(pid), "-P", str(path), "-e", "trace=fsync,fdatasync",
        "-e", "inject=fsync,fdatasync:error=EIO", "-o", str(path.parent.parent / "strace.log"),
    ]  # fmt: skip
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        assert tracer.stderr is not None
        assert b"attached" in tracer.stderr.readline()
        yield
    finally:
        tracer.terminate()
        tracer.communicate(timeout=10)


@pytest.mark.parametrize("file", ["journal.sqlite3", "readings.sqlite3"])
def test_hub_goes_on_by_itself_after_a_failed_fsync(hub: HubProcess, tmp_path: Path, file: str) -> None:
    """0 acked lost, 0 doubled, the same process, on a fresh copy of the file whose fsync failed."""
    token, pid, before = enrol(hub, "d")["d"], hub.pid, (hub.data / file).stat().st_ino
    with Device("d", hub.ws_url, token=token, spool=tmp_path / "spool") as device:
        count = record(device, 0, 100)
        device.flush(LIMIT_S)
        with failing_fsync(pid, hub.data / f"{file}-wal"):
            limit = time.monotonic() + LIMIT_S
            while "hub starts again" not in hub.log.read_text():
                assert time.monotonic() < limit, hub.log.read_text()[-3000:]
                count = record(device, count, count + 5)
        count = record(device, count, count + 100)
        device.flush(LIMIT_S)

    rows = hub.get("/v1/readings?match=d/n&from=0&limit=100000")["rows"]
    assert [(int(row[0]), row[2]) for row in rows] == [(T0 + n, n) for n in range(count)]
    (series,) = hub.get("/v1/audit")["series"]
    assert (series["accepted"], series["superseded"], series["rows"]) == (count, 0, count)
    assert hub.pid == pid
    assert hub.exit_code is None
    assert (hub.data / file).stat().st_ino != before
    assert not list(hub.data.glob("*-suspect"))


def record(device: Device, first: int, end: int) -> int:
    """Record n = ``first`` … ``end`` - 1 at 100 a second; return ``end``."""
    for n in range(first, end):
        device.record({"n": n}, time=T0 + n)
        time.sleep(0.01)
    return end
