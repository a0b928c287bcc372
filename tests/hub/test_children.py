"""`hub.children`: decisions are durable, seen from another process, bounded; notes cost the loop no disk."""

import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from device_sdk.errors import Reason
from hub import children as module
from hub.auth import Identities
from hub.child_book import MAX_QUOTA, QUOTA, Asked, Child, ChildState, Rules
from hub.children import CHILDREN, Children
from hub.errors import BadRequestError, ConflictError, NotFoundError, UnavailableError

BARN = Asked("default", "barn", ("barn-*",), "barn-1")


@pytest.fixture
def identities(tmp_path: Path) -> Iterator[Identities]:
    """Nobody is enrolled."""
    with closing(Identities(tmp_path / "identities.sqlite3")) as identities:
        yield identities


@pytest.fixture
def children(tmp_path: Path, identities: Identities) -> Iterator[Children]:
    """A file with one gateway."""
    with closing(Children(tmp_path / CHILDREN, identities, clock=lambda: 5)) as children:
        children.set_rules("barn")
        yield children


@pytest.fixture
def other(children: Children, tmp_path: Path, identities: Identities) -> Iterator[Children]:
    """The same file in another process."""
    with closing(Children(tmp_path / CHILDREN, identities, clock=lambda: 9)) as other:
        yield other


def verdict(children: Children, asked: Asked = BARN) -> Reason | None:
    """Return the word of the refusal."""
    refusal = children.admit(asked)
    return None if refusal is None else refusal.reason


def states(children: Children, **which: str) -> dict[str, ChildState]:
    """Return device → state."""
    return {child.device: child.state for child in children.listed(**which)}  # type: ignore[arg-type]


def test_accepted_child_speaks_from_now_on(children: Children, other: Children, tmp_path: Path) -> None:
    """The decision counts at once, in the file too, which only its owner reads; again is no error."""
    assert verdict(children) is Reason.CHILD_PENDING
    children.accept("barn", "barn-1")
    children.accept("barn", "barn-1")

    assert verdict(children) is None
    other.keep()
    assert verdict(other) is None
    assert children.names("default") == ["barn-1"]
    assert children.listed() == [Child("barn", "barn-1", ChildState.ACCEPTED, 5, 5)]
    assert stat.S_IMODE((tmp_path / CHILDREN).stat().st_mode) == 0o600


def test_child_may_be_accepted_before_it_comes(children: Children) -> None:
    """A list of names known in advance needs no waiting."""
    children.accept("barn", "barn-1")

    assert verdict(children) is None


def test_notes_are_written_by_keep_and_survive(children: Children, other: Children) -> None:
    """What came is in the file after the next turn; a listing shows it before that."""
    verdict(children)
    assert states(children) == {"barn-1": ChildState.PENDING}
    assert states(other) == {}

    children.keep()
    other.keep()

    assert states(other) == {"barn-1": ChildState.PENDING}


def test_another_process_is_noticed_and_wins(children: Children, other: Children) -> None:
    """What `--data` decided counts after `keep`, over what is noted here, and whoever listens is told."""
    told: list[str] = []
    children.listen(lambda: told.append("told"))
    children.set_rules("barn", auto_accept=["barn-*"])
    assert verdict(children) is None
    told.clear()
    other.ignore("barn", "barn-1")

    children.keep()

    assert verdict(children) is Reason.CHILD_IGNORED
    assert not children.is_accepted("default", "barn", "barn-1")
    assert told == ["told"]
    assert states(other) == {"barn-1": ChildState.IGNORED}


def test_two_processes_give_a_child_one_gateway(children: Children, other: Children) -> None:
    """Accepted here by pattern and there by a person at the same time: the person wins, and nothing jams."""
    children.set_rules("barn", auto_accept=["*"])
    other.set_rules("shed")
    other.keep()
    verdict(children)
    other.accept("shed", "barn-1")

    children.keep()

    assert verdict(children) is Reason.CHILD_TAKEN
    assert verdict(children, replace(BARN, gateway="shed")) is None
    assert {(c.gateway, c.state) for c in children.listed()} == {
        ("barn", ChildState.PENDING),
        ("shed", ChildState.ACCEPTED),
    }


def test_accepted_by_pattern_is_reported_once(children: Children) -> None:
    """So that the log of changes can say who let it in."""
    children.set_rules("barn", auto_accept=["barn-*"])
    verdict(children)

    assert [child.device for child in children.keep()] == ["barn-1"]
    assert children.keep() == []


def test_ignored_forgotten_and_accepted_again(children: Children) -> None:
    """Each decision can be undone; forgetting makes a stranger of it."""
    children.ignore("barn", "barn-1")
    assert verdict(children) is Reason.CHILD_IGNORED
    children.accept("barn", "barn-1")
    assert verdict(children) is None
    children.forget("barn", "barn-1")
    assert verdict(children) is Reason.CHILD_PENDING
    with pytest.raises(NotFoundError, match="hub children list"):
        children.forget("barn", "barn-7")


def test_quota_counts_the_accepted(children: Children) -> None:
    """At the limit the error says how to go on; a lower quota shuts nobody out, forgetting makes room."""
    children.set_rules("barn", quota=1)
    children.accept("barn", "barn-1")
    with pytest.raises(ConflictError, match=r"1 children, its quota is 1: hub children quota barn"):
        children.accept("barn", "barn-2")
    children.set_rules("barn", quota=2)
    children.accept("barn", "barn-2")
    children.set_rules("barn", quota=1)

    assert verdict(children) is None
    children.forget("barn", "barn-1")
    children.ignore("barn", "barn-2")
    children.accept("barn", "barn-3")


def test_device_belongs_to_one(children: Children, identities: Identities) -> None:
    """Neither an enrolled device nor another gateway's child is taken over, whatever the prefixes say."""
    identities.add_device("barn-8")
    children.set_rules("shed")
    children.accept("shed", "barn-1")

    with pytest.raises(ConflictError, match="hub children forget shed barn-1"):
        children.accept("barn", "barn-1")
    with pytest.raises(ConflictError, match="hub devices rm barn-8"):
        children.accept("barn", "barn-8")
    assert verdict(children) is Reason.CHILD_TAKEN
    assert verdict(children, replace(BARN, device="barn-8")) is Reason.CHILD_TAKEN


def test_namespaces_do_not_meet(children: Children, identities: Identities) -> None:
    """Gateways, children and enrolled devices of the same names in another namespace are others."""
    identities.add_device("barn-1", namespace="north")
    children.accept("barn", "barn-1")

    assert verdict(children, replace(BARN, namespace="north")) is Reason.CHILD_TAKEN
    assert (children.names("north"), children.listed(namespace="north")) == ([], [])
    with pytest.raises(NotFoundError, match="hub children gateways"):
        children.ignore("barn", "barn-2", namespace="south")


def test_listing_chooses(children: Children) -> None:
    """By state and by gateway."""
    children.set_rules("shed")
    children.ignore("shed", "shed-1")
    verdict(children)

    assert states(children, state=ChildState.PENDING) == {"barn-1": ChildState.PENDING}
    assert states(children, gateway="shed") == {"shed-1": ChildState.IGNORED}


def test_rules_are_kept_and_bounded(children: Children, other: Children) -> None:
    """What is not said stays; what is out of range changes nothing."""
    assert children.set_rules("barn", auto_accept=["barn-temp-*"]) == Rules(QUOTA, ("barn-temp-*",))
    assert children.set_rules("barn", quota=7) == Rules(7, ("barn-temp-*",))
    for quota in (0, -1, MAX_QUOTA + 1):
        with pytest.raises(BadRequestError, match="quota"):
            children.set_rules("barn", quota=quota)
    with pytest.raises(BadRequestError, match="auto-accept"):
        children.set_rules("barn", auto_accept=["barn-[0-9]"])
    with pytest.raises(BadRequestError, match="limit is 20"):
        children.set_rules("barn", auto_accept=["a"] * 21)
    with pytest.raises(BadRequestError, match="name"):
        children.set_rules("barn/1")

    other.keep()
    assert other.gateways() == {"barn": Rules(7, ("barn-temp-*",))}


def test_gateway_is_forgotten_with_its_children(children: Children) -> None:
    """Its children may then be anybody's."""
    children.accept("barn", "barn-1")
    children.remove_gateway("barn")

    assert (children.gateways(), children.listed()) == ({}, [])
    with pytest.raises(NotFoundError):
        children.remove_gateway("barn")


def test_numbers_are_bounded(children: Children, other: Children) -> None:
    """Gateways of a namespace, and ignored children of a gateway."""
    with children._changing() as database:
        database.executemany(
            "INSERT INTO gateway VALUES ('default', ?, 1, '[]')", [(f"g{n}",) for n in range(module.MAX_GATEWAYS - 1)]
        )
        database.executemany(
            "INSERT INTO child VALUES ('default', 'barn', ?, 'ignored', 1, 1)",
            [(f"barn-x{n}",) for n in range(module.MAX_IGNORED)],
        )

    with pytest.raises(ConflictError, match="1000 gateways"):
        children.set_rules("one-more")
    with pytest.raises(ConflictError, match="1000 children of barn are ignored"):
        children.ignore("barn", "barn-1")
    children.ignore("barn", "barn-x1")
    children.set_rules("one-more", namespace="north")


def test_decision_that_cannot_be_written_does_not_count(children: Children, other: Children) -> None:
    """The caller is told, and the child stays what it was; what came meanwhile is written later."""
    module_timeout = other._database.execute("PRAGMA busy_timeout").fetchone()[0]
    children._database.execute("PRAGMA busy_timeout = 1")
    other._database.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match="check the disk"):
        children.accept("barn", "barn-1")
    assert verdict(children) is Reason.CHILD_PENDING
    with pytest.raises(UnavailableError):
        children.keep()

    other._database.execute("ROLLBACK")
    children.keep()

    assert module_timeout == module.BUSY_TIMEOUT_S * 1000
    other.keep()
    assert states(other) == {"barn-1": ChildState.PENDING}
