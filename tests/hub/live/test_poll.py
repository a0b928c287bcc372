"""One long poll: when its answer is due, what is in it, and that many in a row miss and repeat nothing."""

import random
from typing import Any

import orjson
import pytest

from device_sdk.reading import ValueType
from device_sdk.wire import Close
from hub.description import ChannelDescription
from hub.live import rooms
from hub.live.cursor import resolve_since
from hub.live.figures import Origin
from hub.live.message import Sub, check_message
from hub.live.poll import ANSWER_BYTES, Poll
from hub.live.room import PAGE_BYTES
from hub.live.watch import room_key
from hub.query import parse_time
from hub.roles import Identity, Role
from tests.support.live_world import NOW_NS, World, decode

ORIGIN = Origin("p-1", Identity("t1", "tester", Role.WATCHER), "poll", "127.0.0.1:5", NOW_NS)


class Poller:
    """A client that keeps a cursor and what it saw, one answer after the other."""

    def __init__(self, world: World, since: str | None = None, granted: tuple[str, ...] = ("**",), **sub: Any) -> None:
        self.world = world
        self.cursor = since
        self.granted = granted
        self.sub = {"op": "sub", "sub": "http", "match": ["**"], **sub}
        self.seen: list[tuple[int, int, Any]] = []
        self.wakes = 0

    def ask(self) -> Poll:
        """Begin a poll, and let it look for what there is."""
        poll = self.begin()
        while (need := poll.step()) is not False:
            if need is not True:
                self.world.serve(poll.reader, need)
        return poll

    def begin(self) -> Poll:
        """Begin a poll."""
        request = check_message({**self.sub, **({} if self.cursor is None else {"since": self.cursor})})
        assert isinstance(request, Sub)
        key, _, _ = room_key(request, "default", self.granted)
        start = resolve_since(request.since, self.world.live.runs, self.world.live.head, NOW_NS, parse_time)
        return Poll(self.world.live, key, start, ORIGIN, self._wake)

    def take(self, poll: Poll) -> list[dict[str, Any]]:
        """Take the answer: each series is named in it before its first reading."""
        body = orjson.loads(poll.answer())
        names: dict[int, Any] = {}
        for message in body["messages"]:
            names |= {int(i): s for i, s in message.get("s", {}).items()}
            if message["op"] == "data":
                self.seen += decode(message, names)
        self.cursor = body["o"]
        messages: list[dict[str, Any]] = body["messages"]
        return messages

    def poll(self) -> list[dict[str, Any]]:
        """Ask and take what there is at once."""
        return self.take(self.ask())

    def _wake(self) -> None:
        self.wakes += 1


def ops(messages: list[dict[str, Any]]) -> list[str]:
    """Return what was said."""
    return [message["op"] for message in messages]


def make_world(**options: Any) -> World:
    """Return a hub with two series."""
    world = World(**options)
    world.add("d", "x")
    world.add("d", "y")
    return world


def test_a_poll_without_a_position_gets_one_at_once() -> None:
    """Were it to wait, and the answer lost, nobody would know what came meanwhile."""
    world = make_world()
    poller = Poller(world)

    poll = poller.ask()

    assert poll.is_due
    assert poller.take(poll) == [{"op": "live", "o": "00000001.0"}]
    assert poller.cursor == "00000001.0"


def test_a_poll_at_the_head_waits_for_the_first_reading() -> None:
    """Nothing is behind the cursor, so the answer is due with what comes; it names the series of its rows alone."""
    world = make_world()
    poller = Poller(world, "00000001.0")
    poll = poller.ask()
    was_due = poll.is_due

    world.record(2, NOW_NS, 1.5)

    assert (was_due, poll.is_due) == (False, True)
    assert poller.wakes == 1
    series, data, live = poller.take(poll)
    assert (series["op"], list(series["s"])) == ("series", ["2"])
    assert (data["o"], data["u"]) == ("00000001.1", [[2, 0, 1.5]])
    assert live == {"op": "live", "o": "00000001.1"}


def test_what_does_not_match_is_no_answer_and_moves_the_cursor() -> None:
    """A poll of a quiet series waits on; when its wait is over its cursor stands behind what it may forget."""
    world = make_world()
    poller = Poller(world, "00000001.0", match=["d/y"])
    poll = poller.ask()

    world.record(1, NOW_NS, 1.0)
    poll.tick()

    assert not poll.is_due
    assert ops(poller.take(poll)) == ["live"]
    assert poller.cursor == "00000001.1"


def test_last_and_times_answer_at_once() -> None:
    """The newest values, or history with a cursor inside or behind it, then the head."""
    world = make_world()
    for k in range(3):
        world.record(1, NOW_NS + k, float(k))

    newest, history = Poller(world, "last"), Poller(world, str(NOW_NS + 1))

    assert ops(newest.poll()) == ops(history.poll()) == ["series", "data", "live"]
    assert newest.seen == [(1, NOW_NS + 2, 2.0)]
    assert history.seen == [(1, NOW_NS + 1, 1.0), (1, NOW_NS + 2, 2.0)]
    assert newest.cursor == history.cursor == "00000001.3"


def test_answers_are_bounded_and_follow_each_other() -> None:
    """Of a long backlog each answer holds about its limit; none says `live` but the one that reached the head."""
    world = make_world()
    for k in range(200):
        world.publish(world.frame({1: [(NOW_NS + k * 100 + j, 0.123456) for j in range(100)]}))
    poller = Poller(world, "00000001.0")
    sizes = []

    while True:
        poll = poller.ask()
        assert poll.is_due
        messages = poller.take(poll)
        sizes.append(sum(len(orjson.dumps(message)) for message in messages))
        if ops(messages)[-1] == "live":
            break
        assert ops(messages) == ["series", *["data"] * (len(messages) - 1)]

    assert len(sizes) == 2
    assert max(sizes) < ANSWER_BYTES + 8 * PAGE_BYTES
    assert poller.seen == [(1, NOW_NS + n, 0.123456) for n in range(20_000)]


def test_an_answer_that_is_cut_short_says_how_far_it_looked() -> None:
    """Much behind the cursor that does not match: an answer without a message, and without `live`, has moved on."""
    world = make_world(ring_bytes=500)
    for k in range(3_000):
        world.publish(world.frame({1: [(NOW_NS + k * 100 + j, 0.123456) for j in range(20)]}))
    world.record(2, NOW_NS, 2.0)
    poller = Poller(world, "00000001.0", match=["d/y"])
    poll = poller.begin()
    for _ in range(4):
        need = poll.step()
        if not isinstance(need, bool):
            world.serve(poll.reader, need)

    assert poller.take(poll) == []
    assert 0 < int(str(poller.cursor).split(".")[1]) < 3_000
    assert ops(poller.poll()) == ["series", "data", "live"]
    assert poller.seen == [(2, NOW_NS, 2.0)]


def test_a_burst_fills_a_waiting_poll_and_no_more() -> None:
    """What a flush writes beyond the limit stays behind the cursor; the poll is not told that it lags."""
    world = make_world()
    poller = Poller(world, "00000001.0")
    poll = poller.ask()

    for k in range(200):
        world.publish(world.frame({1: [(NOW_NS + k * 100 + j, 0.123456) for j in range(100)]}))
    world.settle()

    assert poll.is_full
    assert poll.step() is False
    assert set(ops(poller.take(poll))) == {"series", "data"}
    while len(poller.seen) < 20_000:
        poller.poll()
    assert poller.seen == [(1, NOW_NS + n, 0.123456) for n in range(20_000)]


@pytest.mark.parametrize("mode", ["run", "expired"])
def test_a_cursor_that_cannot_be_resumed_is_reset_at_once(mode: str) -> None:
    """A run that this journal does not know, or what it no longer holds: never silently, never in part."""
    world = make_world(ring_bytes=500)
    for k in range(20):
        world.record(1, NOW_NS + k, float(k))
    if mode == "expired":
        world.journal.set_checkpoint("store", 20)
        world.journal.trim(15)
    poller = Poller(world, "00000001.3" if mode == "expired" else "0000abcd.3")

    reset, live = poller.poll()

    assert reset == {"op": "reset", "why": mode, "head": "00000001.20"}
    assert live == {"op": "live", "o": poller.cursor}
    assert poller.cursor == "00000001.20"


def test_a_store_that_is_late_is_told_and_asked_again() -> None:
    """`lag` is an answer with the same position, so the client asks again instead of waiting in vain."""
    world = make_world()
    world.record(1, NOW_NS, 1.0)
    poller = Poller(world, str(NOW_NS))
    poll = poller.begin()
    assert poll.step() not in (True, False)

    poll.reader.supply_rows(None)

    assert poll.step() is False
    assert ops(poller.take(poll)) == ["lag"]
    assert poller.cursor == f"00000001.1.{NOW_NS - 1}"
    poller.poll()
    assert poller.seen == [(1, NOW_NS, 1.0)]


def test_latest_answers_with_the_newest_of_each() -> None:
    """What came between two polls is conflated, and the true last value arrives."""
    world = make_world()
    poller = Poller(world, "00000001.0", mode="latest")
    for k in range(5):
        world.record(1, NOW_NS + k, float(k))

    assert ops(poller.poll()) == ["series", "data", "live"]
    assert poller.seen == [(1, NOW_NS + 4, 4.0)]
    assert not poller.ask().is_due


def test_series_that_is_gone_while_a_poll_waits_is_told() -> None:
    """As on the other transports: nothing more of it comes until it is named again."""
    world = make_world()
    world.describe("d", "on")
    poller = Poller(world, "00000001.0", selector="tag:on")
    poll = poller.ask()

    world.describe("d")
    world.settle()
    (gone, live) = poller.take(poll)

    assert (gone, live["op"]) == ({"op": "series", "s": {}, "gone": [1, 2]}, "live")


def test_rows_are_named_by_the_scale_they_were_written_with() -> None:
    """A scale that changes while an answer is made: what was written before is named by the old one, then the new."""
    world = make_world()
    poller = Poller(world, "00000001.0")
    poll = poller.ask()
    world.record(1, NOW_NS, 1.0)

    world.series[1].described = ChannelDescription(scale=10)
    world.live.add_series([world.series[1]])
    world.record(1, NOW_NS + 1, 2.0)

    messages = poller.take(poll)
    named = [message["s"]["1"].get("scale") for message in messages if message["op"] == "series"]
    assert named == [None, 10]
    assert [value for _, _, value in poller.seen] == [1.0, 20.0]


def test_only_what_is_granted_is_told() -> None:
    """Patterns of the credential bound what is sent and what is named."""
    world = make_world()
    poller = Poller(world, "00000001.0", granted=("d/y",))
    world.record(1, NOW_NS, 1.0)
    world.record(2, NOW_NS, 2.0)

    poller.poll()

    assert poller.seen == [(2, NOW_NS, 2.0)]


def test_integers_beyond_json_are_exact() -> None:
    """Answers are read to name their series, but passed on as they were written."""
    world = make_world()
    world.add("d", "count", ValueType.INT)
    world.record(3, NOW_NS, 2**60 + 1)
    poller = Poller(world, "00000001.0")

    poller.poll()

    assert poller.seen == [(3, NOW_NS, 2**60 + 1)]


def test_the_end_of_the_hub_is_an_answer() -> None:
    """What was written goes out, and a `bye` says when to come back."""
    world = make_world()
    poller = Poller(world, "00000001.0")
    poll = poller.ask()

    world.live.stop()

    assert poll.is_due
    assert poller.take(poll)[-1] == {"op": "bye", "code": Close.GOING_AWAY, "reason": "the hub stops", "retry_ms": 0}
    assert world.live.statistics().watchers == 0


def test_the_end_of_a_credential_ends_its_polls() -> None:
    """Whose identity ended is woken and over; others wait on."""
    world = make_world()
    poll = Poller(world, "00000001.0").ask()

    world.live.end_identities({"t2"})
    was_over = poll.is_over
    world.live.end_identities({"t1"})

    assert (was_over, poll.is_over) == (False, True)
    assert poll.ended is not None
    assert poll.ended[0] == Close.UNAUTHENTICATED


def test_who_left_is_forgotten() -> None:
    """Nothing of the client stays; the room waits for the next poll of anybody, but not for long, and few do."""
    world = make_world()
    poll = Poller(world, "00000001.0").ask()

    poll.leave()
    poll.leave()

    figures = world.live.statistics()
    assert (figures.watchers, figures.listeners, figures.rooms) == (0, 0, 1)
    world.record(1, NOW_NS, 1.0)
    assert not poll.is_full
    world.settle(2 * rooms.KEPT_S)
    assert world.live.statistics().rooms == 0


def test_kept_rooms_are_few_and_used_again() -> None:
    """The longest left of too many ends; one that is polled again is the same room, and knows what is new."""
    world = make_world()
    pollers = [Poller(world, "00000001.0", match=[f"d/{n}"]) for n in range(rooms.KEPT_ROOMS + 5)]
    for poller in pollers:
        poller.poll()
    assert world.live.statistics().rooms == rooms.KEPT_ROOMS

    world.add("d", "20")
    world.record(3, NOW_NS, 3.0)
    pollers[20].poll()

    assert pollers[20].seen == [(3, NOW_NS, 3.0)]
    assert world.live.statistics().rooms == rooms.KEPT_ROOMS


@pytest.mark.parametrize("seed", range(8))
def test_any_order_of_polls_and_ends_loses_and_doubles_nothing(seed: int) -> None:
    """Polls that are lost before or after their answer, a ring smaller than the gap, restarts: each reading once."""
    rng = random.Random(seed)
    world = make_world(ring_bytes=3_000)
    poller = Poller(world, "00000001.0")
    total = 0
    for run in range(2, 6):
        for _ in range(60):
            for _ in range(rng.randrange(8)):
                world.record(rng.choice([1, 2]), NOW_NS + total, float(total))
                total += 1
            poll = poller.ask()
            if not poll.is_due:
                world.record(1, NOW_NS + total, float(total))
                total += 1
            match rng.randrange(4):
                case 0:
                    poll.leave()
                case 1:
                    poll.answer()
                case _:
                    poller.take(poll)
        world.restart(f"0000000{run}")
    while poller.ask().is_due:
        poller.poll()

    assert [(time_ns, value) for _, time_ns, value in poller.seen] == [(NOW_NS + n, float(n)) for n in range(total)]


def test_a_restored_backup_is_a_reset_then_goes_on() -> None:
    """The old run's cursor beyond the backup is never resumed into other readings."""
    world = make_world()
    for k in range(10):
        world.record(1, NOW_NS + k, float(k))
    poller = Poller(world, "00000001.0")
    poller.poll()
    world.restore(5, "00000002")
    world.record(1, NOW_NS + 20, 20.0)

    messages = poller.poll()
    world.record(1, NOW_NS + 21, 21.0)
    poller.poll()

    assert messages[0]["op"] == "reset"
    assert poller.seen[-1] == (1, NOW_NS + 21, 21.0)
    assert len(poller.seen) == 11
