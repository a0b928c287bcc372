"""What comes without a number is stored once, in order, and whoever gave it is told when; nothing of it stays long."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_sdk.columns import BINARY_VERSION
from device_sdk.reading import Channel, Value, ValueType
from hub.decode.base import ForeignReading, Publication, Said
from hub.errors import HubError
from hub.foreign import MAX_AT_ONCE, MAX_GATHERED, STEP_NS, Foreign, Receipt
from hub.hooks.answer import Columns, HookError, Reject
from hub.hooks.ingest import Ingest
from hub.model import FOREIGN_STREAM, Frame, Kind, Posted, StreamKey
from tests.support.hub_parts import HubParts, hub_parts

NOW = 1_700_000_000 * 10**9
KEY = StreamKey("default", "lamp", FOREIGN_STREAM)


class World:
    """A hub's parts with `Foreign` over them; ``turn`` is the loop's next turn, ``commit`` the writer's."""

    def __init__(self, parts: HubParts, *, has_hooks: bool = False) -> None:
        self.parts = parts
        self.frames: list[Frame] = []
        self.soon: list[Callable[[], None]] = []
        self.outcomes: list[tuple[str, HubError | None]] = []
        self.foreign = Foreign(parts.streams, parts.registry, self.frames.extend, self.soon.append, has_hooks=has_hooks)

    def give(
        self, name: str, *readings: ForeignReading, device: str = "lamp", channels: tuple[Channel, ...] = (),
        received_ns: int = NOW,
    ) -> None:  # fmt: skip
        """Give one message, whose outcome is noted under its name."""
        publication = Publication("t", name.encode(), received_ns)
        self.foreign.take(
            "default", Said(device, readings, channels), publication, lambda why: self.outcomes.append((name, why))
        )

    def turn(self) -> None:
        """Do what was put off."""
        calls, self.soon[:] = list(self.soon), []
        for call in calls:
            call()

    def commit(self) -> None:
        """Store what was submitted, as the writer does."""
        frames, self.frames[:] = list(self.frames), []
        self.parts.store_frames(frames)

    def values(self, device: str = "lamp") -> list[tuple[str, int, Value]]:
        """Return what is stored of a device, by channel and time."""
        series = list(self.parts.registry.device("default", device).channels.values())
        names = {s.id: s.channel for s in series}
        rows = [(names[r.series], r.time_ns, r.value) for r in self.parts.store.read(list(names), 0, 2**62, 10_000)]
        return sorted(rows, key=lambda row: row[:2])


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[HubParts]:
    """Return an empty hub."""
    with hub_parts(tmp_path) as parts:
        yield parts


def test_messages_of_a_turn_are_one_frame_a_device_and_are_told_when_it_is_durable(parts: HubParts) -> None:
    """No two readings of a channel share an instant, and nobody is told anything before the commit."""
    world = World(parts)
    world.give("a", ForeignReading("on", True), ForeignReading("w", 1.5))
    world.give("b", ForeignReading("w", 2.5))
    world.give("c", ForeignReading("t", 3), device="other")
    world.turn()

    assert [(f.key.device, f.seq, f.readings) for f in world.frames] == [("lamp", 1, 3), ("other", 1, 1)]
    assert world.outcomes == []
    world.commit()
    assert world.outcomes == [("a", None), ("b", None), ("c", None)]
    assert world.values() == [("on", NOW, True), ("w", NOW, 1.5), ("w", NOW + 1, 2.5)]
    assert parts.streams.get(KEY).owner is None


def test_frames_of_many_devices_are_made_in_several_turns(parts: HubParts) -> None:
    """In the order in which they came; what comes meanwhile is in the frame of its device that is not made yet."""
    world = World(parts)
    count = MAX_AT_ONCE + 2
    for at in range(count):
        world.give(str(at), ForeignReading("t", at), device=f"lamp-{at}")
    world.turn()
    assert len(world.frames) == MAX_AT_ONCE
    world.give("again", ForeignReading("t", 7), device=f"lamp-{count - 1}")
    world.give("first", ForeignReading("t", 8), device="lamp-0")
    world.turn()

    assert [(f.key.device, f.readings) for f in world.frames[MAX_AT_ONCE:]] == [
        (f"lamp-{count - 2}", 1), (f"lamp-{count - 1}", 2), ("lamp-0", 1),
    ]  # fmt: skip
    assert world.soon == []
    world.commit()
    assert len(world.outcomes) == count + 2


def test_single_reading_takes_few_bytes_and_what_cannot_be_is_refused_alone(parts: HubParts) -> None:
    """In a binary frame, which holds no integer beyond 64 bits and no text: those come as JSON."""
    world = World(parts)
    world.give("a", ForeignReading("w", 1.5))
    world.turn()
    world.give("b", ForeignReading("mode", "heating"))
    world.turn()
    world.give("c", ForeignReading("n", 2**70), ForeignReading("w", 2.5))
    world.turn()

    assert [(frame.readings, frame.rejected_count) for frame in world.frames] == [(1, 0), (1, 0), (1, 1)]
    assert [frame.body[0] for frame in world.frames] == [BINARY_VERSION, ord("{"), ord("{")]
    assert len(world.frames[0].body) < 60
    world.commit()
    assert world.outcomes == [("a", None), ("b", None), ("c", None)]
    assert [row[::2] for row in world.values()] == [("mode", "heating"), ("w", 1.5), ("w", 2.5)]


def test_given_time_and_what_was_learnt_of_a_channel_are_kept(parts: HubParts) -> None:
    """A unit learnt later is taken; the type is that of the first value."""
    world = World(parts)
    world.give("a", ForeignReading("t", 21, NOW - 5))
    world.give("b", ForeignReading("t", 21.5, NOW - 4), channels=(Channel("t", "Cel", label="Küche"),))
    world.turn()
    world.commit()

    series = parts.registry.device("default", "lamp").channels["t"]
    assert (series.unit, series.type, series.label) == ("Cel", ValueType.FLOAT, "Küche")
    assert world.values() == [("t", NOW - 5, 21), ("t", NOW - 4, 21.5)]


def test_what_the_disk_refuses_is_to_be_given_again(parts: HubParts) -> None:
    """Then it is stored once, with the same number."""
    world = World(parts)
    world.give("a", ForeignReading("t", 1))
    world.turn()
    refused, world.frames[:] = list(world.frames), []
    for owner in parts.streams.refused(refused):
        owner.flush()

    assert [name for name, _ in world.outcomes] == ["a"]
    assert "disk_full" in str(world.outcomes[0][1])
    world.give("a", ForeignReading("t", 1))
    world.turn()
    assert [f.seq for f in world.frames] == [1]
    world.commit()
    assert world.outcomes[1:] == [("a", None)]
    assert len(world.values()) == 1


def test_poison_is_put_aside_alone(parts: HubParts) -> None:
    """What was gathered with it is stored, in its order; its giver is told that it is durable."""
    world = World(parts)
    world.give("good", ForeignReading("t", 1))
    world.give("poison", ForeignReading("t", object(), NOW))  # type: ignore[arg-type]
    world.give("fine", ForeignReading("t", 2))
    world.turn()

    assert [(f.seq, f.kind) for f in world.frames] == [(1, Kind.BATCH), (2, Kind.QUARANTINE), (3, Kind.BATCH)]
    assert Publication.from_bytes(world.frames[1].body, NOW) == Publication("t", b"poison", NOW)
    world.commit()
    assert world.outcomes == [("good", None), ("poison", None), ("fine", None)]
    assert [value for _, _, value in world.values()] == [1, 2]


def test_message_that_cannot_be_read_keeps_its_place(parts: HubParts) -> None:
    """It is numbered behind what came before it."""
    world = World(parts)
    world.give("a", ForeignReading("t", 1))
    world.foreign.quarantine(
        "default", "lamp", Publication("x", b"\xff", NOW), "no JSON", lambda why: world.outcomes.append(("bad", why))
    )
    world.turn()

    assert [(f.seq, f.kind, f.reason) for f in world.frames] == [(1, Kind.BATCH, ""), (2, Kind.QUARANTINE, "no JSON")]
    world.commit()
    assert world.outcomes == [("a", None), ("bad", None)]
    (entry,) = parts.journal.quarantine("default")
    assert (entry.reason, entry.key.device) == ("no JSON", "lamp")


def test_turn_that_brings_much_makes_frames_of_bounded_size(parts: HubParts) -> None:
    """One message more than fits begins the next frame."""
    world = World(parts)
    half = tuple(ForeignReading("t", n, NOW + n) for n in range(MAX_GATHERED // 2))
    for name in "abc":
        world.give(name, *half)
    world.turn()

    assert [f.readings for f in world.frames] == [MAX_GATHERED, MAX_GATHERED // 2]


def test_message_without_readings_is_answered_and_makes_no_frame(parts: HubParts) -> None:
    """What it says of channels goes with the next frame."""
    world = World(parts)
    world.give("a", channels=(Channel("t", "Cel"),))
    assert world.outcomes == []
    world.turn()

    assert (world.frames, world.outcomes) == ([], [("a", None)])
    assert parts.registry.device("default", "lamp").channels["t"].unit == "Cel"


def test_hooks_are_asked(parts: HubParts) -> None:
    """What they leave is stored; when they fail, the giver gives it again."""
    answers: list[object] = [HookError("down"), None]

    def call(hook: object, arguments: tuple[object, ...], answered: Callable[[object, HookError | None], None]) -> None:
        assert isinstance(arguments[1], Columns)
        answer = answers.pop(0)
        pending.append(lambda: answered(*((None, answer) if isinstance(answer, HookError) else (answer, None))))

    pending: list[Callable[[], None]] = []
    world = World(parts, has_hooks=True)
    ingest = Ingest((lambda *_: None,), call, parts.streams, parts.registry, parts.store_frames)
    for _ in range(2):
        world.give("a", ForeignReading("t", 1))
        world.turn()
        ingest.take(list(world.frames))
        world.frames.clear()
        pending.pop()()

    assert [(name, why is None) for name, why in world.outcomes] == [("a", False), ("a", True)]
    assert "hook_failed" in str(world.outcomes[0][1])
    assert [value for _, _, value in world.values()] == [1]


def give_with_receipt(world: World, *readings: ForeignReading, posted: Posted | None = None) -> Receipt:
    """Give one message whose giver has to say what became of it."""
    receipt = Receipt(posted)
    world.foreign.take(
        "default", Said("lamp", readings), Publication("", b"{}", NOW),
        lambda why: world.outcomes.append(("receipt", why)), receipt,
    )  # fmt: skip
    return receipt


def test_receipt_says_what_was_refused(parts: HubParts) -> None:
    """By its place in its channel; the message is a frame alone, behind what was gathered before it."""
    world = World(parts)
    world.give("a", ForeignReading("t", 1))
    receipt = give_with_receipt(world, ForeignReading("t", 2), ForeignReading("s", "x"), ForeignReading("t", "y"))

    assert [(f.seq, f.readings, f.rejected_count) for f in world.frames] == [(1, 1, 0), (2, 2, 1)]
    assert receipt.accepted == 0
    world.commit()
    assert world.outcomes == [("a", None), ("receipt", None)]
    assert (receipt.accepted, receipt.rejected, receipt.quarantined) == (2, 1, "")
    assert [(r.channel, r.index, r.reason) for r in receipt.named] == [("t", 1, "type_conflict")]


def test_receipt_is_filled_after_hooks(parts: HubParts) -> None:
    """What a hook refuses is named too."""
    world = World(parts, has_hooks=True)
    calls: list[Callable[[object, HookError | None], None]] = []
    ingest = Ingest(
        [lambda context, columns: None], lambda hook, arguments, answered: calls.append(answered), parts.streams,
        parts.registry, world.frames.extend,
    )  # fmt: skip
    world.foreign = Foreign(parts.streams, parts.registry, ingest.take, world.soon.append, has_hooks=True)
    receipt = give_with_receipt(world, ForeignReading("t", 1), ForeignReading("t", 2))
    calls.pop()({"t": [Reject("not today"), 2]}, None)
    world.commit()

    assert (receipt.accepted, receipt.rejected) == (1, 1)
    assert [(r.channel, r.index) for r in receipt.named] == [("t", 0)]


def test_part_of_a_request_is_remembered_with_its_frame(parts: HubParts) -> None:
    """So is one of which no frame could be made: it is in quarantine once."""
    world = World(parts)
    give_with_receipt(world, ForeignReading("t", 1), posted=Posted(b"k", 0, b"body"))
    poison = give_with_receipt(world, ForeignReading("t", object(), NOW), posted=Posted(b"k", 1, b"body"))  # type: ignore[arg-type]
    assert parts.journal.posted(b"k") == {}
    world.commit()

    assert {part: (p.accepted, p.rejected) for part, p in parts.journal.posted(b"k").items()} == {0: (1, 0), 1: (0, 1)}
    assert "no frame" in poison.quarantined


def test_readings_of_one_message_share_no_instant_of_a_channel(parts: HubParts) -> None:
    """Two of a channel are two readings; those of other channels stay together."""
    world = World(parts)
    world.give("a", *(ForeignReading(name, at) for at in range(2) for name in ("t", "u")))
    world.give("b", ForeignReading("t", 2))
    world.turn()
    world.commit()

    assert world.values() == [("t", NOW, 0), ("t", NOW + 1, 1), ("t", NOW + 2, 2), ("u", NOW, 0), ("u", NOW + 1, 1)]


def test_wall_clock_that_was_ahead_is_not_kept_to(parts: HubParts) -> None:
    """Readings have the time of the clock that was set right; no two of them share an instant."""
    world, ahead = World(parts), NOW + 3600 * 10**9
    for value, received_ns in enumerate((ahead, NOW, NOW, NOW + 7, ahead)):
        world.give("a", ForeignReading("t", value), received_ns=received_ns)
    world.turn()
    world.commit()

    assert world.values() == [
        ("t", NOW, 1), ("t", NOW + 1, 2), ("t", NOW + 7, 3), ("t", ahead, 0), ("t", ahead + 1, 4)
    ]  # fmt: skip


def test_wall_clock_that_is_set_back_a_little_gives_no_instant_twice(parts: HubParts) -> None:
    """A time server does that; the next reading follows the last one."""
    world = World(parts)
    for value, received_ns in enumerate((NOW, NOW - STEP_NS // 2)):
        world.give("a", ForeignReading("t", value), received_ns=received_ns)
    world.turn()
    world.commit()

    assert world.values() == [("t", NOW, 0), ("t", NOW + 1, 1)]


def test_time_that_is_no_integer_makes_no_frame(parts: HubParts) -> None:
    """What nobody could read again must not be stored: the message is put aside."""
    world = World(parts)
    world.give("a", ForeignReading("w", 1.5, 1.5e18))  # type: ignore[arg-type]  # what a decoder of anybody's may give
    world.turn()

    assert [(frame.kind, frame.readings) for frame in world.frames] == [(Kind.QUARANTINE, 0)]
