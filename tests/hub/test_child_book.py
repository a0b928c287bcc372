"""`hub.child_book`: who may speak behind a gateway, who waits, and what is kept of them."""

from dataclasses import replace

import pytest

from device_sdk.errors import Reason
from hub.child_book import (
    MAX_PENDING,
    RETRY_PENDING_METERED_MS,
    RETRY_PENDING_MS,
    SEEN_EVERY_NS,
    Asked,
    Child,
    ChildBook,
    ChildState,
    Rules,
)

BARN = Asked("default", "barn", ("barn-*",), "barn-1")
S = 10**9


def book(*children: Child, quota: int = 2, auto_accept: tuple[str, ...] = ()) -> ChildBook:
    """A book with one gateway."""
    made = ChildBook()
    made.replace([("default", "barn", Rules(quota, auto_accept))], children)
    return made


def child(device: str, state: ChildState, gateway: str = "barn", namespace: str = "default") -> Child:
    """A child of long ago."""
    return Child(gateway, device, state, 1, 1, namespace)


def verdict(book: ChildBook, asked: Asked = BARN, now_ns: int = S, *, is_enrolled: bool = False) -> Reason | None:
    """Return the word of the refusal."""
    refusal = book.admit(asked, now_ns, is_enrolled=is_enrolled)
    return None if refusal is None else refusal.reason


@pytest.mark.parametrize("device", ["shed-1", "barn-1/x", "barn-" + "x" * 64, "", "barn-*", "barn-\n"])
def test_name_outside_the_prefix_is_refused_and_not_kept(device: str) -> None:
    """What the credential does not cover, and what is no name, leaves nothing behind."""
    empty = book()

    assert verdict(empty, replace(BARN, device=device)) is Reason.CHILD_PREFIX
    assert (empty.noted, empty.gateways["default", "barn"].children) == ({}, {})


def test_stranger_waits_for_a_person() -> None:
    """Default: nobody speaks before somebody said so; it is noted, and asks again soon, seldom where bytes cost."""
    fresh = book()

    first = fresh.admit(BARN, S, is_enrolled=False)
    metered = fresh.admit(replace(BARN, is_metered=True), S, is_enrolled=False)

    assert first is not None
    assert metered is not None
    assert (first.reason, first.retry_ms) == (Reason.CHILD_PENDING, RETRY_PENDING_MS)
    assert metered.retry_ms == RETRY_PENDING_METERED_MS
    assert "hub children accept barn barn-1" in first.message
    assert list(fresh.noted.values()) == [Child("barn", "barn-1", ChildState.PENDING, S, S)]


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (child("barn-1", ChildState.ACCEPTED), None),
        (child("barn-1", ChildState.IGNORED), Reason.CHILD_IGNORED),
        (child("barn-1", ChildState.PENDING), Reason.CHILD_PENDING),
        (child("barn-1", ChildState.ACCEPTED, "shed"), Reason.CHILD_TAKEN),
        (child("barn-1", ChildState.IGNORED, "shed"), Reason.CHILD_PENDING),
        (child("barn-1", ChildState.ACCEPTED, "shed", "other"), Reason.CHILD_PENDING),
        (child("barn-1", ChildState.ACCEPTED, "barn", "other"), Reason.CHILD_PENDING),
    ],
    ids=str,
)
def test_what_was_decided_holds(known: Child, expected: Reason | None) -> None:
    """Of this gateway in this namespace; another gateway's child is not taken over, its refusals bind nobody else."""
    assert verdict(book(known)) is expected


def test_device_with_its_own_credential_is_no_child() -> None:
    """Not even one that was accepted before it was enrolled, and not by pattern."""
    assert verdict(book(auto_accept=("*",)), is_enrolled=True) is Reason.CHILD_TAKEN
    assert verdict(book(child("barn-1", ChildState.ACCEPTED)), is_enrolled=True) is Reason.CHILD_TAKEN


def test_pattern_accepts_up_to_the_quota() -> None:
    """Then the next one waits, and is told why; a person's acceptance counts as well."""
    full = book(child("barn-9", ChildState.ACCEPTED), quota=2, auto_accept=("barn-*",))

    assert verdict(full) is None
    assert verdict(full, replace(BARN, device="barn-2")) is Reason.CHILD_QUOTA
    assert verdict(full) is None
    assert [c.device for c in full.welcomed] == ["barn-1"]
    assert full.gateways["default", "barn"].accepted == 2
    assert list(full.gateways["default", "barn"].pending) == ["barn-2"]


def test_pattern_that_came_later_accepts_who_waits() -> None:
    """At its next hello."""
    waiting = book(child("barn-1", ChildState.PENDING), auto_accept=("barn-*",))

    assert verdict(waiting) is None
    assert waiting.noted["default", "barn", "barn-1"] == Child("barn", "barn-1", ChildState.ACCEPTED, 1, S)


def test_nobody_is_accepted_while_a_decision_is_on_its_way() -> None:
    """The quota that it was made by must hold when it is durable."""
    held = book(auto_accept=("*",))
    held.is_held = True

    assert verdict(held) is Reason.CHILD_PENDING
    held.is_held = False
    assert verdict(held) is None


def test_longest_unheard_is_forgotten_of_too_many() -> None:
    """A loop that invents names fills no memory, and cannot keep out the one that comes again and again."""
    busy = book()
    for number in range(3 * MAX_PENDING):
        verdict(busy, replace(BARN, device=f"barn-x{number}"))
        verdict(busy, BARN)

    gateway = busy.gateways["default", "barn"]
    assert len(gateway.pending) == len(gateway.children) == len(busy.noted) == MAX_PENDING
    assert "barn-1" in gateway.pending
    assert "barn-x0" not in gateway.children
    assert "barn-x0" not in gateway.children


def test_when_a_child_was_seen_is_written_by_the_minute() -> None:
    """A child that reconnects each second costs no disk."""
    known = book(child("barn-1", ChildState.ACCEPTED))
    for now_ns in range(S, 50 * S, S):
        verdict(known, now_ns=now_ns)
    assert known.noted == {}

    verdict(known, now_ns=SEEN_EVERY_NS + 2)
    assert known.noted["default", "barn", "barn-1"].last_ns == SEEN_EVERY_NS + 2


def test_what_is_noted_outlives_a_look_at_the_file() -> None:
    """What is not written yet is laid over what the file holds, but not over a decision in it."""
    noted = book(auto_accept=("barn-*",))
    verdict(noted)
    verdict(noted, replace(BARN, device="barn-2"))
    notes = dict(noted.noted)

    noted.replace([("default", "barn", Rules(2))], [child("barn-2", ChildState.IGNORED)])

    assert noted.is_accepted("default", "barn", "barn-1")
    assert not noted.is_accepted("default", "barn", "barn-2")
    assert noted.owners == {("default", "barn-1"): "barn"}
    noted.written(notes, set())
    assert noted.noted == {}


def test_note_made_during_a_write_stays() -> None:
    """Only what was written is done with."""
    busy = book()
    verdict(busy)
    notes = dict(busy.noted)
    verdict(busy, now_ns=2 * SEEN_EVERY_NS)

    busy.written(notes, set())

    assert [c.last_ns for c in busy.noted.values()] == [2 * SEEN_EVERY_NS]


def test_forgotten_one_stays_forgotten_over_a_look_at_the_file() -> None:
    """Until its row is gone it is not there; a decision made meanwhile is."""
    busy = book(*(child(f"barn-x{number}", ChildState.PENDING) for number in range(MAX_PENDING)))
    verdict(busy)

    busy.replace([], [child("barn-x0", ChildState.PENDING)])
    assert "barn-x0" not in busy.gateways["default", "barn"].children
    busy.replace([], [child("barn-x0", ChildState.ACCEPTED)])
    assert busy.is_accepted("default", "barn", "barn-x0")


def test_names_invented_while_nothing_is_written_take_no_memory() -> None:
    """A row that was never written needs none removed; one on its way to the disk does."""
    busy = book()
    for number in range(3 * MAX_PENDING):
        verdict(busy, replace(BARN, device=f"barn-a{number}"))
    invented = set(busy.forgotten)

    busy.writing()
    for number in range(3 * MAX_PENDING):
        verdict(busy, replace(BARN, device=f"barn-b{number}"))

    assert invented == set()
    assert len(busy.noted) == len(busy.forgotten) == MAX_PENDING
    busy.replace([], [])
    assert busy.forgotten == set(), "the write failed"
