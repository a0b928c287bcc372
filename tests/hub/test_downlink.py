"""The way to devices: the newest connection of each is spoken to, whatever any of them says is handed on."""

from device_sdk.wire import Command, Desired, Reply, Reported, Schema
from hub.downlink import Downlink

COMMAND = Command("k1", "fan", {"speed": 3}, 10**18)


class Line:
    """A session that notes what it is told and whether it was written out."""

    def __init__(self, device: str = "d", namespace: str = "default") -> None:
        self.namespace, self.device = namespace, device
        self.told: list[Command | Desired] = []
        self.written = 0

    def tell(self, message: Command | Desired) -> None:
        """Note it."""
        self.told.append(message)

    def flush(self) -> None:
        """Write it."""
        self.written = len(self.told)


class Ear:
    """A listener that notes everything, and greets each device with a command."""

    def __init__(self, downlink: Downlink) -> None:
        self.downlink = downlink
        self.entries: list[tuple[str, str]] = []
        self.messages: list[tuple[str, str, Reply | Reported | Schema]] = []

    def entered(self, namespace: str, device: str) -> None:
        """Note it, and speak at once."""
        self.entries.append((namespace, device))
        self.downlink.send(namespace, device, COMMAND)

    def heard(self, namespace: str, device: str, message: Reply | Reported | Schema) -> None:
        """Note it."""
        self.messages.append((namespace, device, message))


def test_nobody_is_reached_before_he_entered() -> None:
    """What cannot be sent is said at once; nothing waits here."""
    downlink = Downlink()

    assert not downlink.send("default", "d", COMMAND)
    assert not downlink.can_reach("default", "d")


def test_the_newest_connection_is_spoken_to() -> None:
    """With two streams of a device, or a takeover, the last that entered counts; the older one leaves unnoticed."""
    downlink, older, newer = Downlink(), Line(), Line()
    others = [downlink.entered(older), downlink.entered(newer), downlink.entered(newer)]
    downlink.left(older)

    assert others == [None, older, None]
    assert downlink.send("default", "d", COMMAND)
    assert (older.told, newer.told, newer.written) == ([], [COMMAND], 1)

    downlink.left(newer)
    assert not downlink.send("default", "d", COMMAND)


def test_who_is_still_there_is_spoken_to_when_the_newest_left() -> None:
    """A second program of a device that ends does not cut off the first."""
    downlink, older, newer = Downlink(), Line(), Line()
    downlink.entered(older)
    downlink.entered(newer)
    downlink.left(newer)

    assert downlink.can_reach("default", "d")
    assert downlink.send("default", "d", COMMAND)
    assert (older.told, newer.told) == ([COMMAND], [])

    downlink.left(older)
    downlink.left(older)
    assert not downlink.can_reach("default", "d")


def test_namespaces_do_not_meet() -> None:
    """The same name in another namespace is another device."""
    downlink, line = Downlink(), Line(namespace="other")
    downlink.entered(line)

    assert not downlink.send("default", "d", COMMAND)
    assert line.told == []


def test_listeners_may_speak_as_soon_as_a_device_entered() -> None:
    """Each connection is announced, so that what may be lost is said again; what any says reaches all listeners."""
    downlink, line = Downlink(), Line()
    ear = Ear(downlink)
    downlink.listen(ear)
    downlink.entered(line)
    downlink.entered(line)
    downlink.heard(line, Reply("k1", True))

    assert ear.entries == [("default", "d")] * 2
    assert (line.told, line.written) == ([COMMAND] * 2, 2)
    assert ear.messages == [("default", "d", Reply("k1", True))]


class Guest:
    """A follower that notes who comes and goes."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, ...]] = []

    def came(self, namespace: str, device: str) -> None:
        """Note it."""
        self.seen.append(("came", namespace, device))

    def went(self, namespace: str, device: str, why: str) -> None:
        """Note it."""
        self.seen.append(("went", namespace, device, why))


def test_followers_hear_of_a_devices_first_and_last_connection() -> None:
    """Not of those between, and of none twice."""
    downlink, older, newer, guest = Downlink(), Line(), Line(), Guest()
    downlink.follow(guest)
    downlink.entered(older)
    downlink.entered(older)
    downlink.entered(newer)
    downlink.left(older, "taken over")
    downlink.left(newer, "no pong")
    downlink.left(newer, "no pong")

    assert guest.seen == [("came", "default", "d"), ("went", "default", "d", "no pong")]
