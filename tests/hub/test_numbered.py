"""Numbered frames by request keep the rules of a stream: each once, in order, and a copied card is found."""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_sdk import wire
from device_sdk.columns import encode_batch, to_columns
from device_sdk.errors import Reason
from device_sdk.reading import Channel, Value
from device_sdk.wire import CHAIN_START, Close, Gap, Schema, encode, next_chain
from hub.errors import BadRequestError, HubError, TooManyRequestsError
from hub.hooks.answer import HookError, Reject
from hub.hooks.ingest import Ingest
from hub.model import Frame, Kind, StreamKey
from hub.numbered import MAX_FRAMES, Numbered, StreamConflictError, Taken
from hub.streams import MAX_NEW_STREAMS
from tests.support.hub_parts import HubParts, hub_parts

T0 = 1_700_000_000 * 10**9
NOW = T0 + 5
KEY = StreamKey("default", "pump", "00000000000000ab")


class World:
    """A hub's parts with `Numbered` over them; ``commit`` is the writer's turn."""

    def __init__(self, parts: HubParts) -> None:
        self.parts = parts
        self.frames: list[Frame] = []
        self.outcomes: list[HubError | None] = []
        self.numbered = Numbered(parts.streams, parts.registry, self.frames.extend)

    def take(self, *bodies: bytes, key: StreamKey = KEY, before: str | None = None, seen: str | None = None) -> Taken:
        """Send one request."""
        return self.numbered.take(key, bodies, NOW, self.outcomes.append, before=before, seen=seen)

    def commit(self) -> None:
        """Store what was submitted."""
        frames, self.frames[:] = list(self.frames), []
        self.parts.store_frames(frames)

    def values(self) -> list[Value]:
        """Return what is stored, by time."""
        return [row.value for row in self.parts.store.read(list(self.parts.registry.by_id), 0, 2**62, 1000)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return an empty hub."""
    with hub_parts(tmp_path) as parts:
        yield World(parts)


def batch(seq: int, value: Value = 1.0) -> bytes:
    """Return a frame of one reading."""
    return encode_batch(to_columns(seq, [("t", T0 + seq, value)]))


def chain_of(*bodies: bytes) -> bytes:
    """Return the chain over frames from the first."""
    chain = CHAIN_START
    for body in bodies:
        chain = next_chain(chain, body)
    return chain


def test_frames_are_stored_once_and_told_when_durable(world: World) -> None:
    """Sent again, alone or with new ones; channels need not be declared. The answer is that of an ack."""
    first = world.take(batch(1), batch(2, "x"), batch(3, 3.0))
    assert world.outcomes == []
    world.commit()
    again = world.take(batch(1), batch(2, "x"), batch(3, 3.0))
    further = world.take(batch(3, 3.0), batch(4, 4.0))
    world.commit()

    assert world.outcomes == [None, None, None]
    assert (first.stored, first.accepted, first.rejected, first.rejected_total) == (3, 2, 1, 1)
    assert [(r.seq, r.channel, r.index, r.reason) for r in first.named] == [(2, "t", 0, "type_conflict")]
    assert (again.stored, again.accepted, again.chain) == (3, 0, chain_of(batch(1), batch(2, "x"), batch(3, 3.0)))
    assert (further.stored, further.accepted, further.position) == (4, 1, world.parts.streams.position())
    assert world.values() == [1.0, 3.0, 4.0]
    assert world.parts.streams.get(KEY).owner is None


def test_schema_gap_and_deflated_frames_are_taken(world: World) -> None:
    """As on a connection; a schema alone is answered at once."""
    deflated = wire.DEFLATED + zlib.compress(batch(1), wbits=-15)
    world.take(encode(Schema((Channel("t", "Cel"),))))
    world.take(encode(Schema((Channel("u", "W"),))), deflated, encode(Gap(2, 7, "spool_full", {})))
    world.commit()

    channels = world.parts.registry.device("default", "pump").channels
    assert [channels[name].unit for name in ("t", "u")] == ["Cel", "W"]
    assert world.outcomes == [None, None]
    assert world.parts.streams.get(KEY).mark.dropped == 7
    assert world.parts.streams.get(KEY).mark.last_chain == chain_of(batch(1), encode(Gap(2, 7, "spool_full", {})))


def test_hole_is_a_conflict_that_says_where_to_go_on(world: World) -> None:
    """Nothing of it is taken."""
    world.take(batch(1))
    world.commit()
    with pytest.raises(StreamConflictError, match="send from 2") as caught:
        world.take(batch(3), batch(4))

    assert (caught.value.reason, caught.value.stored, caught.value.chain) == ("out_of_order", 1, chain_of(batch(1)))
    assert world.frames == []


@pytest.mark.parametrize("before", [None, CHAIN_START.hex()])
def test_written_back_card_is_found(world: World, before: str | None) -> None:
    """Another frame under a number that is stored: refused whole, and the ledger says so."""
    world.take(batch(1), batch(2))
    world.commit()
    with pytest.raises(StreamConflictError, match="another one") as caught:
        world.take(batch(1), batch(2, 9.0), batch(3), before=before)
    world.commit()

    assert caught.value.reason == "chain_conflict"
    assert [gap.reason for gap in world.parts.journal.gaps("default", "pump")] == ["chain_conflict"]
    assert world.values() == [1.0, 1.0]


def test_log_names_a_copied_card_once_a_minute(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """However often it asks."""
    world.take(batch(1))
    world.commit()
    for _ in range(5):
        with pytest.raises(StreamConflictError):
            world.take(batch(1, 9.0))
        world.commit()

    assert [record.getMessage()[:14] for record in caplog.records if record.levelname == "WARNING"] == [
        "chain_conflict"
    ]


def test_card_that_went_on_elsewhere_is_found_by_its_chain(world: World) -> None:
    """It sends the next number, and its chain before it is another one."""
    world.take(batch(1))
    world.commit()
    with pytest.raises(StreamConflictError, match="frame 1 is stored"):
        world.take(batch(2), before=chain_of(batch(1, 9.0)).hex())
    world.take(batch(2), before=chain_of(batch(1)).hex())
    world.commit()

    assert world.outcomes == [None, None]


def test_restored_hub_is_noticed(world: World) -> None:
    """A position that it never gave out: told in the ledger once."""
    world.take(batch(1), seen="ffffffff.7")
    world.commit()
    world.take(batch(2), seen="ffffffff.7")
    world.commit()

    assert [gap.reason for gap in world.parts.journal.gaps("default", "pump")] == ["hub_restored"]
    assert world.outcomes == [None, None]


def test_request_that_comes_again_before_the_commit_waits_for_it(world: World) -> None:
    """Its frames are on their way once."""
    world.take(batch(1), batch(2))
    again = world.take(batch(1), batch(2), batch(3))
    assert [frame.seq for frame in world.frames] == [1, 2, 3]
    world.commit()

    assert world.outcomes == [None, None]
    assert (again.stored, again.accepted) == (3, 1)


def test_what_the_disk_refuses_is_to_be_sent_again(world: World) -> None:
    """Nobody hears that it is stored; sent again it is, once."""
    world.take(batch(1))
    refused, world.frames[:] = list(world.frames), []
    for owner in world.parts.streams.refused(refused):
        owner.flush()
    assert [error.retry_s for error in world.outcomes if error is not None] == [5.0]
    world.take(batch(1))
    world.commit()

    assert world.outcomes[1:] == [None]
    assert world.values() == [1.0]


def test_connection_and_request_take_over_from_each_other(world: World) -> None:
    """The newest wins: a request ends a connection when it brings something new, and a connection a request."""
    session = world.parts.connect("pump", stream=KEY.stream)
    world.parts.send(session, batch(1))
    world.take(batch(1))
    ended = [session.closing]
    world.take(batch(2))
    ended.append(session.closing)
    assert ended == [None, (Close.TAKEN_OVER, "a request continues this stream")]

    later = world.parts.connect("pump", stream=KEY.stream)
    assert [getattr(error, "reason", None) for error in world.outcomes] == [None, "taken_over"]
    world.commit()
    assert b'"stored":2' in later.take_output()[-1]


def test_malformed_frame_with_a_number_is_put_aside(world: World) -> None:
    """So the others behind it are stored."""
    world.take(batch(1), b'{"op":"batch","seq":2,"count":3,"t0":"x"}', batch(3))
    world.commit()

    (entry,) = world.parts.journal.quarantine("default", "pump")
    assert (entry.seq, entry.count, world.outcomes) == (2, 3, [None])


@pytest.mark.parametrize(
    ("bodies", "word"),
    [
        ([], "no frame"), ([b"{}"], "frame 1"), ([batch(1), batch(1)], "follow"), ([batch(1), batch(3)], "follow"),
        ([encode(wire.Bye())], "connection"), ([b"{" + b" " * 262_144], "limit"), ([b"\x02rubbish"], "frame 1"),
        ([batch(seq) for seq in range(1, MAX_FRAMES + 2)], "at most"),
        ([encode_batch(to_columns(seq, [("t", T0 + i, 1.0) for i in range(10_000)])) for seq in range(1, 7)], "50000"),
    ],
)  # fmt: skip
def test_request_that_is_none_stores_nothing(world: World, bodies: list[bytes], word: str) -> None:
    """And makes no stream."""
    with pytest.raises(BadRequestError, match=word):
        world.take(*bodies)
    assert (world.frames, len(world.parts.streams)) == ([], 0)


def test_streams_of_a_day_are_bounded(world: World) -> None:
    """As for devices that are connected; the hub's own stream is nobody's."""
    for at in range(MAX_NEW_STREAMS):
        world.take(batch(1), key=KEY._replace(stream=f"{at + 1:016x}"))
    with pytest.raises(TooManyRequestsError) as caught:
        world.take(batch(1), key=KEY._replace(stream="f" * 16))
    with pytest.raises(BadRequestError, match="own"):
        world.take(batch(1), key=KEY._replace(stream=wire.HUB_STREAM))

    assert caught.value.retry_s == 600


def test_hooks_are_asked_about_what_they_send(world: World) -> None:
    """One that fails: nothing is stored, and the request is to be sent again."""
    calls: list[Callable[[object, HookError | None], None]] = []
    parts = world.parts
    ingest = Ingest(
        [lambda context, columns: None], lambda hook, arguments, answered: calls.append(answered), parts.streams,
        parts.registry, world.frames.extend,
    )  # fmt: skip
    world.numbered = Numbered(parts.streams, parts.registry, ingest.take, has_hooks=True)
    world.take(batch(1))
    assert world.frames == []
    calls.pop()(None, HookError("it failed"))
    assert Reason.HOOK_FAILED in str(world.outcomes)

    taken = world.take(batch(1))
    calls.pop()(Reject("not today"), None)
    world.commit()
    assert (taken.stored, taken.accepted, taken.rejected) == (1, 0, 1)
    assert world.parts.journal.read(0, 1000)[0].kind is Kind.BATCH
