"""`hub.revocations`: durable, seen from another process, bounded, one namespace at a time."""

import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hub import revocations as module
from hub.errors import ConflictError, NotFoundError
from hub.revocations import CERTIFICATES, Revocations, Revoked

A, B = "ab" * 32, "cd" * 32


@pytest.fixture
def revocations(tmp_path: Path) -> Iterator[Revocations]:
    """An empty file."""
    with closing(Revocations(tmp_path / CERTIFICATES, clock=lambda: 5)) as revocations:
        yield revocations


def test_revoked_is_durable_and_counts_at_once(revocations: Revocations, tmp_path: Path) -> None:
    """Before the call returns it counts here and is in the file, which only its owner reads; again is no error."""
    assert revocations.revoke(A.upper(), "stolen") == A
    revocations.revoke(A, "again")

    assert revocations.is_revoked("default", A)
    with closing(Revocations(tmp_path / CERTIFICATES)) as later:
        assert later.is_revoked("default", A)
        assert later.revoked() == [Revoked(A, "stolen", 5)]
    assert stat.S_IMODE((tmp_path / CERTIFICATES).stat().st_mode) == 0o600


def test_another_process_is_noticed(revocations: Revocations, tmp_path: Path) -> None:
    """What `--data` revoked and restored counts after `refresh`."""
    with closing(Revocations(tmp_path / CERTIFICATES)) as other:
        other.revoke(A)
        revocations.refresh()
        assert revocations.is_revoked("default", A)
        other.restore(A)
        revocations.refresh()

    assert not revocations.is_revoked("default", A)


def test_namespaces_do_not_meet(revocations: Revocations) -> None:
    """Nobody revokes, sees or restores in another namespace."""
    revocations.revoke(A, namespace="north")

    assert not revocations.is_revoked("default", A)
    assert revocations.revoked() == []
    with pytest.raises(NotFoundError, match="hub certificates ls"):
        revocations.restore(A)
    revocations.restore(A, namespace="north")
    assert not revocations.is_revoked("north", A)


def test_number_is_bounded(revocations: Revocations) -> None:
    """At the limit the error says what to do; again is no error; another namespace has room, restoring makes some."""
    rows = [("default", f"{number:064x}", "", 0) for number in range(module.MAX_REVOKED)]
    with revocations._changing() as database:
        database.executemany("INSERT INTO revoked VALUES (?, ?, ?, ?)", rows)

    with pytest.raises(ConflictError, match=r"10000 certificates are revoked.*restore"):
        revocations.revoke(B)
    revocations.revoke(f"{0:064x}")
    revocations.revoke(B, namespace="north")
    revocations.restore(f"{0:064x}")
    revocations.revoke(B)
