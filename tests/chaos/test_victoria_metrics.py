"""A VictoriaMetrics that is killed under load: nothing is lost, nothing doubled, and the lag is seen.

It loses the last seconds of what it acknowledged each time; so there must be something to send again, or this test
would show nothing.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from device_sdk import Device
from hub.auth import Identities
from hub.errors import StoreError
from hub.journal.sqlite import SqliteJournal
from hub.store.consumer import CONSUMER, StoreConsumer
from hub.store.victoria import HOLD_S, VictoriaStore
from hub.store.victoria_client import VictoriaClient
from tests.support.frames import T0, FrameMaker
from tests.support.hub_process import HubProcess
from tests.support.victoria_metrics import PROGRAM, VictoriaMetrics

if PROGRAM is None:
    pytest.skip("victoria-metrics is not installed: apt-get install victoria-metrics", allow_module_level=True)

DEVICES = 20
READINGS = 50
MS = 10**6
FOREVER = (0, 2**62)
PAUSE_S = 0.1
_LIMIT_S = 60.0


class Load:
    """A journal that grows by some frames each `PAUSE_S`, and a store that follows it."""

    def __init__(self, folder: Path, address: str) -> None:
        self.journal = SqliteJournal(folder / "journal.sqlite3")
        self.store = VictoriaStore(folder / "victoria.sqlite3", VictoriaClient(address))
        self.consumer = StoreConsumer(self.store, self.journal, checkpoint_s=0.5, retry_first_s=0.05)
        self._maker = FrameMaker()
        self._rounds = 0
        self.most_behind = 0
        self.consumer.start()

    def run(self, seconds: float) -> None:
        """Commit frames for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begin = T0 + self._rounds * READINGS * MS
            frames = [
                self._maker.batch(
                    f"device-{d}", [("t", begin + i * MS, float(begin // MS % 10**9 + i)) for i in range(READINGS)]
                )
                for d in range(DEVICES)
            ]
            self.journal.append(frames, self._maker.all_series())
            self._rounds += 1
            self.consumer.wake(frames)
            self.most_behind = max(self.most_behind, self.consumer.statistics().behind)
            time.sleep(PAUSE_S)

    def wait_until_kept(self) -> None:
        """Wait until the journal need not keep anything for the store."""
        end = time.monotonic() + HOLD_S + _LIMIT_S
        while self.journal.checkpoint(CONSUMER) < self.journal.head:
            assert time.monotonic() < end, self.consumer.statistics()
            time.sleep(0.1)

    def check(self) -> None:
        """Compare everything that was committed with everything that is there, value by value."""
        per_series = self._rounds * READINGS
        series = [one.id for one in self._maker.all_series()]
        for number in series:
            rows = [row for page in self.store.dump([number], *FOREVER) for row in page]
            assert [row.time_ns for row in rows] == [T0 + i * MS for i in range(per_series)]
            assert all(row.value == float(row.time_ns // MS % 10**9) for row in rows)
        for one in self.store.counters(series):
            assert (one.accepted, one.superseded, one.rows) == (per_series, 0, per_series)

    def close(self) -> None:
        self.consumer.stop()
        self.store.close()
        self.journal.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[VictoriaMetrics]:
    """A server with nothing in it."""
    folder = tmp_path / "server"
    folder.mkdir()
    with VictoriaMetrics(folder) as server:
        yield server


@pytest.fixture
def load(tmp_path: Path, server: VictoriaMetrics) -> Iterator[Load]:
    """Load on it."""
    load = Load(tmp_path, server.address)
    yield load
    load.close()


@pytest.mark.parametrize("longest_s", [3.0, pytest.param(60.0, marks=pytest.mark.nightly)])
@pytest.mark.timeout(300)
def test_killed_under_load(
    server: VictoriaMetrics, load: Load, caplog: pytest.LogCaptureFixture, longest_s: float
) -> None:
    """Killed three times, once away for long: what it had not written is sent again, all is there once."""
    caplog.set_level(logging.WARNING, "hub.store")
    for number, (alive_s, away_s) in enumerate(((3.0, 0.0), (8.0, longest_s), (2.0, 0.5)), 1):
        load.run(alive_s)
        server.kill()
        load.run(away_s)
        server.start()
        end = time.monotonic() + _LIMIT_S
        while caplog.text.count("store fell back") < number:
            assert time.monotonic() < end, f"restart {number} was not noticed: {load.consumer.statistics()}"
            load.run(PAUSE_S)
    load.wait_until_kept()

    load.check()
    assert load.most_behind > 5 * DEVICES
    assert load.consumer.statistics().behind == 0


@pytest.mark.timeout(60)
def test_a_kill_loses_what_was_acknowledged(tmp_path: Path, server: VictoriaMetrics, load: Load) -> None:
    """The reason for all this: killed, the server has less than it acknowledged, and only then the store repairs it."""
    load.run(2.0)
    load.consumer.stop()
    series = list(range(1, DEVICES + 1))
    acknowledged = sum(one.rows for one in load.store.counters(series))
    server.kill()
    server.start()

    with pytest.raises(StoreError, match="started anew"):
        load.store.counters(series)
    with closing(VictoriaStore(tmp_path / "victoria.sqlite3", VictoriaClient(server.address))) as started:
        found = sum(one.rows for one in started.counters(series))

    assert found < acknowledged
    assert load.journal.checkpoint(CONSUMER) == 0


@pytest.mark.timeout(120)
def test_hub_and_server_killed(tmp_path: Path, server: VictoriaMetrics) -> None:
    """A hub and its server are killed: history says 503 meanwhile, and then every reading is there, once."""
    data = tmp_path / "data"
    data.mkdir()
    identities = Identities(data / "identities.sqlite3")
    token = identities.add_device("pump")
    identities.close()
    expected: dict[int, int] = {}
    with (
        HubProcess(data, "--store", server.address) as hub,
        Device("pump", hub.ws_url, token=token, spool=tmp_path / "spool") as device,
    ):
        for number in range(60):
            time_ns = T0 + number * MS
            device.record({"n": number, "state": f"s{number}"}, time=time_ns)
            expected[time_ns] = number
            if number in (20, 40):
                device.flush(10)
                server.kill()
                with pytest.raises(AssertionError, match="503"):
                    hub.get("/v1/readings?match=pump/n&from=0")
            if number == 30:
                server.start()
            if number == 41:
                hub.kill()
                server.start()
                hub.launch()
                hub.wait_ready()
            time.sleep(0.02)
        device.flush(20)
        assert _wait_for_rows(hub, len(expected)) == expected
        audit = hub.get("/v1/audit")
        assert all(
            one["accepted"] == one["rows"] == len(expected) for one in audit["series"] if one["device"] == "pump"
        )


def _wait_for_rows(hub: HubProcess, count: int) -> dict[int, int]:
    """Return time → value of the readings that the hub has, once there are so many."""
    end = time.monotonic() + _LIMIT_S
    while True:
        answer = hub.get(f"/v1/readings?match=pump/n&from={T0}&to={T0 + 10**9}&limit=1000")
        if len(answer["rows"]) >= count or time.monotonic() > end:
            return {int(row[0]): row[2] for row in answer["rows"]}
        time.sleep(0.1)
