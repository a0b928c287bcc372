"""The live core: a tick that follows the load, rooms that come and go, the sweep, the end."""

from device_sdk.reading import ValueType
from hub.live.budget import MOST_BYTES
from hub.live.figures import Origin, SubscriptionFigures
from hub.live.room import RoomKey
from hub.live.rooms import MAX_TICK_S
from hub.roles import Identity, Role
from tests.support.live_world import NOW_NS, Client, World


class FakeWatcher:
    """A connection that writes down what the core tells it."""

    buffered_bytes = 0

    def __init__(self, identity_id: str) -> None:
        self.identity_id = identity_id
        self.origin = Origin("c-1", Identity(identity_id, "tests", Role.WATCHER), "websocket", "127.0.0.1:5", 0)
        self.ticks = 0
        self.ends: list[tuple[int, int | None]] = []

    def figures(self) -> list[SubscriptionFigures]:
        """No subscription."""
        return []

    def tick(self) -> None:
        """Count."""
        self.ticks += 1

    def end(self, code: int, reason: str, retry_ms: int | None = None) -> None:
        """Keep."""
        self.ends.append((code, retry_ms))


def watched_world() -> tuple[World, Client]:
    """Return a hub with one series and one live watcher."""
    world = World()
    world.add("d", "x")
    client = Client(world).connect()
    client.receive()
    return world, client


def test_idle_hub_flushes_at_once() -> None:
    """After a quiet time the first frame is sent as soon as ready input was read, without waiting for a tick."""
    world, client = watched_world()

    world.publish(world.frame({1: [(NOW_NS, 1.0)]}))
    world.scheduler.advance(0)

    assert [m["op"] for m in client.receive()] == ["data"]


def test_tick_follows_the_cost_of_a_flush() -> None:
    """After a flush that took 1 ms the next one waits 4 ms; what arrives meanwhile leaves together."""
    world, client = watched_world()
    client.connection.on_send = lambda: world.scheduler.spend(0.001)
    world.publish(world.frame({1: [(NOW_NS, 1.0)]}))
    world.scheduler.advance(0)
    begin = world.scheduler.now

    for k in range(1, 4):
        world.publish(world.frame({1: [(NOW_NS + k, float(k))]}))
        world.scheduler.advance(0)
    due = world.scheduler.due()

    assert due is not None
    assert abs(due - begin - 0.004) < 1e-9
    client.receive()
    world.settle()
    (data,) = client.receive()
    assert len(data["u"]) == 3


def test_tick_is_at_most_ten_milliseconds() -> None:
    """However costly flushes are, the next one comes after 10 ms."""
    world, client = watched_world()
    client.connection.on_send = lambda: world.scheduler.spend(0.5)
    world.publish(world.frame({1: [(NOW_NS, 1.0)]}))
    world.scheduler.advance(0)

    world.publish(world.frame({1: [(NOW_NS + 1, 1.0)]}))

    due = world.scheduler.due()
    assert due is not None
    assert due - world.scheduler.now <= MAX_TICK_S + 1e-9


def test_latest_gets_its_last_value_though_nothing_follows() -> None:
    """A burst ends with a timer, not with the next frame: the last value arrives when the rate allows."""
    world = World()
    world.add("d", "x")
    client = Client(world, mode="latest", max_hz=2).connect()

    for k in range(5):
        world.record(1, NOW_NS + k, float(k))
    client.receive()
    assert client.readings == [(1, NOW_NS, 0.0)]
    world.settle(0.5)
    client.receive()

    assert client.readings == [(1, NOW_NS, 0.0), (1, NOW_NS + 4, 4.0)]


def test_without_watchers_nothing_is_scheduled() -> None:
    """A hub nobody watches keeps the ring and does nothing else."""
    world = World()
    world.add("d", "x")

    world.publish(world.frame({1: [(NOW_NS, 1.0)]}))

    assert world.scheduler.due() is None
    assert world.live.statistics().ring_frames == 1


def test_rooms_are_shared_and_end_with_their_last_listener() -> None:
    """Equal keys give one room; when everybody left it is gone."""
    world = World()
    key = RoomKey("default", ("*/*",), (), ("*/*",))

    room = world.live.enter_room(key)
    assert world.live.enter_room(key) is room
    world.live.leave_room(room)
    assert world.live.statistics().rooms == 1
    world.live.leave_room(room)

    assert world.live.statistics().rooms == 0


def test_room_that_ended_leaves_nothing_in_the_cache() -> None:
    """Its chunks could serve nobody: who comes later gets a room with a number of its own."""
    world = World()
    world.add("d", "x")
    clients = [Client(world).connect() for _ in range(2)]
    for k in range(50):
        world.record(1, NOW_NS + k, 1.0)
        world.settle()
    shared = world.live.statistics().cache_bytes

    for client in clients:
        client.drop(0)

    assert shared > 0
    assert (world.live.statistics().rooms, world.live.statistics().cache_bytes) == (0, 0)


def test_sweep_ticks_every_watcher_and_stops_without_any() -> None:
    """One timer serves all connections; it ends when the last has left."""
    world = World()
    watchers = [FakeWatcher("t1"), FakeWatcher("t2")]
    for watcher in watchers:
        world.live.enter(watcher)

    world.scheduler.advance(31)
    for watcher in watchers:
        world.live.leave(watcher)
    world.scheduler.advance(60)

    assert [w.ticks for w in watchers] == [2, 2]
    assert world.scheduler.due() is None


def test_ended_identity_closes_its_watchers_only() -> None:
    """A revoked credential's connections are closed with 4401, the others stay."""
    world = World()
    revoked, other = FakeWatcher("t1"), FakeWatcher("t2")
    world.live.enter(revoked)
    world.live.enter(other)

    world.live.end_identities({"t1", "t9"})

    assert revoked.ends == [(4401, None)]
    assert other.ends == []


def test_stop_spreads_reconnects() -> None:
    """Each watcher is told a time of its own to come back, 500 a second."""
    world = World()
    watchers = [FakeWatcher("t") for _ in range(1001)]
    for watcher in watchers:
        world.live.enter(watcher)

    world.live.stop()

    assert watchers[0].ends == [(4000, 0)]
    assert watchers[500].ends == [(4000, 1000)]
    assert watchers[1000].ends == [(4000, 2000)]
    assert world.scheduler.due() is None


def test_too_much_unsent_closes_the_largest() -> None:
    """Who holds most is told 4429; the figures say so, and who left is forgotten."""
    world = World(unsent_bytes=1000)
    small, large = FakeWatcher("t"), FakeWatcher("t")
    small.buffered_bytes, large.buffered_bytes = 300, 900
    for watcher in (small, large):
        world.live.enter(watcher)

    world.scheduler.advance(15)
    world.live.leave(large)
    world.scheduler.advance(15)

    assert (small.ends, large.ends) == ([], [(4429, None)])
    statistics = world.live.statistics()
    assert (statistics.unsent_bytes, statistics.evicted) == (300, 1)


def test_deliveries_and_pages_count_as_written() -> None:
    """What a room writes and what is caught up in pages both bring the next look; it comes in a later turn."""
    world = World(unsent_bytes=40_000)
    world.add("d", "x", ValueType.STR)
    stalled = FakeWatcher("t")
    stalled.buffered_bytes = 15_000
    world.live.enter(stalled)
    clients = [Client(world).connect() for _ in range(4)]
    world.record(1, NOW_NS, "x" * 1000)
    before = world.live.statistics().unsent_bytes

    world.record(1, NOW_NS + 1, "x" * 1000)
    world.record(1, NOW_NS + 2, "x" * 1000)
    by_room = world.live.statistics().unsent_bytes
    stalled.buffered_bytes = 16_000
    for _ in range(4):
        clients.append(Client(world, since="00000001.0").connect())
    world.settle()

    assert (before, by_room, world.live.statistics().unsent_bytes) == (0, 15_000, 16_000)
    assert world.live.statistics().unsent_mark == 8192


def test_announcements_count_as_written() -> None:
    """Many who come back at once to many series are told more names than readings: the share falls for them too."""
    world = World(unsent_bytes=400_000)
    for k in range(2000):
        world.add(f"device-{k}", "temperature")
    stalled = FakeWatcher("t")
    stalled.buffered_bytes = 100_000
    world.live.enter(stalled)

    Client(world).connect()
    by_subscribing = world.live.statistics().unsent_mark
    world.settle()
    looked = world.live.statistics().unsent_bytes

    assert by_subscribing < MOST_BYTES
    assert looked == 100_000


def test_statistics_tell_who_is_behind() -> None:
    """Live and stalled listeners, deliveries and flushes are counted."""
    world, client = watched_world()
    client.connection.is_stalled = True

    for k in range(400):
        world.record(1, NOW_NS + k, "x" * 1000)

    statistics = world.live.statistics()
    assert (statistics.head, statistics.rooms, statistics.listeners, statistics.behind) == (400, 1, 1, 1)
    assert 200 < statistics.deliveries < 300


def test_deliveries_are_messages() -> None:
    """What is too much for one message leaves as several, and counts as often."""
    world, client = watched_world()
    before = world.live.statistics().deliveries

    world.publish(*(world.frame({1: [(NOW_NS + k * 1000 + i, 1.0) for i in range(300)]}) for k in range(4)))
    world.settle()

    written = [m for m in client.receive() if m["op"] == "data"]
    assert world.live.statistics().deliveries - before == len(written) > 1
