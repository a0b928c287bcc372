"""Tests of `device_sdk.device`: what a user of the SDK meets, over real sockets."""

import asyncio
import gc
import logging
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import pytest

from device_sdk import Device, FlushTimeoutError, MisuseError, Reading, SpoolError
from device_sdk.clock import Clock
from device_sdk.wire import MAX_CHANNELS
from tests.support.certificate import make_certificate
from tests.support.fake_hub import FakeHub

T0_NS = 1_795_376_000_000_000_000
LIMIT_S = 10.0
# A port of the loopback where nobody listens: privileged, and not assigned to anything.
NOWHERE = "ws://127.0.0.1:1"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """A hub on a free port."""
    with FakeHub() as running:
        yield running


def stopped_clock() -> Clock:
    """Return a clock whose wall time stands still."""
    return Clock(wall_ns=lambda: T0_NS)


def stored(hub: FakeHub) -> list[Reading]:
    """Return what the hub has, in order."""
    return sorted(hub.model.readings)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that only a status shows."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        threading.Event().wait(0.005)


# --- the two forms ------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_with_records_and_flushes(hub: FakeHub, place: str, tmp_path: Path) -> None:
    """After flush everything recorded is at the hub, each reading once, with either spool."""
    spool = ":memory:" if place == "memory" else tmp_path / "spool"
    with Device("d1", hub.url, spool=spool, clock=stopped_clock()) as device:
        device.channel("temperature", unit="Cel").record(21.5)
        device.record({"door": True, "a.b-c": "text"}, humidity=47, time=T0_NS + 5)
        device.flush()
        status = device.status

    assert stored(hub) == [
        Reading("a.b-c", T0_NS + 5, "text"),
        Reading("door", T0_NS + 5, True),
        Reading("humidity", T0_NS + 5, 47),
        Reading("temperature", T0_NS, 21.5),
    ]
    assert (status.online, status.pending, status.last_error) == (True, 0, None)
    hub.wait_for(lambda: hub.model.byes == 1)
    assert hub.model.channels["temperature"] == {"unit": "Cel"}


def test_metered_device_flushes_at_once(hub: FakeHub) -> None:
    """Readings are gathered for minutes, but not while somebody waits for them; leaving the block does not wait."""
    with Device("d1", hub.url, spool=":memory:", link="metered") as device:
        for n in range(3):
            device.record({"n": n}, time=T0_NS + n)
            device.flush()
        device.record(n=3, time=T0_NS + 3)

    assert stored(hub) == [Reading("n", T0_NS + n, n) for n in range(4)]
    assert hub.model.hellos[0]["link"] == "metered"


@pytest.mark.asyncio
@pytest.mark.parametrize("place", ["memory", "disk"])
async def test_async_with_records_and_flushes(hub: FakeHub, place: str, tmp_path: Path) -> None:
    """The async form offers the same names and the same promise."""
    spool = ":memory:" if place == "memory" else tmp_path / "spool"
    async with Device("d1", hub.url, spool=spool, clock=stopped_clock()) as device:
        device.record(temperature=21.5)
        await device.flush_async()
        device.record(temperature=22.5)
        await device.flush_async()

    assert stored(hub) == [Reading("temperature", T0_NS, 21.5), Reading("temperature", T0_NS + 1, 22.5)]


@pytest.mark.asyncio
async def test_many_devices_share_a_loop(hub: FakeHub) -> None:
    """A process may hold many devices; each is its own stream."""
    devices = [Device(f"d{n}", hub.url, spool=":memory:") for n in range(20)]
    async with asyncio.TaskGroup() as group:

        async def live(device: Device) -> None:
            async with device:
                device.record(t=1.0)
                await device.flush_async()

        for device in devices:
            group.create_task(live(device))

    assert len(hub.model.readings) == 20
    assert len(hub.model.streams) == 20


def test_with_over_tls(tmp_path: Path) -> None:
    """wss:// with the hub's own CA works from the public constructor."""
    certificate = make_certificate(tmp_path)
    with (
        FakeHub(tls=certificate.context, token="t") as hub,
        Device("d1", hub.url, token="t", ca=certificate.ca, spool=":memory:") as device,
    ):
        device.record(t=1.0)
        device.flush()

    assert len(hub.model.readings) == 1


# --- record -------------------------------------------------------------------------------------


def test_record_never_puts_two_values_at_one_instant(hub: FakeHub) -> None:
    """Without time= each value of a channel gets an instant of its own, also when the clock stands still."""
    with Device("d1", hub.url, spool=":memory:", clock=stopped_clock()) as device:
        for n in range(50):
            device.record(t=n)
        device.flush()

    assert stored(hub) == [Reading("t", T0_NS + n, n) for n in range(50)]


def test_record_takes_aware_datetimes(hub: FakeHub) -> None:
    """An aware datetime is exact to the microsecond."""
    with Device("d1", hub.url, spool=":memory:") as device:
        device.record(t=1.0, time=datetime(2026, 11, 22, 12, 0, 0, 1, tzinfo=UTC))
        device.flush()

    assert stored(hub)[0].time_ns == 1_795_348_800_000_001_000


def test_record_skips_and_counts_what_is_no_value(hub: FakeHub) -> None:
    """None, NaN and infinities are no exception in a sensor loop; they are counted."""
    with Device("d1", hub.url, spool=":memory:") as device:
        device.record(a=None, b=math.nan, c=math.inf, d=1.0)
        device.flush()

        assert device.status.no_value == 3
    assert [r.channel for r in stored(hub)] == ["d"]


@pytest.mark.parametrize(
    "call",
    [
        lambda d: d.record({"bad name": 1.0}),
        lambda d: d.record(good=1.0, bad=object()),
        lambda d: d.record(good=1.0, bad=2**63),
        lambda d: d.record(good="x" * 1025),
        lambda d: d.record(good=1.0, time=datetime(2026, 1, 1)),  # noqa: DTZ001
        lambda d: d.record(good=1.0, time="now"),
        lambda d: d.channel("bad name"),
        lambda d: d.channel("good", type="complex"),
        lambda d: d.channel("good", every_s=0),
        lambda d: d.channel("good", range=(2, 1)),
    ],
    ids=[
        "name", "object", "int", "string", "naive time", "text time", "channel name", "type", "every_s", "range",
    ],
)  # fmt: skip
def test_misuse_raises_and_records_nothing(call: Callable[[Device], object]) -> None:
    """A wrong call is told at once, and nothing of it is recorded."""
    with Device("d1", NOWHERE, spool=":memory:", close_timeout_s=0) as device:
        with pytest.raises(MisuseError):
            call(device)

        assert device.status.pending == 0


def test_channels_are_limited() -> None:
    """A loop that invents names is stopped by an error, not by the hub's disk."""
    with Device("d1", NOWHERE, spool=":memory:", close_timeout_s=0) as device:
        for n in range(MAX_CHANNELS):
            device.record({f"c{n}": 1.0})

        with pytest.raises(MisuseError, match="at most 200 channels"):
            device.record(one_more=1.0)


def test_channel_without_arguments_keeps_the_declaration(hub: FakeHub) -> None:
    """Asking for a channel again does not wipe its unit; declaring it anew replaces it."""
    device = Device("d1", hub.url, spool=":memory:")
    device.channel("t", unit="K", label="old")
    with device:
        device.channel("t").record(1.0)
        device.flush()
        assert hub.model.channels["t"] == {"unit": "K", "label": "old"}
        device.channel("t", unit="Cel", type="float", every_s=2, range=(0, 30))
        hub.wait_for(lambda: hub.model.channels["t"].get("unit") == "Cel")

    assert hub.model.channels["t"] == {"unit": "Cel", "type": "float", "every_s": 2, "range": [0, 30]}


def test_record_is_safe_from_any_thread(hub: FakeHub) -> None:
    """Four sensors in four threads lose nothing."""
    with Device("d1", hub.url, spool=":memory:") as device:

        def sense(name: str) -> None:
            for n in range(500):
                device.record({name: n})

        threads = [threading.Thread(target=sense, args=(f"s{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        device.flush()

    assert len(set(stored(hub))) == len(hub.model.readings) == 2000


def test_record_stays_quick_while_the_hub_comes_and_goes(tmp_path: Path) -> None:
    """During an outage, with the spool on disk, 99 of 100 records take less than 50 ms, and none is lost."""
    with FakeHub() as hub, Device("d1", hub.url, spool=tmp_path) as device:
        took = []
        for n in range(2000):
            if n % 500 == 100:
                hub.cut()
            began = time.perf_counter()
            device.record(t=n)
            took.append(time.perf_counter() - began)
        device.flush()

    assert sorted(took)[int(len(took) * 0.99)] < 0.050
    assert sorted(r.value for r in hub.model.readings) == list(range(2000))


# --- waiting ------------------------------------------------------------------------------------


def test_flush_says_when_time_ran_out() -> None:
    """FlushTimeoutError tells how much waits, and why."""
    with Device("d1", NOWHERE, spool=":memory:", close_timeout_s=0) as device:
        device.record(t=1.0)
        wait_until(lambda: device.status.last_error is not None)

        with pytest.raises(FlushTimeoutError, match=r"1 readings are not at the hub after 0\.05 s; hub 127"):
            device.flush(timeout_s=0.05)


@pytest.mark.asyncio
async def test_flush_async_says_when_time_ran_out() -> None:
    """The async form fails the same way."""
    async with Device("d1", NOWHERE, spool=":memory:", close_timeout_s=0) as device:
        device.record(t=1.0)

        with pytest.raises(FlushTimeoutError):
            await device.flush_async(timeout_s=0.05)
        with pytest.raises(MisuseError, match="flush_async"):
            device.flush()


@pytest.mark.asyncio
async def test_flush_async_belongs_to_async_with() -> None:
    """The wrong flush would block or never end; it is refused instead."""
    with Device("d1", NOWHERE, spool=":memory:", close_timeout_s=0) as device, pytest.raises(MisuseError):
        await device.flush_async()


def test_status_shows_what_waits() -> None:
    """Pending, age of the oldest and the reason why it waits."""
    now = [T0_NS]
    with Device(
        "d1", NOWHERE, spool=":memory:", clock=Clock(wall_ns=lambda: now[0]), close_timeout_s=0, max_spool="1MB"
    ) as device:
        device.record(t=1.0)
        now[0] += 3_000_000_000
        wait_until(lambda: device.status.last_error is not None)
        status = device.status

    assert (status.online, status.pending, status.oldest_age_s, status.rejected) == (False, 1, 3.0, 0)
    assert status.spool_limit_bytes == 1_000_000
    assert "cannot be reached" in str(status.last_error)
    assert "was closed" in str(device.status.last_error)


def test_status_counts_rejections(hub: FakeHub) -> None:
    """What the hub refused for good is counted for the user."""
    hub.model.rejected = [{"seq": 1, "channel": "t", "index": 0, "reason": "type_conflict"}]
    with Device("d1", hub.url, spool=":memory:") as device:
        device.record(t=1.0)
        device.flush()

        assert device.status.rejected == 1


# --- opening and closing ------------------------------------------------------------------------


def test_a_device_is_used_while_open_only() -> None:
    """Before open and after close every use says what to do; close is allowed twice."""
    device = Device("d1", NOWHERE, spool=":memory:", close_timeout_s=0)
    with pytest.raises(MisuseError, match="is not open"):
        device.record(t=1.0)
    device.close()
    device.open()
    device.close()
    device.close()

    with pytest.raises(MisuseError, match="was closed"):
        device.record(t=1.0)
    with pytest.raises(MisuseError, match="was closed"):
        device.flush()
    with pytest.raises(MisuseError, match="make a new Device"):
        device.open()


def test_close_leaves_in_the_spool_what_the_hub_did_not_take(tmp_path: Path) -> None:
    """Leaving while the hub is away is quick; the next process delivers."""
    started = time.monotonic()
    with Device("d1", NOWHERE, spool=tmp_path) as device:
        device.record(t=1.0)
    assert time.monotonic() - started < 1.5

    with FakeHub() as hub, Device("d1", hub.url, spool=tmp_path) as device:
        device.flush()
        assert len(hub.model.readings) == 1


def test_close_waits_for_the_last_acks(hub: FakeHub) -> None:
    """The `with` block ends after the hub has everything, when it answers."""
    with Device("d1", hub.url, spool=":memory:") as device:
        device.record(t=1.0)

    assert len(hub.model.readings) == 1


def test_closing_while_it_connects_leaves_no_socket(hub: FakeHub) -> None:
    """Whenever it comes: at the latest when rubbish is collected, a socket that was left would warn."""
    for number in range(60):
        with Device("d", hub.url, token="t", spool=":memory:", close_timeout_s=0.0) as device:
            for value in range(number % 12 * 50):
                device.record(level=float(value))
    gc.collect()


def test_a_spool_has_one_owner(tmp_path: Path) -> None:
    """A second device on the same directory is refused when it opens."""
    with Device("d1", NOWHERE, spool=tmp_path, close_timeout_s=0), pytest.raises(SpoolError):
        Device("d1", NOWHERE, spool=tmp_path).open()


def test_a_refused_token_shows_in_the_status_and_never_in_record(caplog: pytest.LogCaptureFixture) -> None:
    """The credential is wrong: record goes on, status says why, one WARNING, no token in any log line."""
    with (
        caplog.at_level(logging.DEBUG),
        FakeHub(token="right") as hub,
        Device("d1", hub.url, token="wr0ng-t0ken", spool=":memory:") as device,
    ):
        hub.wait_for(lambda: hub.refusals > 0)
        wait_until(lambda: device.status.last_error is not None)
        device.record(t=1.0)
        status = device.status

    assert "refused the token" in str(status.last_error)
    assert status.pending == 1
    ours = [r for r in caplog.records if r.name.startswith("device_sdk")]
    assert [r.levelname for r in ours if "refused" in r.getMessage()] == ["WARNING"]
    assert not [r for r in ours if "wr0ng-t0ken" in r.getMessage()]


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "bad name"},
        {"url": "http://hub"},
        {"max_spool": "much"},
        {"when_full": "never"},
        {"durability": "maybe"},
    ],
    ids=lambda a: next(iter(a)),
)
def test_wrong_arguments_are_refused_at_once(arguments: dict[str, str]) -> None:
    """A wrong setting is told when the device is made, not a week later."""
    with pytest.raises(MisuseError):
        Device(**{"name": "d1", "url": NOWHERE, **arguments})  # type: ignore[arg-type]


# --- environment --------------------------------------------------------------------------------


def test_from_env_reads_the_environment(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A device as systemd starts it: everything from the environment, arguments win."""
    monkeypatch.setenv("HUB_URL", hub.url)
    monkeypatch.setenv("DEVICE_NAME", "pi-attic")
    monkeypatch.setenv("SPOOL_DIR", str(tmp_path / "spool"))
    monkeypatch.setenv("HUB_TOKEN", "")
    with Device.from_env(close_timeout_s=1.0) as device:
        device.record(t=1.0)
        device.flush()

    assert device.name == "pi-attic"
    assert hub.model.hellos[0]["device"] == "pi-attic"
    assert list((tmp_path / "spool").iterdir())


def test_from_env_pins_a_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """HUB_FINGERPRINT is `fingerprint`: one that is none is refused by that name."""
    monkeypatch.setenv("HUB_URL", "wss://hub.local:8000")
    monkeypatch.setenv("DEVICE_NAME", "pi-attic")
    monkeypatch.setenv("HUB_FINGERPRINT", "ab:cd")

    with pytest.raises(MisuseError, match="fingerprint"):
        Device.from_env()


def test_from_env_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variables."""
    monkeypatch.delenv("HUB_URL", raising=False)
    monkeypatch.delenv("DEVICE_NAME", raising=False)

    with pytest.raises(MisuseError, match="DEVICE_NAME and HUB_URL"):
        Device.from_env()


def test_the_default_spool_is_in_the_users_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without spool= each device has its directory under XDG_STATE_HOME."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with Device("d1", NOWHERE, close_timeout_s=0):
        pass

    assert (tmp_path / "telemetry" / "d1").is_dir()


# --- processes ----------------------------------------------------------------------------------


def _run(code: str, *arguments: str) -> str:
    """Run ``code`` in a fresh interpreter with warnings as errors; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True, text=True, timeout=30, cwd=Path(__file__).parents[2], check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_a_program_that_just_ends_still_delivers(hub: FakeHub, tmp_path: Path) -> None:
    """Without close the interpreter's exit drains and closes."""
    _run(
        "import sys; from device_sdk import Device\n"
        "device = Device('d1', sys.argv[1], spool=sys.argv[2]); device.open(); device.record(t=1.0)",
        hub.url, str(tmp_path),
    )  # fmt: skip

    assert len(hub.model.readings) == 1
    hub.wait_for(lambda: hub.model.byes == 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_is_told_to_open_its_own(hub: FakeHub, tmp_path: Path) -> None:
    """The child cannot use the parent's device, and cannot harm it."""
    out = _run(
        "import os, sys, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "from device_sdk import Device, MisuseError\n"
        "with Device('d1', sys.argv[1], spool=sys.argv[2]) as device:\n"
        "    device.record(t=1.0)\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        try:\n"
        "            device.record(t=2.0)\n"
        "        except MisuseError as error:\n"
        "            print(error, flush=True)\n"
        "        device.close()\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
        "    device.record(t=3.0)\n",
        hub.url, str(tmp_path),
    )  # fmt: skip

    assert "opened before a fork" in out
    assert [r.value for r in stored(hub)] == [1.0, 3.0]


# --- counting -----------------------------------------------------------------------------------


def test_statistics_say_what_spool_and_conversation_know(hub: FakeHub, tmp_path: Path) -> None:
    """Everything that was acked, skipped, dropped or waits is counted in one record."""
    with Device("d1", hub.url, spool=tmp_path / "spool", clock=stopped_clock()) as device:
        device.record(a=1.0, b=math.nan)
        device.flush()
        device.record(a=2.0)
        device.flush()
        found = device.statistics()

    assert (found.online, found.last_error, found.reconnects, found.rejected) == (True, None, 0, 0)
    assert (found.acked_readings, found.acked_frames, found.no_value) == (2, 2, 1)
    assert (found.pending, found.unnumbered, found.backlog, found.frames, found.oldest_time_ns) == (0, 0, 0, 0, None)
    assert (found.dropped, found.dropped_by, found.thinned, found.damaged) == (0, {}, 0, 0)
    assert 0 < found.bytes <= found.peak_bytes <= found.limit_bytes == 64_000_000


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_thin_keeps_record_quick_and_counts_what_it_leaves_out(place: str, tmp_path: Path) -> None:
    """A full spool that is thinned, offline: 99 of 100 `record` calls take less than 50 ms, each drop is counted."""
    spool = ":memory:" if place == "memory" else tmp_path / "spool"
    took = []
    with Device("d1", NOWHERE, spool=spool, max_spool="256KiB", when_full="thin", close_timeout_s=0) as device:
        device.channel("t")
        for n in range(12_000):
            begun = time.perf_counter()
            device.record(t=n)
            took.append(time.perf_counter() - begun)
        found = device.statistics()

    assert sorted(took)[int(len(took) * 0.99) - 1] < 0.050
    assert found.thinned > 1_000
    assert found.dropped_by == {"thinned": found.thinned}
    assert found.pending + found.dropped == 12_000
    assert found.peak_bytes <= found.limit_bytes


def test_statistics_of_a_device_that_is_not_open_are_a_misuse() -> None:
    """There is nothing to count; `status` still answers."""
    device = Device("d1", NOWHERE)

    with pytest.raises(MisuseError, match="is not open"):
        device.statistics()


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_flush_waits_for_a_backlog_that_live_readings_overtake(hub: FakeHub, place: str, tmp_path: Path) -> None:
    """What was recorded before the call is durable after it, although newer readings go first."""
    live = iter(range(30_000))

    def record_more(stored: int, stream: str) -> None:
        for n in islice(live, 2_000):
            device.record(live=n)

    spool = ":memory:" if place == "memory" else tmp_path / "spool"
    with Device("d1", hub.url, spool=spool, on_ack=record_more) as device:
        device.record(t=-1)
        device.flush()
        hub.stop()
        for n in range(12_000):
            device.record(t=n)
        with FakeHub(hub.model, port=hub.port):
            device.flush(20)
            there = sum(reading.channel == "t" for reading in hub.model.readings)
            device.flush(20)
            found = device.statistics()

    assert there == 12_001
    assert len(set(hub.model.readings)) == len(hub.model.readings) == found.acked_readings == 42_001
    assert found.reconnects == 1
