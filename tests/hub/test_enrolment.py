"""Each name of a list is enrolled for itself."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hub.auth import Identities
from hub.enrolment import Result


@pytest.fixture
def identities(tmp_path: Path) -> Iterator[Identities]:
    """Return an empty file of identities."""
    with closing(Identities(tmp_path / "identities.sqlite3")) as opened:
        yield opened


def test_a_bad_row_loses_nothing_else(identities: Identities) -> None:
    """Good names get tokens that count; the others say why not, at their place."""
    kept = identities.add_device("old-1")

    rows = identities.enrol_each(["a", "a b", "old-1", "a", "forbidden", "b"], is_allowed=lambda n: n != "forbidden")

    assert [row.result for row in rows] == [
        Result.ENROLLED, Result.BAD_NAME, Result.EXISTS, Result.DUPLICATE, Result.FORBIDDEN, Result.ENROLLED,
    ]  # fmt: skip
    assert "letters, digits" in str(rows[1].why)
    assert [d.name for d in identities.devices()] == ["a", "b", "old-1"]
    assert all(identities.authenticate(str(row.token)) for row in rows if row.result is Result.ENROLLED)
    assert identities.authenticate(kept) is not None


def test_claims_are_made_instead_of_tokens(identities: Identities) -> None:
    """Each new name gets a code of its own; a device that exists gets none."""
    identities.add_device("old-1")

    rows = identities.enrol_each(["a", "old-1"], claim_s=60)

    assert [(row.result, row.token, row.code is None) for row in rows] == [
        (Result.CLAIMABLE, None, False),
        (Result.EXISTS, None, True),
    ]
    assert identities.claims.redeem(str(rows[0].code)).device == "a"
