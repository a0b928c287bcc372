"""The writer groups what queues during a commit, answers on the loop in order, and never stores behind a refusal."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from device_sdk.wire import Rejection
from hub.errors import DiskFullError, JournalError
from hub.journal.writer import MAX_GROUP_BYTES, JournalWriter
from hub.model import Frame
from hub.store.consumer import MAX_QUEUE_BYTES
from tests.support.frames import T0, FrameMaker
from tests.support.journal import GatedJournal

pytestmark = pytest.mark.asyncio


@dataclass
class Bench:
    """A writer on a gated journal, with everything it said."""

    journal: GatedJournal
    maker: FrameMaker = field(default_factory=FrameMaker)
    committed: list[list[Frame]] = field(default_factory=list)
    refused: list[list[Frame]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    said: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.writer = JournalWriter(
            self.journal, asyncio.get_running_loop(), self.on_committed, self.on_failed, self.on_refused,
            max_bytes=10_000,
        )  # fmt: skip
        self.writer.start()

    def on_committed(self, frames: list[Frame]) -> None:
        self.committed.append(frames)
        self.said.set()

    def on_refused(self, frames: list[Frame]) -> None:
        self.refused.append(frames)
        self.said.set()

    def on_failed(self, error: Exception) -> None:
        self.failures.append(error)
        self.said.set()

    def submit(self, *frames: Frame) -> None:
        """Submit with every series, as a registry does."""
        self.writer.submit(list(frames), self.maker.all_series())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what was said makes the condition true."""
        async with asyncio.timeout(10):
            while not condition():
                await self.said.wait()
                self.said.clear()

    async def in_append(self) -> None:
        """Wait until the writer's thread is inside append."""
        assert await asyncio.to_thread(self.journal.entered.acquire, timeout=10)


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A started writer; stopped afterwards."""
    bench = Bench(GatedJournal(tmp_path / "journal.sqlite3"))
    yield bench
    bench.journal.release()
    await asyncio.to_thread(bench.writer.stop)
    bench.journal.close()


async def test_idle_commits_at_once(bench: Bench) -> None:
    """A frame submitted to an idle writer is durable and answered without waiting for more."""
    frame = bench.maker.one("pump", 1.0)
    bench.submit(frame)

    await bench.until(lambda: bool(bench.committed))

    assert bench.committed == [[frame]]
    assert frame.offset == 1
    assert bench.journal.read(0, 1000) == [frame]


async def test_busy_commits_all_that_queued(bench: Bench) -> None:
    """Everything submitted during a commit is one group, in order; the queue is counted in bytes."""
    frames = [bench.maker.one("pump", float(i), T0 + i) for i in range(20)]
    bench.journal.hold()
    bench.submit(frames[0])
    await bench.in_append()
    for frame in frames[1:]:
        bench.submit(frame)
    queued = bench.writer.statistics()
    bench.journal.release()

    await bench.until(lambda: len(bench.committed) == 2)

    assert bench.committed == [frames[:1], frames[1:]]
    assert queued.frames == 19
    assert bench.journal.statistics().largest_group == 19


async def test_nothing_is_said_before_the_commit(bench: Bench) -> None:
    """While the disk works nobody hears of the frame: an ack cannot leave early."""
    bench.journal.hold()
    bench.submit(bench.maker.one("pump", 1.0))
    await bench.in_append()
    await asyncio.sleep(0)

    assert bench.committed == []
    bench.journal.release()
    await bench.until(lambda: bool(bench.committed))


async def test_full_queue_says_so(bench: Bench) -> None:
    """`is_full` rises at the limit of bytes, counts what is under the disk's hands, and falls when it is durable."""
    bench.journal.hold()
    bench.submit(*[bench.maker.one("pump", float(i), T0 + i) for i in range(20)])
    await bench.in_append()
    was_full, peak = bench.writer.is_full, bench.writer.statistics().peak_bytes
    bench.journal.release()
    await bench.until(lambda: bool(bench.committed))
    await asyncio.to_thread(bench.writer.stop)

    assert was_full
    assert peak >= 10_000
    assert not bench.writer.is_full
    assert bench.writer.statistics().bytes == 0


async def test_queue_gives_back_what_it_took(bench: Bench) -> None:
    """Also of frames that became lighter: a commit's names of refused readings go, maybe before the thread goes on."""
    frame = bench.maker.batch("pump", [("t", T0, 1.0)], rejected=(Rejection(1, "x", 0, "bad_name"),))
    bench.journal.hold()
    bench.submit(frame)
    await bench.in_append()
    before = frame.memory_bytes
    frame.forget_rejected()
    bench.journal.release()
    await asyncio.to_thread(bench.writer.stop)

    assert frame.memory_bytes < before
    assert bench.writer.statistics().bytes == 0


async def test_full_disk_refuses_all_behind(bench: Bench) -> None:
    """Refused together: the group, what queued behind it, and what came before the loop heard; then work goes on."""
    frames = [bench.maker.one("pump", float(i), T0 + i) for i in range(4)]
    bench.journal.errors.append(DiskFullError("full"))
    bench.journal.hold()
    bench.submit(frames[0])
    await bench.in_append()
    bench.submit(frames[1], frames[2])
    bench.journal.release()
    while bench.writer.statistics().frames:
        pass
    # The writer has refused; the loop has not run since, so it cannot have heard.
    bench.submit(frames[3])

    await bench.until(lambda: bool(bench.refused))
    bench.submit(*frames)
    await bench.until(lambda: bool(bench.committed))

    assert bench.refused == [frames]
    assert bench.committed == [frames]
    assert bench.writer.statistics().refused == 4


async def test_series_survive_a_refusal(bench: Bench) -> None:
    """A series that came with refused frames is committed with the next ones, though it is not submitted again."""
    frame = bench.maker.one("pump", 1.0)
    bench.journal.errors.append(DiskFullError("full"))
    bench.submit(frame)
    await bench.until(lambda: bool(bench.refused))

    bench.writer.submit([frame])
    await bench.until(lambda: bool(bench.committed))

    assert bench.journal.series() == bench.maker.all_series()
    assert bench.journal.groups == [[frame], [frame]]


@pytest.mark.parametrize("error", [JournalError("a commit failed"), RuntimeError("a bug")])
async def test_failure_is_told_once(bench: Bench, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """After a failed commit the writer says so once, stores nothing more and refuses loudly."""
    frames = [bench.maker.one("pump", float(i), T0 + i) for i in range(2)]
    bench.journal.errors.append(error)
    bench.journal.hold()
    bench.submit(frames[0])
    await bench.in_append()
    bench.submit(frames[1])
    bench.journal.release()
    await bench.until(lambda: bool(bench.failures))

    with pytest.raises(JournalError, match="start the hub again"):
        bench.submit(frames[1])
    await asyncio.to_thread(bench.writer.stop)

    assert bench.failures == [error]
    assert (bench.committed, bench.refused, bench.journal.head) == ([], [], 0)
    assert "journal failed reason=" in caplog.text


async def test_stop_drains(bench: Bench) -> None:
    """Stopping commits everything that was submitted; the answers are on the loop when it returns."""
    frames = [bench.maker.one("pump", float(i), T0 + i) for i in range(5)]
    bench.submit(*frames)

    await asyncio.to_thread(bench.writer.stop)
    await asyncio.to_thread(bench.writer.stop)
    await asyncio.sleep(0)

    assert [f for group in bench.committed for f in group] == frames


async def test_large_queue_becomes_several_groups(tmp_path: Path) -> None:
    """A group ends at its limit, in bytes of memory, so that the acks in front do not wait for all behind."""
    journal, maker = GatedJournal(tmp_path / "journal.sqlite3"), FrameMaker()
    groups: list[list[Frame]] = []
    frames = [maker.quarantined("pump", bytes(1000)) for _ in range(10)]
    writer = JournalWriter(
        journal, asyncio.get_running_loop(), groups.append, lambda error: None, lambda frames: None,
        max_group_bytes=3 * frames[0].memory_bytes,
    )  # fmt: skip
    writer.submit(frames)
    writer.start()

    await asyncio.to_thread(writer.stop)
    await asyncio.sleep(0)

    assert [len(group) for group in groups] == [3, 3, 3, 1]
    journal.close()


async def test_largest_group_leaves_room_in_the_stores_queue() -> None:
    """The store is handed a commit whole or not at all: one larger than its queue would always be read back."""
    assert 2 * MAX_GROUP_BYTES <= MAX_QUEUE_BYTES
