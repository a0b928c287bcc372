"""What every `Journal` must keep. One suite over all implementations."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from device_sdk.reading import ValueType
from device_sdk.wire import CHAIN_START, CHAINS_KEPT, HUB_STREAM, Rejection
from hub.errors import ExpiredError, NotFoundError
from hub.journal.base import Journal, PostedPart, ReplayEntry, Run
from hub.journal.sqlite import SqliteJournal
from hub.model import Frame, Kind, Mark, Posted, Replayed, Series, StreamKey
from tests.support.frames import STREAM, T0, FrameMaker

KEY = StreamKey("default", "pump", STREAM)
HOUR_NS = 3600 * 10**9


class Opener:
    """Opens one journal again and again, as restarts of a hub do."""

    def __init__(self, make: Callable[[], Journal]) -> None:
        self._make = make
        self._opened: list[Journal] = []

    def __call__(self) -> Journal:
        """Close what is open and open it again."""
        self.close()
        self._opened.append(self._make())
        return self._opened[-1]

    def close(self) -> None:
        """Close every journal opened so far."""
        for journal in self._opened:
            journal.close()


@pytest.fixture(params=["sqlite", "sqlite-small-rows"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """An empty journal of each implementation; small rows make each frame a row of its own."""
    row_bytes = 1 if request.param == "sqlite-small-rows" else 1024 * 1024
    opener = Opener(lambda: SqliteJournal(tmp_path / "journal.sqlite3", row_bytes=row_bytes))
    yield opener
    opener.close()


def without_details(frames: list[Frame]) -> list[Frame]:
    """Return frames as a journal gives them back: details of rejected readings are summed up elsewhere."""
    return [replace(frame, rejected=()) for frame in frames]


def test_empty_journal(opener: Opener) -> None:
    """An empty journal has head 0, reads nothing, knows no stream, and its first run begins at 1."""
    journal = opener()

    assert journal.head == 0
    assert journal.read(0, 1000) == []
    assert journal.account("default", None, 0).marks == []
    assert journal.find_marks([KEY]) == {}
    assert journal.series() == []
    assert journal.runs() == [journal.run]
    assert journal.run.first_offset == 1
    assert journal.statistics().first_offset == 1


def test_append_numbers_frames_across_streams(opener: Opener) -> None:
    """Offsets are 1, 2, 3 … in commit order over all streams, set when append returns."""
    journal, maker = opener(), FrameMaker()
    first = [maker.one("pump", 1.0), maker.one("door", True, channel="open")]
    second = [maker.one("pump", 2.0, T0 + 1)]

    journal.append(first, maker.all_series())
    journal.append(second, [])

    assert [f.offset for f in first + second] == [1, 2, 3]
    assert journal.head == 3


@pytest.mark.parametrize(
    ("channel", "values"),
    [
        pytest.param("t", [21.5, -0.0, 1e300], id="float"),
        pytest.param("n", [1, -(2**63), 2**63 - 1], id="int"),
        pytest.param("open", [True, False, True], id="bool"),
        pytest.param("state", ["", "läuft", "a\x00b"], id="str"),
        pytest.param("long", [0.5 + i for i in range(40)], id="binary"),
    ],
)
def test_read_gives_back_what_was_appended(opener: Opener, channel: str, values: list[float]) -> None:
    """A frame that is read equals the frame appended: key, body, chain, columns, values with their types."""
    journal, maker = opener(), FrameMaker()
    frame = maker.batch("pump", [(channel, T0 + i, v) for i, v in enumerate(values)])
    journal.append([frame], maker.all_series())

    found = opener().read(0, 10**6)

    assert found == [frame]
    assert [repr(v) for _, _, v in found[0].rows()] == [repr(v) for v in values]


def test_read_gives_back_gaps_and_quarantine(opener: Opener) -> None:
    """Gaps, quarantined frames and counts of rejected readings are part of the order like any frame."""
    journal, maker = opener(), FrameMaker()
    rejection = Rejection(1, "door", 0, "type_conflict")
    frames = [
        maker.batch("pump", [("t", T0, 1.0)], rejected=(rejection,)),
        maker.gap("pump", 70),
        maker.quarantined("pump", b"\xff{raw", 3),
    ]
    journal.append(frames, maker.all_series())

    found = journal.read(0, 10**6)

    assert found == without_details(frames)
    assert [f.kind for f in found] == [Kind.BATCH, Kind.GAP, Kind.QUARANTINE]


def test_read_gives_back_what_is_late(opener: Opener) -> None:
    """Watchers who read a frame later are told the same as those who got it at once."""
    journal, maker = opener(), FrameMaker()
    frame = maker.batch("pump", [("a", T0, 1.0), ("b", T0, 2.0)])
    frame.late = ((1, T0 + 5),)
    journal.append([frame], maker.all_series())

    assert [f.late for f in journal.read(0, 10**6)] == [((1, T0 + 5),)]


def test_read_is_bounded_and_gapless(opener: Opener) -> None:
    """Pages of a few bytes give every frame once, in order, and at least one a page."""
    journal, maker = opener(), FrameMaker()
    frames = maker.many(3, 10, 4)
    for at in range(0, 30, 7):
        journal.append(frames[at : at + 7], maker.all_series())

    found: list[Frame] = []
    while page := journal.read(found[-1].offset if found else 0, 150):
        assert sum(len(f.body) for f in page[:-1]) < 150
        found += page

    assert found == frames


def test_read_stops_at_upto(opener: Opener) -> None:
    """``upto`` is the last offset given; behind the head there is nothing."""
    journal, maker = opener(), FrameMaker()
    journal.append(maker.many(1, 5, 1), maker.all_series())

    assert [f.offset for f in journal.read(1, 10**6, 3)] == [2, 3]
    assert journal.read(3, 10**6, 3) == []
    assert journal.read(5, 10**6) == []
    assert journal.read(9, 10**6) == []


def test_marks_follow_the_rule_of_the_session(opener: Opener) -> None:
    """Marks in the file equal those that the session keeps in memory, counters and chains included."""
    journal, maker = opener(), FrameMaker()
    frames = [
        maker.batch("pump", [("t", T0, 1.0)], rejected=(Rejection(1, "x", 0, "bad_name"),), received_ns=T0 + 5),
        maker.gap("pump", 70),
        maker.quarantined("pump", b"{", 4),
        maker.gap("pump", None, "power_cut"),
    ]
    expected = Mark(KEY)
    for frame in frames:
        expected.advance(frame)

    journal.append(frames[:1], maker.all_series())
    journal.append(frames[1:], [])

    assert journal.find_marks([KEY]) == {KEY: expected}
    assert opener().find_marks([KEY._replace(device="door"), KEY, KEY]) == {KEY: expected}
    assert (expected.accepted, expected.rejected, expected.dropped, expected.quarantined) == (1, 5, 70, 1)


@pytest.mark.parametrize("count", [1, CHAINS_KEPT - 1, CHAINS_KEPT, 3 * CHAINS_KEPT])
def test_marks_keep_the_last_chains(opener: Opener, count: int) -> None:
    """The last 64 chains are known, chain(0) while it is among them; also when they came in several commits."""
    journal, maker = opener(), FrameMaker()
    frames = [maker.one("pump", float(i), T0 + i) for i in range(count)]
    journal.append(frames[: count // 2], maker.all_series())
    journal.append(frames[count // 2 :], [])

    mark = opener().find_marks([KEY])[KEY]

    known = [CHAIN_START, *(f.chain for f in frames)]
    forgotten = max(0, count - CHAINS_KEPT + 1)
    assert [mark.chain(seq) for seq in range(count + 2)] == [*[None] * forgotten, *known[forgotten:], None]


def test_new_streams_are_known_after_a_restart(opener: Opener) -> None:
    """Streams that began behind a time are listed with when their first frame came, oldest first."""
    journal, maker = opener(), FrameMaker()
    for n, device in enumerate(["pump", "door", "pump"]):
        journal.append([maker.batch(device, [("t", T0, 1.0)], received_ns=T0 + n)], maker.all_series())

    assert opener().begun(T0 - 1) == [(KEY, T0), (KEY._replace(device="door"), T0 + 1)]
    assert opener().begun(T0) == [(KEY._replace(device="door"), T0 + 1)]


def test_append_refuses_frames_that_do_not_follow(opener: Opener) -> None:
    """A frame stored already, or one that skips another, is a caller's bug: nothing is stored, work goes on."""
    journal, maker = opener(), FrameMaker()
    frames = [maker.one("pump", float(i), T0 + i) for i in range(3)]
    journal.append(frames[:1], maker.all_series())

    with pytest.raises(ValueError, match="does not follow 1"):
        journal.append(frames[:1], [])
    with pytest.raises(ValueError, match="does not follow 1"):
        journal.append([maker.one("door", True), frames[2]], [])

    assert [m.key for m in journal.account("default", None, 0).marks] == [KEY]
    journal.append(frames[1:], [])
    assert [f.seq for f in journal.read(0, 10**6)] == [1, 2, 3]


def test_offsets_continue_after_restart(opener: Opener) -> None:
    """A restart begins a run with an id of its own at the next offset; all runs stay known."""
    maker, runs = FrameMaker(), []
    for i in range(3):
        journal = opener()
        runs.append(journal.run)
        journal.append([maker.one("pump", float(i), T0 + i)], maker.all_series())

    journal = opener()

    assert [r.first_offset for r in journal.runs()] == [1, 2, 3, 4]
    assert journal.runs() == [*runs, Run(journal.run.id, 4)]
    assert len({r.id for r in journal.runs()}) == 4
    assert all(len(r.id) == 8 and int(r.id, 16) >= 0 for r in runs)


def test_series_are_kept_and_updated(opener: Opener) -> None:
    """A series passed to append is known after a restart, with what was last said of it."""
    journal = opener()
    series = Series(7, "acme", "pump", "t", ValueType.INT, "Cel", 1.5, -10.0, 40.0, "Öl")
    journal.append([], [series])
    series.type, series.unit = ValueType.FLOAT, "K"
    journal.append([], [series])

    assert opener().series() == [series]


def test_read_hands_out_shared_series(opener: Opener) -> None:
    """Frames that are read refer to the very objects of `series`, so a registry's change is seen by readers."""
    journal, maker = opener(), FrameMaker()
    journal.append([maker.one("pump", 1.0)], maker.all_series())
    own = journal.read(0, 10**6)[0].columns[0].series
    again = opener()

    assert own is maker.find("pump", "t")
    assert again.read(0, 10**6)[0].columns[0].series is again.series()[0]


def test_checkpoints_survive_a_restart(opener: Opener) -> None:
    """A consumer's checkpoint is 0 before it was set, then what was set last, also after a clean restart."""
    journal = opener()
    journal.set_checkpoint("store", 3)
    journal.set_checkpoint("rules", 1)
    journal.set_checkpoint("store", 5)

    journal = opener()

    assert [journal.checkpoint(c) for c in ("store", "rules", "other")] == [5, 1, 0]


def test_trim_keeps_the_newest_and_never_restarts_offsets(opener: Opener) -> None:
    """Trimming everything leaves the newest row; the next frame after a restart continues the count."""
    journal, maker = opener(), FrameMaker()
    for i in range(5):
        journal.append([maker.one("pump", float(i), T0 + i)], maker.all_series())

    first = journal.trim(10**9)
    journal = opener()
    journal.append([maker.one("pump", 5.0, T0 + 5)], [])

    assert first == 5
    assert journal.statistics().first_offset == 5
    assert [f.offset for f in journal.read(4, 10**6)] == [5, 6]
    assert [m.stored for m in journal.account("default", None, 0).marks] == [6]


def test_read_behind_a_trim_is_expired(opener: Opener) -> None:
    """A position whose following frame was trimmed is refused, never skipped over silently."""
    journal, maker = opener(), FrameMaker()
    for i in range(5):
        journal.append([maker.one("pump", float(i), T0 + i)], maker.all_series())

    assert journal.trim(4) == 4

    with pytest.raises(ExpiredError, match="offset 2 is older"):
        journal.read(2, 10**6)
    assert [f.offset for f in journal.read(3, 10**6)] == [4, 5]


def test_trim_honours_every_checkpoint(opener: Opener) -> None:
    """Frames above the lowest checkpoint stay, whatever is asked for."""
    journal, maker = opener(), FrameMaker()
    for i in range(6):
        journal.append([maker.one("pump", float(i), T0 + i)], maker.all_series())
    journal.set_checkpoint("store", 4)
    journal.set_checkpoint("rules", 2)

    assert journal.trim(10**9) == 3
    journal.set_checkpoint("rules", 6)
    assert journal.trim_expired(T0 + 1000 * HOUR_NS) == 5


def test_trim_expired_by_age_and_by_size(opener: Opener) -> None:
    """Frames older than the retention go; with too many bytes held the oldest go, however young."""
    journal, maker = opener(), FrameMaker()
    for hour in range(5):
        frame = maker.batch("pump", [("t", T0 + hour, 1.0)], received_ns=T0 + hour * HOUR_NS)
        journal.append([frame], maker.all_series())

    assert journal.trim_expired(T0 + 26 * HOUR_NS) == 3
    assert journal.trim_expired(T0 + 26 * HOUR_NS, 24.0, 10**9) == 3
    assert journal.trim_expired(T0 + 26 * HOUR_NS, 24.0, 0) == 5


def test_gaps_are_listed(opener: Opener) -> None:
    """Declared losses are listed with count (None = unknown), reason and ranges, by namespace and device."""
    journal, maker = opener(), FrameMaker()
    frames = [maker.gap("pump", 70), maker.gap("door", None, "power_cut"), maker.one("pump", 1.0)]
    journal.append(frames, maker.all_series())

    journal = opener()

    assert [(g.key.device, g.seq, g.count, g.reason) for g in journal.gaps("default")] == [
        ("pump", 1, 70, "spool_full"),
        ("door", 1, None, "power_cut"),
    ]
    assert journal.gaps("default", "pump")[0].ranges == {"t": (T0, T0 + 1)}
    assert journal.gaps("other") == []


def test_rejections_are_summed_up(opener: Opener) -> None:
    """Refused readings are counted by channel and reason; those not named one by one under an empty channel."""
    journal, maker = opener(), FrameMaker()
    refused = tuple(Rejection(1, "door", i, "type_conflict") for i in range(3))
    journal.append([maker.batch("pump", [("t", T0, 1.0)], rejected=refused, rejected_count=10)], maker.all_series())
    journal.append(
        [maker.batch("pump", [("t", T0 + 1, 1.0)], rejected=refused), maker.quarantined("door", b"{", 4)],
        [],
    )

    found = opener().rejections("default")

    assert [(r.device, r.channel, r.reason, r.count) for r in found] == [
        ("door", "", "malformed", 4),
        ("pump", "", "not_itemised", 7),
        ("pump", "door", "type_conflict", 6),
    ]
    assert sum(r.count for r in found) == sum(m.rejected for m in journal_marks(opener))


def journal_marks(opener: Opener) -> list[Mark]:
    """Return the marks after one more restart."""
    return opener().account("default", None, 0).marks


def test_quarantine_keeps_raw_bytes(opener: Opener) -> None:
    """A quarantined frame is listed with its raw bytes, reason and time."""
    journal, maker = opener(), FrameMaker()
    journal.append([maker.quarantined("pump", b"\x00\xff{", 4)], [])

    journal = opener()
    (entry,) = journal.quarantine("default", "pump")

    assert (entry.offset, entry.key, entry.seq, entry.received_ns, entry.count) == (1, KEY, 1, T0, 4)
    assert (entry.size, entry.replayed_ns) == (3, None)
    assert entry.reason.startswith("malformed")
    assert journal.quarantined("default", 1) == (entry, b"\x00\xff{")
    with pytest.raises(NotFoundError):
        journal.quarantined("other", 1)


def test_replayed_frame_marks_its_entry_in_one_commit(opener: Opener) -> None:
    """The frame that carries an entry's readings, the entry's mark and the stream's sum are stored together."""
    journal, maker = opener(), FrameMaker()
    raw = [maker.quarantined("pump", b"{", 4), maker.quarantined("pump", b"{", 3)]
    journal.append(raw, [])
    frame = maker.one("pump", 1.0, stream=HUB_STREAM)
    frame.replayed = Replayed(1, STREAM, 4, T0 + 7)

    journal.append([frame], maker.all_series())

    journal = opener()
    assert [entry.replayed_ns for entry in journal.quarantine("default")] == [T0 + 7, None]
    assert journal.replays("default") == {KEY: ReplayEntry(1, 4)}
    assert journal.replays("default", "door") == journal.replays("other") == {}
    assert [m.rejected for m in journal.account("default", None, 0).marks if m.key == KEY] == [7]


def test_deleted_quarantined_frame_is_gone(opener: Opener) -> None:
    """Deleting takes one entry of the caller's namespace, once; the counters stay."""
    journal, maker = opener(), FrameMaker()
    journal.append([maker.quarantined("pump", b"{", 4), maker.quarantined("pump", b"[", 1)], [])
    with pytest.raises(NotFoundError):
        journal.delete_quarantined("other", 1)

    journal.delete_quarantined("default", 1)

    with pytest.raises(NotFoundError, match="no quarantined frame 1"):
        journal.delete_quarantined("default", 1)
    journal = opener()
    assert [entry.offset for entry in journal.quarantine("default")] == [2]
    assert [(m.rejected, m.quarantined) for m in journal.account("default", None, 0).marks] == [(5, 2)]


def test_hostile_texts_and_counts_do_not_stop_it(opener: Opener) -> None:
    """Lone surrogates, books and counts near 2**63, all chosen by a peer, never make a commit fail."""
    journal, maker = opener(), FrameMaker()
    huge = 2**63 - 1
    frames = [
        maker.gap("pump", huge, "\ud800" + "x" * 100_000),
        maker.gap("pump", huge),
        maker.quarantined("pump", b"{", huge),
        maker.quarantined("pump", b"{", huge),
        maker.batch("pump", [("t", T0, 1.0)], rejected=(Rejection(5, "\udfff" * 500, 0, "bad_name"),)),
    ]
    series = [*maker.all_series(), Series(99, "default", "pump", "label", label="\ud800", unit="u" * 10_000)]

    journal.append(frames, series)

    (mark,) = opener().account("default", None, 0).marks
    assert (mark.stored, mark.dropped, mark.rejected) == (5, huge, huge)


def test_statistics_and_closing(opener: Opener) -> None:
    """Statistics tell offsets, bytes, commits and the largest group; closing twice is harmless."""
    journal, maker = opener(), FrameMaker()
    journal.append(maker.many(1, 3, 2), maker.all_series())
    journal.append(maker.many(1, 0, 2), [])

    statistics = journal.statistics()
    journal.close()
    journal.close()

    assert (statistics.first_offset, statistics.head, statistics.commits, statistics.largest_group) == (1, 3, 2, 3)
    assert statistics.bytes > 0
    assert statistics.commit_s > 0


def test_request_that_named_itself_is_known_by_it(opener: Opener) -> None:
    """In the transaction of its frames, after a restart too; forgotten by trimming after two days."""
    journal, maker = opener(), FrameMaker()
    frames = [replace(maker.one("pump", 1.0, T0 + at), posted=Posted(b"k", at, b"body")) for at in range(2)]
    journal.append(frames, maker.all_series())

    assert opener().posted(b"k") == {at: PostedPart(b"body", 1, 0, ()) for at in range(2)}
    journal = opener()
    journal.trim_expired(frames[0].received_ns + 49 * HOUR_NS)
    assert journal.posted(b"k") == {}
    assert journal.posted(b"other") == {}
