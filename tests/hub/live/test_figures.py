"""How subscriptions stand, as operators see it: behind, messages, rate and conflated are what was sent and is owed."""

from typing import Any

from device_sdk.reading import ValueType
from hub.live.figures import Pace, SubscriptionFigures
from tests.support.live_world import NOW_NS, Client, World

EXCLUDED: dict[str, Any] = {"not": ["*/debug"]}


def figures(client: Client) -> SubscriptionFigures:
    """Return the figures of the client's one subscription."""
    (one,) = client.session.figures()
    return one


def test_messages_are_those_of_pages_and_of_the_room() -> None:
    """A subscription that read pages, was live, fell behind and came back counts each of its messages once."""
    world = World()
    world.add("d", "x", ValueType.STR)
    for k in range(3):
        world.record(1, NOW_NS + k, str(k))
    other = Client(world).connect()
    client = Client(world, since="00000001.0").connect()
    for k in range(400):
        client.connection.is_stalled = k >= 5
        world.record(1, NOW_NS + 10 + k, "x" * 1000)
    stalled = figures(client)

    client.connection.drain()
    client.run()
    world.record(1, NOW_NS + 500, "end")
    client.receive()
    other.receive()

    assert (stalled.phase, stalled.behind > 100, stalled.max_hz, stalled.conflated) == ("behind", True, None, None)
    assert (figures(client).phase, figures(client).behind) == ("live", 0)
    assert figures(client).messages == client.ops().count("data")
    assert figures(other).messages == other.ops().count("data")


def test_figures_name_what_was_asked_for() -> None:
    """The patterns in normal form, and of a `latest` subscription its rate and how many readings were replaced."""
    world = World()
    world.add("d", "x")
    client = Client(world, match=["d"], mode="latest", max_hz=2, **EXCLUDED).connect()
    for k in range(5):
        world.record(1, NOW_NS + k, float(k))
    world.settle(0.5)

    one = figures(client)

    assert (one.name, one.match, one.exclude, one.max_hz) == ("s1", ("d/*",), ("*/debug",), 2.0)
    assert (one.messages, one.conflated) == (2, 3)


def test_history_is_counted() -> None:
    """Pages of the store and newest values are messages too."""
    world = World()
    world.add("d", "x")
    world.record(1, NOW_NS - 10**9, 1.0)
    history = Client(world, since="-1m").connect()
    newest = Client(world, since="last").connect()
    history.receive()
    newest.receive()

    assert [figures(c).messages for c in (history, newest)] == [1, 1]


def test_rate_is_of_the_last_seconds() -> None:
    """The rate follows within an interval, and right after its start the interval before is told."""
    pace = Pace(100.0)

    young, after_2_s = pace.rate(7, 100.5), pace.rate(20, 102.0)
    pace.mark(150, 115.0)

    assert (young, after_2_s) == (0.0, 10.0)
    assert pace.rate(151, 115.1) == 10.0
    assert pace.rate(150, 125.0) == 0.0


def test_subscription_tells_its_rate() -> None:
    """Ten messages in two seconds are five a second, also behind a ping interval."""
    world = World()
    world.add("d", "x")
    client = Client(world).connect()
    for k in range(10):
        world.record(1, NOW_NS + k, float(k))
        world.settle(0.18)

    assert figures(client).messages_per_s == 5.0
    client.session.tick()
    assert figures(client).messages_per_s == 5.0
