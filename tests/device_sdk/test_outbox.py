"""The numbering policy beyond what the contract of both spools shows."""

import json

import pytest

from device_sdk import wire
from device_sdk.errors import Reason
from device_sdk.outbox import Entry, Instants, Loss, NextFrame, Outbox, loss_of, ranges_of

ENTRIES: list[Entry] = [("t", 5, 1.0), ("t", 3, 2.0), ("door", 4, True)]


def number(outbox: Outbox, entries: list[Entry], max_bytes: int = 10_000) -> NextFrame:
    made = outbox.next_frame(entries, max_bytes)
    assert made is not None
    outbox.add(made)
    return made


def test_next_frame_changes_nothing() -> None:
    """The owner makes the frame durable before it counts."""
    outbox = Outbox("s1")

    assert outbox.next_frame(ENTRIES, 10_000) == outbox.next_frame(ENTRIES, 10_000)
    assert (outbox.next, list(outbox.frames), outbox.chain(1)) == (1, [], None)


def test_order_is_leading_losses_returned_frames_other_losses_readings() -> None:
    """A new stream first says what its begin means, then sends what was sent before, then the rest."""
    outbox = Outbox("s1")
    number(outbox, ENTRIES)
    outbox.is_ending = True
    outbox.lose(Reason.SPOOL_FULL, 3, {})
    outbox.restart("s2", None, loss_of(ENTRIES))

    made = [number(outbox, ENTRIES) for _ in range(5)]

    assert [m.source for m in made] == ["power_cut", "unreadable", "returned", "spool_full", "readings"]
    assert [m.frame.seq for m in made] == [1, 2, 3, 4, 5]


def test_returned_gap_keeps_its_meaning_under_a_new_number() -> None:
    """Only the seq of a gap changes when it moves to another stream."""
    outbox = Outbox("s1")
    outbox.lose(Reason.SPOOL_FULL, 3, {"t": (1, 2)})
    old = number(outbox, ENTRIES)
    outbox.restart("s2", None)
    outbox.lose(Reason.POWER_CUT, None, {})
    number(outbox, [])

    again = number(outbox, [])

    assert json.loads(old.frame.body) == {
        "op": "gap", "seq": 1, "count": 3, "reason": "spool_full", "ranges": {"t": ["1", "2"]}
    }  # fmt: skip
    assert json.loads(again.frame.body) == json.loads(old.frame.body) | {"seq": 2}


def test_chain_after_restart_begins_anew() -> None:
    """The chain belongs to the stream."""
    outbox = Outbox("s1")
    number(outbox, ENTRIES)
    outbox.restart("s2", None)

    made = number(outbox, [])

    assert made.frame.chain == wire.next_chain(wire.CHAIN_START, made.frame.body)


@pytest.mark.parametrize(
    ("window", "limit", "is_ending", "has_room"),
    [
        (0, 0, False, True),
        (1, 10, False, False),
        (1, 10_000, False, True),
        (32, 10**9, False, False),
        (0, 9, True, False),
    ],
    ids=["first frame always", "bytes full", "room", "window full", "stream ends"],
)
def test_has_room(window: int, limit: int, is_ending: bool, has_room: bool) -> None:
    """Frames in flight are bounded in number and bytes; a stream that waits for its end takes none."""
    outbox = Outbox("s1")
    for _ in range(window):
        number(outbox, ENTRIES)
    outbox.is_ending = is_ending

    assert outbox.has_room(limit) is has_room


def test_loss_of_unknown_count_stays_unknown() -> None:
    """Known and unknown make unknown; ranges only widen."""
    loss = Loss()
    loss.add(2, {"t": (5, 9)})
    loss.add(None, {"t": (3, 6), "u": (1, 1)})
    loss.add(1, {})

    assert (loss.count, loss.ranges) == (None, {"t": (3, 9), "u": (1, 1)})


def test_loss_names_a_bounded_number_of_channels() -> None:
    """A gap frame always fits; the count stays exact."""
    loss = Loss()
    for i in range(wire.MAX_CHANNELS + 50):
        loss.add(1, {f"{'c' * 120}{i}": (-(2**63), 2**63 - 1)})

    assert (loss.count, len(loss.ranges)) == (wire.MAX_CHANNELS + 50, wire.MAX_CHANNELS)
    assert len(wire.encode(wire.Gap(1, loss.count, "spool_full", loss.ranges))) < wire.MAX_FRAME_BYTES


def test_ranges_are_the_first_and_last_time_by_channel() -> None:
    """In any order of readings."""
    assert ranges_of(ENTRIES) == {"t": (3, 5), "door": (4, 4)}


def test_snapshot_round_trips() -> None:
    """Everything but frames survives as JSON."""
    outbox = Outbox("s1")
    for _ in range(3):
        number(outbox, ENTRIES)
    outbox.acknowledge(2, "run.1")
    outbox.lose(Reason.SPOOL_FULL, 3, {"t": (1, 2)})
    outbox.no_value, outbox.damaged, outbox.is_ending = 4, 5, True

    copy = Outbox.from_object(json.loads(json.dumps(outbox.to_object())))

    assert copy.to_object() == outbox.to_object()
    assert (copy.stream, copy.acked, copy.next, copy.pos, copy.dropped) == ("s1", 2, 4, "run.1", 3)


def test_instants_begin_behind_the_floor() -> None:
    """What earlier runs gave is not given again; each channel counts for itself."""
    instants = Instants(floor_ns=100)

    assert instants.stamp([("a", 1), ("b", 1)], None, 50) == [("a", 101, 1), ("b", 101, 1)]
    assert instants.stamp([("a", 1)], None, 50) == [("a", 102, 1)]
    assert instants.stamp_one("a", 50) == 103
    assert instants.stamp([("b", 1)], None, 200) == [("b", 200, 1)]
    assert instants.stamp_one("b", 300) == 300
    assert Instants(floor_ns=100).stamp_one("a", 50) == 101


def test_same_channel_twice_in_one_record_gets_two_instants() -> None:
    """Nothing is overwritten inside one call either."""
    assert Instants().stamp([("a", 1), ("a", 2)], None, 7) == [("a", 7, 1), ("a", 8, 2)]


def test_explicit_time_now_counts_as_the_channels_last() -> None:
    """A reading of this very instant given by hand is not overwritten by the next without a time."""
    instants = Instants()

    assert instants.stamp([("a", 1)], 7, 7) == [("a", 7, 1)]
    assert instants.stamp([("a", 2)], None, 7) == [("a", 8, 2)]
