"""Which clock is believed, and when the spool learns the time."""

from pathlib import Path

import pytest

from device_sdk import Device, Reading
from device_sdk.clock import RELEASED_NS, Clock
from device_sdk.memory_spool import MemorySpool
from device_sdk.timekeeper import Timekeeper
from device_sdk.uptime import UPTIME
from device_sdk.wire import MIN_TIME_NS
from tests.support.fake_hub import FakeHub
from tests.support.hub_model import TIME_NS
from tests.support.hub_process import free_port
from tests.support.spool_hub import drain

S = 10**9
T = 1_795_376_000 * S


class Board:
    """A machine that starts in 1970 with its device: set ``wall_ns`` to what somebody sets the clock to."""

    def __init__(self, wall_ns: int = 10 * S) -> None:
        self.wall_ns = wall_ns
        self.boot_ns = 30 * S
        self.spool = MemorySpool()
        self.count = 0
        self.restart()

    def restart(self) -> None:
        """Let another process open the same spool."""
        self.timekeeper = Timekeeper(Clock(wall_ns=lambda: self.wall_ns, boot_ns=lambda: self.boot_ns), self.spool)

    def record(self, time_ns: int | None = None) -> None:
        """Record the next number, as `Device.record` does."""
        values = [("t", self.count)]
        if self.wall_ns >= self.timekeeper.known_from_ns:
            self.spool.record(values, time_ns, self.wall_ns)
        else:
            self.timekeeper.record(values, time_ns, self.wall_ns)
        self.count += 1

    def run(self, seconds: int) -> None:
        """Let time pass on both clocks."""
        self.wall_ns += seconds * S
        self.boot_ns += seconds * S

    def stored(self) -> list[int]:
        """Return the times at the hub, in the order of recording."""
        return [r.time_ns for r in sorted(drain(self.spool).readings, key=lambda r: int(r.value))]


def test_clock_that_is_set_is_used_as_it_is() -> None:
    """The normal case: the device's own wall clock, and nothing else is asked."""
    board = Board(T)
    board.record()
    board.timekeeper.learn(T + 500 * S)
    board.run(1)
    board.record()

    assert (board.stored(), board.timekeeper.clock) == ([T, T + S], "synced")


def test_clock_before_the_release_is_not_believed() -> None:
    """One tick before it: unknown, and the reading waits; at it: believed."""
    board = Board(RELEASED_NS - 1)
    board.record()

    assert (board.timekeeper.clock, board.spool.cut()) == ("unknown", None)

    board.wall_ns = RELEASED_NS
    board.record()

    assert (board.stored(), board.timekeeper.clock) == ([RELEASED_NS, RELEASED_NS + 1], "synced")


def test_clock_set_while_running_places_what_came_before() -> None:
    """NTP comes after 5 s: the first reading is 5 s old, not 56 years."""
    board = Board()
    board.record()
    board.run(5)
    board.wall_ns = T
    board.record()
    board.run(1)
    board.record()

    assert board.stored() == [T - 5 * S, T, T + S]


def test_hub_says_the_time_while_ours_is_unset() -> None:
    """Readings before and after the welcome lie on the hub's time; hello still says unknown."""
    board = Board()
    board.record()
    board.run(7)
    board.timekeeper.learn(T)
    board.run(2)
    board.record()

    assert (board.stored(), board.timekeeper.clock) == ([T - 7 * S, T + 2 * S], "unknown")


@pytest.mark.parametrize("hub_ns", [None, 0, MIN_TIME_NS - 1], ids=["no hub yet", "1970", "1999"])
def test_hub_without_a_clock_teaches_nothing(hub_ns: int | None) -> None:
    """A hub whose own clock was never set must not fix a wrong time for good."""
    board = Board()
    board.record()
    board.timekeeper.learn(hub_ns)

    assert board.spool.cut() is None

    board.timekeeper.learn(T)

    assert board.stored() == [T]


@pytest.mark.parametrize("learn", [True, False], ids=["by the hub", "by NTP"])
def test_clock_that_falls_back_to_1970_is_not_believed_again(learn: bool) -> None:
    """Once the time is known it stays known, by the uptime; no row of 1970 follows."""
    board = Board()
    if learn:
        board.timekeeper.learn(T)
    else:
        board.wall_ns = T
        board.record()
    board.wall_ns = 0
    board.run(3)
    board.record()

    assert board.stored()[-1] == T + 3 * S


@pytest.mark.parametrize("jump_s", [-3600, 10**8], ids=["an hour back", "three years on"])
def test_jump_of_a_known_clock_costs_no_reading_an_instant(jump_s: int) -> None:
    """Times follow the clock forward; set back, each reading still gets an instant of its own, behind the last."""
    board = Board(T)
    for seconds in (1, jump_s, 1):
        board.record()
        board.run(seconds)
    board.record()

    times = board.stored()

    assert len(set(times)) == 4
    assert times == sorted(times)
    assert times[2] == (T + S + 1 if jump_s < 0 else T + S + jump_s * S)


def test_another_process_of_the_boot_knows_what_was_learnt() -> None:
    """The spool keeps it: no need to wait for the hub again."""
    board = Board()
    board.timekeeper.learn(T)
    board.restart()
    board.run(1)
    board.record()

    assert board.stored() == [T + S]


def test_age_is_told_on_the_clock_that_both_times_share() -> None:
    """By the uptime while nothing is known; not at all for a time given by hand then; by the wall clock afterwards."""
    board = Board()
    board.record()
    board.run(4)
    waiting = board.spool.statistics().oldest_time_ns

    assert waiting == UPTIME + 30 * S
    assert board.timekeeper.age_s(waiting) == 4.0
    assert board.timekeeper.age_s(T) is None

    board.timekeeper.learn(T)
    assert board.timekeeper.age_s(T - 9 * S) == 9.0
    board.wall_ns = T + 100 * S
    assert board.timekeeper.age_s(T + S) == 99.0
    assert board.timekeeper.age_s(T + 500 * S) == 0.0


# --- in a device, over real sockets ---------------------------------------------------------------


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_device_without_a_clock_learns_the_time_before_it_sends(place: str, tmp_path: Path) -> None:
    """The first frame after the welcome is placed already: no row of 1970 ever leaves."""
    boot_ns = [30 * S]
    clock = Clock(wall_ns=lambda: 10 * S, boot_ns=lambda: boot_ns[0])
    spool = ":memory:" if place == "memory" else tmp_path / "spool"
    hub = FakeHub(port=free_port())
    with Device("d1", hub.url, spool=spool, clock=clock) as device:
        device.record(t=1.0)
        boot_ns[0] += 60 * S
        device.channel("t").record(2.0)
        assert device.status.oldest_age_s == 60.0
        with hub:
            device.flush()
            device.record(t=3.0)
            device.flush()

    assert sorted(hub.model.readings) == [
        Reading("t", TIME_NS - 60 * S, 1.0), Reading("t", TIME_NS, 2.0), Reading("t", TIME_NS + 1, 3.0),
    ]  # fmt: skip
    assert hub.model.hellos[0]["clock"] == "unknown"
    assert (hub.model.hellos[0]["wall_ns"], hub.model.hellos[0]["mono_ns"]) == (str(10 * S), str(90 * S))


def test_jumps_of_the_clock_cost_neither_the_connection_nor_a_reading() -> None:
    """An hour back, a year on, to 1970 and back again: one connection, every reading once, each at its own instant."""
    wall_ns = [T]
    clock = Clock(wall_ns=lambda: wall_ns[0], boot_ns=lambda: 60 * S)
    with FakeHub() as hub, Device("d1", hub.url, spool=":memory:", clock=clock) as device:
        for n, jump_s in enumerate((0, -3600, 365 * 86400, -(T // S) - 365 * 86400, T // S, 1)):
            wall_ns[0] += jump_s * S
            device.record(t=n)
            device.flush()

        assert (hub.connections, len(hub.model.hellos)) == (1, 1)

    assert sorted(r.value for r in hub.model.readings) == list(range(6))
    assert len({r.time_ns for r in hub.model.readings}) == 6
    assert all(r.time_ns >= T for r in hub.model.readings)
