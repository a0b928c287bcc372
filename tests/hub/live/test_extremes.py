"""Mode latest with `agg:"minmax"`: every spike is kept, whatever the rate, the reader's pace and the ring."""

import random
import tracemalloc
from typing import Any

import pytest

from device_sdk.reading import ValueType
from hub.description import ChannelDescription
from hub.live.extremes import Extremes
from hub.model import Frame
from tests.support.live_world import NOW_NS, Client, World, decode

S = 10**9


@pytest.fixture
def world() -> World:
    """A hub with one series."""
    world = World()
    world.add("d", "x")
    return world


def watch(world: World) -> Client:
    """Return a live watcher at two messages a second."""
    client = Client(world, mode="latest", max_hz=2, agg="minmax").connect()
    client.receive()
    return client


def rows(message: dict[str, Any]) -> list[tuple[float, str]]:
    """Return (value, marks) of the rows of a message: - is least, + is greatest."""
    marks = [""] * len(message["u"])
    for name, sign in (("least", "-"), ("greatest", "+")):
        for begin, end in message.get(name, ()):
            for row in range(begin, end):
                marks[row] += sign
    return [(row[2], mark) for row, mark in zip(message["u"], marks, strict=True)]


def told(client: Client) -> list[list[tuple[float, str]]]:
    """Return the rows of each data message that has arrived."""
    return [rows(message) for message in client.receive() if message["op"] == "data"]


def test_spikes_between_two_messages_are_kept(world: World) -> None:
    """The first reading goes at once; then one message with least, greatest and newest, in order of time."""
    client = watch(world)

    for k, value in enumerate([20.0, 21.0, 99.5, 20.5, -40.0, 21.5, 22.0]):
        world.record(1, NOW_NS + k * S, value)
    assert told(client) == [[(20.0, "")]]
    world.settle(0.5)

    assert told(client) == [[(99.5, "+"), (-40.0, "-"), (22.0, "")]]
    assert client.readings[1:] == [
        (1, NOW_NS + 2 * S, 99.5), (1, NOW_NS + 4 * S, -40.0), (1, NOW_NS + 6 * S, 22.0),
    ]  # fmt: skip
    assert client.cursor == "00000001.7"


def test_one_reading_may_be_the_newest_and_the_greatest(world: World) -> None:
    """A reading is told once; a series whose value stood still is told by its newest reading alone, without marks."""
    world.add("d", "y")
    client = watch(world)
    world.record(1, NOW_NS, 0.0)
    told(client)

    world.publish(
        world.frame({1: [(NOW_NS + k, float(k)) for k in range(9)], 2: [(NOW_NS + k, 5.0) for k in range(9)]})
    )
    world.settle(0.5)

    assert told(client) == [[(0.0, "-"), (8.0, "+"), (5.0, "")]]
    assert client.readings[-1] == (2, NOW_NS + 8, 5.0)


@pytest.mark.parametrize(
    ("scale", "marked"),
    [(0.1, [(-1.0, "-"), (9.0, "+"), (0.5, "")]), (-1.0, [(10.0, "+"), (-90.0, "-"), (-5.0, "")])],
)
def test_extremes_are_of_the_values_shown(scale: float, marked: list[tuple[float, str]]) -> None:
    """With a negative scale the least stored value is the greatest shown."""
    world = World()
    series = world.add("d", "x", ValueType.INT)
    series.described = ChannelDescription(scale=scale)
    client = watch(world)
    world.record(1, NOW_NS, 0)
    told(client)

    world.publish(world.frame({1: [(NOW_NS + 1, -10), (NOW_NS + 2, 90), (NOW_NS + 3, 5)]}))
    world.settle(0.5)

    assert told(client) == [marked]


def test_switches_and_texts_and_large_integers(world: World) -> None:
    """A switch that was on for a moment is seen; a text has no order, its newest is told; integers stay exact."""
    world.add("d", "on", ValueType.BOOL)
    world.add("d", "state", ValueType.STR)
    world.add("d", "count", ValueType.INT)
    client = watch(world)
    world.record(1, NOW_NS, 0.0)
    told(client)

    world.publish(world.frame({2: [(NOW_NS, False), (NOW_NS + 1, True), (NOW_NS + 2, False)]}))
    world.publish(world.frame({3: [(NOW_NS, "b"), (NOW_NS + 1, "a")]}))
    world.publish(world.frame({3: [(NOW_NS + 2, "c")], 4: [(NOW_NS, 2**62), (NOW_NS + 1, 2**62 + 1)]}))
    world.settle(0.5)
    client.receive()

    assert client.readings[1:] == [
        (2, NOW_NS, False), (2, NOW_NS + 1, True), (2, NOW_NS + 2, False), (3, NOW_NS + 2, "c"),
        (4, NOW_NS, 2**62), (4, NOW_NS + 1, 2**62 + 1),
    ]  # fmt: skip


def test_late_readings_do_not_count(world: World) -> None:
    """What a device had kept back is no spike of now: as `latest`, it is not told."""
    client = watch(world)
    world.record(1, NOW_NS, 1.0)
    told(client)

    backlog = world.frame({1: [(NOW_NS - 60 * S, 1000.0), (NOW_NS - 10**7, 3.0), (NOW_NS + 1, 2.0)]})
    backlog.late = ((0, NOW_NS - 10**7),)
    only_late = world.frame({1: [(NOW_NS - 60 * S, 2000.0)]})
    only_late.late = ((0, NOW_NS - 10**7),)
    world.publish(backlog, only_late)
    world.settle(0.5)

    assert told(client) == [[(3.0, "+"), (2.0, "-")]]


def test_newest_is_by_time_and_the_one_that_came_last() -> None:
    """Within a frame and between frames; of two readings at the same time the second holds, as in the store."""
    world = World()
    series = world.add("d", "x")
    extremes = Extremes()

    extremes.add([world.frame({1: [(5, 1.0), (9, 2.0), (9, 3.0), (7, 4.0)]})], {1: series})
    extremes.add([world.frame({1: [(8, 3.5)]})], {1: series})

    assert list(extremes.rows({1: series})) == [
        (1, 5, 1.0, True, False),
        (1, 7, 4.0, False, True),
        (1, 9, 3.0, False, False),
    ]
    assert list(extremes.rows({})) == []


def test_rate_holds_and_nothing_is_lost_at_it(world: World) -> None:
    """At 2 Hz a thousand readings in ten seconds are 21 messages at most; the extremes of all are among them."""
    client = watch(world)

    for k in range(1000):
        world.publish(world.frame({1: [(NOW_NS + k, float(k * 7919 % 1000))]}))
        world.settle(0.01)
    world.settle(0.5)

    messages = told(client)
    assert len(messages) <= 22
    values = [value for message in messages for value, _ in message]
    assert (min(values), max(values), values[-1]) == (0.0, 999.0, float(999 * 7919 % 1000))


def test_watcher_that_stalls_misses_no_spike_though_the_ring_is_short() -> None:
    """It reads the journal, one message a page: what it owes is a cursor, and a spike of a second ago is in it."""
    world = World(ring_bytes=2_000)
    world.add("d", "x")
    client = watch(world)
    client.drop()
    for k in range(3000):
        world.publish(world.frame({1: [(NOW_NS + k, 500.0 if k == 17 else 1.0 + k / 3000)]}))
    world.settle(0.5)

    client.connect()
    messages = told(client)

    values = [value for message in messages for value, _ in message]
    assert max(values) == 500.0
    assert values[-1] == 1.0 + 2999 / 3000
    assert len(values) < 100
    assert client.messages[0]["op"] == "ok"


def test_more_in_one_tick_than_the_ring_holds(world: World) -> None:
    """Live watchers go to the journal for it, and every spike is there."""
    world = World(ring_bytes=2_000)
    world.add("d", "x")
    client = watch(world)

    world.publish(*[world.frame({1: [(NOW_NS + k, 500.0 if k == 3 else 1.0)]}) for k in range(300)])
    world.settle()
    client.run()

    assert [(500.0, "+") in message for message in told(client)].count(True) == 1
    assert client.cursor == "00000001.300"


def test_resumed_watcher_begins_behind_its_cursor(world: World) -> None:
    """What was told is not told again; what came meanwhile is, as one message."""
    client = watch(world)
    world.record(1, NOW_NS, 1.0)
    client.drop()
    world.record(1, NOW_NS + 1, 9.0)
    world.record(1, NOW_NS + 2, 2.0)

    client.connect()

    assert told(client) == [[(9.0, "+"), (2.0, "-")]]


def test_rate_can_be_set(world: World) -> None:
    """`set` keeps the extremes."""
    client = watch(world)
    client.say({"op": "set", "sub": "s1", "max_hz": 50})
    client.run()
    world.record(1, NOW_NS, 1.0)

    world.publish(world.frame({1: [(NOW_NS + 1, 7.0), (NOW_NS + 2, 3.0), (NOW_NS + 3, 5.0)]}))
    world.settle()

    assert told(client) == [[(1.0, "")], [(7.0, "+"), (3.0, "-"), (5.0, "")]]


def test_what_is_kept_does_not_grow_with_the_readings() -> None:
    """Three readings a series, however many come."""
    world = World()
    series = world.add("d", "x")
    extremes = Extremes()
    frame = world.frame({1: [(NOW_NS + k, float(k)) for k in range(100)]})
    extremes.add([frame], {1: series})

    tracemalloc.start()
    for _ in range(100):
        extremes.add([frame], {1: series})
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert extremes.seen == 10_100
    assert taken < 8_000


@pytest.mark.parametrize("seed", range(8))
def test_every_message_is_exact_through_stalls_and_cuts(seed: int) -> None:
    """Between two cursors: the least, the greatest and the newest of exactly the readings that came there."""
    rng = random.Random(seed)
    world = World(ring_bytes=rng.choice([3_000, 1 << 24]))
    for channel in "xyz":
        world.add("d", channel)
    client = watch(world)
    client.high_water = 2_000

    for turn in range(300):
        world.publish(*[some_frame(world, rng) for _ in range(rng.randrange(4))])
        world.settle(rng.choice([0.0, 0.02, 0.3]))
        client.connection.is_stalled = rng.random() < 0.3
        if not client.connection.is_stalled:
            client.connection.drain()
        client.run()
        if turn == 150:
            client.drop(rng.randrange(3))
            world.restart("00000002")
            client.connect()
        if rng.random() < 0.1:
            client.drop(rng.randrange(3))
            client.connect()
        client.receive()
    client.connection.drain()
    world.settle(1)
    client.run()
    client.receive()

    before = 0
    for message in client.messages:
        if message["op"] == "data":
            upto = offset_of(message["o"])
            assert decoded(message, client) == expected(world, before, upto), f"seed {seed} at {message['o']}"
        before = offset_of(message.get("o", message.get("from", f"x.{before}")))
    assert before == world.journal.head


def some_frame(world: World, rng: random.Random) -> Frame:
    """Return a frame of some readings of some series, out of order, some of them late."""
    channels = rng.sample((1, 2, 3), rng.randrange(1, 4))
    frame = world.frame(
        {
            i: [(NOW_NS + rng.randrange(1000), float(rng.randrange(50))) for _ in range(rng.randrange(1, 6))]
            for i in channels
        }
    )
    if rng.random() < 0.2:
        frame.late = ((rng.randrange(len(frame.columns)), NOW_NS + rng.randrange(1000)),)
    return frame


def offset_of(cursor: str) -> int:
    """Return the offset in a cursor."""
    return int(cursor.split(".")[1])


def decoded(message: dict[str, Any], client: Client) -> dict[int, tuple[float, float, tuple[int, float]]]:
    """Return series → (least, greatest, newest reading) as a client reads them off a message."""
    out: dict[int, tuple[float, float, tuple[int, float]]] = {}
    marks = rows(message)
    for (number, time_ns, _), (value, mark) in zip(decode(message, client.names), marks, strict=True):
        low, high, _ = out.get(number, (value, value, (0, 0.0)))
        out[number] = (value if "-" in mark else low, value if "+" in mark else high, (time_ns, value))
    return out


def expected(world: World, after: int, upto: int) -> dict[int, tuple[float, float, tuple[int, float]]]:
    """Return the same, computed from all frames in the plainest way."""
    kept: dict[int, list[tuple[int, float]]] = {}
    for frame in world.journal.read(after, 2**62, upto) if upto > after else ():
        edges = dict(frame.late)
        for at, of in enumerate(frame.columns):
            for dt, value in zip(of.column.dt, of.column.values, strict=True):
                time_ns = frame.t0 + dt * frame.tick
                if time_ns >= edges.get(at, 0):
                    kept.setdefault(of.series.id, []).append((time_ns, float(value)))
    return {
        number: (
            min(v for _, v in found),
            max(v for _, v in found),
            max(enumerate(found), key=lambda e: (e[1][0], e[0]))[1],
        )
        for number, found in kept.items()
    }
