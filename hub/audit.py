"""Both ledgers of delivery, and whether they balance: the answer of ``/v1/audit``, the same for every asker.

Owns: the checks, and the words for what is missing. Place: after `journal` and
`store`, before the gateway and the command line. Blocking where it reads.

Theory of operation. Readings pour in while an audit is taken, so the two sides
are read in an order that makes them comparable: the store first, whose
counters are all of one offset A; then the journal, all of one offset P ≥ A.
What the journal accepted up to P, less what it accepted behind A (the tail),
must be what the store counts, reading for reading. So a reading in flight is
never an imbalance, and a missing one always is.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from device_sdk.errors import Reason, explain
from device_sdk.reading import INT_MAX
from hub.journal.base import GapEntry, JournalAccount, Losses, RejectionEntry, ReplayEntry
from hub.model import Mark, Series
from hub.store.base import SeriesCounters, StoreAccount

# A series that appears while an audit is taken makes it begin again; one that never gets calm says that it cannot tell.
_ATTEMPTS = 3
_NOT_REPLAYED = ReplayEntry(0, 0)

JsonObject = dict[str, Any]
ReadJournal = Callable[[int], JournalAccount]
ReadStore = Callable[[Sequence[int]], StoreAccount]
# (device, channel or "" for the device itself) → whether the asker may see it.
Sees = Callable[[str, str], bool]


@dataclass(slots=True)
class Books:
    """What both sides said; ``is_whole``: of every series that the journal knows."""

    journal: JournalAccount
    store: StoreAccount
    is_whole: bool

    @property
    def behind(self) -> int:
        """Frames that the store has not taken yet."""
        return max(self.journal.head - self.store.applied, 0)


@dataclass(slots=True)
class DeviceBooks:
    """All of one device; sums over its streams and its series, and what does not add up."""

    device: str
    marks: list[Mark] = field(default_factory=list)
    series: list[tuple[Series, SeriesCounters]] = field(default_factory=list)
    losses: list[Losses] = field(default_factory=list)
    rejections: list[RejectionEntry] = field(default_factory=list)
    replayed: int = 0
    in_flight: int | None = 0
    findings: list[str] = field(default_factory=list)

    @property
    def balanced(self) -> bool | None:
        """Whether all adds up; None when that cannot be told now."""
        return False if self.findings else None if self.in_flight is None else True

    def of_streams(self, name: str) -> int:
        """Return a counter's sum over the streams: accepted, rejected, dropped, quarantined."""
        total: int = sum(getattr(mark, name) for mark in self.marks)
        return min(total, INT_MAX)

    def of_series(self, name: str) -> int:
        """Return a counter's sum over the series: accepted, superseded, erased, expired, refused, late, rows."""
        return sum(getattr(counters, name) for _, counters in self.series)


def take_books(read_journal: ReadJournal, read_store: ReadStore, series: Iterable[int]) -> Books:
    """Read both sides so that they can be compared.

    Args:
        read_journal: offset → the journal's account with the tail behind it.
        read_store: series ids → the store's account.
        series: ids known so far; those that the journal names beyond them are asked for again.
    """
    asked = set(series)
    attempts = 0
    while True:
        # The store first: only then is the journal's position the later one, and the difference a tail to read.
        store = read_store(sorted(asked))
        journal = read_journal(store.applied)
        known = {s.id for s in journal.series}
        attempts += 1
        if known <= asked or attempts == _ATTEMPTS:
            return Books(journal, store, known <= asked)
        asked |= known


def check(books: Books) -> dict[str, DeviceBooks]:
    """Return device → its books with every finding, in the order of names."""
    devices: dict[str, DeviceBooks] = {}

    def of(name: str) -> DeviceBooks:
        return devices.setdefault(name, DeviceBooks(name))

    for mark in books.journal.marks:
        of(mark.key.device).marks.append(mark)
        of(mark.key.device).losses += books.journal.losses.get(mark.key, [])
        of(mark.key.device).replayed += books.journal.replays.get(mark.key, _NOT_REPLAYED).readings
    for rejection in books.journal.rejections:
        of(rejection.device).rejections.append(rejection)
    by_id = {s.id: s for s in books.journal.series}
    for counters in books.store.series:
        series = by_id.get(counters.series)
        if series is not None:
            of(series.device).series.append((series, counters))
    for device in devices.values():
        _compare(device, books)
    return dict(sorted(devices.items()))


def stream_finding(mark: Mark, losses: Iterable[Losses], are_gaps_whole: bool) -> str:
    """Return what does not add up of one stream, "" when all does."""
    # A peer chooses the counts of its gaps: what 64 bits do not hold is not compared.
    itemised = min(sum(loss.count for loss in losses), INT_MAX)
    if itemised == mark.dropped or (itemised < mark.dropped and not are_gaps_whole):
        return ""
    return f"stream {mark.key.stream}: {mark.dropped:,} readings count as dropped, its gaps name {itemised:,}"


def is_balanced(counters: SeriesCounters) -> bool:
    """Return whether a series holds the rows that its ledger says."""
    return expected_rows(counters) == counters.rows


def expected_rows(counters: SeriesCounters) -> int:
    """Return how many rows a series must have by its ledger."""
    gone = counters.superseded + counters.erased + counters.expired + counters.refused
    return counters.accepted - gone


def _compare(device: DeviceBooks, books: Books) -> None:
    journal, findings = books.journal, device.findings
    for mark in device.marks:
        findings.append(stream_finding(mark, journal.losses.get(mark.key, ()), journal.are_gaps_whole))
    # Channels have no name here: an asker may see the device without seeing each of them.
    wrong = [counters for _, counters in device.series if not is_balanced(counters)]
    if wrong:
        expected = sum(map(expected_rows, wrong))
        findings.append(f"{expected:,} rows are expected of {len(wrong)} series, {sum(c.rows for c in wrong):,} stored")
    rejected, itemised = device.of_streams("rejected"), sum(r.count for r in device.rejections)
    if rejected != itemised and max(rejected, itemised) < INT_MAX:
        findings.append(f"{rejected:,} readings count as rejected, the reasons name {itemised:,}")
    if journal.tail is None or not books.is_whole:
        device.in_flight = None
    else:
        device.in_flight = sum(journal.tail.get(mark.key, 0) for mark in device.marks)
        missing = device.of_streams("accepted") - device.in_flight - device.of_series("accepted")
        if missing > 0:
            findings.append(f"{missing:,} accepted readings are not in the store")
        elif missing < 0:
            findings.append(f"the store holds {-missing:,} readings that the journal does not know: was it restored?")
    device.findings = [finding for finding in findings if finding]


def summary(device: DeviceBooks) -> str:
    """Return one line for a person: "2 streams, 18,204 readings, all accounted for", or what is missing and why."""
    head = f"{_count(len(device.marks), 'stream')}, {_count(device.of_streams('accepted'), 'reading')}"
    missing = _missing(device)
    if device.findings:
        return f"{head}: does not balance: {'; '.join(device.findings)}"
    if missing:
        return f"{head}; {missing}"
    return f"{head}, all accounted for" if device.in_flight is not None else f"{head}, the store is catching up"


def _missing(device: DeviceBooks) -> str:
    lost, unknown, refused = Counter[str](), Counter[str](), Counter[str]()
    for loss in device.losses:
        lost[loss.reason] += loss.count
        unknown[loss.reason] += loss.unknown
    for rejection in device.rejections:
        refused[rejection.reason] += rejection.count
    # What was replayed from quarantine is stored after all: the hub's own stream counts it as accepted.
    refused[Reason.MALFORMED] -= device.replayed
    parts = [f"{n:,} lost, {explain(reason)}" for reason, n in lost.items() if n]
    parts += [f"{n:,} rejected, {explain(reason)}" for reason, n in refused.items() if n > 0]
    parts += [f"an unknown number lost, {explain(reason)}" for reason, n in unknown.items() if n]
    if not parts:
        return ""
    known = device.of_streams("dropped") + device.of_streams("rejected") - device.replayed
    return f"{_count(known, 'reading') + ' missing' if known else 'missing'}: {'; '.join(parts)}"


def audit_object(books: Books, sees: Sees, order: Callable[[str], Any] = str) -> JsonObject:
    """Return the answer of ``/v1/audit``.

    Args:
        sees: what the asker may see; the checks are made over all of a device all the same.
        order: sort key of device names.
    """
    devices = [d for d in check(books).values() if sees(d.device, "")]
    devices.sort(key=lambda d: order(d.device))
    verdicts = [device.balanced for device in devices]
    journal = books.journal
    return {
        "balanced": False if False in verdicts else None if None in verdicts else True,
        "behind": books.behind,
        "devices": [_device_object(device) for device in devices],
        "streams": [
            _stream_object(mark, journal)
            for device in devices for mark in sorted(device.marks, key=lambda m: m.first_ns)
        ],
        "gaps": [_gap_object(gap, sees) for gap in journal.gaps if sees(gap.key.device, "")],
        "rejections": [
            {
                "device": r.device, "channel": r.channel, "reason": r.reason, "explanation": explain(r.reason),
                "count": r.count, "last_ns": str(r.last_ns),
            }
            for device in devices for r in device.rejections if sees(r.device, r.channel)
        ],
        "series": [
            _series_object(s, counters)
            for device in devices for s, counters in sorted(device.series, key=lambda pair: order(pair[0].channel))
            if sees(s.device, s.channel)
        ],
    }  # fmt: skip


def _device_object(device: DeviceBooks) -> JsonObject:
    totals = {name: device.of_streams(name) for name in ("accepted", "rejected", "dropped", "quarantined")}
    produced = min(totals["accepted"] + totals["rejected"] + totals["dropped"] - device.replayed, INT_MAX)
    totals["replayed"] = device.replayed
    totals |= {name: device.of_series(name) for name in ("superseded", "erased", "expired", "refused", "late", "rows")}
    return {
        "device": device.device, "balanced": device.balanced, "summary": summary(device), "findings": device.findings,
        "streams": len(device.marks), "produced": produced,
        "unknown_gaps": sum(loss.unknown for loss in device.losses), "in_flight": device.in_flight, **totals,
    }  # fmt: skip


def _stream_object(mark: Mark, journal: JournalAccount) -> JsonObject:
    losses, replay = journal.losses.get(mark.key, []), journal.replays.get(mark.key, _NOT_REPLAYED)
    # A gap of no readings only tells something, such as that two spools wrote one stream.
    is_lossy = mark.dropped or mark.quarantined > replay.frames or any(x.count or x.unknown for x in losses)
    return {
        "device": mark.key.device, "stream": mark.key.stream, "stored": mark.stored,
        "produced": min(mark.accepted + mark.rejected + mark.dropped - replay.readings, INT_MAX),
        "accepted": mark.accepted,
        "rejected": mark.rejected, "dropped": mark.dropped, "quarantined": mark.quarantined,
        "replayed": replay.readings,
        "unknown_gaps": sum(loss.unknown for loss in losses),
        "complete": not is_lossy, "balanced": not stream_finding(mark, losses, journal.are_gaps_whole),
        "first_ns": str(mark.first_ns) if mark.first_ns else None,
        "last_ns": str(mark.last_ns) if mark.last_ns else None,
    }  # fmt: skip


def _gap_object(gap: GapEntry, sees: Sees) -> JsonObject:
    return {
        "device": gap.key.device, "stream": gap.key.stream, "seq": gap.seq, "count": gap.count, "reason": gap.reason,
        "explanation": explain(gap.reason), "received_ns": str(gap.received_ns),
        "ranges": {c: [str(a), str(b)] for c, (a, b) in gap.ranges.items() if sees(gap.key.device, c)},
    }  # fmt: skip


def _series_object(series: Series, counters: SeriesCounters) -> JsonObject:
    return {
        "device": series.device, "channel": series.channel, "accepted": counters.accepted,
        "superseded": counters.superseded, "erased": counters.erased, "expired": counters.expired,
        "refused": counters.refused, "merged": counters.merged, "late": counters.late, "rows": counters.rows,
        "balanced": is_balanced(counters),
    }  # fmt: skip


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"
