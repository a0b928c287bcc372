"""`device_sdk.uplink`: one real connection, as many as there are devices, each with its own end."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from device_sdk.clock import Clock
from device_sdk.envelope import MAX_NUMBER, unwrap, wrap
from device_sdk.errors import AuthenticationError, ConnectionLostError
from device_sdk.transport import LinkError, Receiver
from device_sdk.uplink import ChildConnection, Uplink
from device_sdk.wire import Bye, Close, encode

pytestmark = pytest.mark.asyncio


class Wire:
    """The real connection: keeps what is sent."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.is_writable = True
        self.is_closed = False
        self.sent: list[tuple[int, bytes]] = []
        self.intervals: list[float] = []

    def send(self, messages: Sequence[bytes]) -> None:
        """Keep them, without their envelopes."""
        self.sent += [unwrap(message) for message in messages]

    def keep_alive(self, interval_s: float) -> None:
        """Keep it."""
        self.intervals.append(interval_s)

    def close(self) -> None:
        """Note it."""
        self.is_closed = True

    async def wait_closed(self) -> None:
        """Closed at once."""


class Network:
    """Makes connections, or fails as it is told; ``attempts`` are counted."""

    def __init__(self) -> None:
        self.wires: list[Wire] = []
        self.failures: list[LinkError] = []
        self.attempts = 0
        self.gate: asyncio.Event | None = None
        self.ends_with: LinkError | None = None

    async def connect(self, receiver: Receiver) -> Wire:
        """Connect."""
        self.attempts += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.wires.append(Wire(receiver))
        if self.ends_with is not None:
            asyncio.get_running_loop().call_soon(receiver.closed, self.ends_with)
        return self.wires[-1]


class Ear:
    """A device's receiver."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.ends: list[LinkError] = []
        self.turns = 0

    def message(self, data: bytes) -> None:
        """Keep it."""
        self.heard.append(data)

    def writable(self) -> None:
        """Count."""
        self.turns += 1

    def closed(self, error: LinkError) -> None:
        """Keep it."""
        self.ends.append(error)


class Standing(Clock):
    """A clock that stands, where no pause is due any more."""

    now = 1000.0

    def monotonic_s(self) -> float:
        """Return the time."""
        return self.now


def make() -> tuple[Uplink, Network, Standing]:
    """Return an uplink on a network of the test."""
    network, clock = Network(), Standing()
    return Uplink(network, clock), network, clock


async def two(uplink: Uplink) -> tuple[ChildConnection, Ear, ChildConnection, Ear]:
    """Connect two devices."""
    a, b = Ear(), Ear()
    return await uplink.connect(a), a, await uplink.connect(b), b


async def test_devices_share_one_connection() -> None:
    """What each says has its number, and what the hub says reaches the one it is for."""
    uplink, network, _ = make()
    first, ear, second, other = await two(uplink)
    first.send([b"{}", b"\x01"])
    second.send([b'{"op":"x"}'])
    (wire,) = network.wires
    uplink.message(wrap(second.number, b'{"op":"welcome"}'))
    uplink.message(wrap(60_000, b'{"op":"ack"}'))

    assert wire.sent == [(first.number, b"{}"), (first.number, b"\x01"), (second.number, b'{"op":"x"}')]
    assert (ear.heard, other.heard) == ([], [b'{"op":"welcome"}'])


async def test_opening_is_shared() -> None:
    """Any number of devices that want to connect make one attempt, and one that gives up takes no other with it."""
    uplink, network, _ = make()
    network.gate = asyncio.Event()
    waiting = [asyncio.create_task(uplink.connect(Ear())) for _ in range(20)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    network.gate.set()
    done = await asyncio.gather(*waiting[1:])

    assert network.attempts == 1
    assert len({line.number for line in done}) == 19


async def test_failure_is_told_to_all_and_the_network_left_alone() -> None:
    """Every device hears why; whoever asks again waits for the uplink's own pause."""
    uplink, network, _ = make()
    network.failures = [ConnectionLostError("no route", retry_ms=60_000)]
    failed = await asyncio.gather(*(uplink.connect(Ear()) for _ in range(5)), return_exceptions=True)
    again = asyncio.create_task(uplink.connect(Ear()))
    for _ in range(5):
        await asyncio.sleep(0)

    assert [str(error) for error in failed] == ["no route"] * 5
    assert (network.attempts, again.done()) == (1, False)
    await uplink.close()
    assert again.cancelled() or isinstance(await _outcome(again), asyncio.CancelledError)


async def test_network_is_tried_again_after_the_pause() -> None:
    """And then at once."""
    uplink, network, clock = make()
    network.failures = [ConnectionLostError("no route", retry_ms=60_000)]
    with pytest.raises(ConnectionLostError):
        await uplink.connect(Ear())
    clock.now += 61
    await uplink.connect(Ear())

    assert network.attempts == 2


async def test_hub_that_closes_at_once_is_left_alone_too() -> None:
    """The device hears why, and nobody calls again before the pause: it was a storm of connections."""
    uplink, network, _ = make()
    network.ends_with = AuthenticationError("revoked")
    first = asyncio.create_task(uplink.connect(Ear()))
    for _ in range(50):
        await asyncio.sleep(0)
    second = asyncio.create_task(uplink.connect(Ear()))
    for _ in range(50):
        await asyncio.sleep(0)

    assert (network.attempts, second.done()) == (1, False)
    assert first.done()
    assert isinstance(await _outcome(first), AuthenticationError)
    await uplink.close()


async def _outcome(task: "asyncio.Task[Any]") -> object:
    try:
        return await task
    except BaseException as error:
        return error


@pytest.mark.parametrize("error", [ConnectionLostError("cut"), AuthenticationError("revoked")], ids=str)
async def test_lost_connection_ends_every_device(error: LinkError) -> None:
    """Once each; the next connection has other numbers."""
    uplink, network, clock = make()
    first, ear, second, other = await two(uplink)
    uplink.closed(error)
    first.send([b"{}"])
    first.close()
    clock.now += 1000
    again = await uplink.connect(Ear())

    assert (ear.ends, other.ends) == ([error], [error])
    assert network.wires[0].sent == []
    assert again.number not in (first.number, second.number)
    assert len(network.wires) == 2


async def test_bye_of_the_hub_ends_the_device_it_is_for() -> None:
    """With its code, its words and its pause; the other one goes on, also on the wire."""
    uplink, network, _ = make()
    first, ear, second, other = await two(uplink)
    bye = Bye(5000, Close.FORBIDDEN, "child_pending", "barn-1 waits")
    uplink.message(wrap(first.number, encode(bye)))
    first.close()
    uplink.message(wrap(first.number, b'{"op":"ack"}'))
    second.send([b"{}"])

    (error,) = ear.ends
    assert isinstance(error, ConnectionLostError)
    assert (error.code, error.retry_ms) == (Close.FORBIDDEN, 5000)
    assert "child_pending: barn-1 waits" in str(error)
    assert (ear.heard, other.ends) == ([], [])
    assert network.wires[0].sent == [(second.number, b"{}")]


async def test_bye_to_all_is_for_each_device() -> None:
    """A hub that stops says it once."""
    uplink, _, _ = make()
    _, ear, _, other = await two(uplink)
    uplink.message(encode(Bye(700)))

    assert ear.heard == other.heard == [encode(Bye(700))]


@pytest.mark.parametrize("says_bye", [True, False])
async def test_device_that_leaves_says_bye_once(says_bye: bool) -> None:
    """Whether its courier did or not: the hub frees its number, and the connection stays."""
    uplink, network, _ = make()
    first, ear, _, _ = await two(uplink)
    if says_bye:
        first.send([encode(Bye())])
    first.close()
    first.close()
    await first.wait_closed()
    (wire,) = network.wires

    assert wire.sent == [(first.number, encode(Bye()))]
    assert (wire.is_closed, first.is_writable, ear.ends) == (False, False, [])


@pytest.mark.parametrize("data", [b'{"op":"welcome"}', b"", b"\x03", b'{"n":0,"op":"ack"}'], ids=repr)
async def test_hub_that_knows_no_gateways_is_left(data: bytes) -> None:
    """What belongs to nobody ends the connection."""
    uplink, network, _ = make()
    _, ear, _, other = await two(uplink)
    uplink.message(data)

    assert network.wires[0].is_closed
    assert "does not speak to gateways" in str(ear.ends[0])
    assert len(other.ends) == 1


async def test_torn_bye_ends_that_device() -> None:
    """A bye that cannot be read is one all the same."""
    uplink, _, _ = make()
    first, ear, _, other = await two(uplink)
    uplink.message(wrap(first.number, b'{"op":"bye","code":[]}'))

    assert (len(ear.ends), len(other.ends)) == (1, 0)


async def test_line_is_probed_for_the_most_anxious() -> None:
    """As often as the device wants that wants it most, told once."""
    uplink, network, _ = make()
    first, _, second, _ = await two(uplink)
    for line, interval_s in ((first, 900.0), (second, 15.0), (first, 900.0)):
        line.keep_alive(interval_s)

    assert network.wires[0].intervals == [900.0, 15.0]


async def test_room_is_told_to_all() -> None:
    """When the network takes more, each device goes on; while it does not, none may."""
    uplink, network, _ = make()
    first, ear, second, other = await two(uplink)
    network.wires[0].is_writable = False
    assert not first.is_writable
    network.wires[0].is_writable = True
    uplink.writable()

    assert (first.is_writable, second.is_writable, ear.turns, other.turns) == (True, True, 1, 1)


async def test_numbers_in_use_are_passed_over() -> None:
    """They begin again at the end, and two devices never have the same."""
    uplink, _, _ = make()
    first, _, second, _ = await two(uplink)
    second.close()
    numbers = [first.number]
    for _ in range(MAX_NUMBER):
        line = await uplink.connect(Ear())
        numbers.append(line.number)
        line.close()

    assert numbers[-3:] == [MAX_NUMBER, 2, 3]
    assert numbers.count(1) == 1


async def test_closing_is_polite_and_for_good() -> None:
    """The real connection is closed; a device that is still there is told, once, and opens no other."""
    uplink, network, _ = make()
    ear = Ear()
    await uplink.connect(ear)
    await uplink.close()
    await uplink.close()

    assert network.wires[0].is_closed
    assert [str(error).partition(":")[0] for error in ear.ends] == ["the gateway is closed"]
    with pytest.raises(ConnectionLostError, match="the gateway is closed"):
        await uplink.connect(Ear())
    assert network.attempts == 1


async def test_closing_before_anything_was_opened() -> None:
    """Leaves nothing behind."""
    uplink, network, _ = make()
    await uplink.close()

    assert network.attempts == 0
