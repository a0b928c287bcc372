"""Pages from disk: the store is waited for, expiry is told, answers go to the subscription."""

import asyncio

from hub.gateway.watch_pages import PageReader
from hub.live.cursor import Start
from hub.live.room import RoomKey
from hub.live.subscription import HistoryPage, JournalPage, Subscription
from hub.live.watch import SocketOutlet
from tests.support.fake_connection import FakeConnection
from tests.support.live_world import NOW_NS, FakeLink, StoreInStep, World


class LateStore:
    """A consumer that is late for the first ``late`` questions."""

    def __init__(self, late: int) -> None:
        self.asked: list[int] = []
        self._late = late

    async def applied(self, offset: int, timeout_s: float) -> bool:
        """Answer no, then yes."""
        self.asked.append(offset)
        return len(self.asked) > self._late


def make(start: Start) -> tuple[World, FakeConnection, Subscription]:
    """Return a subscription to a hub with three readings whose ring is too small for two."""
    world = World(ring_bytes=500)
    world.add("d", "x")
    for k in range(3):
        world.record(1, NOW_NS + k, float(k))
    connection = FakeConnection()
    outlet = SocketOutlet(FakeLink(connection), "s1")
    key = RoomKey("default", ("*/*",), (), ("*/*",))
    return world, connection, Subscription(world.live, key, start, outlet, lambda: None, lambda _: None)


async def drive(world: World, subscription: Subscription, consumer: LateStore | StoreInStep) -> None:
    """Step until live."""
    pages = PageReader(world.journal, world.store, consumer)
    while (need := subscription.step()) is not False:
        if need is not True:
            await pages.read(subscription, need)


def test_history_is_read_only_when_the_store_has_applied_the_head() -> None:
    """A late store means lag messages and another try; then the rows come."""
    world, connection, subscription = make(Start(3, NOW_NS))
    consumer = LateStore(2)

    asyncio.run(drive(world, subscription, consumer))

    assert consumer.asked == [3, 3, 3]
    messages = connection.take()
    assert [m["op"] for m in messages] == ["series", "lag", "lag", "data", "live"]
    assert len(messages[3]["u"]) == 3


def test_journal_page_reaches_the_subscription() -> None:
    """What the ring has lost comes from the journal."""
    world, connection, subscription = make(Start(0))

    asyncio.run(drive(world, subscription, StoreInStep()))

    assert [m["op"] for m in connection.take()] == ["series", "data", "live"]
    assert world.journal.reads == 1


def test_trimmed_page_is_an_expiry() -> None:
    """An ExpiredError of the journal becomes `reset expired`."""
    world, connection, subscription = make(Start(0))
    world.journal.trim(3)

    asyncio.run(drive(world, subscription, StoreInStep()))

    assert [m["op"] for m in connection.take()] == ["reset", "series", "live"]


def test_needs_are_plain_values() -> None:
    """A need says all a shell has to know."""
    assert JournalPage(1, 2, 3) == JournalPage(1, 2, 3)
    assert HistoryPage([1], 0, 1, 2, 3).applied == 3
