"""Mode sample: one of n readings of each series, the same ones whoever asks and however often they were cut off."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from device_sdk.reading import Value
from hub.description import ChannelDescription
from hub.live.sample import RUN, chosen, sampled
from tests.support.live_world import NOW_NS, Client, World


def numbers(series: int, counts: Sequence[int], every: int) -> list[int]:
    """Return which of all readings are chosen, when the frames have so many of them each."""
    out: list[int] = []
    before = 0
    for seq, count in enumerate(counts):
        out += [before + at for at in chosen(series, seq, count, every)]
        before += count
    return out


@pytest.mark.parametrize("per_frame", [1, 3, 10, 64, 500])
@pytest.mark.parametrize("every", [1, 2, 7, 10])
def test_of_a_steady_series_one_of_n_is_chosen(per_frame: int, every: int) -> None:
    """Of each n readings in a row exactly one; evenly apart but where a run of them ends."""
    span = every * RUN
    total = -(-4 * span // per_frame) * per_frame

    found = numbers(5, [per_frame] * (total // per_frame), every)

    assert [n // every for n in found if n < 4 * span] == list(range(4 * RUN))
    steps = [b - a for a, b in pairwise(found)]
    assert sum(step != every for step in steps) <= len(found) // RUN


def test_frames_of_any_size_give_one_of_n_on_average() -> None:
    """How a device cuts its frames changes which readings are chosen, not how many."""
    rng = random.Random(7)
    counts = [rng.randrange(1, 30) for _ in range(4000)]

    found = numbers(5, counts, 10)

    assert found == sorted(set(found))
    assert 0.95 < len(found) * 10 / sum(counts) < 1.05


@pytest.mark.parametrize("step", [2, 5, 10, 60])
def test_channel_in_every_second_frame_is_not_left_out(step: int) -> None:
    """A slow channel beside a fast one: neither all nor none of its readings in the long run."""
    share = [
        sum(1 for seq in range(0, 60_000, step) for _ in chosen(series, seq, 1, 10)) / (60_000 / step)
        for series in range(1, 9)
    ]

    assert 0.085 < sum(share) / len(share) < 0.115
    assert min(share) > 0.03


def fill(world: World, first: int, count: int) -> None:
    """Publish readings of two series, one of each in a frame, numbered as a stream numbers them."""
    for k in range(first, first + count):
        world.publish(replace(world.frame({1: [(NOW_NS + k, float(k))], 2: [(NOW_NS + k, -float(k))]}), seq=k))


def values(client: Client, series: int) -> list[Value]:
    """Return the values of a series that a client saw."""
    return [value for number, _, value in client.readings if number == series]


def test_all_watchers_get_the_same_ones() -> None:
    """One in five, each series by itself, live and behind alike, from the ring and from the journal."""
    world = World(ring_bytes=20_000)
    world.add("d", "x")
    world.add("d", "y")
    live = Client(world, mode="sample", every=5).connect()
    fill(world, 0, 500)
    world.settle()
    live.run()
    late = Client(world, mode="sample", every=5, since="00000001.0").connect()
    live.receive()
    late.receive()

    assert len(values(live, 1)) == len(values(live, 2)) == 100
    assert {-float(value) for value in values(live, 2)} != set(values(live, 1))
    assert late.readings == live.readings
    assert late.cursor == "00000001.500"


@pytest.mark.parametrize("seed", range(5))
def test_interrupted_watcher_goes_on_with_the_same_ones(seed: int) -> None:
    """Cut off at random messages, through a restart of the hub: what it saw is what one saw who was never cut off."""
    rng = random.Random(seed)
    world = World(ring_bytes=20_000)
    world.add("d", "x")
    world.add("d", "y")
    client = Client(world, mode="sample", every=7).connect()
    client.receive()

    for part in range(10):
        fill(world, part * 100, 100)
        if part == 5:
            client.drop(rng.randrange(3))
            world.restart("00000002")
            client.connect()
        world.settle()
        client.run()
        client.drop(rng.randrange(4))
        client.connect()
    client.receive()
    whole = Client(world, mode="sample", every=7, since="00000001.0").connect()
    whole.receive()

    assert client.readings == whole.readings, f"seed {seed}"
    assert len(whole.readings) in range(280, 292)


def test_marks_and_scales_stay_with_their_readings() -> None:
    """A late reading that is chosen is marked; values are as they are shown; others of the frame cost nothing."""
    world = World()
    world.add("d", "x")
    world.add("d", "y").described = ChannelDescription(scale=2.0)
    client = Client(world, mode="sample", every=4).connect()
    client.receive()

    frame = world.frame({1: [(NOW_NS + k, float(k)) for k in range(3)], 2: [(NOW_NS + k, float(k)) for k in range(80)]})
    frame.late = ((1, NOW_NS + 40),)
    world.publish(frame)
    world.settle()
    client.receive()

    message = client.messages[-1]
    late = {row for begin, end in message["late"] for row in range(begin, end)}
    of_y = [(row, dt, value) for row, (number, dt, value) in enumerate(message["u"]) if number == 2]
    assert len(of_y) == 20
    assert all(value == 2.0 * dt for _, dt, value in of_y)
    assert [row in late for row, _, _ in of_y] == [dt < 40 for _, dt, _ in of_y]
    assert sampled(frame, {3}, 4) is None
    assert frame.columns[1].column.values[:2] == [0.0, 1.0]


def test_every_one_is_lossless() -> None:
    """It shares the room of those who take all."""
    world = World()
    world.add("d", "x")
    Client(world, mode="sample", every=1).connect()
    Client(world).connect()

    assert world.live.statistics().rooms == 1
