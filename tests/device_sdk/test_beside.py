"""What is said beside the frames: declarations first, each once a connection, and the newest of the rest."""

from device_sdk import wire
from device_sdk.beside import MAX_SAID, Beside
from device_sdk.reading import Channel

DOOR, LAMP = Channel("door"), Channel("lamp")


def test_declarations_go_first_and_only_what_is_new() -> None:
    """A schema names what the hub was not told of on this connection."""
    beside = Beside()
    beside.said.append(b"reply")

    assert beside.take({"door": DOOR}) == [wire.encode(wire.Schema((DOOR,))), b"reply"]
    assert beside.take({"door": DOOR, "lamp": LAMP}) == []
    beside.is_schema_due = True
    assert beside.take({"door": DOOR, "lamp": LAMP}) == [wire.encode(wire.Schema((LAMP,)))]


def test_a_new_connection_begins_from_nothing() -> None:
    """All is declared again; what was to be said on the one before is forgotten."""
    beside = Beside()
    beside.take({"door": DOOR})
    beside.said.append(b"reply")
    beside.begin()

    assert beside.take({"door": DOOR}) == [wire.encode(wire.Schema((DOOR,)))]


def test_the_oldest_go_when_too_much_waits() -> None:
    """What waits is bounded."""
    beside = Beside()
    beside.said.extend(b"%d" % n for n in range(MAX_SAID + 1))

    assert beside.take({})[0] == b"1"
