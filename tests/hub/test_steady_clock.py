"""`hub.steady_clock`: a clock that leaps ahead deletes nothing, one that stays there is believed after a day."""

import logging

import pytest

from hub.steady_clock import STANDS_S, SteadyClock, known_span
from tests.support.wall_clock import WallClock

HOUR_S, DAY_S, YEAR_S = 3600.0, 86_400.0, 365 * 86_400.0


class Rig:
    """A steady clock over two that a test moves; times are in seconds from its beginning."""

    def __init__(self, *, received_s: tuple[float, float] | None = None) -> None:
        self.wall = WallClock()
        self.begun_ns = self.wall.now_ns
        self.run_s = 0.0
        known = None
        if received_s is not None:
            first_s, last_s = received_s
            known = self.begun_ns + round(first_s * 1e9), self.begun_ns + round(last_s * 1e9)
        self.steady = SteadyClock(known, now_ns=self.wall, clock=lambda: self.run_s)

    def pass_time(self, seconds: float) -> None:
        """Let both clocks go on."""
        self.run_s += seconds
        self.wall.advance(seconds)

    def now_s(self) -> float:
        """Return what the steady clock says."""
        return (self.steady() - self.begun_ns) / 1e9


def test_an_ordinary_clock_is_the_wall_clock() -> None:
    """Also when it is set by some hours, forward or back."""
    rig = Rig()
    for hours in (0, 3, -2, 14):
        rig.wall.advance(hours * HOUR_S)
        rig.pass_time(600)

        assert rig.steady() == rig.wall.now_ns


def test_a_leap_that_goes_back_is_never_believed(caplog: pytest.LogCaptureFixture) -> None:
    """Meanwhile time goes on as it passes; it is said once. The next leap has its own day."""
    rig = Rig()
    for _ in range(2):
        begun_s = rig.now_s()
        rig.wall.advance(14 * YEAR_S)
        for minutes in range(1, 23 * 60, 10):
            assert rig.now_s() == pytest.approx(begun_s + (minutes - 1) * 60)
            rig.pass_time(600)
        rig.wall.advance(-14 * YEAR_S)

        assert rig.steady() == rig.wall.now_ns
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


def test_a_leap_that_stands_for_a_day_is_believed(caplog: pytest.LogCaptureFixture) -> None:
    """The machine slept, or the clock had been behind."""
    rig = Rig()
    rig.wall.advance(2 * YEAR_S)
    assert rig.now_s() == 0
    rig.pass_time(STANDS_S - 1)
    assert rig.now_s() == pytest.approx(STANDS_S - 1)

    rig.pass_time(1)

    assert rig.steady() == rig.wall.now_ns
    rig.pass_time(600)
    assert rig.steady() == rig.wall.now_ns
    assert "ahead of what it should be" in caplog.messages[0]
    assert "it is believed" in caplog.messages[1]


def test_a_clock_that_is_back_for_a_while_does_not_leap() -> None:
    """1970 and back again: nothing is in doubt."""
    rig = Rig()
    rig.wall.advance(-50 * YEAR_S)
    assert rig.steady() == rig.wall.now_ns
    rig.pass_time(600)
    rig.wall.advance(50 * YEAR_S)

    assert rig.steady() == rig.wall.now_ns


@pytest.mark.parametrize(
    ("received_s", "is_believed"),
    [
        pytest.param((-DAY_S, 0), True, id="went on a moment ago"),
        pytest.param((-2 * DAY_S, -DAY_S), True, id="was off overnight"),
        pytest.param((-4 * DAY_S, -3 * DAY_S), False, id="was off for days, or leapt before the start"),
        pytest.param((-14 * YEAR_S, -14 * YEAR_S + DAY_S), False, id="leapt years before the start"),
        pytest.param((-14 * YEAR_S, 0), True, id="leapt back"),
    ],
)
def test_what_was_received_before_tells_a_leap_at_the_start(received_s: tuple[float, float], is_believed: bool) -> None:
    """A hub that is started while its clock is wrong knows it from the journal."""
    rig = Rig(received_s=received_s)

    assert rig.now_s() == (0 if is_believed else received_s[1])
    rig.pass_time(STANDS_S)
    assert rig.steady() == rig.wall.now_ns


def test_a_clock_without_battery_is_right_when_it_is_set() -> None:
    """It starts in 1970, long before what was received, and is set minutes later: that is no leap."""
    rig = Rig(received_s=(56 * YEAR_S - DAY_S, 56 * YEAR_S))
    assert rig.steady() == rig.wall.now_ns
    rig.pass_time(600)
    rig.wall.advance(56 * YEAR_S + 9 * HOUR_S)

    assert rig.steady() == rig.wall.now_ns


@pytest.mark.parametrize(
    ("last_s", "known_s"),
    [
        pytest.param(HOUR_S, HOUR_S, id="ordinary"),
        pytest.param(14 * YEAR_S, DAY_S, id="received while years ahead"),
        pytest.param(-50 * YEAR_S, 0, id="received while years behind"),
    ],
)
def test_what_was_received_while_the_clock_was_wrong_tells_nothing(last_s: float, known_s: float) -> None:
    """The oldest is from before, and by how much the newest can be newer is known."""
    first_ns = WallClock().now_ns

    assert known_span((first_ns, first_ns + round(last_s * 1e9)), 24) == (first_ns, first_ns + round(known_s * 1e9))
    assert known_span(None, 24) is None
