"""Five months of a real house go from a CSV file through the SDK, TLS and the journal, exactly.

The file is public research data (see `home-energy.toml`) and not part of the project:
``TELEMETRY_TEST_DATA`` names ``home-energy.csv``, else ``../shared/data`` is looked at.
"""

import csv
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from device_sdk import Device
from device_sdk.client import Client
from device_sdk.reading import Value
from simulators.faults import Effect, Fault
from simulators.proxy import FaultProxy
from tests.end_to_end.conftest import admin_token, enrol
from tests.support.hub_process import ROOT, HubProcess

CSV = Path(os.environ.get("TELEMETRY_TEST_DATA", ROOT.parent / "shared" / "data" / "home-energy.csv"))
MAP = Path(__file__).with_name("home-energy.toml")
DEVICES, CHANNELS, READINGS = 12, 28, 138_096
LIMIT_S = 120.0
Row = tuple[str, str, int, Value]

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(not CSV.is_file(), reason=f"no {CSV.name}: set TELEMETRY_TEST_DATA to its path"),
]


@pytest.fixture
def secure_hub(tmp_path: Path) -> Iterator[HubProcess]:
    """A running hub that speaks TLS with a certificate of its own authority."""
    data = tmp_path / "data"
    run("tls", "init", "--data", str(data))
    tls = data / "tls"
    options = ("--tls-cert", str(tls / "server.pem"), "--tls-key", str(tls / "server-key.pem"))
    with HubProcess(data, *options, ca=tls / "ca.pem") as running:
        yield running


def run(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one ``hub`` command to its end."""
    command = [sys.executable, "-m", "hub", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=LIMIT_S + 60)
    assert not check or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def replay(hub: HubProcess, tmp_path: Path, url: str, token: str) -> subprocess.CompletedProcess[str]:
    """Replay the file as fast as acks allow, with a ledger that must balance."""
    where = ("--url", url, "--ca", str(hub.ca), "--data", str(hub.data), "--token", token)
    ledger = ("--ledger", str(tmp_path / "ledger"), "--drain", str(LIMIT_S), "--json")
    return run("simulate", "replay", str(CSV), "--map", str(MAP), "--tz", "+01:00", *where, *ledger)


def expected() -> Counter[Row]:
    """Return every reading of the file, read without any code of ours."""
    columns: dict[str, tuple[str, str]] = {}
    name = device = ""
    for line in MAP.read_text(encoding="utf-8").splitlines():
        key, _, value = (part.strip().strip('"') for part in line.partition("="))
        if key == "name":
            name = value
        elif key == "device":
            device = value
        elif key == "channel":
            columns[name] = (device, value)
    found: Counter[Row] = Counter()
    zone = timezone(timedelta(hours=1))
    with CSV.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            when = datetime.strptime(row["date"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=zone)
            time_ns = int(when.timestamp()) * 1_000_000_000
            found.update((*columns[c], time_ns, float(row[c])) for c in columns)
    return found


def exported(hub: HubProcess, tmp_path: Path) -> Counter[Row]:
    """Return every row of ``hub export`` as CSV, checking its two forms of time against each other."""
    file = tmp_path / "export.csv"
    run("export", "**", "--format", "csv", "--output", str(file), "--data", str(hub.data))
    found: Counter[Row] = Counter()
    with file.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            when = datetime.fromisoformat(row["time"])
            assert int(when.timestamp() * 1000) == int(row["time_unix_ms"])
            found[(row["device"], row["channel"], int(when.timestamp()) * 10**9, float(row["value"]))] += 1
    return found


class Watcher:
    """Watches everything from now on, on a thread of its own."""

    def __init__(self, url: str, token: str, ca: Path | None) -> None:
        self.seen: Counter[Row] = Counter()
        self.count = 0
        self._watch = Client(url, token, ca=ca).watch("**", since="-1s")
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()
        self.wait(lambda: self._watch.is_live)

    def wait(self, condition: object, limit_s: float = 60.0) -> None:
        """Wait until ``condition()``; AssertionError after ``limit_s``."""
        assert callable(condition), "a function"
        limit = time.monotonic() + limit_s
        while not condition():
            assert self._thread.is_alive(), "the watcher ended"
            assert time.monotonic() < limit, f"{self.count} readings seen after {limit_s} s"
            time.sleep(0.02)

    def _run(self) -> None:
        for r in self._watch:
            self.seen[(r.device, r.channel, r.time_ns, r.value)] += 1
            self.count += 1


def queried(hub: HubProcess, token: str) -> Counter[Row]:
    """Return every reading by query."""
    rows = Client(hub.url, token, ca=hub.ca).query("**")
    return Counter((str(d), str(c), int(t or 0), v) for d, c, _, t, v in rows.rows if v is not None)


def test_five_months_arrive_exactly(secure_hub: HubProcess, tmp_path: Path) -> None:
    """The export equals the file value for value and time for time; a watcher saw each reading once."""
    token = admin_token(secure_hub)
    watcher = Watcher(secure_hub.url, token, secure_hub.ca)

    replay(secure_hub, tmp_path, secure_hub.ws_url, token)
    watcher.wait(lambda: watcher.count >= READINGS)

    wanted = expected()
    assert (wanted.total(), len(wanted), len({d for d, *_ in wanted})) == (READINGS, READINGS, DEVICES)
    assert len({(d, c) for d, c, *_ in wanted}) == CHANNELS
    assert exported(secure_hub, tmp_path) == wanted
    assert watcher.seen == queried(secure_hub, token) == wanted


@pytest.mark.chaos
def test_hub_killed_twice_and_connections_cut_ten_times(secure_hub: HubProcess, tmp_path: Path) -> None:
    """kill -9 of the hub twice and ten cuts at random bytes change nothing: ledger balanced, 0 lost, 0 doubled."""
    token = admin_token(secure_hub)
    watcher = Watcher(secure_hub.url, token, secure_hub.ca)
    cuts = [Fault(Effect.CUT, after_bytes=random.randrange(1_500, 30_000)) for _ in range(10)]
    with FaultProxy(("127.0.0.1", secure_hub.port), cuts) as proxy:
        killer = threading.Thread(target=kill_twice, args=(secure_hub, proxy), name="killer")
        killer.start()
        try:
            replay(secure_hub, tmp_path, f"wss://127.0.0.1:{proxy.port}", token)
        finally:
            killer.join(LIMIT_S)  # else it would start a hub that nobody ends
        assert proxy.statistics().faults == {"cut": 10}
        assert proxy.statistics().bytes_up > 1_000_000
    watcher.wait(lambda: watcher.count >= READINGS)

    wanted = expected()
    assert exported(secure_hub, tmp_path) == wanted
    assert watcher.seen == queried(secure_hub, token) == wanted


def kill_twice(hub: HubProcess, proxy: FaultProxy) -> None:
    """Kill the hub after a quarter and after a half of about 2 MB have gone up; start it again each time."""
    limit = time.monotonic() + LIMIT_S
    for sent in (500_000, 1_000_000):
        while proxy.statistics().bytes_up < sent and time.monotonic() < limit:
            time.sleep(0.002)
        hub.kill()
        hub.start()


def test_times_that_do_not_exist_in_the_zone_are_reported(hub: HubProcess) -> None:
    """Brussels skipped 02:00 to 03:00 on 2016-03-27: three rows are named, and nothing is guessed or sent."""
    done = run(
        "simulate", "replay", str(CSV), "--map", str(MAP), "--tz", "Europe/Brussels",
        "--url", hub.url, "--data", str(hub.data), check=False,
    )  # fmt: skip

    named = [line for line in (done.stdout + done.stderr).splitlines() if "2016-03-27 02:" in line]
    assert done.returncode == 1
    assert [line.split("(line ")[1].split(")")[0] for line in named] == ["2681", "2682", "2683"]
    assert hub.get("/v1/latest")["readings"] == []


def test_readings_one_nanosecond_apart_are_seen_and_queried_alike(hub: HubProcess, tmp_path: Path) -> None:
    """A thousand readings at neighbouring nanoseconds stay a thousand, live and stored."""
    token = enrol(hub, "d")["d"]
    admin = admin_token(hub)
    watcher = Watcher(hub.url, admin, None)
    start_ns = 1_790_000_000_123_456_789
    with Device("d", hub.ws_url, token=token, spool=tmp_path / "spool") as device:
        for n in range(1000):
            device.record({"x": n / 8}, time=start_ns + n)
        device.flush(20)
    watcher.wait(lambda: watcher.count >= 1000)

    wanted = Counter(("d", "x", start_ns + n, n / 8) for n in range(1000))
    assert watcher.seen == queried(hub, admin) == wanted
