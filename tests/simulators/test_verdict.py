"""The verdict: each way to lose, double or alter a reading is found, and named once."""

from typing import Any

import pytest

from simulators.ledger import Witness
from simulators.verdict import Finding, compare, parse_iso_ns

SECOND = 10**9
T0 = 1_452_529_800 * SECOND


def witness(count: int = 3) -> Witness:
    """Return a device that produced ``count`` readings in one acked frame."""
    found = Witness()
    for n in range(count):
        found.readings["t"][T0 + n * SECOND] = str(n)
    found.produced = count
    found.acked["s"] = 1
    return found


def rows(count: int = 3) -> list[dict[str, Any]]:
    """Return the same readings as exported."""
    return [
        {"device": "a", "channel": "t", "time": f"2016-01-11T16:30:{n:02}Z", "value": float(n)} for n in range(count)
    ]


def audit(**changes: Any) -> dict[str, Any]:
    """Return what a sound hub says of them."""
    stream = {"device": "a", "stream": "s", "stored": 1, "accepted": 3, "rejected": 0, "dropped": 0}
    series = {"device": "a", "channel": "t", "accepted": 3, "superseded": 0, "rows": 3}
    stream |= {name: changes[name] for name in stream if name in changes}
    series |= {name: changes[name] for name in series if name in changes}
    return {"streams": [stream], "gaps": changes.get("gaps", []), "series": [series]}


def judge(found: Witness, stored: list[dict[str, Any]], said: dict[str, Any]) -> Finding:
    """Return the finding on the one device."""
    return compare({"a": found}, stored, said).findings[0]


def test_sound_hub_balances() -> None:
    """Everything produced is stored once: no fault."""
    verdict = compare({"a": witness()}, rows(), audit())

    assert verdict.is_balanced
    assert (verdict.total("produced"), verdict.total("stored")) == (3, 3)


def test_empty_ledger_proves_nothing() -> None:
    """A verdict on no device is not balanced."""
    assert not compare({}, rows(), audit()).is_balanced


def test_missing_reading_is_lost() -> None:
    """Produced, not stored, not declared: lost, with an example."""
    finding = judge(witness(), rows()[:2], audit())

    assert (finding.lost, finding.declared, finding.is_balanced) == (1, 0, False)
    assert "neither stored nor declared" in finding.examples[0]


def test_declared_drop_explains_a_missing_reading() -> None:
    """What a gap frame declares is not lost; what it does not cover is."""
    assert judge(witness(), rows()[:2], audit(dropped=1)).is_balanced
    assert judge(witness(), rows()[:1], audit(dropped=1)).lost == 1


def test_rejection_explains_a_missing_reading() -> None:
    """A reading refused with a reason is accounted for."""
    assert judge(witness(), rows()[:2], audit(rejected=1)).is_balanced


def test_gap_of_unknown_count_explains_what_is_missing() -> None:
    """After a power cut nobody can know the count."""
    gaps = [{"device": "a", "stream": "s", "seq": 1, "count": None, "reason": "power_cut", "ranges": {}}]

    finding = judge(witness(), rows()[:1], audit(gaps=gaps))

    assert (finding.declared, finding.lost) == (2, 0)


def test_row_stored_twice_is_doubled() -> None:
    """The same instant twice in the dump."""
    assert judge(witness(), [*rows(), rows()[0]], audit()).doubled == 1


def test_reading_taken_twice_is_doubled_though_the_row_is_one() -> None:
    """A hub that forgets to dedupe supersedes a reading by itself."""
    assert judge(witness(), rows(), audit(accepted=4, superseded=1)).doubled == 1


def test_correction_is_no_double() -> None:
    """A superseded reading is right where the device recorded the instant again."""
    found = witness()
    found.repeats["t", T0] += 1
    found.produced += 1

    finding = judge(found, rows(), audit(accepted=4, superseded=1))

    assert finding.is_balanced
    assert finding.stored == 4


@pytest.mark.parametrize("is_stored", [True, False], ids=["stored", "not stored"])
def test_reading_that_a_kill_interrupted_may_be_there_or_not(is_stored: bool) -> None:
    """`record()` did not return, so nothing was promised; but another value than the one begun is a fault."""
    found = witness()
    found.begun["t", T0 + 3 * SECOND] = "3"
    stored = rows(4 if is_stored else 3)

    finding = judge(found, stored, audit())

    assert (finding.is_balanced, finding.stored) == (True, 3)
    assert judge(found, [*rows(), {**rows(4)[3], "value": 4.0}], audit()).altered == 1


def test_interrupted_reading_that_was_recorded_again_may_supersede_itself() -> None:
    """The first `record()` may have reached the spool: one superseded reading more is no double, two are."""
    found = witness()
    found.begun["t", T0] = "0"

    assert judge(found, rows(), audit(accepted=4, superseded=1)).is_balanced
    assert judge(found, rows(), audit(accepted=5, superseded=2)).doubled == 1


def test_other_value_is_altered() -> None:
    """The instant is there, the value is another one."""
    stored = rows()
    stored[1]["value"] = 1.5

    finding = judge(witness(), stored, audit())

    assert finding.altered == 1
    assert finding.examples == ["t at 2016-01-11T16:30:01Z: produced 1, stored 1.5"]


def test_reading_nobody_produced_is_found() -> None:
    """A row that no device wrote is a fault too."""
    assert judge(witness(), rows(4), audit()).unwitnessed == 1


def test_older_readings_of_a_device_are_no_fault() -> None:
    """What was there before the ledger began is neither unwitnessed nor doubled."""
    verdict = compare({"a": witness()}, rows(4), audit(superseded=3), frozenset({"a"}))

    assert verdict.is_balanced


def test_acked_frame_that_is_gone_is_found() -> None:
    """The hub holds fewer frames of the stream than it acked."""
    found = witness()
    found.acked["s"] = 3

    assert judge(found, rows(), audit(stored=1)).acked_lost == 2


def test_other_devices_are_ignored() -> None:
    """Rows of devices outside the ledger do not count."""
    other = {"device": "b", "channel": "t", "time": "2016-01-11T16:30:00Z", "value": 1.0}

    assert compare({"a": witness()}, [*rows(), other], audit()).is_balanced


@pytest.mark.parametrize(
    ("text", "rest_ns"),
    [
        ("2016-01-11T16:30:00Z", 0),
        ("2016-01-11T16:30:00.5Z", 500_000_000),
        ("2016-01-11T16:30:00.000000001Z", 1),
    ],
)
def test_times_are_read_to_the_nanosecond(text: str, rest_ns: int) -> None:
    """Readings 1 ns apart stay apart."""
    assert parse_iso_ns(text) == T0 + rest_ns
