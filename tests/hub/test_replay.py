"""A quarantined frame is replayed once: what is valid now is stored on the hub's own stream, and the ledger says so."""

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from device_sdk.columns import Batch, Column, encode_batch, encode_json, to_columns
from device_sdk.reading import Channel, Reading, ValueType
from device_sdk.wire import CHAIN_START, HUB_STREAM, Gap, encode, next_chain
from hub.app import Hub
from hub.config import Config
from hub.errors import DiskFullError, JournalError, NotFoundError
from hub.journal.base import ReplayEntry
from hub.journal.sqlite import SqliteJournal
from hub.model import Frame, Kind, StreamKey
from hub.replay import Outcome, Replay, Replays
from tests.support.frames import STREAM, T0, FrameMaker
from tests.support.hub_parts import HubParts, hub_parts

pytestmark = pytest.mark.asyncio
OWN = StreamKey("default", "pump", HUB_STREAM)
GOOD = encode_batch(to_columns(9, [Reading("t", T0 + i, 20.5 + i) for i in range(3)]))
MIXED = encode_json(Batch(9, 2, T0, 1, (Column("t", [0], [20.5]), Column("nobody", [0], [1.0]))))
UNKNOWN = encode_json(Batch(9, 1, T0, 1, (Column("nobody", [0], [1.0]),)))


def quarantine(folder: Path, *bodies: bytes) -> None:
    """Write a journal as a hub left it whose validation took none of these frames of pump, 3 readings each."""
    maker = FrameMaker()
    with closing(SqliteJournal(folder / "journal.sqlite3")) as journal:
        journal.append([maker.one("pump", 1.0, T0 - 1)], maker.all_series())
        journal.append([maker.quarantined("pump", body, 3) for body in bodies], [])


def rows(hub: HubParts | Hub) -> list[tuple[int, object]]:
    """Return what the store holds of the channel, but the reading before."""
    return [(row.time_ns, row.value) for row in hub.store.read([1], T0, 2**62, 100)]


async def test_what_is_valid_now_is_stored_on_the_hubs_own_stream(tmp_path: Path) -> None:
    """Its readings are rows, received when they came; the device's counters stay, what was replayed is summed up."""
    quarantine(tmp_path, GOOD)
    with hub_parts(tmp_path) as hub:
        hub.store.write(hub.journal.read(0, 10**6))

        answer = await hub.replays.replay("default", 2)

        assert answer == Replay(Outcome.REPLAYED, 3, 0)
        assert rows(hub) == [(T0, 20.5), (T0 + 1, 21.5), (T0 + 2, 22.5)]
        device, own = hub.streams.get(StreamKey("default", "pump", STREAM)).mark, hub.streams.get(OWN).mark
        assert (device.stored, device.accepted, device.rejected, device.quarantined) == (2, 1, 3, 1)
        assert (own.stored, own.accepted, own.rejected, own.last_ns) == (1, 3, 0, T0)
        assert own == hub.journal.find_marks([OWN])[OWN]
        assert hub.journal.replays("default") == {device.key: ReplayEntry(1, 3)}


async def test_entry_is_replayed_once(tmp_path: Path) -> None:
    """Asked twice at once both hear of the one replay; asked later, and after a restart, nothing is added."""
    quarantine(tmp_path, GOOD)
    async with Hub(Config(data=tmp_path)) as hub:
        together = await asyncio.gather(*(hub.replays.replay("default", 2) for _ in range(5)))
        later = await hub.replays.replay("default", 2)
        assert await hub.consumer.applied(hub.journal.head, 10)

    assert together == [Replay(Outcome.REPLAYED, 3, 0)] * 5
    assert later == Replay(Outcome.ALREADY)
    async with Hub(Config(data=tmp_path)) as hub:
        assert await hub.replays.replay("default", 2) == Replay(Outcome.ALREADY)
        # Not the journal's head: what was refused is told as a reading of $sys, when the hub gets to it.
        assert (hub.streams.get(OWN).mark.stored, len(rows(hub))) == (1, 3)
        (counters,) = hub.store.counters([1])
        assert (counters.accepted, counters.superseded, counters.rows) == (4, 0, 4)


async def test_own_stream_goes_on_over_several_replays(tmp_path: Path) -> None:
    """Each replay is the next frame of the chain, also after a restart: numbers and chains follow."""
    quarantine(tmp_path, GOOD, MIXED)
    with hub_parts(tmp_path) as hub:
        await hub.replays.replay("default", 2)
    with hub_parts(tmp_path) as hub:
        answer = await hub.replays.replay("default", 3)

        mark = hub.streams.get(OWN).mark
        assert answer == Replay(Outcome.REPLAYED, 1, 1)
        assert (mark.stored, mark.accepted, mark.rejected) == (2, 4, 1)
        assert mark.last_chain == next_chain(next_chain(CHAIN_START, GOOD), MIXED)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        pytest.param(b"\xff{raw", "binary frame", id="noise"),
        pytest.param(b'{"op":"batch","seq":9,"count":3}', "t0", id="field-missing"),
        pytest.param(b'{"op":"bye"}', "holds no readings", id="no-frame"),
        pytest.param(UNKNOWN, "unknown_channel", id="nothing-would-be-taken"),
    ],
)
async def test_still_malformed_stays_and_says_why(tmp_path: Path, body: bytes, why: str) -> None:
    """Nothing is stored, the entry may be replayed after the next fix."""
    quarantine(tmp_path, body)
    with hub_parts(tmp_path) as hub:
        answer = await hub.replays.replay("default", 2)

        assert (answer.outcome, answer.accepted, answer.rejected) == (Outcome.MALFORMED, 0, 0)
        assert why in answer.why
        assert (hub.journal.head, hub.journal.replays("default")) == (2, {})
        assert hub.journal.quarantine("default")[0].replayed_ns is None


async def test_entry_waits_for_a_declared_channel(tmp_path: Path) -> None:
    """What is refused today because its channel is not known is taken once the device declared it."""
    quarantine(tmp_path, UNKNOWN)
    with hub_parts(tmp_path) as hub:
        before = await hub.replays.replay("default", 2)
        hub.registry.declare("default", "pump", [Channel("nobody", type=ValueType.FLOAT)])

        assert before.outcome is Outcome.MALFORMED
        assert await hub.replays.replay("default", 2) == Replay(Outcome.REPLAYED, 1, 0)


async def test_declared_loss_is_replayed_as_one(tmp_path: Path) -> None:
    """A gap that could not be read counts as dropped on the hub's own stream."""
    quarantine(tmp_path, encode(Gap(9, 70, "spool_full", {"t": (T0, T0 + 1)})))
    with hub_parts(tmp_path) as hub:
        assert await hub.replays.replay("default", 2) == Replay(Outcome.REPLAYED, 0, 0)

        (gap,) = hub.journal.gaps("default")
        assert (gap.key, gap.seq, gap.count, gap.reason) == (OWN, 1, 70, "spool_full")


async def test_other_namespaces_see_nothing(tmp_path: Path) -> None:
    """An entry of another namespace is not found, nor is one that never was."""
    quarantine(tmp_path, GOOD)
    with hub_parts(tmp_path) as hub:
        for namespace, offset in (("other", 2), ("default", 1)):
            with pytest.raises(NotFoundError):
                await hub.replays.replay(namespace, offset)
        assert hub.journal.head == 2


class Held:
    """Takes frames and commits none."""

    def __init__(self, parts: HubParts) -> None:
        self.frames: list[Frame] = []
        self.is_asked = asyncio.Event()
        self.replays = Replays(parts.streams, parts.registry, parts.journal, self.submit, lambda: T0, parts.messages)

    def submit(self, frames: list[Frame]) -> None:
        """Keep them."""
        self.frames += frames
        self.is_asked.set()


@pytest.mark.parametrize("fault", ["refused", "failed"])
async def test_failed_commit_leaves_the_entry_as_it_was(tmp_path: Path, fault: str) -> None:
    """Whoever asked hears of the full disk or the broken journal; after that the same entry can be replayed."""
    quarantine(tmp_path, GOOD)
    with hub_parts(tmp_path) as hub:
        held = Held(hub)
        asked = asyncio.create_task(held.replays.replay("default", 2))
        await held.is_asked.wait()
        if fault == "refused":
            hub.streams.refused(held.frames)
            held.replays.refused(held.frames)
        else:
            held.replays.failed(JournalError("fsync failed"))

        with pytest.raises(DiskFullError if fault == "refused" else JournalError):
            await asked
        if fault == "refused":
            assert await hub.replays.replay("default", 2) == Replay(Outcome.REPLAYED, 3, 0)


async def test_asker_that_leaves_does_not_open_a_second_replay(tmp_path: Path) -> None:
    """The one who asks while the first frame is on its way, though its asker is gone, waits for the same commit."""
    quarantine(tmp_path, GOOD)
    with hub_parts(tmp_path) as hub:
        held = Held(hub)
        first = asyncio.create_task(held.replays.replay("default", 2))
        await held.is_asked.wait()
        first.cancel()
        second = asyncio.create_task(held.replays.replay("default", 2))
        await asyncio.sleep(0)
        hub.store_frames(held.frames)
        held.replays.committed(held.frames)

        assert await second == Replay(Outcome.REPLAYED, 3, 0)
        assert [(f.kind, f.seq) for f in held.frames] == [(Kind.BATCH, 1)]
