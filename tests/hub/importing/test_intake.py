"""Frames of a file are stored once each, whoever sends them how often; nothing of an import counts as a device's."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from device_sdk.columns import encode_batch, to_columns
from device_sdk.reading import Channel, Value, ValueType
from device_sdk.wire import CHAIN_START, Hello, encode, next_chain
from hub.app import Hub
from hub.config import Config
from hub.devices import Presence
from hub.errors import BadRequestError, ConflictError, DiskFullError, JournalError, UnavailableError
from hub.importing.intake import Found, Imports, Sent, UnitKept
from hub.journal.sqlite import SqliteJournal
from hub.model import Frame, Mark, StreamKey
from tests.support.hub_parts import HubParts, hub_parts
from tests.support.hub_process import wait_for

pytestmark = pytest.mark.asyncio
ID = "ab" * 16
T0 = 1_700_000_000 * 10**9
T = (Channel("t", "Cel", ValueType.FLOAT),)
KEY = StreamKey("default", "old", f"import-{ID}")
NOTHING = Found(0, CHAIN_START, 0, 0)


def sent(seq: int, *values: Value, device: str = "old") -> Sent:
    """Return a frame of a channel, a reading a nanosecond."""
    body = encode_batch(to_columns(seq, [("t", T0 + seq * 1000 + i, value) for i, value in enumerate(values)]))
    return Sent(device, body, T if seq == 1 else ())


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubParts]:
    """Return an empty hub."""
    with hub_parts(tmp_path) as parts:
        yield parts


def stored(hub: HubParts | Hub) -> list[Value]:
    """Return the values that are stored, by time."""
    return [row.value for row in hub.store.read(list(hub.registry.by_id), 0, 2**62, 1000)]


async def test_frames_are_stored_once_and_answers_say_what_was_stored_before(hub: HubParts) -> None:
    """Sent again, alone or with new ones, a frame adds nothing; devices are apart; the mark is the journal's."""
    first = await hub.imports.take("default", ID, [sent(1, 1.0, 2.0), sent(1, 7.0, device="other")])
    again = await hub.imports.take("default", ID, [sent(1, 1.0, 2.0), sent(2, 3.0)])

    chain = next_chain(CHAIN_START, sent(1, 1.0, 2.0).body)
    assert first.found == {"old": NOTHING, "other": NOTHING}
    assert again.found == {"old": Found(1, chain, 2, 0)}
    assert sorted(map(str, stored(hub))) == ["1.0", "2.0", "3.0", "7.0"]
    assert hub.journal.find_marks([KEY])[KEY].stored == 2
    assert hub.registry.device("default", "old").channels["t"].unit == "Cel"


async def test_unit_that_a_channel_has_stays(hub: HubParts) -> None:
    """A device that sends in Cel does not send in degF because its history did; who imports is told."""
    hub.registry.declare("default", "old", [Channel("t", "Cel")])

    same = await hub.imports.take("default", ID, [sent(1, 1.0)])
    other = Sent("old", sent(2, 2.0).body, (Channel("t", "degF"), Channel("u", "W")))
    told = await hub.imports.take("default", ID, [other])

    channels = hub.registry.device("default", "old").channels
    assert (same.units, told.units) == ([], [UnitKept("old", "t", "Cel", "degF")])
    assert (channels["t"].unit, channels["u"].unit) == ("Cel", "W")


async def test_same_unit_in_other_words_is_none_other(hub: HubParts) -> None:
    """What people would see is the same."""
    hub.registry.declare("default", "old", [Channel("t", "degC")])

    taken = await hub.imports.take("default", ID, [sent(1, 1.0)])

    assert taken.units == []
    assert hub.registry.device("default", "old").channels["t"].unit == "degC"


async def test_every_refused_reading_is_named(hub: HubParts) -> None:
    """More than an ack would name: whoever imports must find each of them in the file."""
    values: list[Value] = ["x" if i % 2 else 1.0 for i in range(500)]

    taken = await hub.imports.take("default", ID, [sent(1, *values)])

    assert [(device, r.seq, r.index, r.reason) for device, r in taken.refused] == [
        ("old", 1, i, "type_conflict") for i in range(1, 500, 2)
    ]
    assert (len(stored(hub)), hub.streams.get(KEY).mark.rejected) == (250, 250)


async def test_gap_in_the_numbers_is_a_conflict_and_stores_what_comes_before(hub: HubParts) -> None:
    """A frame that is not the next one is never stored."""
    with pytest.raises(ConflictError, match="expected 2"):
        await hub.imports.take("default", ID, [sent(1, 1.0), sent(3, 3.0)])

    assert stored(hub) == [1.0]


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"\x01junk", encode(Hello("old", "a" * 16, "", "", 0, 1, "0" * 32)), b"{" + b" " * 262_144]
)
async def test_body_that_is_no_batch_stores_nothing_of_the_request(hub: HubParts, body: bytes) -> None:
    """Such a request was made by no client of ours."""
    with pytest.raises(BadRequestError):
        await hub.imports.take("default", ID, [sent(1, 1.0), Sent("old", body)])

    assert stored(hub) == []


async def test_request_of_too_many_readings_stores_nothing(hub: HubParts) -> None:
    """Each may be refused, and the answer names each: the loop must not make lists of hundreds of thousands."""
    frames = [sent(seq, *[1.0] * 10_000) for seq in range(1, 7)]

    with pytest.raises(BadRequestError, match="several requests"):
        await hub.imports.take("default", ID, frames)
    await hub.imports.take("default", ID, frames[:5])

    assert hub.journal.find_marks([KEY])[KEY].stored == 5


async def test_writer_that_is_full_takes_nothing(hub: HubParts) -> None:
    """An import waits, as devices do."""
    imports = Imports(hub.streams, hub.registry, hub.journal.find_marks, hub.store_frames, lambda: False, lambda: T0)

    with pytest.raises(UnavailableError):
        await imports.take("default", ID, [sent(1, 1.0)])

    assert stored(hub) == []
    assert len(hub.streams) == 0


async def test_full_disk_is_said_and_the_same_request_works_later(hub: HubParts) -> None:
    """What was refused is not stored, does not count, and comes again; so it is when the journal has failed."""
    submitted: list[Frame] = []
    imports = Imports(hub.streams, hub.registry, hub.journal.find_marks, submitted.extend, lambda: True, lambda: T0)
    answers = []
    for end in (imports.refused, lambda _: imports.failed(JournalError("broken"))):
        request = asyncio.create_task(imports.take("default", ID, [sent(1, 1.0), sent(2, 2.0)]))
        await wait_for(lambda: len(submitted) == 2)
        hub.registry.forget_arriving()
        hub.streams.refused(submitted)
        end(submitted)
        submitted.clear()
        answers.append((await asyncio.gather(request, return_exceptions=True))[0])

    await hub.imports.take("default", ID, [sent(1, 1.0), sent(2, 2.0)])

    assert [type(answer) for answer in answers] == [DiskFullError, JournalError]
    assert stored(hub) == [1.0, 2.0]


async def test_frame_on_its_way_is_waited_for(tmp_path: Path) -> None:
    """Two requests with the same frames at once both hear of the one commit; after a restart it is known."""
    async with Hub(Config(data=tmp_path)) as hub:
        frames = [sent(seq, float(seq)) for seq in range(1, 20)]
        await asyncio.gather(*(hub.imports.take("default", ID, frames) for _ in range(4)))
    async with Hub(Config(data=tmp_path)) as hub:
        taken = await hub.imports.take("default", ID, frames)
        await hub.consumer.applied(hub.streams.head, 10)

        assert (taken.found["old"].stored, taken.found["old"].accepted) == (19, 19)
        assert stored(hub) == [float(seq) for seq in range(1, 20)]


async def test_frame_of_a_cancelled_request_is_waited_for(hub: HubParts) -> None:
    """It is on its way all the same; whoever sends it again hears of its commit."""
    submitted: list[Frame] = []
    imports = Imports(hub.streams, hub.registry, hub.journal.find_marks, submitted.extend, lambda: True, lambda: T0)
    first = asyncio.create_task(imports.take("default", ID, [sent(1, 1.0)]))
    await wait_for(lambda: len(submitted) == 1)
    # Until it waits for the commit: cancelled between two frames it would wait for what it has submitted.
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])

    again = asyncio.create_task(imports.take("default", ID, [sent(1, 1.0)]))
    await asyncio.wait([again], timeout=0)
    imports.committed(submitted)

    assert (await again).found == {"old": NOTHING}
    assert len(submitted) == 1


async def test_streams_of_a_request_are_looked_up_together_and_beside_the_loop(hub: HubParts) -> None:
    """One look at the journal for hundreds of devices, in a thread: devices are heard meanwhile."""
    looks: list[tuple[int, bool]] = []

    def find(keys: Sequence[StreamKey]) -> dict[StreamKey, Mark]:
        looks.append((len(keys), threading.current_thread() is threading.main_thread()))
        return hub.journal.find_marks(keys)

    hub.imports = Imports(hub.streams, hub.registry, find, hub.store_frames, lambda: True, lambda: T0)

    await hub.imports.take("default", ID, [sent(seq, float(seq), device=f"d{n}") for n in range(30) for seq in (1, 2)])

    assert looks == [(30, False)]
    assert len(stored(hub)) == 60


async def test_import_is_late_and_no_sign_of_life(hub: HubParts) -> None:
    """Watchers see history as late, a device that was imported is offline, and its newest value is known."""
    frames: list[Frame] = []
    imports = Imports(hub.streams, hub.registry, hub.journal.find_marks, frames.extend, lambda: True, lambda: T0)

    request = asyncio.create_task(imports.take("default", ID, [sent(1, 1.0), sent(2, 2.0)]))
    await wait_for(lambda: len(frames) == 2)
    hub.store_frames(frames)
    imports.committed(frames)
    await request

    device = hub.registry.device("default", "old")
    assert [frame.late for frame in frames] == [((0, 2**63 - 1),)] * 2
    assert (device.presence(T0), device.late, device.last_time_ns) == (Presence.OFFLINE, 0, T0 + 2000)
    assert [n.value for n in hub.registry.latest.values()] == [2.0]


async def test_imports_use_up_no_streams_of_a_device(tmp_path: Path) -> None:
    """A device may begin a hundred streams a day, however many files were imported for it; none stays in memory."""
    async with Hub(Config(data=tmp_path)) as hub:
        await hub.imports.take("default", ID, [sent(1, 1.0, device=f"d{number}") for number in range(1100)])
        await asyncio.gather(*(hub.imports.take("default", f"{number:032x}", [sent(1, 1.0)]) for number in range(110)))
        assert len(hub.streams) <= 1000
        assert hub.streams.may_begin(StreamKey("default", "old", "a" * 16), T0)
    with closing(SqliteJournal(tmp_path / "journal.sqlite3")) as journal:
        assert journal.begun(0) == []
