"""The ledger against a plain dump of the hub: lost, doubled, altered, or explained.

Owns: the comparison. Place: after `ledger`. Pure. It trusts neither side: the
dump is what a user could export, the audit what the hub says of itself.
"""

import calendar
import functools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from simulators.ledger import Witness, canonical

_MAX_EXAMPLES = 5


@dataclass(slots=True)
class Finding:
    """The verdict on one device. Counts are readings, except ``acked_lost`` and ``reused``: frames.

    ``lost``: produced, neither stored nor declared. ``doubled``: stored or taken twice. ``altered``: another value.
    ``unwitnessed``: stored, never produced. ``reused``: a frame number given to two bodies.
    """

    device: str
    produced: int = 0
    stored: int = 0
    declared: int = 0
    lost: int = 0
    doubled: int = 0
    altered: int = 0
    unwitnessed: int = 0
    acked_lost: int = 0
    reused: int = 0
    had_readings: bool = False
    examples: list[str] = field(default_factory=list)

    @property
    def is_balanced(self) -> bool:
        """Tell whether every produced reading is stored once, as produced, or declared as dropped."""
        faults = (self.lost, self.doubled, self.altered, self.unwitnessed, self.acked_lost, self.reused)
        return not any(faults)

    def note(self, text: str) -> None:
        """Keep the first few examples of what is wrong."""
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(text)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The findings of all devices of a ledger, by name."""

    findings: tuple[Finding, ...]

    @property
    def is_balanced(self) -> bool:
        """Tell whether every device's ledger balances; a ledger without devices proves nothing."""
        return bool(self.findings) and all(finding.is_balanced for finding in self.findings)

    def total(self, count: str) -> int:
        """Return the sum of one count over all devices."""
        return sum(int(getattr(finding, count)) for finding in self.findings)


def compare(
    witnesses: Mapping[str, Witness],
    rows: Iterable[Mapping[str, Any]],
    audit: Mapping[str, Any],
    baseline: frozenset[str] = frozenset(),
) -> Verdict:
    """Return the verdict.

    Args:
        witnesses: of `ledger.load`.
        rows: a dump of the hub as exported in NDJSON (device, channel, time, value); other devices are ignored.
        audit: the answer of ``GET /v1/audit``.
        baseline: devices that had readings before the ledger began: what of theirs was not produced here, or
            corrected an older reading, is no fault.
    """
    findings = {
        device: Finding(device, produced=witness.produced, had_readings=device in baseline)
        for device, witness in witnesses.items()
    }
    found: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for row in rows:
        finding = findings.get(row["device"])
        if finding is not None:
            _check_row(finding, witnesses[finding.device], found[finding.device], row)
    for device, finding in findings.items():
        _check_missing(finding, witnesses[device], found[device], audit)
        _check_taken_twice(finding, witnesses[device], audit)
        _check_frames(finding, witnesses[device], audit)
    return Verdict(tuple(findings[device] for device in sorted(findings)))


def _check_row(finding: Finding, witness: Witness, found: set[tuple[str, int]], row: Mapping[str, Any]) -> None:
    channel, time_ns = str(row["channel"]), parse_iso_ns(row["time"])
    produced, begun = witness.readings.get(channel, {}).get(time_ns), witness.begun.get((channel, time_ns))
    if produced is None and begun is None:
        if not finding.had_readings:
            finding.unwitnessed += 1
            finding.note(f"{channel} at {row['time']}: stored, never produced")
        return
    if (channel, time_ns) in found:
        finding.doubled += 1
        finding.note(f"{channel} at {row['time']}: stored twice")
        return
    found.add((channel, time_ns))
    if produced is not None:
        # Several values of one instant are corrections: the last one stands for all of them.
        finding.stored += 1 + witness.repeats.get((channel, time_ns), 0)
    if canonical(row["value"]) not in (produced, begun):
        finding.altered += 1
        finding.note(f"{channel} at {row['time']}: produced {produced or begun}, stored {canonical(row['value'])}")


def _check_missing(finding: Finding, witness: Witness, found: set[tuple[str, int]], audit: Mapping[str, Any]) -> None:
    missing = finding.produced - finding.stored
    streams = [stream for stream in audit["streams"] if stream["device"] == finding.device]
    declared = sum(int(stream["rejected"]) + int(stream["dropped"]) for stream in streams)
    if any(gap["device"] == finding.device and gap["count"] is None for gap in audit["gaps"]):
        declared = missing
    finding.declared = min(declared, missing)
    finding.lost = missing - finding.declared
    if finding.lost:
        keys = ((channel, time_ns) for channel, instants in witness.readings.items() for time_ns in instants)
        for channel, time_ns in (key for key in keys if key not in found):
            finding.note(f"{channel} at {time_ns} ns: produced, neither stored nor declared as dropped")
            if len(finding.examples) == _MAX_EXAMPLES:
                return


def _check_taken_twice(finding: Finding, witness: Witness, audit: Mapping[str, Any]) -> None:
    """Find what a store with unique instants hides: a reading taken twice supersedes itself."""
    if finding.had_readings:
        return
    superseded = sum(int(s["superseded"]) for s in audit["series"] if s["device"] == finding.device)
    # A reading that a kill interrupted and that was recorded again may be there once or twice.
    unsure = sum(time_ns in witness.readings.get(channel, {}) for channel, time_ns in witness.begun)
    twice = superseded - sum(witness.repeats.values()) - unsure
    if twice > 0:
        finding.doubled += twice
        finding.note(f"{twice} readings were taken twice: the hub counted {superseded} as superseded")


def _check_frames(finding: Finding, witness: Witness, audit: Mapping[str, Any]) -> None:
    finding.reused = witness.reused
    stored = {s["stream"]: int(s["stored"]) for s in audit["streams"] if s["device"] == finding.device}
    for stream, acked in witness.acked.items():
        short = acked - stored.get(stream, 0)
        if short > 0:
            finding.acked_lost += short
            finding.note(f"stream {stream}: {acked} frames were acked, the hub holds {stored.get(stream, 0)}")


def parse_iso_ns(text: str) -> int:
    """Return epoch ns of ``YYYY-MM-DDThh:mm:ss[.fffffffff]Z``, as the export writes it."""
    fraction = text[20:-1]
    return _seconds(text[:19]) * 10**9 + (int(fraction.ljust(9, "0")) if fraction else 0)


@functools.lru_cache(maxsize=1024)
def _seconds(text: str) -> int:
    date, clock = text.split("T")
    year, month, day = map(int, date.split("-"))
    hour, minute, second = map(int, clock.split(":"))
    return calendar.timegm((year, month, day, hour, minute, second))
