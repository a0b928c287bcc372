"""The consumer brings every committed frame into the store once and in order, whatever fails on the way."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from hub.errors import DiskFailedError
from hub.journal.sqlite import SqliteJournal
from hub.model import Frame
from hub.store.consumer import CONSUMER, StoreConsumer
from tests.support.faulty_store import FaultyStore
from tests.support.frames import T0, FrameMaker

pytestmark = pytest.mark.asyncio
WAIT_S = 10.0


class Line:
    """A journal, a store that can fail, and consumers between them."""

    def __init__(self, path: Path) -> None:
        self.journal = SqliteJournal(path / "journal.sqlite3")
        self.store = FaultyStore()
        self.maker = FrameMaker()
        self._consumers: list[StoreConsumer] = []

    def consumer(self, *, max_queue_bytes: int = 10**6, slice_readings: int = 5000) -> StoreConsumer:
        """Make a consumer that is stopped with the test; checkpoints at every step, retries at once."""
        consumer = StoreConsumer(
            self.store, self.journal, max_queue_bytes=max_queue_bytes, slice_readings=slice_readings,
            retry_first_s=0.001, checkpoint_s=0.0,
        )  # fmt: skip
        self._consumers.append(consumer)
        return consumer

    def commit(self, *frames: Frame) -> list[Frame]:
        """Append to the journal as one commit."""
        self.journal.append(frames, self.maker.all_series())
        return list(frames)

    def one(self, value: float) -> Frame:
        """Return a frame with one reading."""
        return self.maker.one("pump", value, T0 + int(value))

    def stop(self) -> None:
        self.store.release()
        for consumer in self._consumers:
            consumer.stop()


@pytest_asyncio.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    """An empty journal and store."""
    line = Line(tmp_path)
    yield line
    await asyncio.to_thread(line.stop)
    line.journal.close()


async def test_start_replays_what_the_store_has_not_seen(line: Line) -> None:
    """From the store's own position on, everything in the journal arrives without being woken for it."""
    frames = line.commit(*[line.one(i) for i in range(10)])
    line.store.write(frames[:4])
    consumer = line.consumer()

    consumer.start()

    assert await consumer.applied(10, WAIT_S)
    assert [offset for write in line.store.writes[1:] for offset in write] == list(range(5, 11))


async def test_wake_hands_frames_over_in_memory(line: Line) -> None:
    """Frames just committed are written as they are handed over, in slices of bounded readings."""
    consumer = line.consumer(slice_readings=3)
    consumer.start()
    line.store.hold()
    consumer.wake(line.commit(line.one(0)))
    assert await asyncio.to_thread(line.store.entered.acquire, timeout=WAIT_S)
    for i in range(1, 8):
        consumer.wake(line.commit(line.one(i)))
    line.store.release()

    assert await consumer.applied(8, WAIT_S)
    assert line.store.writes == [[1], [2, 3, 4], [5, 6, 7], [8]]


async def test_more_than_the_queue_is_read_back(line: Line) -> None:
    """What does not fit the queue is read from the journal; order and completeness stay; memory stays bounded."""
    limit = 5 * FrameMaker().one("pump", 0.0).memory_bytes
    consumer = line.consumer(max_queue_bytes=limit)
    consumer.start()
    line.store.hold()
    consumer.wake(line.commit(line.one(0)))
    assert await asyncio.to_thread(line.store.entered.acquire, timeout=WAIT_S)
    for i in range(1, 40):
        consumer.wake(line.commit(line.one(i)))
        assert consumer.statistics().queued_bytes <= limit
    behind = consumer.statistics().behind
    line.store.release()

    assert await consumer.applied(40, WAIT_S)
    assert behind == 40
    assert [offset for write in line.store.writes for offset in write] == list(range(1, 41))
    assert consumer.statistics().queued_bytes == 0 or consumer.statistics().behind == 0


async def test_store_errors_lose_nothing(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    """A store that fails is asked again until it takes the frames; the first error of a series is logged."""
    line.store.errors += [OSError("down"), OSError("down"), RuntimeError("odd")]
    consumer = line.consumer()
    consumer.start()

    consumer.wake(line.commit(*[line.one(i) for i in range(3)]))

    assert await consumer.applied(3, WAIT_S)
    assert (consumer.statistics().errors, consumer.statistics().last_error) == (3, "odd")
    assert [r.levelname for r in caplog.records] == ["ERROR", "ERROR"]
    assert line.store.writes == [[1, 2, 3]]


async def test_store_whose_disk_failed_is_not_asked_again(line: Line) -> None:
    """Whoever runs the hub hears of it once; what the store lacks stays in the journal."""
    line.store.errors += [DiskFailedError("fsync failed")]
    failed: asyncio.Queue[Exception] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def tell(error: Exception) -> None:
        loop.call_soon_threadsafe(failed.put_nowait, error)

    consumer = StoreConsumer(line.store, line.journal, on_failed=tell)
    consumer.start()

    consumer.wake(line.commit(line.one(1)))

    assert str(await asyncio.wait_for(failed.get(), WAIT_S)) == "fsync failed"
    consumer.wake(line.commit(line.one(2)))
    await asyncio.to_thread(consumer.stop)
    assert (line.store.writes, consumer.statistics().errors, failed.qsize()) == ([], 1, 0)
    assert line.journal.checkpoint(CONSUMER) == 0


async def test_applied_times_out(line: Line) -> None:
    """Waiting for what does not come ends after the time given, with False; what is there is True at once."""
    consumer = line.consumer()
    consumer.start()
    consumer.wake(line.commit(line.one(0)))

    assert await consumer.applied(1, WAIT_S)
    assert await consumer.applied(0, 0.0)
    assert not await consumer.applied(2, 0.01)


async def test_stop_answers_waiters(line: Line) -> None:
    """Stopping tells those who wait that it will not come, and leaves the rest to the journal."""
    consumer = line.consumer()
    consumer.start()
    waiting = asyncio.create_task(consumer.applied(5, WAIT_S))
    await asyncio.sleep(0)

    await asyncio.to_thread(consumer.stop)
    await asyncio.to_thread(consumer.stop)

    assert await waiting is False


async def test_checkpoint_follows_what_is_durable(line: Line) -> None:
    """The journal may forget what the store made durable, from the start on and after a stop; nothing above it."""
    consumer = line.consumer()
    for i in range(3):
        line.commit(line.one(i))
    consumer.start()
    assert await consumer.applied(3, WAIT_S)
    await asyncio.to_thread(consumer.stop)

    assert line.journal.checkpoint(CONSUMER) == 3
    assert line.journal.trim(10**9) == 3


async def test_start_holds_the_journal(line: Line) -> None:
    """Once the consumer is started the journal keeps what the store has not seen, though nothing is written yet."""
    line.store.hold()
    for i in range(3):
        line.commit(line.one(i))
    consumer = line.consumer()
    consumer.start()

    assert line.journal.trim(10**9) == 1


async def test_store_older_than_the_journal_goes_on(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    """What the journal has trimmed and an emptied or restored store lacks is counted and told; the rest arrives."""
    for i in range(5):
        line.commit(line.one(i))
    line.journal.trim(4)
    consumer = line.consumer()

    consumer.start()

    assert await consumer.applied(5, WAIT_S)
    assert line.store.writes == [[4, 5]]
    assert consumer.statistics().expired == 3
    assert "store lost frames from=1 to=3" in caplog.text


async def test_journal_older_than_the_store_goes_on(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    """When the journal was restored from an older copy, frames that reuse offsets are stored, not skipped."""
    first = line.commit(line.one(0))
    line.store.write(first)
    line.store.rewind(50)
    consumer = line.consumer()

    consumer.start()
    consumer.wake(line.commit(line.one(1)))

    assert await consumer.applied(2, WAIT_S)
    assert line.store.statistics().rows == 2
    assert "store ahead of journal applied=50 head=1" in caplog.text


async def test_store_that_fell_back_is_followed(line: Line) -> None:
    """A store whose server lost what was not durable yet gets it again from the journal, and what is new after it."""
    line.commit(*[line.one(i) for i in range(6)])
    consumer = line.consumer()
    consumer.start()
    assert await consumer.applied(6, WAIT_S)

    line.store.rewind(2)
    consumer.wake(line.commit(line.one(6)))

    assert await consumer.applied(7, WAIT_S)
    assert [offset for write in line.store.writes for offset in write][6:] == [3, 4, 5, 6, 7]
