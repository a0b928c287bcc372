"""One subscription: phases, history pages, newest values, lag, position; bounded whatever the client does."""

from typing import Any

import pytest

from device_sdk.reading import ValueType
from hub.description import ChannelDescription
from hub.live.cursor import Start
from hub.live.room import RoomKey
from hub.live.subscription import FOLLOWS, HistoryPage, JournalPage, Phase, Subscription
from hub.live.watch import SocketOutlet
from tests.support.live_world import HIGH_WATER_BYTES, NOW_NS, Client, World

S = 10**9


def test_history_then_live_is_one_stream() -> None:
    """`since` a time: ok, series, the stored rows from then on, live, then what is committed."""
    world = World()
    world.add("d", "x")
    for k in range(10):
        world.record(1, NOW_NS - (10 - k) * S, float(k))

    client = Client(world, since="-5s").connect()
    world.record(1, NOW_NS, 99.0)
    client.receive()

    assert client.ops() == ["ok", "series", "data", "live", "data"]
    assert client.readings == [(1, NOW_NS - (5 - k) * S, float(k + 5)) for k in range(5)] + [(1, NOW_NS, 99.0)]
    assert client.messages[0]["from"] == f"00000001.10.{NOW_NS - 5 * S - 1}"
    assert client.messages[2]["o"] == f"00000001.10.{NOW_NS - S}"


def test_history_waits_for_the_store() -> None:
    """The page asks for H applied; a store that is late makes the watcher wait and hear `lag`, never miss rows."""
    world = World()
    world.add("d", "x")
    world.record(1, NOW_NS - S, 1.0)
    client = Client(world, since="-5s").connect(run=False)
    client.session.step()
    need = client.session.step()
    assert isinstance(need, HistoryPage)
    assert need.applied == 1

    client.session.reader.supply_rows(None)
    client.run()
    client.receive()

    assert client.ops() == ["ok", "series", "lag", "data", "live"]
    assert client.readings == [(1, NOW_NS - S, 1.0)]


def test_history_pages_follow_the_size_of_rows() -> None:
    """Pages of long strings hold fewer rows than pages of numbers: about 64 KiB each."""
    world = World()
    world.add("d", "state", ValueType.STR)
    world.publish(world.frame({1: [(NOW_NS - 3000 * S + k * S, "x" * 1000) for k in range(3000)]}))
    client = Client(world, since="-1h").connect(run=False)
    limits = []

    while (need := client.session.step()) is not False:
        if isinstance(need, HistoryPage):
            limits.append(need.limit)
            world.serve(client.session.reader, need)
            client.receive()

    client.receive()
    assert limits[0] == 1000
    assert set(limits[1:]) == {64}
    assert len(client.readings) == 3000


def test_last_gives_newest_values_then_live() -> None:
    """`since:"last"`: the newest value of each series by event time, then what is committed."""
    world = World()
    world.add("d", "x")
    world.add("d", "y")
    world.record(1, NOW_NS, 1.0)
    world.record(1, NOW_NS - 1, 0.5)
    world.record(2, NOW_NS - 7, 2.0)

    client = Client(world, since="last").connect()
    client.receive()
    world.record(1, NOW_NS + 1, 3.0)
    client.receive()

    assert client.ops() == ["ok", "series", "data", "live", "data"]
    assert sorted(client.readings[:2]) == [(1, NOW_NS, 1.0), (2, NOW_NS - 7, 2.0)]
    assert client.messages[2]["o"] == "00000001.3.last"
    assert client.readings[2] == (1, NOW_NS + 1, 3.0)


def test_last_cut_off_before_live_starts_over_without_a_gap() -> None:
    """A cursor inside the newest values sends them again, and live from the head of then."""
    world = World()
    world.add("d", "x")
    world.record(1, NOW_NS, 1.0)
    client = Client(world, since="last").connect()
    client.drop(3)
    world.record(1, NOW_NS + 1, 2.0)
    world.record(1, NOW_NS + 2, 3.0)

    client.connect()
    client.receive()

    assert client.readings == [(1, NOW_NS, 1.0), (1, NOW_NS + 2, 3.0), (1, NOW_NS + 1, 2.0), (1, NOW_NS + 2, 3.0)]


def selecting(*, tagged: bool = True, **world: Any) -> World:
    """Return a hub with devices a (tag t) and b (no tag), one channel each."""
    made = World(**world)
    made.add("a", "x")
    made.add("b", "x")
    if tagged:
        made.describe("a", "t", site="north")
    return made


@pytest.mark.parametrize(
    ("selector", "seen"),
    [("tag:t", [1]), ("site:north tag:t", [1]), ("site:south", []), ("b", [2]), ("*", [1, 2]), ("b tag:t", [])],
)
def test_selector_chooses_devices_as_elsewhere(selector: str, seen: list[int]) -> None:
    """By name, site and tag; beside the patterns, which choose channels too."""
    world = selecting()
    client = Client(world, match=["*/x"], selector=selector).connect()

    world.record(1, NOW_NS, 1.0)
    world.record(2, NOW_NS, 2.0)
    client.receive()

    assert [number for number, _, _ in client.readings] == seen


@pytest.mark.parametrize("selector", ["colour:red", "  ", "a/b/c", "x" * 3000])
def test_selector_that_cannot_be_read_is_an_error(selector: str) -> None:
    """And leaves nothing behind: the name can be used again."""
    world = selecting()
    client = Client(world, selector=selector).connect()
    client.say({"op": "sub", "id": 2, "sub": "s1", "match": ["**"]})
    client.run()

    assert [m["op"] for m in client.receive()] == ["error", "ok", "series", "live"]
    assert world.live.statistics().rooms == 1


def test_order_of_words_makes_no_other_room() -> None:
    """Who asks the same shares."""
    world = selecting()
    for selector in ("tag:t site:north", "site:north  tag:t tag:t"):
        Client(world, selector=selector).connect()

    assert world.live.statistics().rooms == 1


@pytest.mark.parametrize(
    "how", [{}, {"mode": "latest", "max_hz": 50}, {"mode": "latest", "max_hz": 50, "agg": "minmax"}]
)
def test_series_comes_and_goes_with_the_tag(how: dict[str, Any]) -> None:
    """Gained: `series`, then its data. Lost: `gone`, and nothing of it, also of what was on its way; and back again."""
    world = selecting()
    client = Client(world, selector="tag:t", **how).connect()
    world.record(2, NOW_NS, 2.0)
    client.receive()

    world.describe("b", "t")
    world.settle()
    world.record(2, NOW_NS + 1, 2.1)
    client.receive()
    world.settle()
    assert client.readings == [(2, NOW_NS + 1, 2.1)]
    world.publish(world.frame({1: [(NOW_NS + 2, 1.0)]}))
    world.describe("a", "other")
    world.record(1, NOW_NS + 3, 1.1)
    world.record(2, NOW_NS + 4, 2.2)
    world.describe("a", "t")
    world.record(1, NOW_NS + 5, 1.2)
    client.receive()

    assert client.readings[1:] == [(2, NOW_NS + 4, 2.2), (1, NOW_NS + 5, 1.2)]
    told = [(sorted(m["s"]), m.get("gone")) for m in client.messages if m["op"] == "series"]
    assert told == [(["1"], None), (["2"], None), ([], [1]), (["1"], None)]


def test_described_again_without_effect_says_nothing() -> None:
    """Another tag, or the same once more, is no news for a watcher; nor is anything for one without a selector."""
    world = selecting()
    chosen, all_of_it = Client(world, selector="tag:t").connect(), Client(world).connect()
    chosen.receive()
    all_of_it.receive()

    world.describe("a", "t", "u")
    world.describe("b", "u")
    world.settle()

    assert chosen.receive() == all_of_it.receive() == []


def test_who_is_behind_gets_what_belongs_when_it_is_sent() -> None:
    """A watcher that reads the journal: from the moment of the change on pages hold the one and not the other."""
    world = selecting(ring_bytes=2_000)
    client = Client(world, selector="tag:t", since="00000001.0")
    for k in range(3000):
        world.publish(world.frame({1: [(NOW_NS + k, 1.0)], 2: [(NOW_NS + k, 2.0)]}))
    client.connect(run=False)
    for _ in range(4):
        need = client.session.step()
        if not isinstance(need, bool):
            world.serve(client.session.reader, need)

    world.describe("a")
    world.describe("b", "t")
    client.run()
    client.receive()

    ops = [(m["op"], m.get("gone")) for m in client.messages]
    changed = ops.index(("series", [1]))
    before, after = client.messages[:changed], client.messages[changed + 1 :]
    assert {row[0] for m in before for row in m.get("u", ())} == {1}
    assert {row[0] for m in after for row in m.get("u", ())} == {2}
    assert client.messages[changed]["s"].keys() == {"2"}


def test_history_of_a_series_that_leaves_while_it_is_read() -> None:
    """A page that comes from the store after the change holds nothing of it."""
    world = selecting(tagged=False)
    world.describe("a", "t")
    world.describe("b", "t")
    for k in range(10):
        world.record(1, NOW_NS - S + k, 1.0)
        world.record(2, NOW_NS - S + k, 2.0)
    client = Client(world, selector="tag:t", since="-5s").connect(run=False)
    while not isinstance(need := client.session.step(), HistoryPage):
        pass
    world.serve(client.session.reader, need)

    world.describe("a")
    client.run()
    client.receive()

    assert client.readings == [(2, NOW_NS - S + k, 2.0) for k in range(10)]
    assert client.is_live


def test_series_that_comes_and_goes_for_ever_costs_no_memory() -> None:
    """The catalog is rewritten; a watcher that was behind all the while hears the last state."""
    world = selecting()
    client = Client(world, selector="tag:t").connect()
    client.receive()
    for _ in range(2000):
        world.describe("a")
        world.describe("a", "t")
    world.settle()
    client.run()

    assert client.receive()[-1]["s"].keys() == {"1"}
    (room,) = world.live._rooms.values()
    assert len(room.catalog) < 600


def test_stalled_watcher_is_bounded_told_and_complete() -> None:
    """A client that stops reading costs one write buffer; when it reads again it hears how far and gets everything."""
    world = World(ring_bytes=100_000)
    world.add("d", "x", ValueType.STR)
    client = Client(world).connect()
    client.receive()
    client.connection.is_stalled = True

    for k in range(2000):
        world.record(1, NOW_NS + k, f"{k:04}" + "x" * 1000)
        client.run()
    assert client.connection.peak_bytes < HIGH_WATER_BYTES + 64 * 1024
    for _ in range(50):
        client.connection.drain()
        client.connection.is_stalled = True
        client.run()
        client.receive()
    client.connection.drain()
    client.run()
    client.receive()

    assert [v for _, _, v in client.live_readings] == [v for _, _, v, _ in world.expected]
    assert client.connection.peak_bytes < HIGH_WATER_BYTES + 256 * 1024
    assert client.ops().count("series") == 1
    lags = [m for m in client.messages if m["op"] == "lag"]
    assert lags[0]["behind"] > 1000
    assert len(lags) == 1


def test_stalled_latest_watcher_gets_the_newest_value_on_drain() -> None:
    """In mode latest a drained watcher gets one value per series, the true last one, and the number conflated."""
    world = World()
    world.add("d", "x", ValueType.STR)
    client = Client(world, mode="latest", max_hz=50).connect()
    client.receive()
    client.connection.is_stalled = True
    for k in range(1000):
        world.record(1, NOW_NS + k, f"{k:04}" + "x" * 1000)

    client.connection.drain()
    client.run()
    world.settle()
    messages = client.receive()

    assert client.readings[-1][2] == "0999" + "x" * 1000
    assert [m["op"] for m in messages[-2:]] == ["lag", "data"]
    assert client.messages[-2]["behind"] > 500


def test_quiet_subscription_is_told_its_position() -> None:
    """Each ping interval a subscription that got nothing while the hub moved on is sent where it stands."""
    world = World()
    world.add("d", "x")
    world.add("other", "x")
    client = Client(world, match=["d"]).connect()
    client.receive()

    world.record(2, NOW_NS, 1.0)
    client.session.tick()
    client.session.tick()

    assert client.receive() == [{"op": "live", "sub": "s1", "o": "00000001.1"}]


def test_stuck_subscription_is_told_its_lag_each_tick() -> None:
    """While a watcher that was live cannot be served, it is told how far behind it is, once per ping interval."""
    world = World()
    world.add("d", "x", ValueType.STR)
    client = Client(world).connect()
    client.receive()
    client.connection.is_stalled = True
    for k in range(500):
        world.record(1, NOW_NS + k, "x" * 1000)

    client.session.tick()
    client.connection.drain()

    assert client.receive()[-1]["op"] == "lag"


def test_expired_while_stalled_says_reset_and_goes_on_live() -> None:
    """Too slow and out of retention: reset expired, then live from the head; nothing is skipped silently."""
    world = World(ring_bytes=2_000)
    world.add("d", "x", ValueType.STR)
    client = Client(world).connect()
    client.receive()
    client.connection.is_stalled = True
    for k in range(500):
        world.record(1, NOW_NS + k, "x" * 1000)
    world.journal.trim(490)

    client.connection.drain()
    client.run()
    world.record(1, NOW_NS + 1000, "after")
    messages = client.receive()

    assert [m["op"] for m in messages[-3:]] == ["lag", "reset", "data"]
    assert messages[-2]["why"] == "expired"
    assert client.readings[-1] == (1, NOW_NS + 1000, "after")


def test_series_added_during_history_arrives_live() -> None:
    """A series that appears while history is sent is named before its first reading, which comes after `live`."""
    world = World()
    world.add("d", "x")
    world.record(1, NOW_NS - S, 1.0)
    client = Client(world, since="-5s").connect(run=False)
    client.run(1)

    world.add("d", "new")
    world.record(2, NOW_NS, 2.0)
    client.run()
    client.receive()

    assert client.readings[-1] == (2, NOW_NS, 2.0)
    assert client.readings[0] == (1, NOW_NS - S, 1.0)


def test_many_series_are_all_named_before_the_first_reading() -> None:
    """A catalog of several messages is told completely before data that may use any of it."""
    world = World()
    for k in range(1200):
        world.add(f"d{k}", "x")
    for k in (1200, 1):
        world.record(k, NOW_NS, float(k))

    client = Client(world, since="00000001.0").connect()
    client.receive()

    assert client.ops() == ["ok", "series", "series", "series", "data", "live"]
    assert len(client.names) == 1200


@pytest.mark.parametrize("mode", ["lossless", "latest"])
def test_change_of_scale_is_told_before_the_first_value_in_it(mode: str) -> None:
    """Behind the new `series` message all values, live, newest and of history, have the new scale; before it none."""
    world = World()
    series = world.add("d", "x")
    world.record(1, NOW_NS - S, 1.0)
    client = Client(world, since="last", mode=mode).connect()

    series.described = ChannelDescription(scale=10)
    world.live.add_series([series])
    world.settle(1.0)
    world.record(1, NOW_NS, 2.0)
    world.settle(1.0)
    client.receive()
    late = Client(world, since="-5s", mode="lossless").connect()
    late.receive()

    told = [m["s"]["1"].get("scale") if m["op"] == "series" else m["u"][0][2] for m in client.messages
            if m["op"] in ("series", "data")]  # fmt: skip
    assert told == [None, 1.0, 10, 20.0]
    assert [value for _, _, value in late.readings] == [10.0, 20.0]


def test_page_encoded_before_a_change_of_scale_is_read_again() -> None:
    """A journal page that waited while the scale changed is not sent in the old one, nor one from the cache."""
    world = World(ring_bytes=1)
    series = world.add("d", "x")
    world.record(1, NOW_NS, 1.0)
    first = Client(world).connect()
    first.receive()
    cursor = first.cursor
    for n in range(3):
        world.record(1, NOW_NS + S * (n + 1), 2.0)
    client = Client(world)
    client.cursor = cursor
    client.connect(run=False)
    need = client.session.step()
    assert isinstance(need, JournalPage)
    world.serve(client.session.reader, need)

    series.described = ChannelDescription(scale=10)
    world.live.add_series([series])
    client.run()
    client.receive()

    assert [value for _, _, value in client.readings] == [20.0] * 3


def test_integers_beyond_53_bits_arrive_exactly() -> None:
    """An int series of 64 bits is decoded to the very values, in history and live."""
    world = World()
    world.add("d", "count", ValueType.INT)
    world.record(1, NOW_NS - S, 2**63 - 1)
    client = Client(world, since="-5s").connect()

    world.record(1, NOW_NS, -(2**63))
    client.receive()

    assert [v for _, _, v in client.readings] == [2**63 - 1, -(2**63)]


def make(world: World, start: Start) -> tuple[Subscription, list[Any]]:
    """Return a subscription on its own and the calls of its hooks."""
    calls: list[Any] = []
    client = Client(world).connect()
    client.session.end()
    key = RoomKey("default", ("*/*",), (), ("*/*",))
    outlet = SocketOutlet(client.link, "s")
    return Subscription(world.live, key, start, outlet, lambda: calls.append("wake"), calls.append), calls


def test_phase_not_in_the_table_is_an_error_and_changes_nothing() -> None:
    """Falling behind twice is a bug of the caller: it is raised, and the phase stays."""
    subscription, _ = make(World(), Start(0))
    assert subscription.phase is Phase.BEHIND

    with pytest.raises(RuntimeError, match="behind cannot become behind"):
        subscription.fell_behind(0)

    assert subscription.phase is Phase.BEHIND


def test_every_phase_has_its_followers() -> None:
    """The table names every phase; the end is final."""
    assert set(FOLLOWS) == set(Phase)
    assert FOLLOWS[Phase.ENDED] == frozenset()


def test_answers_after_the_end_are_ignored() -> None:
    """A page that was still being read when the subscription ended is dropped without a word."""
    world = World()
    world.add("d", "x")
    subscription, calls = make(world, Start(0, NOW_NS))
    subscription.step()

    subscription.end()
    subscription.end()
    subscription.supply_rows([])
    subscription.supply_frames([])
    subscription.expired()

    assert subscription.step() is False
    assert calls == [False]
    assert world.live.statistics().rooms == 0


def test_scale_that_changes_while_the_store_is_read_is_told_first() -> None:
    """Rows of history are written behind the `series` message of the scale they are in."""
    world = World()
    series = world.add("d", "x")
    world.record(1, NOW_NS - S, 4.0)
    client = Client(world, since="-1m").connect(run=False)
    while not isinstance(need := client.session.step(), HistoryPage):
        pass

    series.described = ChannelDescription(scale=10)
    world.live.add_series([series])
    world.serve(client.session.reader, need)
    client.run()
    client.receive()

    told = [m["s"]["1"].get("scale") if m["op"] == "series" else m["u"][0][2] for m in client.messages
            if m["op"] in ("series", "data")]  # fmt: skip
    assert told == [None, 10, 40.0]


def test_changed_series_is_told_without_a_reading() -> None:
    """A live watcher hears of a new label now, not with the next reading, which may come in an hour."""
    world = World()
    series = world.add("d", "x")
    world.record(1, NOW_NS, 1.0)
    client = Client(world).connect()
    client.receive()

    series.described = ChannelDescription(label="New")
    world.live.add_series([series])
    world.settle(1.0)
    client.receive()

    assert client.messages[-1]["op"] == "series"
    assert client.messages[-1]["s"]["1"]["label"] == "New"


def test_cursor_behind_what_a_room_with_a_rate_has_sent_is_resumed() -> None:
    """The room waits for its time, the ring has moved on: nothing has expired, and no extreme is left out."""
    world = World(ring_bytes=3_000)
    world.add("d", "x")
    how: dict[str, Any] = {"mode": "latest", "agg": "minmax", "max_hz": 0.01}
    first = Client(world, **how).connect()
    world.record(1, NOW_NS, 1.0)
    for k in range(1, 200):
        world.record(1, NOW_NS + k, 99.0 if k == 100 else float(k % 7))
    second = Client(world, **how)
    second.cursor = "00000001.50"
    second.connect()
    world.settle(200)

    for client in (first, second):
        client.receive()
        assert "reset" not in client.ops()
        assert max(v for _, _, v in client.readings) == 99.0


def test_full_watcher_is_told_the_rest_of_the_series_when_it_reads() -> None:
    """Announcements stop where it is full, and go on there; each series is named once, before its reading."""
    world = World()
    world.add("d", "x")
    client = Client(world, high_water=40_000).connect()
    client.receive()
    client.connection.is_stalled = True

    for k in range(5000):
        world.add(f"device-{k}", "temperature")
    world.settle()
    peak = client.connection.peak_bytes
    for k in range(2, 5002, 100):
        world.record(k, NOW_NS + k, 1.0)
    for _ in range(200):
        client.connection.drain()
        client.connection.is_stalled = True
        client.run()
        client.receive()

    assert peak < 150_000
    assert len(client.live_readings) == 50
    assert sum(len(m["s"]) for m in client.messages if m["op"] == "series") == 5001
