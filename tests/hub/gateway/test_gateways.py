"""`hub.gateway.gateways`: a decision reaches the connection, and the log of changes."""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from device_sdk.errors import Reason
from hub.auth import Identities
from hub.change_log import CHANGES, ChangeLog
from hub.child_sessions import ChildSessions
from hub.children import CHILDREN, Children
from hub.gateway.gateways import Gateways
from hub.roles import Role
from hub.session import DeviceSession
from tests.hub.test_child_sessions import Rig, greet, heard


class World:
    """Real files; calls to the event loop wait in ``calls``."""

    def __init__(self, folder: Path, files: ExitStack) -> None:
        self.identities = files.enter_context(closing(Identities(folder / "identities.sqlite3")))
        self.children = files.enter_context(closing(Children(folder / CHILDREN, self.identities)))
        self.log = files.enter_context(closing(ChangeLog(folder / CHANGES)))
        self.calls: list[Callable[[], None]] = []
        self.gateways: Gateways[str] = Gateways(self.identities, self.children, self.log, self.calls.append)
        self.rig = Rig()

    def connect(self, namespace: str = "north", *auto_accept: str) -> ChildSessions:
        """Open the connection of a gateway."""
        _, token = self.identities.add_token(Role.GATEWAY, ["barn-*"], "barn", namespace=namespace)
        identity = self.identities.authenticate(token)
        assert identity is not None
        self.children.set_rules("barn", auto_accept=auto_accept, namespace=namespace)

        def begin(device: str) -> DeviceSession:
            return DeviceSession(namespace, device, self.rig.streams, self.rig.registry)

        sessions = ChildSessions(identity, self.children, begin)
        self.gateways.enter(namespace, sessions)
        self.calls.clear()
        return sessions

    def look(self) -> None:
        """Do what the hub does twice a second."""
        self.gateways.ended(self.gateways.refresh(self.gateways.asked()))

    def run(self) -> None:
        """Let the event loop do what it was asked for."""
        calls, self.calls[:] = list(self.calls), []
        for call in calls:
            call()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Nobody is connected."""
    with ExitStack() as files:
        yield World(tmp_path, files)


def test_ignored_child_ends_at_once(world: World) -> None:
    """A decision calls the event loop, which ends the child and writes that; the turn of the hub is not waited for."""
    gateway = world.connect("north", "*")
    written: list[object] = []
    gateway.flush = lambda: written.append("flushed")
    world.rig.say(gateway, 1, greet("barn-1"))

    world.children.ignore("barn", "barn-1", namespace="north")
    world.run()

    assert [(n, m["reason"]) for n, m in heard(gateway)] == [(1, Reason.CHILD_IGNORED)]
    assert written


def test_enrolled_child_ends_with_the_next_turn(world: World) -> None:
    """It has a token of its own now; a namesake elsewhere means nothing."""
    gateway, elsewhere = world.connect("north", "*"), world.connect("south", "*")
    for each in (gateway, elsewhere):
        world.rig.say(each, 1, greet("barn-1"))
    world.look()
    assert (heard(gateway), heard(elsewhere)) == ([], [])

    world.identities.add_device("barn-1", namespace="north")
    world.look()

    assert [(n, m["reason"]) for n, m in heard(gateway)] == [(1, Reason.CHILD_TAKEN)]
    assert (heard(elsewhere), set(elsewhere.devices)) == ([], {"barn-1"})


def test_accepted_by_pattern_is_in_the_log(world: World) -> None:
    """With the gateway as the one who did it, once, in its namespace."""
    world.rig.say(world.connect("north", "*"), 1, greet("barn-1"))
    world.look()
    world.look()

    assert [(e.what, e.target, e.who, e.role) for e in world.log.entries("north", 10)] == [
        ("accept by pattern", "barn-1", "barn", "gateway")
    ]
    assert world.log.entries("default", 10) == []


def test_gateway_that_left_is_forgotten(world: World) -> None:
    """Its children are asked for no more."""
    gateway = world.connect("north", "*")
    world.rig.say(gateway, 1, greet("barn-1"))
    assert world.gateways.asked() == {("north", "barn-1")}

    world.gateways.leave("north")
    world.gateways.leave("north")

    assert world.gateways.asked() == frozenset()


class Noting:
    """Sessions that note what they are told of their devices."""

    namespace = "default"
    devices = ("pump", "fan")

    def __init__(self) -> None:
        self.told: list[tuple[set[str], set[str]]] = []

    def flush(self) -> None:
        """Nothing."""

    def recheck(self, enrolled: Collection[str] = (), missing: Collection[str] = ()) -> None:
        """Note it."""
        self.told.append((set(enrolled), set(missing)))


def test_device_that_is_removed_is_told_apart_from_those_that_are_enrolled(world: World) -> None:
    """Behind a broker that was its reason to speak; when nothing has changed nobody is told."""
    sessions = Noting()
    world.gateways.enter("broker", sessions)
    for name in sessions.devices:
        world.identities.add_device(name)
    world.look()
    world.identities.remove_device("pump")
    world.look()
    world.look()

    assert sessions.told == [({"pump", "fan"}, set()), ({"fan"}, {"pump"})]
