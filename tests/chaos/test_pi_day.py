"""A day of a board without a battery, as real processes: clock in 1970, outages, power cuts, a full spool.

The hub and the board run under libfaketime, so that hours pass in seconds on both of their wall clocks.
"""

from collections import Counter
from pathlib import Path

import pytest

from device_sdk.columns import decode_batch
from device_sdk.wire import MIN_TIME_NS
from hub.journal.sqlite import SqliteJournal
from hub.model import Kind
from simulators.proxy import FaultProxy
from tests.end_to_end.conftest import enrol
from tests.support.board import Board, Recorded, S, TrueTime, can_fake_time, faked
from tests.support.hub_process import HubProcess, free_port

# What a time may be off: the way of a welcome and the moments between two clocks read one after the other, each
# milliseconds, on a machine that other tests keep busy. Steps are at least 1 s, so no two readings are confused.
MAPPING_ERROR_NS = 1 * S
MAX_SPOOL = 256 * 1024

pytestmark = pytest.mark.skipif(not can_fake_time(), reason="needs libfaketime: apt-get install faketime")


def stored_times(hub: HubProcess) -> dict[int, int]:
    """Return value → time of every row; each value is stored once."""
    rows: list[tuple[int, int]] = []
    start_ns = 0
    while True:
        page = hub.get(f"/v1/readings?match=board/n&limit=10000&from={start_ns}")["rows"]
        rows += [(int(row[0]), row[2]) for row in page]
        if len(page) < 10_000:
            break
        start_ns = rows[-1][0] + 1
    assert {value: count for value, count in Counter(value for _, value in rows).items() if count > 1} == {}
    return {value: time_ns for time_ns, value in rows}


def flagged(data: Path) -> set[int]:
    """Return the values in frames that say ``time_estimated``, from the journal of a hub that has ended."""
    found: set[int] = set()
    journal = SqliteJournal(data / "journal.sqlite3")
    after = 0
    while frames := journal.read(after, 1 << 20):
        after = frames[-1].offset
        for frame in frames:
            batch = decode_batch(frame.body) if frame.kind is Kind.BATCH else None
            if batch is not None and batch.time_estimated:
                found |= {int(reading.value) for reading in batch.readings()}
    journal.close()
    return found


def values_of(readings: list[Recorded]) -> set[int]:
    """Return the values of readings."""
    return {reading.value for reading in readings}


@pytest.mark.timeout(120)
def test_a_day_without_a_battery_is_stored_right_to_the_reading(tmp_path: Path) -> None:
    """Every reading is stored once at its true time, or is in a gap that says why; estimates are flagged."""
    true_time = TrueTime(tmp_path / "true.time")
    hub = HubProcess(tmp_path / "data", environment=faked(true_time.file))
    with hub, FaultProxy(("127.0.0.1", hub.port)) as proxy:

        def set_network(is_up: bool) -> None:
            proxy.target = ("127.0.0.1", hub.port if is_up else free_port())
            proxy.abort()

        set_network(False)
        token = enrol(hub, "board")["board"]
        with Board(tmp_path, f"ws://127.0.0.1:{proxy.port}", token, true_time, MAX_SPOOL) as board:
            board.boot()
            # Morning: five minutes without a network, then the hub says the time; later NTP comes as well.
            board.record(30, every_s=10)
            set_network(True)
            board.flush()
            board.record(30, every_s=10)
            board.set_clock()
            board.record(30, every_s=10)
            board.flush()
            morning = list(board.recorded)
            # The network is away for an hour, at three readings a second: more than the spool holds.
            set_network(False)
            hour = board.record(3 * 3600, every_s=1, at_once=3)
            board.sync()
            lost = board.record(20, every_s=1)
            board.cut_power()
            true_time.skip(1800)
            # A boot that never learns the time.
            board.boot()
            unknown = board.record(60, every_s=10)
            board.sync()
            lost += board.record(10, every_s=10)
            board.cut_power()
            true_time.skip(600)
            # A boot that learns it by NTP before the network is back.
            board.boot()
            late = board.record(60, every_s=10)
            board.set_clock()
            late += board.record(30, every_s=10)
            set_network(True)
            board.flush()
            board.shut_down()
            made, booted_ns = {r.value: r.true_ns for r in board.recorded}, board.boots_ns[2]
        audit = hub.get("/v1/audit?device=board")
        stored = stored_times(hub)
        hub.stop()
    estimated = flagged(tmp_path / "data")

    missing = set(made) - set(stored)
    dropped = missing - values_of(lost)
    gaps: Counter[str] = Counter()
    for gap in audit["gaps"]:
        gaps[gap["reason"]] += gap["count"] or 1
    assert min(stored.values()) >= MIN_TIME_NS
    assert set(stored) <= set(made)
    assert values_of(lost) <= missing
    # Both power cuts are one gap: the hub had not heard of the first when the second came.
    assert gaps == {"power_cut": 1, "spool_full": len(dropped)}
    assert 0 < len(dropped) < len(hour)
    assert dropped <= values_of(hour)
    ranges = [gap["ranges"]["n"] for gap in audit["gaps"] if gap["reason"] == "spool_full"]
    assert abs(min(int(low) for low, _ in ranges) - min(made[value] for value in dropped)) <= MAPPING_ERROR_NS
    assert abs(max(int(high) for _, high in ranges) - max(made[value] for value in dropped)) <= MAPPING_ERROR_NS
    assert values_of(morning) | values_of(late) <= set(stored)
    assert estimated == values_of(unknown)
    off = {value: time_ns - made[value] for value, time_ns in stored.items() if value not in estimated}
    assert max(map(abs, off.values())) <= MAPPING_ERROR_NS
    shifts = [stored[r.value] - r.true_ns for r in unknown]
    assert 0 <= min(shifts) <= max(shifts) <= min(shifts) + MAPPING_ERROR_NS
    assert abs(stored[unknown[-1].value] - booted_ns) <= MAPPING_ERROR_NS
    assert [(s["accepted"], s["superseded"], s["rows"]) for s in audit["series"]] == [(len(stored), 0, len(stored))]
