"""A device has one token or two; listing and limits say the same as the file."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hub.auth import Identities
from hub.device_tokens import KEEP_S, MAX_KEEP_S
from hub.errors import BadRequestError
from tests.support.wall_clock import WallClock


@pytest.fixture
def clock() -> WallClock:
    """Return a clock the test moves."""
    return WallClock()


@pytest.fixture
def identities(tmp_path: Path, clock: WallClock) -> Iterator[Identities]:
    """Return an empty file of identities."""
    with closing(Identities(tmp_path / "identities.sqlite3", clock=clock)) as opened:
        yield opened


def test_listing_says_when_the_old_token_ends(identities: Identities, clock: WallClock) -> None:
    """Two live tokens and the end of the old one; one again when that is over, also before anybody cleaned up."""
    identities.add_device("pump-1")
    rotated_ns = clock.now_ns
    new = identities.rotate_device("pump-1")
    (during,) = identities.devices()
    clock.advance(KEEP_S)
    (after,) = identities.devices()

    assert (during.id, during.tokens, during.old_ends_ns) == (
        new.split(".")[0],
        2,
        rotated_ns + round(KEEP_S * 1e9),
    )
    assert (after.tokens, after.old_ends_ns, after.rotated_ns) == (1, None, rotated_ns)


def test_tokens_of_one_name_in_two_namespaces_are_strangers(identities: Identities) -> None:
    """Rotating or removing one device leaves its namesake alone."""
    here, there = identities.add_device("pump-1"), identities.add_device("pump-1", namespace="other")
    identities.rotate_device("pump-1", keep_s=0)
    identities.remove_device("pump-1")

    assert identities.authenticate(here) is None
    assert identities.authenticate(there) is not None


def test_removing_ends_both_tokens(identities: Identities) -> None:
    """Nobody keeps an old token of a device that is gone."""
    tokens = [identities.add_device("pump-1"), identities.rotate_device("pump-1")]
    identities.remove_device("pump-1")

    assert [identities.authenticate(token) for token in tokens] == [None, None]
    assert identities.refresh() == {token.split(".")[0] for token in tokens}


@pytest.mark.parametrize("keep_s", [-1.0, MAX_KEEP_S + 1, float("nan")])
def test_grace_has_limits(identities: Identities, keep_s: float) -> None:
    """The error names them, and the token stays as it was."""
    token = identities.add_device("pump-1")

    with pytest.raises(BadRequestError, match="30 d"):
        identities.rotate_device("pump-1", keep_s=keep_s)

    assert identities.authenticate(token) is not None
    assert identities.devices()[0].tokens == 1
