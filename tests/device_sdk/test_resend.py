"""Acked frames go again to a restored hub: as they were while they follow, else as a copy, else declared."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from device_sdk import wire
from device_sdk.columns import decode_batch
from device_sdk.file_spool import FileSpool
from device_sdk.memory_spool import MemorySpool
from device_sdk.outbox import CutFrame
from device_sdk.resend import TRIES, Behind, Resend, Restoring
from device_sdk.spool import Spool
from tests.support.hub_model import HubConversation, HubModel

T = 1_795_376_000_000_000_000
MAX_BYTES = 10**6


def acked_spool(frames: int, retain_bytes: int = 10**6) -> MemorySpool:
    """Return a spool of which ``frames`` frames of one reading are acked."""
    spool = MemorySpool(retain_bytes=retain_bytes)
    for n in range(frames):
        spool.record([("t", n)], None, T + n)
        frame = spool.cut()
        assert frame is not None
        spool.acknowledge(frame.seq, frame.chain, f"run.{frame.seq}")
    return spool


def welcome(stored: int, chain: bytes = wire.CHAIN_START, earlier: tuple[wire.Earlier, ...] = ()) -> wire.Welcome:
    return wire.Welcome(stored, chain.hex(), "new.1", T, earlier=earlier)


def hello(spool: Spool) -> wire.Hello:
    chain = spool.chain(spool.next - 1)
    assert chain is not None
    return wire.Hello("d", spool.stream, "b", "r", spool.acked, spool.next, chain.hex(), earlier=spool.earlier)


def copying(spool: Spool, run: str = "r") -> Restoring:
    """Return what a hub that holds nothing of a spool gets as a copy."""
    restoring = Restoring(spool, "d", run)
    assert restoring.is_needed(welcome(0))
    for _ in range(TRIES):
        restoring.refuse()
    assert restoring.is_active
    return restoring


def connect(
    restoring: Restoring, spool: Spool, hub: HubModel, *, window: int = 9, rounds: int = 9, hears: bool = True
) -> str | None:
    """Hold one connection for so many windows, whose last ack the device ``hears``; return why it ended."""
    line = HubConversation(hub)
    (answer,) = [wire.decode_hub_message(data) for data in line.receive(wire.encode(restoring.hello(hello(spool))))]
    if isinstance(answer, wire.NewStream):
        restoring.refuse()
        return answer.why
    assert isinstance(answer, wire.Welcome)
    why = restoring.begin(answer)
    for n in range(rounds):
        for body in restoring.take(window, MAX_BYTES):
            assert line.receive(body) == []
        for ack in [wire.decode_hub_message(data) for data in line.commit()]:
            assert isinstance(ack, wire.Ack)
            if hears or n < rounds - 1:
                assert restoring.acknowledge(ack.stored, ack.chain)
    why = why or restoring.over()
    restoring.disconnected()
    return why


def values(hub: HubModel) -> list[object]:
    return [reading.value for reading in hub.readings]


def frames_of(spool: MemorySpool, after: int = 0) -> Iterator[CutFrame]:
    return spool.retained(spool.stream, after)


def test_frames_follow_on_what_the_hub_holds_and_fill_the_window() -> None:
    """Frames go as they were cut, ``window`` at a time; an ack makes room."""
    spool = acked_spool(5)
    chain = spool.chain(2)
    assert chain is not None
    resend = Resend(Behind(spool.stream, 2, 5, ""), frames_of(spool, 2), 2, chain)

    first = resend.take(2, MAX_BYTES)
    (frame_3, frame_4, _) = frames_of(spool, 2)

    assert first == [frame_3.body, frame_4.body]
    assert resend.take(2, MAX_BYTES) == []
    assert resend.acknowledge(3, frame_3.chain.hex())
    assert len(resend.take(2, MAX_BYTES)) == 1
    assert (resend.after, resend.is_done) == (3, False)


def test_done_when_the_last_frame_is_acked() -> None:
    """Then nothing is in flight and nothing follows."""
    spool = acked_spool(1)
    resend = Resend(Behind(spool.stream, 0, 1, ""), frames_of(spool), 0, wire.CHAIN_START)
    resend.take(9, MAX_BYTES)
    assert not resend.is_done
    chain = spool.chain(1)
    assert chain is not None
    resend.acknowledge(1, chain.hex())
    resend.take(9, MAX_BYTES)

    assert (resend.is_done, resend.is_broken) == (True, False)


def test_hole_or_another_chain_breaks_the_stream() -> None:
    """A frame that does not follow on the hub's chain is never sent on that stream."""
    spool = acked_spool(4)
    hole = Resend(Behind(spool.stream, 1, 4, ""), frames_of(spool, 2), 1, wire.CHAIN_START)
    other = Resend(Behind(spool.stream, 1, 4, ""), frames_of(spool, 1), 1, b"\x07" * 16)
    short = Resend(Behind(spool.stream, 0, 9, ""), frames_of(spool), 0, wire.CHAIN_START)

    assert (hole.take(9, MAX_BYTES), hole.is_broken) == ([], True)
    assert (other.take(9, MAX_BYTES), other.is_broken) == ([], True)
    assert (len(short.take(9, MAX_BYTES)), short.is_broken) == (4, True)


def test_ack_of_other_frames_is_refused() -> None:
    """A twin may speak on the same stream meanwhile."""
    spool = acked_spool(2)
    resend = Resend(Behind(spool.stream, 0, 2, ""), frames_of(spool), 0, wire.CHAIN_START)
    resend.take(9, MAX_BYTES)

    assert not resend.acknowledge(1, "ff" * 16)


def test_copy_counts_anew_and_marks_again() -> None:
    """A copy has numbers of its own from 1, and stops at the last acked frame."""
    spool = acked_spool(4)
    copy = Resend(Behind(spool.stream, 2, 3, "", is_copy=True), frames_of(spool, 2), 0, wire.CHAIN_START)

    (body,) = copy.take(9, MAX_BYTES)
    batch = decode_batch(body)

    assert (batch.seq, batch.again, [r.value for r in batch.readings()]) == (1, True, [2])


def test_nothing_is_missed_by_a_hub_that_holds_what_it_acked() -> None:
    """An equal position, of the present and of earlier streams, needs nothing."""
    spool = acked_spool(2)
    old = spool.stream
    spool.restart(2)
    restoring = Restoring(spool, "d", "r")
    held = wire.Earlier(old, 2, 3, "00")

    assert not restoring.is_needed(welcome(0, earlier=(held,)))
    assert restoring.hello(hello(spool)) == hello(spool)


def test_earlier_streams_go_first_each_on_a_connection_of_its_own() -> None:
    """Also after the device moved to a new stream its acked frames go again, oldest stream first."""
    spool = acked_spool(2)
    old = spool.stream
    spool.restart(2)
    spool.record([("t", 7)], None, T + 99)
    frame = spool.cut()
    assert frame is not None
    spool.acknowledge(1, frame.chain, "run.3")
    restoring = Restoring(spool, "d", "r")

    assert restoring.is_needed(welcome(0, earlier=(wire.Earlier(old, 0, 1, wire.CHAIN_START.hex()),)))
    first = restoring.hello(hello(spool))
    assert (first.stream, first.acked, first.next, first.earlier) == (old, 2, 3, ())
    restoring.begin(welcome(0))
    assert len(restoring.take(9, MAX_BYTES)) == 2
    assert restoring.over() is None
    assert restoring.acknowledge(2, first.chain)
    restoring.take(9, MAX_BYTES)
    assert restoring.over() == "what the restored hub missed of a stream is stored again"

    second = restoring.hello(hello(spool))
    assert (second.stream, second.next) == (spool.stream, 2)
    assert restoring.is_active


def test_what_is_gone_is_declared_and_the_rest_is_copied() -> None:
    """A hole in front: a gap of unknown count on a new stream, and the frames behind it on streams of their own."""
    spool = acked_spool(4, retain_bytes=250)
    old = spool.stream
    kept = [frame.seq for frame in frames_of(spool)]
    assert kept[0] > 1, "the first frames are gone"
    restoring = Restoring(spool, "d", "r")
    assert restoring.is_needed(welcome(0))
    restoring.begin(welcome(0))
    assert restoring.take(9, MAX_BYTES) == []
    assert restoring.over() == "frames that the restored hub misses are gone here too"

    assert spool.stream != old
    gap = spool.cut()
    assert gap is not None
    assert b'"count":null,"reason":"hub_restored"' in gap.body
    assert spool.earlier == ()
    copies = restoring.hello(hello(spool))
    assert copies.stream not in (old, spool.stream)
    assert (copies.acked, copies.next) == (0, 1 + len(kept))
    restoring.begin(welcome(0))
    assert len(restoring.take(9, MAX_BYTES)) == len(kept)


def test_copy_goes_on_behind_what_the_hub_holds_after_a_lost_line() -> None:
    """On its own stream, like any other: what the hub stored is not sent again, also when its ack was lost."""
    spool, hub = acked_spool(5), HubModel()
    restoring = copying(spool)

    connect(restoring, spool, hub, window=1, rounds=2)
    connect(restoring, spool, hub, window=2, rounds=1, hears=False)
    ended = connect(restoring, spool, hub)

    assert ended == "what the restored hub missed of a stream is stored again"
    assert (values(hub), len(hub.streams), hub.alarms) == ([0, 1, 2, 3, 4], 1, [])
    assert not restoring.is_active


def test_copied_gap_counts_once_when_its_ack_is_lost() -> None:
    """The hub would count what is lost twice, and nothing in a gap says that it came before."""
    spool, hub = MemorySpool(retain_bytes=10**6), HubModel()
    spool.restart(None, lost=[("t", T, 7.0)])
    gap = spool.cut()
    assert gap is not None
    spool.acknowledge(1, gap.chain, "run.1")
    restoring = copying(spool)

    connect(restoring, spool, hub, rounds=1, hears=False)
    connect(restoring, spool, hub)

    assert [(said["reason"], said["count"]) for said in hub.gaps] == [("unreadable", 1)]


def test_later_process_goes_on_with_the_copy(tmp_path: Path) -> None:
    """What is kept is declared as lost with the rest only if it can never be sent: a kill may come in between."""
    spool, hub = FileSpool(tmp_path, boot="b", retain_bytes=10**6), HubModel()
    for n in range(6):
        spool.record([("t", n)], None, T + n)
        frame = spool.cut()
        assert frame is not None
        spool.acknowledge(frame.seq, frame.chain, f"run.{frame.seq}")
    connect(copying(spool, "run 1"), spool, hub, window=1, rounds=1)
    spool.close()

    spool = FileSpool(tmp_path, boot="b", retain_bytes=10**6)
    connect(Restoring(spool, "d", "run 2"), spool, hub, window=2, rounds=1, hears=False)
    spool.close()
    spool = FileSpool(tmp_path, boot="b", retain_bytes=10**6)
    restoring = Restoring(spool, "d", "run 3")
    assert restoring.is_active
    connect(restoring, spool, hub)

    assert (values(hub), hub.alarms) == ([0, 1, 2, 3, 4, 5], [])
    assert spool.copying is None
    assert not Restoring(spool, "d", "run 4").is_active
    spool.close()


def test_hub_that_is_restored_while_it_gets_a_copy_gets_all_of_it() -> None:
    """It has lost what it had acked of the copy too; the copy begins anew on another stream."""
    spool, hub = acked_spool(4), HubModel()
    restoring = copying(spool)
    connect(restoring, spool, hub, window=2, rounds=1)
    (first,) = hub.streams

    restored = HubModel()
    ended = connect(restoring, spool, restored)
    connect(restoring, spool, restored)

    assert ended == "the hub does not hold what was copied to it"
    assert values(restored) == [0, 1, 2, 3]
    assert [name for name, stream in restored.streams.items() if stream.stored] != [first]


def test_copy_that_the_hub_refuses_goes_on_elsewhere_behind_what_is_acked() -> None:
    """Frames of others stand under its numbers: what is acked is safe, the rest goes on another stream."""
    spool, hub = acked_spool(4), HubModel()
    restoring = copying(spool)
    connect(restoring, spool, hub, window=2, rounds=1)
    (stream,) = hub.streams.values()
    stream.stored, stream.chains = 4, {n: bytes([n]) * 16 for n in range(5)}

    ended = connect(restoring, spool, hub)
    connect(restoring, spool, hub)

    assert ended == "chain_conflict"
    assert values(hub) == [0, 1, 2, 3]


def test_hub_that_never_holds_what_was_copied_is_given_up() -> None:
    """Three times without any progress: it was declared when the copy began, and the device goes on."""
    spool = acked_spool(4)
    restoring = copying(spool)
    connect(restoring, spool, HubModel(), window=2, rounds=1)

    for _ in range(TRIES):
        assert restoring.is_active
        restoring.hello(hello(spool))
        assert restoring.begin(welcome(1, b"\x07" * 16)) == "the hub does not hold what was copied to it"
        restoring.disconnected()

    assert not restoring.is_active
    assert spool.copying is None


@pytest.mark.parametrize("kept", [0, 10**6], ids=["nothing kept", "all kept"])
def test_stream_that_the_hub_refuses_is_given_up(kept: int) -> None:
    """Three refusals without any progress: it is declared, and the device goes on."""
    spool = acked_spool(2, retain_bytes=kept)
    restoring = Restoring(spool, "d", "r")
    restoring.is_needed(welcome(0))
    for _ in range(2 * TRIES):
        restoring.refuse() if restoring.is_active else None

    assert not restoring.is_active
    gap = spool.cut()
    assert gap is not None
    assert b'"reason":"hub_restored"' in gap.body


def test_frames_go_in_pieces_that_the_line_can_take() -> None:
    """Not a whole window of large frames at once."""
    spool = acked_spool(5)
    resend = Resend(Behind(spool.stream, 0, 5, ""), frames_of(spool), 0, wire.CHAIN_START)

    assert len(resend.take(9, 1)) == 1
    assert len(resend.take(9, MAX_BYTES)) == 4
