"""One suite for both spools: readings from before the clock was set get their true time, or a flagged estimate."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from device_sdk.columns import decode_batch
from device_sdk.errors import MisuseError
from device_sdk.memory_spool import MemorySpool
from device_sdk.spool import FileSpool, Spool
from device_sdk.spool_base import MIN_LIMIT_BYTES
from device_sdk.uptime import UPTIME
from tests.support.spool_hub import SpoolHub, drain

S = 10**9
T = 1_795_376_000 * S
Make = Callable[..., Spool]


@pytest.fixture(params=["file", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Make spools of either kind; a file spool each time in its own directory."""
    made: list[Spool] = []

    def build(max_bytes: int = 64_000_000) -> Spool:
        spool: Spool = MemorySpool(max_bytes=max_bytes)
        if request.param == "file":
            spool = FileSpool(tmp_path / str(len(made)), boot="boot-1", max_bytes=max_bytes)
        made.append(spool)
        return spool

    yield build
    for spool in made:
        spool.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator["Machine"]:
    """A machine whose spool survives kills and power cuts."""
    with contextlib.closing(Machine(tmp_path)) as machine:
        yield machine


class Machine:
    """A spool in files over processes and boots: `kill` and `cut_power` leave what is on disk to the next one."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lives = 0
        self._boots = 0
        self._left: list[Spool] = []
        self.spool: Spool = self._start()

    def kill(self) -> None:
        """End the process; the boot goes on."""
        self._left.append(self.spool)
        self._lives += 1
        shutil.copytree(self._home / str(self._lives - 1), self._home / str(self._lives))
        self.spool = self._start()

    def cut_power(self) -> None:
        """Boot anew without having closed."""
        self._boots += 1
        self.kill()

    def shut_down(self) -> None:
        """Close and boot anew."""
        self.spool.close()
        self._boots += 1
        self.spool = self._start()

    def close(self) -> None:
        """Let go of every file."""
        for spool in (*self._left, self.spool):
            spool.close()

    def _start(self) -> Spool:
        return FileSpool(self._home / str(self._lives), boot=f"boot-{self._boots}", max_bytes=MIN_LIMIT_BYTES)


def times(hub: SpoolHub, channel: str = "t") -> dict[object, int]:
    """Return value → time of a channel at the hub."""
    return {r.value: r.time_ns for r in hub.readings if r.channel == channel}


def estimated(hub: SpoolHub) -> list[object]:
    """Return the values whose times say that they are an estimate."""
    batches = [decode_batch(b) for bodies in hub.bodies.values() for b in bodies if b'"op":"gap"' not in b]
    return [r.value for batch in batches if batch.time_estimated for r in batch.readings()]


# --- both spools ----------------------------------------------------------------------------------


def test_readings_from_before_the_clock_was_set_get_their_true_time(make: Make) -> None:
    """Whatever the value, and also when they are followed by readings of a clock that is set."""
    spool = make()
    spool.record_at_uptime([("t", 1.0), ("n", 7), ("door", True), ("state", "öpen")], None, 10 * S)
    spool.record_at_uptime([("t", 2.0)], None, 12 * S)
    spool.learn_time(T, 20 * S)
    spool.record([("t", 3.0)], None, T + S)

    hub = drain(spool)

    assert sorted(hub.readings, key=lambda r: (r.time_ns, r.channel)) == [
        ("door", T - 10 * S, True),
        ("n", T - 10 * S, 7),
        ("state", T - 10 * S, "öpen"),
        ("t", T - 10 * S, 1.0),
        ("t", T - 8 * S, 2.0),
        ("t", T + S, 3.0),
    ]
    assert estimated(hub) == []


def test_nothing_without_a_time_is_cut_before_it_is_known(make: Make) -> None:
    """A frame cannot be re-stamped: until the time is learnt such readings wait, and say so."""
    spool = make()
    spool.record_at_uptime([("t", 1.0)], None, S)

    assert (spool.cut(), spool.has_uncut, spool.unnumbered) == (None, True, 1)
    assert spool.statistics().oldest_time_ns == spool.uptime_at(S) == UPTIME + S

    spool.learn_time(T, 3 * S)

    assert spool.statistics().oldest_time_ns == spool.uptime_at(S) == T - 2 * S
    assert times(drain(spool)) == {1.0: T - 2 * S}


def test_time_given_by_hand_is_kept_while_the_clock_is_not_set(make: Make) -> None:
    """A sensor with a clock of its own knows better; and its wrong dates drag nothing."""
    spool = make()
    spool.record_at_uptime([("t", 1.0)], T + 10**15, S)
    spool.record_at_uptime([("t", 2.0)], None, 2 * S)
    spool.learn_time(T, 3 * S)
    spool.record([("t", 3.0)], None, T + S)

    assert times(drain(spool)) == {1.0: T + 10**15, 2.0: T - S, 3.0: T + S}


def test_time_is_learnt_once_in_a_boot(make: Make) -> None:
    """A second source that disagrees must not move readings against each other."""
    spool = make()
    spool.record_at_uptime([("t", 1.0)], None, S)
    spool.learn_time(T, 2 * S)
    spool.learn_time(T + 500 * S, 2 * S)

    assert times(drain(spool)) == {1.0: T - S}


def test_unset_clock_that_was_learnt_gives_real_times(make: Make) -> None:
    """After the hub has said the time, a machine still in 1970 goes on by its uptime."""
    spool = make()
    spool.learn_time(T, 2 * S)
    spool.record_at_uptime([("t", 1.0)], None, 5 * S)

    assert times(drain(spool)) == {1.0: T + 3 * S}


def test_no_two_readings_share_an_instant_over_the_change_of_clocks(make: Make) -> None:
    """Uptime that stands still, then a wall clock that is set to just before: each reading has its own instant."""
    spool = make()
    for value in range(5):
        spool.record_at_uptime([("t", value)], None, S)
    spool.learn_time(T, S)
    for value in range(5, 10):
        spool.record([("t", value)], None, T - 3)

    found = times(drain(spool))

    assert sorted(found.values()) == list(found.values())
    assert len(set(found.values())) == 10


def test_dropped_readings_are_declared_in_real_time(make: Make) -> None:
    """Count and range of a gap are right although both were unknown when the spool was full."""
    spool, produced = make(MIN_LIMIT_BYTES), 12_000
    for value in range(produced):
        spool.record_at_uptime([("t", value)], None, value * S)
    spool.learn_time(T, produced * S)

    hub = drain(spool)

    (gap,) = hub.gaps
    kept = times(hub)
    zero_ns = T - produced * S
    assert kept == {value: zero_ns + value * S for value in range(produced - len(kept), produced)}
    assert (gap["reason"], gap["count"]) == ("spool_full", produced - len(kept))
    assert gap["ranges"] == {"t": [str(zero_ns), str(zero_ns + (gap["count"] - 1) * S)]}


def test_loss_without_a_time_is_declared_without_a_range(make: Make) -> None:
    """When even the hub does not know the time, the count still leaves."""
    spool = make(MIN_LIMIT_BYTES)
    for value in range(12_000):
        spool.record_at_uptime([("t", value)], None, value * S)

    gap = spool.cut()

    assert gap is not None
    assert json.loads(gap.body)["ranges"] == {}
    assert json.loads(gap.body)["count"] == spool.statistics().dropped > 0


def test_record_at_uptime_after_close_is_a_misuse(make: Make) -> None:
    """As with `record`; learning the time then is harmless."""
    spool = make()
    spool.close()
    spool.learn_time(T, S)

    with pytest.raises(MisuseError):
        spool.record_at_uptime([("t", 1.0)], None, S)


# --- over processes and boots ---------------------------------------------------------------------


def test_readings_of_a_killed_process_get_their_true_time(machine: Machine) -> None:
    """A kill keeps the boot, so its uptime goes on; an instant is not given twice."""
    machine.spool.record_at_uptime([("t", 1.0)], None, 10 * S)
    machine.kill()
    machine.spool.record_at_uptime([("t", 2.0)], None, 10 * S)
    machine.spool.learn_time(T, 20 * S)

    hub = drain(machine.spool)

    assert times(hub) == {1.0: T - 10 * S, 2.0: T - 10 * S + 1}
    assert estimated(hub) == []


def test_learnt_time_survives_a_kill(machine: Machine) -> None:
    """Frames before and after the kill are placed alike, and a clock that then disagrees changes nothing."""
    machine.spool.record_at_uptime([("t", 1.0)], None, 10 * S)
    machine.spool.record_at_uptime([("t", 2.0)], None, 11 * S)
    machine.spool.learn_time(T, 20 * S)
    hub = SpoolHub()
    machine.spool.cut(max_readings=1)
    hub.take(machine.spool)
    machine.kill()
    machine.spool.learn_time(T + 99 * S, 20 * S)
    machine.spool.record([("t", 3.0)], None, T - 9 * S - 1)

    assert times(drain(machine.spool, hub)) == {1.0: T - 10 * S, 2.0: T - 9 * S, 3.0: T - 9 * S + 1}


@pytest.mark.parametrize("end", [Machine.cut_power, Machine.shut_down], ids=["power cut", "shut down"])
def test_boots_that_never_learnt_the_time_are_estimated(machine: Machine, end: Callable[[Machine], None]) -> None:
    """Two boots in 1970, then one that learns the time: spacing kept, order kept, flagged, the third boot exact."""
    for boot in (0, 1):
        for second in (30, 40):
            machine.spool.record_at_uptime([("t", 100 * boot + second)], None, second * S)
        end(machine)
    machine.spool.record_at_uptime([("t", 230)], None, 30 * S)
    machine.spool.learn_time(T, 60 * S)

    hub = drain(machine.spool)

    booted = T - 60 * S
    assert times(hub) == {
        30: booted - 2 - 50 * S, 40: booted - 2 - 40 * S, 130: booted - 1 - 10 * S, 140: booted - 1, 230: T - 30 * S,
    }  # fmt: skip
    assert estimated(hub) == [30, 40, 130, 140]


def test_readings_of_a_boot_that_learnt_the_time_stay_exact_in_the_next(machine: Machine) -> None:
    """NTP came, no hub did, the power went: the next boot places them by what their own boot knew."""
    machine.spool.record_at_uptime([("t", 1.0)], None, 10 * S)
    machine.spool.learn_time(T, 20 * S)
    machine.spool.record([("t", 2.0)], None, T + S)
    machine.cut_power()
    machine.spool.record_at_uptime([("t", 3.0)], None, 5 * S)
    machine.spool.learn_time(T + 1000 * S, 10 * S)

    hub = drain(machine.spool)

    assert times(hub) == {1.0: T - 10 * S, 2.0: T + S, 3.0: T + 995 * S}
    assert estimated(hub) == []


def test_unacked_frames_stay_as_they_were_stamped(machine: Machine) -> None:
    """A frame from before a power cut is estimated or not as it was cut, also under its new number."""
    machine.spool.record_at_uptime([("t", 1.0)], None, 10 * S)
    machine.cut_power()
    machine.spool.learn_time(T, S)
    while (frame := machine.spool.cut()) is not None and frame.kind != "batch":
        pass
    machine.spool.restart(None)

    hub = drain(machine.spool)

    assert times(hub) == {1.0: T - S - 1}
    assert estimated(hub) == [1.0]
    assert any(b'"again":true,"time_estimated":true' in body for body in hub.bodies[machine.spool.stream])


def test_fsync_holds_for_readings_of_an_unset_clock(tmp_path: Path) -> None:
    """``durability="fsync"`` leaves nothing to a power cut, whatever the clock says."""
    synced: list[int] = []
    spool = FileSpool(tmp_path / "spool", boot="boot-1", durability="fsync", sync_file=synced.append)
    before = len(synced)

    spool.record_at_uptime([("t", 1.0)], None, S)

    assert len(synced) > before
    spool.close()


def test_damaged_state_makes_times_estimates(machine: Machine, tmp_path: Path) -> None:
    """Without the state nobody knows which boot a reading belongs to: it is placed before this one, and flagged."""
    machine.spool.record_at_uptime([("t", 1.0)], None, 10 * S)
    for path in (tmp_path / "0").glob("state-*"):
        path.write_bytes(b"nothing")
    machine.kill()
    machine.spool.record_at_uptime([("t", 2.0)], None, 11 * S)
    machine.spool.learn_time(T, 20 * S)

    hub = drain(machine.spool)

    assert times(hub) == {1.0: T - 20 * S - 1, 2.0: T - 9 * S}
    assert estimated(hub) == [1.0]


# --- random lives ---------------------------------------------------------------------------------


class Made(NamedTuple):
    """One reading: the boot it was made in, the uptime and the true time then."""

    boot: int
    uptime_ns: int
    true_ns: int


class ClockModel(RuleBasedStateMachine):
    """A board whose clock may be set or not in each boot, with kills, power cuts, and a hub now and then.

    True time passes in every rule. A boot's wall clock is right once it is set.
    """

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="spool-clock-"))
        self.machine = Machine(self.home)
        self.hub = SpoolHub()
        self.true_ns = T
        self.booted_ns = [T]
        self.made: list[Made] = []
        self.is_set = False
        self.learnt: set[int] = set()

    def record(self) -> None:
        value = [("t", len(self.made))]
        self.made.append(Made(len(self.booted_ns) - 1, self.uptime_ns, self.true_ns))
        if self.is_set:
            self.machine.spool.record(value, None, self.true_ns)
        else:
            self.machine.spool.record_at_uptime(value, None, self.uptime_ns)

    @property
    def uptime_ns(self) -> int:
        return self.true_ns - self.booted_ns[-1]

    @rule(step_ns=st.integers(1, 100 * S), count=st.integers(1, 3))
    def record_some(self, step_ns: int, count: int) -> None:
        for _ in range(count):
            self.true_ns += step_ns
            self.record()

    @rule(is_by_the_hub=st.booleans())
    def learn(self, is_by_the_hub: bool) -> None:
        self.machine.spool.learn_time(self.true_ns, self.uptime_ns)
        self.learnt.add(len(self.booted_ns) - 1)
        self.is_set = self.is_set or not is_by_the_hub
        self.true_ns += 1

    @rule(max_readings=st.integers(1, 5))
    def cut_and_send(self, max_readings: int) -> None:
        self.machine.spool.cut(max_readings)
        self.hub.take(self.machine.spool)

    @precondition(lambda self: self.hub.stored(self.machine.spool.stream))
    @rule()
    def acknowledge(self) -> None:
        self.hub.acknowledge(self.machine.spool)

    @rule()
    def kill(self) -> None:
        self.machine.kill()

    @precondition(lambda self: len(self.booted_ns) < 6)
    @rule(off_ns=st.integers(1, 1000 * S), is_clean=st.booleans())
    def boot(self, off_ns: int, is_clean: bool) -> None:
        (self.machine.shut_down if is_clean else self.machine.cut_power)()
        self.true_ns += off_ns
        self.booted_ns.append(self.true_ns)
        self.is_set = False

    def teardown(self) -> None:
        try:
            self.learn(False)
            drain(self.machine.spool, self.hub)
            self.check()
        finally:
            self.machine.close()
            shutil.rmtree(self.home)

    def check(self) -> None:
        found = {r.value: r.time_ns for r in self.hub.readings}
        flagged = set(estimated(self.hub))
        assert len(self.hub.readings) == len(found) == len(self.made)
        assert len(set(found.values())) == len(found), "two readings share an instant"
        assert list(dict(sorted(found.items(), key=lambda item: item[1]))) == list(range(len(self.made)))
        by_boot: dict[int, list[int]] = {}
        for value, made in enumerate(self.made):
            is_exact = made.boot in self.learnt
            assert (value in flagged) is not is_exact
            if is_exact:
                assert found[value] == made.true_ns
            else:
                by_boot.setdefault(made.boot, []).append(found[value] - made.uptime_ns)
                next_learnt = min(boot for boot in self.learnt if boot > made.boot)
                assert made.true_ns <= found[value] < self.booted_ns[next_learnt]
        assert all(len(set(shifts)) == 1 for shifts in by_boot.values()), "spacing inside a boot is not kept"


TestClockModel = pytest.mark.slow(ClockModel.TestCase)
TestClockModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
