"""A watcher's conversation: ops, limits, and that a cursor resumes without gap or duplicate wherever it was cut."""

import gc
import random
import tracemalloc
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import orjson
import pytest

from hub.errors import ForbiddenError, HubError
from hub.live.message import MAX_MESSAGE_BYTES
from hub.live.watch import MAX_SUBS, MESSAGES_BURST, Decided, WatchSession
from hub.query import parse_time
from hub.roles import Identity, Role
from tests.support.fake_connection import FakeConnection
from tests.support.live_world import NOW_NS, Client, FakeLink, World

S = 10**9


def values(client: Client) -> list[tuple[int, int, object]]:
    """Return what came from `live` on."""
    return list(client.live_readings)


def owed(world: World, after: int = 0) -> list[tuple[int, int, object]]:
    """Return every reading behind the offset, in the journal's order."""
    return [(i, t, v) for i, t, v, offset in world.expected if offset > after]


def test_watch_from_head_gets_each_reading_once_in_order() -> None:
    """Without `since` a watcher gets ok, the series, live, then every reading that is committed from now on."""
    world = World()
    world.add("pump-1", "flow")
    world.record(1, NOW_NS, 1.0)
    client = Client(world).connect()

    for k in range(5):
        world.record(1, NOW_NS + S * k, k + 0.5)
    client.receive()

    assert client.ops() == ["ok", "series", "live", "data", "data", "data", "data", "data"]
    assert values(client) == owed(world, after=1)


def test_welcome_tells_position_and_limits() -> None:
    """hello is answered with the id echoed, the namespace of the credential, the head and the limits."""
    world = World()
    client = Client(world).connect()
    client.receive()

    client.say({"id": 7, "op": "hello", "client": "page/1"})

    (welcome,) = client.receive()
    assert welcome["id"] == 7
    assert welcome["namespace"] == "default"
    assert welcome["head"] == "00000001.0"
    assert welcome["ping"] == 15
    assert welcome["limits"]["subs"] == 64
    assert welcome["limits"]["max_hz"] == 50


def test_welcome_says_whose_credential_it_is_and_when_it_ends() -> None:
    """In seconds from now, so that no clocks are compared; null where it has no end."""
    client = Client(World())
    client.connection = FakeConnection()
    client.link = FakeLink(client.connection, client.high_water)
    identity = Identity("t7", "ann", Role.WATCHER, ends_ns=NOW_NS + 90 * S)
    client.session = WatchSession(
        client.world.live, "default", ["**"], client.link, parse_time, "c-1", identity=identity
    )  # fmt: skip

    client.say({"op": "hello"})

    (welcome,) = client.receive()
    assert (welcome["credential"], welcome["ttl"]) == ("t7", 90.0)


class Deciding:
    """Hooks of a watcher, that answer when the test says so."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self._waiting: list[Decided] = []

    def __call__(self, asked: Sequence[str], decided: Decided) -> None:
        """Take a question; see `hub.live.watch.Decide`."""
        self.asked.append(list(asked))
        self._waiting.append(decided)

    def answer(self, granted: Sequence[str] | HubError) -> None:
        """Answer the oldest."""
        self._waiting.pop(0)(granted)


def deciding(world: World, deciding: Deciding) -> Client:
    """Return a client whose subscriptions are decided by hooks; it has said nothing yet."""
    client = Client(world)
    client.connection = FakeConnection()
    client.link = FakeLink(client.connection, client.high_water)
    client.session = WatchSession(
        world.live, "default", ["**"], client.link, parse_time, "c-1", decide=deciding
    )  # fmt: skip
    return client


def test_subscription_waits_for_its_hooks_and_messages_behind_it_keep_their_order() -> None:
    """What is said meanwhile is done afterwards, one question at a time; each subscription has its own grant."""
    world, hooks = World(), Deciding()
    world.add("pump-1", "flow")
    world.add("lab-1", "t")
    client = deciding(world, hooks)

    client.say({"id": 1, "op": "sub", "sub": "a", "match": ["**"], "max_hz": 5, "mode": "latest"})
    client.say({"id": 2, "op": "sub", "sub": "b", "match": ["pump-1"]})
    client.say({"id": 3, "op": "hello"})
    assert client.receive() == []
    assert hooks.asked == [["**"]]
    hooks.answer(["lab-*/**"])
    hooks.answer(ForbiddenError("hook: closed"))
    client.run()
    client.say({"id": 4, "op": "set", "sub": "a", "max_hz": 2})
    client.run()

    answers = {m["id"]: (m["op"], m.get("granted"), m.get("message")) for m in client.receive() if "id" in m}
    assert list(answers) == [2, 3, 1, 4] or list(answers) == [1, 2, 3, 4]
    assert answers[1] == ("ok", ["**"], None)
    assert answers[2] == ("error", None, "hook: closed")
    assert answers[3][0] == "welcome"
    assert answers[4][0] == "ok"
    assert [s["device"] for s in client.names.values()] == ["lab-1"]


def test_hooks_are_not_passed_by_with_another_token() -> None:
    """Where they decide what a connection sees, `auth` is refused and nothing changes."""
    world, hooks = World(), Deciding()
    world.add("lab-1", "t")
    client = deciding(world, hooks)
    client.say({"id": 1, "op": "sub", "sub": "a", "match": ["**"]})
    hooks.answer(["lab-*/**"])

    client.say({"id": 2, "op": "auth", "token": "**"})
    client.run()

    answers = {m["id"]: (m["op"], m.get("reason")) for m in client.receive() if "id" in m}
    assert answers == {1: ("ok", None), 2: ("error", "bad_request")}


def test_what_waits_for_hooks_is_bounded() -> None:
    """A client that goes on talking while a hook thinks ends with its connection, not with the hub's memory."""
    world, hooks = World(), Deciding()
    client = deciding(world, hooks)
    client.say({"id": 1, "op": "sub", "sub": "a", "match": ["**"]})

    for at in range(100):
        client.say({"id": at, "op": "sub", "sub": "b", "match": ["x" * 200] * 32, "not": ["y" * 200] * 32})
    hooks.answer(["**"])

    assert client.connection.closed_with is not None
    assert client.connection.closed_with[0] == 4029
    assert len(hooks.asked) == 2


def test_answer_of_hooks_after_the_connection_ended_means_nothing() -> None:
    """Nobody is subscribed any more."""
    world, hooks = World(), Deciding()
    client = deciding(world, hooks)
    client.say({"id": 1, "op": "sub", "sub": "a", "match": ["**"]})
    client.say({"id": 2, "op": "hello"})

    client.session.end()
    hooks.answer(["**"])

    assert client.receive() == []


@pytest.mark.parametrize("seed", range(25))
def test_random_aborts_lose_and_double_nothing(seed: int) -> None:
    """However often the connection drops, at whatever message, the readings seen are the journal's, each once."""
    rng = random.Random(seed)
    world = World(ring_bytes=rng.choice([3_000, 20_000, 1 << 24]))
    for k in range(4):
        world.add(f"d{k}", "x")
    clients = [Client(world, high_water=high_water).connect() for high_water in (100, 1_000, 10_000)]
    for client in clients:
        client.receive()
    number = 0

    for _ in range(120):
        for _ in range(rng.randrange(4)):
            number += 1
            readings = [(NOW_NS + number * 1000 + k, float(number * 10 + k)) for k in range(rng.randrange(1, 4))]
            world.publish(world.frame({rng.randrange(1, 5): readings}))
        if rng.random() < 0.6:
            world.settle()
        for client in clients:
            act(client, rng)
    for client in clients:
        client.connection.drain()
        client.run()
    world.settle()
    for client in clients:
        client.run()
        client.receive()

    for client in clients:
        assert values(client) == owed(world), f"seed {seed}"


def act(client: Client, rng: random.Random) -> None:
    """Let a client read, stall, go on or lose its connection."""
    dice = rng.random()
    if dice < 0.1:
        client.drop(rng.randrange(4))
        client.connect(run=rng.random() < 0.5)
    elif dice < 0.15:
        client.connection.is_stalled = True
    elif dice < 0.3:
        client.connection.drain()
    elif dice < 0.7:
        client.run(rng.randrange(1, 4))
    else:
        client.receive()


@pytest.mark.parametrize("seed", range(10))
def test_aborts_inside_history_end_with_the_whole_set(seed: int) -> None:
    """History resumed at any page, then live: the set seen equals the set stored, also for readings 1 ns apart."""
    rng = random.Random(seed)
    world = World(ring_bytes=20_000)
    for k in range(3):
        world.add(f"d{k}", "x")
    number = 0

    def publish(count: int) -> None:
        nonlocal number
        for _ in range(count):
            number += 1
            base = NOW_NS - 3600 * S + number * 5 * S
            readings = [(base + k, float(number * 1000 + k)) for k in range(rng.randrange(1, 40))]
            world.publish(world.frame({rng.randrange(1, 4): readings}))
        world.settle()

    publish(200)
    client = Client(world, since="-59m").connect(run=False)
    start_ns = NOW_NS - 59 * 60 * S
    for _ in range(40):
        client.run(rng.randrange(1, 4))
        publish(rng.randrange(3))
        if rng.random() < 0.4:
            client.drop(rng.randrange(6))
            client.connect(run=False)
    client.run()
    client.receive()

    assert client.is_live
    seen = {(i, t): v for i, t, v in client.readings if t >= start_ns}
    assert seen == {k: v for k, v in world.rows().items() if k[1] >= start_ns}, f"seed {seed}"


def test_seam_under_concurrent_writes_has_no_hole() -> None:
    """Frames committed while history is being read come exactly once after `live`, none is left between."""
    world = World()
    world.add("d", "x")
    for k in range(3000):
        world.publish(world.frame({1: [(NOW_NS - 3000 * S + k * S, float(k))]}))
    world.settle()
    client = Client(world, since="-1h").connect(run=False)
    head = world.live.head

    step = 0
    while not client.is_live:
        client.run(1)
        step += 1
        world.record(1, NOW_NS + step, float(10_000 + step))
        client.receive()

    client.run()
    client.receive()
    world.record(1, NOW_NS + 10**6, 5.5)
    client.receive()
    at = client.ops().index("live")
    live = [m for m in client.messages[at - 2 :] if m["op"] == "data"]
    assert owed(world, after=head) == values(client)
    assert len(client.readings) - len(values(client)) >= 3000
    assert live, "data goes on after live"


def test_restart_with_new_run_resumes_from_the_journal() -> None:
    """A cursor of the run before is good after a restart: what was missed comes from the journal, once."""
    world = World()
    world.add("d", "x")
    client = Client(world).connect()
    world.record(1, NOW_NS, 1.0)
    client.drop()

    world.record(1, NOW_NS + 1, 2.0)
    world.restart("00000002")
    world.record(1, NOW_NS + 2, 3.0)
    client.connect()
    client.receive()

    assert values(client) == owed(world)
    assert client.messages[-4]["recovered"] is True
    assert client.cursor == "00000002.3"


def test_restored_hub_says_reset_run() -> None:
    """A cursor beyond what the restored journal's run wrote, or of a run it never had, is never resumed."""
    world = World()
    world.add("d", "x")
    client = Client(world).connect()
    for k in range(10):
        world.record(1, NOW_NS + k, float(k))
    client.drop()

    world.restore(5, "00000009")
    world.record(1, NOW_NS + 100, 100.0)
    client.connect()
    client.receive()

    ok, reset, _, live = client.messages[-4:]
    assert ok["recovered"] is False
    assert reset == {"op": "reset", "sub": "s1", "why": "run", "head": "00000009.6"}
    assert live["o"] == "00000009.6"


def test_cursor_below_the_restored_head_still_resumes() -> None:
    """What backup and client have in common is resumed: the offsets up to the backup are the same frames."""
    world = World()
    world.add("d", "x")
    client = Client(world).connect()
    world.record(1, NOW_NS, 0.5)
    client.drop()
    for k in range(1, 10):
        world.record(1, NOW_NS + k, float(k))

    world.restore(5, "00000009")
    client.connect()
    client.receive()

    assert values(client) == owed(world)
    assert len(values(client)) == 5


def test_cursor_older_than_the_journal_says_reset_expired() -> None:
    """When the journal was trimmed past the cursor, the answer is recovered:false and reset, not a silent gap."""
    world = World(ring_bytes=2_000)
    world.add("d", "x")
    client = Client(world).connect()
    world.record(1, NOW_NS, 0.5)
    client.drop()
    for k in range(1, 50):
        world.record(1, NOW_NS + k, float(k))
    world.journal.trim(30)

    client.connect()
    client.receive()

    ok, reset, _, live = client.messages[-4:]
    assert ok["recovered"] is False
    assert (reset["op"], reset["why"]) == ("reset", "expired")
    assert live["o"] == "00000001.50"


def test_unknown_op_is_an_error_reply() -> None:
    """An op the hub does not know gets an error with its id; the connection goes on."""
    world = World()
    world.add("d", "x")
    client = Client(world).connect()
    client.receive()

    client.say({"id": "a", "op": "fly"})
    client.say(["not", "an", "object"])
    world.record(1, NOW_NS, 1.0)

    unknown, shape, data = client.receive()
    assert (unknown["op"], unknown["id"], unknown["reason"]) == ("error", "a", "bad_request")
    assert shape["op"] == "error"
    assert data["op"] == "data"
    assert client.connection.closed_with is None


@pytest.mark.parametrize(
    ("data", "is_text", "code"),
    [(b"{", True, 4400), (b"{}", False, 4400), (b'"' + b"a" * MAX_MESSAGE_BYTES + b'"', True, 4413)],
    ids=["not json", "binary", "too large"],
)
def test_unreadable_message_closes(data: bytes, is_text: bool, code: int) -> None:
    """What cannot be read at all closes the connection with a code that says why."""
    client = Client(World()).connect()

    client.session.receive(data, is_text, 0.0, NOW_NS)

    assert client.connection.closed_with is not None
    assert client.connection.closed_with[0] == code


@pytest.mark.parametrize(
    "fields",
    [
        {"match": []},
        {"match": ["a/b/c"]},
        {"match": ["x"] * 33},
        {"match": ["ä/b"]},
        {"max_hz": 51, "mode": "latest"},
        {"mode": "sample"},
        {"since": "yesterday"},
        {"since": "2026-01-01T00:00:00"},
        {"sub": 'x","op":"welcome'},
        {"sub": "x" * 33},
    ],
    ids=lambda f: str(f)[:40],
)
def test_wrong_subscription_is_refused(fields: dict[str, object]) -> None:
    """A field outside its limits is an error reply that names it; nothing is subscribed."""
    world = World()
    client = Client(world).connect()
    client.receive()

    client.say({"op": "sub", "sub": "s2", "match": ["**"], **fields})

    (error,) = client.receive()
    assert error["op"] == "error"
    assert error["reason"] == "bad_request"
    assert world.live.statistics().listeners == 1


def test_subscriptions_are_limited() -> None:
    """The 65th subscription and a name in use are refused."""
    world = World()
    client = Client(world).connect()
    for k in range(2, MAX_SUBS + 1):
        client.say({"op": "sub", "sub": f"s{k}", "match": ["a"]})
    client.run()
    client.receive()

    client.say({"op": "sub", "sub": "s1", "match": ["a"]})
    client.say({"op": "sub", "sub": "more", "match": ["a"]})

    double, more = client.receive()
    assert double["reason"] == "conflict"
    assert more["reason"] == "bad_request"


def test_message_flood_closes_with_rate_limited() -> None:
    """A client that talks faster than 20 messages a second for long is closed with 4029."""
    client = Client(World()).connect()

    for _ in range(MESSAGES_BURST):
        client.say({"op": "hello"})

    assert client.connection.closed_with is not None
    assert client.connection.closed_with[0] == 4029


def test_unsub_ends_at_once_and_frees_the_name() -> None:
    """After unsub nothing of the subscription is sent, its room is gone, and its name may be used again."""
    world = World()
    world.add("d", "x")
    client = Client(world).connect()
    client.receive()

    client.say({"id": 3, "op": "unsub", "sub": "s1"})
    world.record(1, NOW_NS, 1.0)

    assert client.receive() == [{"id": 3, "op": "ok", "sub": "s1"}]
    assert world.live.statistics().rooms == 0
    client.say({"op": "sub", "sub": "s1", "match": ["**"]})
    client.run()
    assert [m["op"] for m in client.receive()] == ["ok", "series", "live"]


def test_only_granted_series_are_sent() -> None:
    """Every series must match a pattern of the credential too; patterns that cannot are listed as denied."""
    world = World()
    for device in ("house-1", "shop-1"):
        world.add(device, "power")
        world.add(device, "secret")
    client = Client(world, granted=["house-*/**"], match=["*/power", "shop-*"]).connect()

    for series in world.series:
        world.record(series, NOW_NS, float(series))
    client.receive()

    assert client.messages[0]["granted"] == ["*/power"]
    assert client.messages[0]["denied"] == ["shop-*"]
    assert [i for i, _, _ in client.readings] == [1]
    assert set(client.names) == {1}


def test_nothing_granted_is_forbidden() -> None:
    """A subscription of which nothing is granted is an error, not an eternal silence."""
    client = Client(World(), granted=["house/**"], match=["shop/**"]).connect()

    (error,) = client.receive()

    assert (error["op"], error["reason"], error["sub"]) == ("error", "forbidden", "s1")


def test_namespace_of_the_credential_bounds_what_is_seen() -> None:
    """Series of another namespace are never sent, whatever the pattern."""
    world = World()
    world.add("d", "x", namespace="other")
    client = Client(world).connect()

    world.record(1, NOW_NS, 1.0)
    client.receive()

    assert client.ops() == ["ok", "live"]


def test_exclude_takes_series_out() -> None:
    """Series that match a `not` pattern are left out."""
    world = World()
    world.add("d", "x")
    world.add("d", "debug")
    client = Client(world)
    client.sub["not"] = ["**/debug"]
    client.connect()

    world.record(1, NOW_NS, 1.0)
    world.record(2, NOW_NS, 2.0)
    client.receive()

    assert [i for i, _, _ in client.readings] == [1]


def test_set_changes_the_rate_and_loses_nothing() -> None:
    """`set` moves a latest subscription to another rate; the newest value still arrives."""
    world = World()
    world.add("d", "x")
    client = Client(world, mode="latest", max_hz=1).connect()
    world.record(1, NOW_NS, 1.0)
    world.record(1, NOW_NS + 1, 2.0)
    client.receive()
    assert client.readings == [(1, NOW_NS, 1.0)]

    client.say({"id": 4, "op": "set", "sub": "s1", "max_hz": 50})
    client.run()
    world.settle(0.05)
    client.receive()

    assert {"id": 4, "op": "ok", "sub": "s1"} in client.messages
    assert client.readings[-1] == (1, NOW_NS + 1, 2.0)


def test_set_of_a_lossless_subscription_is_refused() -> None:
    """A rate makes no sense where every reading is sent."""
    world = World()
    client = Client(world).connect()
    client.receive()

    client.say({"op": "set", "sub": "s1", "max_hz": 5})
    client.say({"op": "set", "sub": "nobody", "max_hz": 5})

    assert [m["reason"] for m in client.receive()] == ["bad_request", "not_found"]


def test_several_subscriptions_catch_up_in_turn() -> None:
    """Two subscriptions that are far behind alternate page by page on one connection."""
    world = World()
    world.add("d", "x")
    for k in range(600):
        world.publish(world.frame({1: [(NOW_NS + k * 1000 + j, float(j)) for j in range(100)]}))
    world.settle()
    client = Client(world, since="00000001.0").connect(run=False)
    client.say({"op": "sub", "sub": "s2", "match": ["**"], "since": "00000001.0"})

    client.run(12)

    # A page is several messages.
    order = [sub for sub, _ in groupby(m["sub"] for m in client.connection.take() if m["op"] == "data")]
    assert order[:4] == ["s1", "s2", "s1", "s2"]


def test_error_reply_is_json_even_for_odd_input() -> None:
    """Whatever a client sends as op or id, the reply is valid JSON and no exception."""
    client = Client(World()).connect()
    client.receive()

    for odd in ({"op": "sub", "id": "\ud800"[:0]}, {"op": 5, "id": 1.5}, {"op": "sub", "sub": "\u2028"}, None, 3):
        client.session.receive(orjson.dumps(odd), True, 0.0, NOW_NS)

    assert all(m["op"] == "error" for m in client.receive())


def test_auth_decides_again_and_goes_on_where_it_is() -> None:
    """With other rights a live subscription keeps its place: what is no longer granted ends, the rest has no gap."""
    world = World()
    world.add("a", "x")
    world.add("b", "x")
    client = Client(world, match=["a", "b"]).connect()
    for k in range(3):
        world.record(1 + k % 2, NOW_NS + k, float(k))

    client.say({"id": 9, "op": "auth", "token": "a/**"})
    client.run()
    for k in range(3, 7):
        world.record(1 + k % 2, NOW_NS + k, float(k))
    client.receive()

    (ok,) = [m for m in client.messages if m.get("id") == 9]
    assert (ok["op"], ok["ttl"], ok["ended"]) == ("ok", None, [])
    assert ok["subs"] == {"s1": {"granted": ["a"], "denied": ["b"]}}
    assert [v for _, _, v in client.readings] == [0.0, 1.0, 2.0, 4.0, 6.0]


def test_auth_ends_what_is_not_granted_at_all() -> None:
    """A subscription of which nothing is granted ends and is named; the others are not touched."""
    world = World()
    world.add("a", "x")
    client = Client(world, match=["a"]).connect()
    client.say({"op": "sub", "sub": "s2", "match": ["b"]})
    client.run()

    client.say({"op": "auth", "token": "b/**"})
    client.run()
    world.record(1, NOW_NS, 1.0)
    client.receive()

    (ok,) = [m for m in client.messages if "ended" in m]
    assert (ok["ended"], list(ok["subs"])) == (["s1"], ["s2"])
    assert client.readings == []
    assert [f.name for f in client.session.figures()] == ["s2"]


def test_refused_token_changes_nothing() -> None:
    """The answer is an error with the id echoed; the subscription goes on with the rights it had."""
    world = World()
    world.add("a", "x")
    client = Client(world).connect()
    client.receive()

    client.say({"id": 3, "op": "auth", "token": "?"})
    world.record(1, NOW_NS, 1.0)

    error, data = client.receive()
    assert (error["op"], error["id"], error["reason"]) == ("error", 3, "unauthenticated")
    assert data["op"] == "data"


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("since", ["-1h", "last", "00000001.0", None])
def test_auth_at_any_step_leaves_nothing_out(steps: int, since: str | None) -> None:
    """Rights that change while history, newest values or pages are sent: what stays granted is complete, once live."""
    world = World(ring_bytes=1)
    world.add("a", "x")
    world.add("b", "x")
    for k in range(20):
        world.record(1 + k % 2, NOW_NS - S + k, float(k))
    begin: dict[str, Any] = {} if since is None else {"since": since}
    client = Client(world, **begin).connect(run=False)
    client.run(steps)

    client.say({"id": 9, "op": "auth", "token": "a/**"})
    told = len(client.receive())
    client.run()
    world.record(1, NOW_NS, 99.0)
    world.record(2, NOW_NS, 99.0)
    client.receive()

    seen = [v for i, _, v in client.readings if i == 1]
    owed_values = {"last": [18.0, 99.0], None: [99.0]}.get(since, [*map(float, range(0, 20, 2)), 99.0])
    assert list(dict.fromkeys(seen)) == owed_values
    later = [m for m in client.messages[told:] if m["op"] == "data"]
    assert all(row[0] == 1 for message in later for row in message["u"])


def test_stalled_connection_holds_one_page_whatever_the_number_of_its_subscriptions() -> None:
    """What was read for one is written before another reads: the rest are cursors."""
    world = World(ring_bytes=20_000)
    world.add("d", "x")
    for k in range(10):
        world.publish(world.frame({1: [(NOW_NS + S * (200 * k + i), i + 0.5) for i in range(200)]}))
    client = Client(world, high_water=20_000)
    client.sub = {"op": "hello"}
    client.connect()
    client.connection.is_stalled = True

    for k in range(MAX_SUBS):
        since = str(NOW_NS) if k % 2 else "00000001.0"
        client.say({"op": "sub", "sub": f"s{k}", "match": ["**"], "not": [f"n{k}"], "since": since})
    holders: set[int] = set()
    while (need := client.session.step()) is not False:
        if need is not True:
            world.serve(client.session.reader, need)
            holders.add(id(client.session.reader))
            assert len(holders) == 1, "a page of another is not written yet"
        elif not client.session.reader.has_page:
            holders.clear()
    client.connection.drain()
    client.run()

    received = client.connection.take()
    assert {m["sub"] for m in received if m["op"] == "live"} == {f"s{k}" for k in range(MAX_SUBS)}
    assert sum(len(m["u"]) for m in received if m["op"] == "data") == MAX_SUBS * 2000


def test_subscriptions_of_a_full_connection_fall_behind_before_they_are_written_to() -> None:
    """One burst to 64 rooms of a connection is one write above the mark, not 64: else a quick client were too slow."""
    world = World()
    world.add("d", "x")
    client = Client(world, high_water=20_000)
    client.sub = {"op": "hello"}
    client.connect()
    for k in range(MAX_SUBS):
        client.say({"op": "sub", "sub": f"s{k}", "match": ["**"], "not": [f"n{k}"]})
    client.run()
    client.receive()
    client.connection.is_stalled = True

    frames = [world.frame({1: [(NOW_NS + S * (1000 * k + i), i + 0.5) for i in range(1000)]}) for k in range(2)]
    world.publish(*frames)
    world.settle()
    peak = client.connection.peak_bytes
    client.connection.drain()
    client.run()

    assert peak < 20_000 + 64 * 1024
    got = [m for m in client.connection.take() if m["op"] == "data"]
    assert [sum(len(m["u"]) for m in got if m["sub"] == f"s{k}") for k in range(MAX_SUBS)] == [2000] * MAX_SUBS


def test_refused_subscriptions_leave_nothing_behind() -> None:
    """Names that never were subscriptions do not add up on a connection that stays for weeks."""
    world = World()
    world.add("d", "x")
    client = Client(world).connect()

    def refuse(first: int, last: int) -> int:
        for k in range(first, last):
            world.settle(1)
            client.say({"op": "sub", "sub": f"refused-{k}", "match": ["**"], "selector": "colour:red"})
            client.connection.take()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    before = refuse(0, 100)
    grown = refuse(100, 1100) - before
    tracemalloc.stop()

    assert grown < 50_000


def test_credential_with_too_many_patterns_is_told_so() -> None:
    """It is an answer, not the end of the connection and of each that follows."""
    world = World()
    world.add("d", "x")
    client = Client(world, granted=[f"d{k}/**" for k in range(33)]).connect()

    assert [(m["op"], m["reason"]) for m in client.receive()] == [("error", "bad_request")]


def test_subscriptions_ended_on_a_full_connection_are_let_go() -> None:
    """A client that does not read and goes on changing its mind costs no memory: each end gives its room back."""
    world = World()
    for k in range(200):
        world.add(f"device-{k}", "x")
    client = Client(world, high_water=10_000).connect()
    client.connection.is_stalled = True
    client.connection.send(b"x" * 20_000)

    def change(times: int) -> int:
        for k in range(times):
            world.settle(1)
            client.say({"op": "unsub", "sub": "s1"})
            client.say({**client.sub, "not": [f"other-{k % 2}"]})
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    before = change(20)
    grown = change(60) - before
    tracemalloc.stop()

    assert grown < 200_000
