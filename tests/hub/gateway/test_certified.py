"""`hub.gateway.certified`: who a certificate speaks for, and which connections end."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from hub.auth import Identities
from hub.certificate import Certificate
from hub.credential import device_identity
from hub.errors import ForbiddenError, UnauthenticatedError
from hub.gateway.certified import Certified
from hub.revocations import CERTIFICATES, Revocations
from hub.roles import Role

SPACE = "default"
PUMP = Certificate("pump", SPACE, "ab" * 32, 100, 200)


class World:
    """Real files, and a clock that stands."""

    def __init__(self, folder: Path, files: ExitStack) -> None:
        self.now_ns = 150
        self.identities = files.enter_context(closing(Identities(folder / "identities.sqlite3")))
        self.revocations = files.enter_context(closing(Revocations(folder / CERTIFICATES)))
        self.certified: Certified[str] = Certified(self.identities, self.revocations, lambda: self.now_ns)
        self.identities.add_device("pump")

    def look(self) -> list[tuple[str, str]]:
        """Do what the hub does twice a second."""
        return self.certified.ended(self.certified.refresh(self.certified.asked()))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One enrolled device."""
    with ExitStack() as files:
        yield World(tmp_path, files)


def test_speaks_for_the_device_alone(world: World) -> None:
    """The identity is that of the device's token: its channels and nothing else; with a token it is the token's."""
    by_token = device_identity("d1", SPACE, "pump")

    found = world.certified.identify(PUMP, None)

    assert (found.name, found.role, found.namespace, found.scopes) == ("pump", Role.DEVICE, SPACE, by_token.scopes)
    assert world.certified.identify(PUMP, by_token) is by_token


@pytest.mark.parametrize(
    ("certificate", "now_ns", "message"),
    [
        pytest.param(Certificate("other", SPACE, "ab" * 32, 100, 200), 150, "no enrolled device", id="not enrolled"),
        pytest.param(
            Certificate("pump", "north", "ab" * 32, 100, 200),
            150,
            "'pump' of namespace 'north', which is no",
            id="namespace",
        ),
        pytest.param(Certificate("", SPACE, "ab" * 32, 100, 200), 150, "names no device, or two", id="no name"),
        pytest.param(PUMP, 200, "expired", id="expired"),
        pytest.param(PUMP, 99, "not valid yet", id="not begun"),
        pytest.param(Certificate("pump", SPACE, "cd" * 32, 100, 200), 150, "revoked", id="revoked"),
    ],
)
def test_refused(world: World, certificate: Certificate, now_ns: int, message: str) -> None:
    """Whatever TLS said: not enrolled, out of its dates or revoked means no."""
    world.now_ns = now_ns
    world.revocations.revoke("cd" * 32)

    with pytest.raises(UnauthenticatedError, match=message):
        world.certified.identify(certificate, None)


@pytest.mark.parametrize(
    ("space", "name", "told"), [(SPACE, "other", "'other'"), ("north", "pump", "'pump' of namespace 'north'")]
)
def test_token_of_another_device_is_refused(world: World, space: str, name: str, told: str) -> None:
    """Token and certificate must say the same device of the same namespace; the message tells them apart."""
    with pytest.raises(ForbiddenError, match=f"that of {told}, the certificate that of 'pump': use one of them"):
        world.certified.identify(PUMP, device_identity("d1", space, name))


def test_connections_end_with_what_they_stand_on(world: World, tmp_path: Path) -> None:
    """Revoked, expired, removed by another process: each ends those connections and no other."""
    world.identities.add_device("fan")
    certified = world.certified
    certified.enter("a", PUMP)
    certified.enter("b", Certificate("fan", SPACE, "cd" * 32, 100, 160))
    assert world.look() == []

    world.revocations.revoke("ab" * 32)
    assert world.look() == [("a", "this certificate was revoked")]
    certified.leave("a")
    world.now_ns = 160
    ((ended, why),) = world.look()
    assert (ended, "expired" in why) == ("b", True)
    world.now_ns = 150
    with closing(Identities(tmp_path / "identities.sqlite3")) as other:
        other.remove_device("fan")
    world.identities.refresh()
    assert world.look() == [("b", "this device was removed")]
    certified.leave("b")
    assert world.look() == []


def test_removal_during_a_look_is_seen_in_the_next(world: World) -> None:
    """Between the question and the answer of a look a device enters and is removed: the next look ends it."""
    asked = world.certified.asked()
    world.certified.identify(PUMP, None)
    world.certified.enter("a", PUMP)
    world.identities.remove_device("pump")

    assert world.certified.ended(world.certified.refresh(asked)) == []
    assert world.look() == [("a", "this device was removed")]
