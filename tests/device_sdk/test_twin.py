"""`device_sdk.twin`: what is wanted is handled and then reported as taken in; nothing is lost by cuts and restarts."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_sdk.errors import MisuseError, SpoolError
from device_sdk.twin import FILE, Twin
from device_sdk.wire import MAX_CONTROL_BYTES, Command, Desired, Reply, Reported

pytestmark = pytest.mark.asyncio
LIMIT_S = 10.0


class Ear:
    """A courier that notes what is said while it is online."""

    def __init__(self) -> None:
        self.is_online = False
        self.said: list[Reported] = []

    def say(self, message: Reply | Reported) -> None:
        """Note it."""
        assert isinstance(message, Reported)
        if self.is_online:
            self.said.append(message)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop go round until something holds."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110 (a turn of the loop is all there is to wait for)
            await asyncio.sleep(0)


def begun(path: Path | None = None, *, is_online: bool = False) -> tuple[Twin, Ear]:
    """Return a twin at work on this loop."""
    twin, ear = Twin("d1", path), Ear()
    twin.load()
    ear.is_online = is_online
    twin.begin(asyncio.get_running_loop(), ear)
    return twin, ear


async def test_state_is_handled_and_then_reported_as_taken_in() -> None:
    """The hub hears of a version only when the program has handled it; what the program gets is its own copy."""
    twin, ear = begun()
    calls: list[dict[str, Any]] = []
    let_go = asyncio.Event()

    async def handler(state: dict[str, Any]) -> None:
        calls.append(state)
        await let_go.wait()
        state.clear()

    twin.handle(handler)
    await until(lambda: twin._task is not None)
    ear.is_online = True
    twin.welcomed()
    twin.take(Command("k", "fan", {}, 1))
    twin.take(Desired(1, {"a": {"b": 1}}, "m1"))
    await until(lambda: bool(calls))
    assert ear.said == [Reported(0, {})]

    let_go.set()
    await until(lambda: len(ear.said) == 2)

    assert ear.said[1] == Reported(1, {}, "m1")
    assert (dict(twin.desired), twin.desired.version) == ({"a": {"b": 1}}, 1)
    assert "version 1" in repr(twin.desired)
    twin.end()


async def test_equal_state_is_taken_without_a_call() -> None:
    """A new version of the same state, as after a restored hub, is no event for the program."""
    twin, ear = begun(is_online=True)
    calls: list[dict[str, Any]] = []
    twin.handle(calls.append)
    twin.take(Desired(1, {"a": 1, "b": 2}, "m1"))
    await until(lambda: Reported(1, {}, "m1") in ear.said)
    twin.take(Desired(9, {"b": 2, "a": 1}, "m9"))
    await until(lambda: Reported(9, {}, "m9") in ear.said)

    assert calls == [{"a": 1, "b": 2}]
    twin.end()


async def test_version_of_a_hub_that_was_put_back_is_answered_and_not_taken() -> None:
    """A lower version, or another one of the same number: the device says what it has, and the hub goes on above."""
    twin, ear = begun(is_online=True)
    twin.take(Desired(4, {"n": 4}, "m4"))
    await until(lambda: Reported(4, {}, "m4") in ear.said)
    for past in (Desired(2, {"n": 2}, "m2"), Desired(4, {"n": 5}, "m5")):
        ear.said.clear()
        twin.take(past)
        await until(lambda: ear.said == [Reported(4, {}, "m4")])
        assert dict(twin.desired) == {"n": 4}
    twin.take(Desired(5, {"n": 5}, "m5"))
    await until(lambda: Reported(5, {}, "m5") in ear.said)

    assert dict(twin.desired) == {"n": 5}
    twin.end()


async def test_burst_is_handled_as_its_latest() -> None:
    """While the program is at work only the newest state waits."""
    twin, ear = begun(is_online=True)
    calls: list[int] = []

    async def handler(state: dict[str, Any]) -> None:
        calls.append(state["n"])
        if len(calls) == 1:
            for n in range(2, 50):
                twin.take(Desired(n, {"n": n}, ""))

    twin.handle(handler)
    twin.take(Desired(1, {"n": 1}, ""))
    await until(lambda: Reported(49, {}) in ear.said)

    assert calls == [1, 49]
    twin.end()


async def test_failed_handler_is_tried_again_at_the_next_connection(caplog: pytest.LogCaptureFixture) -> None:
    """An exception is logged, the version is not reported, and a welcome tries again."""
    twin, ear = begun(is_online=True)
    calls: list[int] = []

    async def handler(state: dict[str, Any]) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("no fan")

    twin.handle(handler)
    twin.take(Desired(1, {"n": 1}, "m"))
    await until(lambda: "no fan" in caplog.text)
    assert all(message.version == 0 for message in ear.said)

    twin.welcomed()
    await until(lambda: Reported(1, {}, "m") in ear.said)

    assert len(calls) == 2
    twin.end()


async def test_states_survive_a_restart(tmp_path: Path) -> None:
    """What is known, handled and reported is there again; a handler is called once at start if it never was."""
    twin, ear = begun(tmp_path / FILE, is_online=True)
    twin.take(Desired(3, {"n": 1}, "m"))
    await until(lambda: Reported(3, {}, "m") in ear.said)
    twin.report({"fan": 3}, replace=False)
    twin.end()

    again, ear = begun(tmp_path / FILE)
    assert (dict(again.desired), again.desired.version) == ({"n": 1}, 3)
    calls: list[dict[str, Any]] = []
    again.handle(calls.append)
    await until(lambda: json.loads((tmp_path / FILE).read_bytes())["handled"] is not None or bool(calls))
    ear.is_online = True
    again.welcomed()

    assert calls == [{"n": 1}]
    assert ear.said == [Reported(3, {"fan": 3}, "m")]
    again.end()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"version":1}', b"\xff"], ids=repr)
async def test_damaged_file_is_forgotten_and_asked_for_again(tmp_path: Path, data: bytes) -> None:
    """Whatever a power cut left, the device starts, and says version 0."""
    (tmp_path / FILE).write_bytes(data)

    twin, ear = begun(tmp_path / FILE)
    await until(lambda: twin._task is not None)
    ear.is_online = True
    twin.welcomed()

    assert ear.said == [Reported(0, {})]
    twin.end()


async def test_twin_that_comes_late_asks_for_the_state() -> None:
    """Made on an open connection, it has missed what the hub said after the welcome."""
    twin, ear = begun(is_online=True)

    await until(lambda: ear.said == [Reported(0, {})])
    twin.end()


async def test_state_that_was_taken_in_before_a_restart_is_reported_again(tmp_path: Path) -> None:
    """A hub that was asked again hears that the version is taken in; the handler is not called for it."""
    twin, ear = begun(tmp_path / FILE, is_online=True)
    calls: list[dict[str, Any]] = []
    twin.handle(calls.append)
    twin.take(Desired(3, {"n": 1}, "m"))
    await until(lambda: Reported(3, {}, "m") in ear.said)
    twin.end()

    late, ear = begun(tmp_path / FILE, is_online=True)
    late.handle(calls.append)
    await until(lambda: ear.said == [Reported(0, {})])
    late.take(Desired(3, {"n": 1}, "m"))
    await until(lambda: len(ear.said) == 2)

    assert ear.said[1] == Reported(3, {}, "m")
    assert calls == [{"n": 1}]
    late.end()


async def test_reports_merge_coalesce_and_are_refused_in_words() -> None:
    """None removes; a burst is said as its latest; what is no JSON or too large changes nothing."""
    twin, ear = begun(is_online=True)
    await until(lambda: len(ear.said) == 1)
    twin.report({"a": 1, "b": {"c": 2}}, replace=False)
    twin.report({"b": {"c": None, "d": (1,)}}, replace=False)
    for n in range(100):
        twin.report({"n": n}, replace=False)
    for wrong in ({"a": "x" * MAX_CONTROL_BYTES}, {"a": float("nan")}, {"a": object()}, {"a": "\ud800"}):
        with pytest.raises(MisuseError):
            twin.report(wrong, replace=False)
    await until(lambda: len(ear.said) == 2)
    twin.report({"x": None, "y": 1}, replace=True)
    twin.report({"z": 1}, replace=False)
    twin.end()
    await until(lambda: len(ear.said) >= 3)

    assert ear.said[1].state == {"a": 1, "b": {"d": [1]}, "n": 99}
    assert ear.said[-1].state == {"y": 1, "z": 1}
    assert len(ear.said) <= 4


async def test_failing_disk_is_said_and_the_report_goes_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A report that is not on disk raises, and is said all the same."""
    twin, ear = begun(tmp_path / "gone" / FILE, is_online=True)
    with pytest.raises(SpoolError, match="gone"):
        twin.report({"a": 1}, replace=False)
    twin.take(Desired(1, {"n": 1}, "m"))
    twin.welcomed()
    await until(lambda: Reported(1, {"a": 1}, "m") in ear.said)

    assert "not written" in caplog.text
    twin.end()


async def test_what_the_disk_refuses_is_said_all_the_same(tmp_path: Path) -> None:
    """A report that cannot be kept is an error for the program, and no secret from the hub."""
    twin, ear = begun(tmp_path / "gone" / FILE, is_online=True)
    # What the beginning has to say is said.
    for _ in range(5):
        await asyncio.sleep(0)

    with pytest.raises(SpoolError):
        twin.report({"fan": 3}, replace=False)
    await until(lambda: Reported(0, {"fan": 3}) in ear.said)
    with pytest.raises(SpoolError):
        twin.report({"fan": 4}, replace=False)
    twin.end()
