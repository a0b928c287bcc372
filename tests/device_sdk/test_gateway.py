"""`device_sdk.gateway`: many devices on one connection, each of them a `Device` in all that a program sees."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_sdk import Gateway, MisuseError
from device_sdk.wire import Bye, Close
from tests.support.fake_hub import FakeHub

LIMIT_S = 10.0


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """A running hub."""
    with FakeHub(token="g") as running:
        yield running


def until(condition: Callable[[], bool]) -> None:
    """Wait until it is true."""
    limit = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        threading.Event().wait(0.005)


def values(hub: FakeHub) -> list[float]:
    """Return what is stored, sorted."""
    return sorted(float(reading.value) for reading in hub.model.readings)


def test_devices_deliver_on_one_connection(hub: FakeHub, tmp_path: Path) -> None:
    """Each with its own stream and its own folder, by one thread."""
    before = threading.active_count()
    with Gateway(hub.url, token="g", spool=tmp_path) as gateway:
        for number in range(20):
            gateway.device(f"barn-{number}").record(level=float(number))
        threads = threading.active_count() - before
        for number in range(20):
            gateway.device(f"barn-{number}").flush(LIMIT_S)
        assert all(gateway.device(f"barn-{number}").status.online for number in range(20))

    assert values(hub) == [float(number) for number in range(20)]
    assert (hub.connections, threads) == (1, 1)
    assert {path.name for path in tmp_path.iterdir()} == {f"barn-{number}" for number in range(20)}
    assert len({hello["stream"] for hello in hub.model.hellos}) == 20
    hub.wait_for(lambda: hub.model.byes == 20)
    assert threading.active_count() == before


@pytest.mark.asyncio
async def test_devices_share_the_users_loop(hub: FakeHub) -> None:
    """Under ``async with`` each is opened by itself, on one connection and without a thread."""
    async with Gateway(hub.url, token="g", spool=":memory:") as gateway:
        async with gateway.device("barn-1") as first, gateway.device("barn-2") as second:
            first.record(level=1.0)
            second.record(level=2.0)
            await asyncio.gather(first.flush_async(LIMIT_S), second.flush_async(LIMIT_S))
        async with gateway.device("barn-1") as again:
            again.record(level=3.0)
            await again.flush_async(LIMIT_S)
        with pytest.raises(MisuseError, match="async with"):
            gateway.device("barn-1").open()

    assert (values(hub), hub.connections) == ([1.0, 2.0, 3.0], 1)


def test_refused_device_waits_and_the_others_go_on(hub: FakeHub) -> None:
    """It records into its spool, says why it waits, and delivers once the hub lets it in."""
    hub.refused["barn-2"] = Bye(50, Close.FORBIDDEN, "child_pending", "barn-2 waits")
    with Gateway(hub.url, token="g", spool=":memory:") as gateway:
        first, second = gateway.device("barn-1"), gateway.device("barn-2")
        second.record(level=2.0)
        first.record(level=1.0)
        first.flush(LIMIT_S)
        until(lambda: "child_pending: barn-2 waits" in str(second.status.last_error))
        assert (first.status.online, second.status.online, second.status.pending) == (True, False, 1)

        del hub.refused["barn-2"]
        second.flush(LIMIT_S)

    assert (values(hub), hub.connections) == ([1.0, 2.0], 1)


def test_everything_arrives_over_cut_connections(hub: FakeHub, tmp_path: Path) -> None:
    """Each reading once, whatever was on its way when the one connection of all was cut."""
    with Gateway(hub.url, token="g", spool=tmp_path, close_timeout_s=LIMIT_S) as gateway:
        devices = [gateway.device(f"barn-{number}") for number in range(5)]
        for step in range(30):
            for number, device in enumerate(devices):
                device.record(level=float(100 * number + step))
            if step % 10 == 5:
                hub.cut()
        for device in devices:
            device.flush(LIMIT_S)

    assert values(hub) == sorted(float(100 * number + step) for number in range(5) for step in range(30))


def test_device_is_the_same_while_it_is_open(hub: FakeHub, tmp_path: Path) -> None:
    """One that was closed by itself is made anew and goes on where its spool was."""
    with Gateway(hub.url, token="g", spool=tmp_path) as gateway:
        device = gateway.device("barn-1")
        assert gateway.device("barn-1") is device
        device.record(level=1.0)
        device.close()
        device.close()
        again = gateway.device("barn-1")
        again.record(level=2.0)
        again.flush(LIMIT_S)

    assert (values(hub), hub.connections) == ([1.0, 2.0], 1)
    assert len({hello["stream"] for hello in hub.model.hellos}) == 1


def test_commands_and_states_are_those_of_a_device(hub: FakeHub) -> None:
    """A function may be a command before and after the device is open; what it reports reaches the hub."""
    with Gateway(hub.url, token="g", spool=":memory:") as gateway:
        device = gateway.device("barn-1")

        @device.command
        def fan(speed: int) -> int:
            return speed

        device.report(speed=3)
        # The first may have been said when the hub welcomed it, before the program reported anything.
        hub.wait_for(lambda: any(report["state"] == {"speed": 3} for report in hub.model.reported))


def test_gateway_is_used_while_open_only(hub: FakeHub) -> None:
    """Before and after there is no device; what is no name makes none."""
    gateway = Gateway(hub.url, token="g", spool=":memory:")
    with pytest.raises(MisuseError, match="not open"):
        gateway.device("barn-1")
    with gateway:
        with pytest.raises(MisuseError, match="name"):
            gateway.device("barn/1")
        with pytest.raises(MisuseError, match="link"):
            gateway.device("barn-1", link="slow")
        device = gateway.device("barn-1")
    gateway.close()

    for use in (lambda: gateway.device("barn-1"), gateway.open, lambda: device.record(level=1.0), device.open):
        with pytest.raises(MisuseError):
            use()


def test_gateway_without_a_hub_closes_soon(tmp_path: Path) -> None:
    """However many devices wait: all of them together as long as one."""
    gateway = Gateway("ws://127.0.0.1:9", token="g", spool=tmp_path, close_timeout_s=0.5)
    with gateway:
        for number in range(20):
            gateway.device(f"barn-{number}").record(level=1.0)
        begun = time.monotonic()

    assert time.monotonic() - begun < 5.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork_leaves_the_gateway_to_the_parent(hub: FakeHub, tmp_path: Path) -> None:
    """In the child it is closed, and cannot harm the parent's."""
    program = (
        "import os, sys, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "from device_sdk import Gateway, MisuseError\n"
        "with Gateway(sys.argv[1], token='g', spool=sys.argv[2]) as gateway:\n"
        "    device = gateway.device('barn-1')\n"
        "    device.record(t=1.0)\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        for use in (lambda: device.record(t=2.0), lambda: gateway.device('barn-1')):\n"
        "            try:\n"
        "                use()\n"
        "            except MisuseError as error:\n"
        "                print(error, flush=True)\n"
        "        device.close()\n"
        "        gateway.close()\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
        "    device.record(t=3.0)\n"
        "    device.flush(10)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, hub.url, str(tmp_path)], capture_output=True, text=True, timeout=30, check=True
    )

    assert "opened before a fork" in run.stdout
    assert "gateway is not open" in run.stdout
    assert values(hub) == [1.0, 3.0]
