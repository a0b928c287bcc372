"""What is long is done in steps, one after the other, and what fails holds up nothing."""

from collections.abc import Callable, Iterator

import pytest

from hub.mqtt.steps import STEP_NS, Steps

MS = 1_000_000


class Loop:
    """Turns of a loop that the test does; each look at the clock is a millisecond after the last."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.done: list[str] = []
        self.now = 0
        self.steps = Steps(self._later, self._clock)

    def work(self, name: str, count: int, *, pauses: bool = True, fails: bool = False) -> Iterator[None]:
        """Do ``count`` things with a pause after each."""
        for at in range(count):
            self.done.append(f"{name}{at}")
            if pauses:
                yield
        if fails:
            raise RuntimeError(name)

    def turn(self) -> list[str]:
        """Do a turn; return what was done in it."""
        calls, self.soon = self.soon, []
        for call in calls:
            call()
        done, self.done = self.done, []
        return done

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        assert delay_s == 0
        self.soon.append(call)

    def _clock(self) -> int:
        self.now += MS
        return self.now


def test_work_pauses_when_its_time_is_up() -> None:
    """Nothing is done in the call that adds it."""
    loop = Loop()
    loop.steps.add("a", loop.work("a", 5))
    each = STEP_NS // MS

    assert loop.done == []
    assert [len(loop.turn()) for _ in range(5)] == [each, each, 5 - 2 * each, 0, 0]
    assert loop.soon == []


def test_of_many_one_is_worked_on_at_a_time() -> None:
    """In their order, and in one step what is left of its time."""
    loop = Loop()
    loop.steps.step_ns = 4 * MS
    loop.steps.add("a", loop.work("a", 2))
    loop.steps.add("b", loop.work("b", 9))
    loop.steps.add("c", loop.work("c", 1))

    assert loop.turn() == ["a0", "a1", "b0"]
    assert loop.turn() == ["b1", "b2", "b3", "b4"]
    assert dict(loop.steps.under_way) == {"b": 1, "c": 1}
    assert loop.turn() == ["b5", "b6", "b7", "b8"]
    assert loop.turn() == ["c0"]
    assert (loop.turn(), loop.turn(), dict(loop.steps.under_way)) == ([], [], {})
    loop.steps.add("d", loop.work("d", 1))
    assert loop.turn() == ["d0"]


def test_many_that_do_not_pause_have_their_turns() -> None:
    """Each is over in one step, and others are heard between them."""
    loop = Loop()
    loop.steps.step_ns = 2 * MS
    for name in "abcde":
        loop.steps.add(name, loop.work(name, 1, pauses=False))

    assert [loop.turn() for _ in range(4)] == [["a0", "b0"], ["c0", "d0"], ["e0"], []]


def test_what_fails_holds_up_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is in the log."""
    loop = Loop()
    loop.steps.step_ns = 1000 * MS
    loop.steps.add("a", loop.work("a", 1, fails=True))
    loop.steps.add("b", loop.work("b", 1))

    assert loop.turn() == ["a0", "b0"]
    assert "RuntimeError: a" in caplog.text
