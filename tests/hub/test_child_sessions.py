"""`hub.child_sessions`: each message to its device, each answer with its number, each fault to whom it belongs."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from device_sdk import wire
from device_sdk.columns import Batch, Column, encode_binary, encode_json
from device_sdk.envelope import unwrap, wrap
from device_sdk.errors import Reason
from device_sdk.reading import Channel
from device_sdk.wire import CHAIN_START, Close
from hub import child_sessions as module
from hub.child_book import Asked, Refusal
from hub.child_sessions import ChildSessions
from hub.devices import Registry
from hub.downlink import Downlink
from hub.errors import UnavailableError
from hub.journal.base import Run
from hub.model import Frame
from hub.roles import Identity, Role, scopes_of
from hub.session import DeviceSession
from hub.streams import Streams
from tests.support.marks import marks_of

T0 = 1_795_376_000_000_000_000
BARN = Identity("t1", "barn", Role.GATEWAY, "north", scopes_of(Role.GATEWAY, ["barn-*"]))
PENDING = Refusal(Reason.CHILD_PENDING, "it waits", 5000)


class Doorman:
    """Admits all but whom it was told not to; ``asked`` is who came."""

    def __init__(self) -> None:
        self.refusals: dict[str, Refusal] = {}
        self.is_away = False
        self.asked: list[Asked] = []

    def admit(self, asked: Asked) -> Refusal | None:
        """Look into the list."""
        if self.is_away:
            raise UnavailableError("locked")
        self.asked.append(asked)
        return self.refusals.get(asked.device)

    def is_accepted(self, namespace: str, gateway: str, device: str) -> bool:
        """Look into the list."""
        return device not in self.refusals


class Rig:
    """A hub without I/O, with gateways' connections, and a commit that the test calls."""

    def __init__(self) -> None:
        self.streams = Streams([Run("7f3a0001", 1)], 0, marks_of({}))
        self.registry = Registry(())
        self.downlink = Downlink()
        self.doorman = Doorman()
        self.uncommitted: list[Frame] = []

    def begin(self, device: str) -> DeviceSession:
        """Make a session as `hub.app` does."""
        return DeviceSession("north", device, self.streams, self.registry, downlink=self.downlink)

    def connect(self) -> ChildSessions:
        """Open a connection."""
        return ChildSessions(BARN, self.doorman, self.begin)

    def say(self, gateway: ChildSessions, number: int, message: bytes, **options: Any) -> list[tuple[int, Any]]:
        """Say a message for a device; return what the hub says."""
        return self.say_raw(gateway, wrap(number, message), **options)

    def say_raw(self, gateway: ChildSessions, data: bytes, **options: Any) -> list[tuple[int, Any]]:
        """Say anything."""
        gateway.receive(data, data[:1] == b"{", T0, **options)
        self.uncommitted += gateway.frames
        gateway.frames = []
        return heard(gateway)

    def commit(self) -> list[DeviceSession]:
        """Do what writer and journal do."""
        frames, self.uncommitted = self.uncommitted, []
        for offset, frame in enumerate(frames, self.streams.head + 1):
            frame.offset = offset
        owners = self.streams.committed(frames)
        for owner in owners:
            owner.flush()
        return owners  # type: ignore[return-value]


def heard(gateway: ChildSessions) -> list[tuple[int, Any]]:
    """Return what the hub said, by number."""
    return [(number, json.loads(message)) for number, message in map(unwrap, gateway.take_output())]


def greet(device: str, stream: str | None = None, **more: Any) -> bytes:
    """Return a hello with a stream of its own."""
    name = stream or f"{sum(device.encode()):016x}".replace("0", "a")
    return wire.encode(wire.Hello(device, name, "boot", "run", 0, 1, CHAIN_START.hex(), **more))


def batch(seq: int, encode: Callable[[Batch], bytes | None] = encode_json) -> bytes:
    """Return a frame of one reading."""
    body = encode(Batch(seq, 1, T0 + seq, 1, (Column("x", [0], [1.5]),)))
    assert body is not None
    return body


SCHEMA = wire.encode(wire.Schema((Channel("x"),)))


def test_devices_are_served_side_by_side() -> None:
    """Welcome, frames in each form, acks: as many conversations as devices, each under its number."""
    rig, gateway = Rig(), None
    gateway = rig.connect()
    for number, device in ((7, "barn-1"), (9, "barn-2")):
        ((said, welcome),) = rig.say(gateway, number, greet(device))
        assert (said, welcome["op"]) == (number, "welcome")
        rig.say(gateway, number, SCHEMA)
    rig.say(gateway, 7, batch(1))
    rig.say(gateway, 9, batch(1, encode_binary))
    rig.say(gateway, 9, wire.pack(batch(2)))

    assert {(f.key.namespace, f.key.device, f.seq) for f in rig.uncommitted} == {
        ("north", "barn-1", 1), ("north", "barn-2", 1), ("north", "barn-2", 2),
    }  # fmt: skip
    assert [f.body for f in rig.uncommitted if f.key.device == "barn-1"] == [batch(1)]
    assert heard(gateway) == []
    rig.commit()
    assert {(n, m["op"], m["stored"]) for n, m in heard(gateway)} == {(7, "ack", 1), (9, "ack", 2)}
    assert set(gateway.devices) == {"barn-1", "barn-2"}


def test_commit_writes_through_the_shell() -> None:
    """An ack that a commit makes leaves at once, by the connection's flush."""
    rig = Rig()
    gateway = rig.connect()
    written: list[tuple[int, Any]] = []
    gateway.flush = lambda: written.extend(heard(gateway))
    for message in (greet("barn-1"), SCHEMA, batch(1)):
        rig.say(gateway, 7, message)

    rig.commit()

    assert [(number, message["op"]) for number, message in written] == [(7, "ack")]


def test_hub_speaks_to_a_device_by_its_name() -> None:
    """A command finds the device behind the gateway, with the number it has there."""
    rig = Rig()
    gateway = rig.connect()
    written: list[tuple[int, Any]] = []
    gateway.flush = lambda: written.extend(heard(gateway))
    rig.say(gateway, 7, greet("barn-1"))

    assert rig.downlink.send("north", "barn-1", wire.Command("k", "fan", {}, T0))
    assert not rig.downlink.send("default", "barn-1", wire.Command("k", "fan", {}, T0))
    assert [(number, message["op"]) for number, message in written] == [(7, "command")]


def test_refused_device_is_told_and_nobody_else_is_touched() -> None:
    """With its number, why, and when to ask again; what it sends on says no more than that, and costs no session."""
    rig = Rig()
    gateway = rig.connect()
    rig.say(gateway, 1, greet("barn-1"))
    rig.doorman.refusals["barn-2"] = PENDING

    ((number, bye),) = rig.say(gateway, 2, greet("barn-2", link="metered"))
    ((_, again),) = rig.say(gateway, 2, SCHEMA)

    assert number == 2
    assert bye == {
        "op": "bye", "retry_ms": 5000, "code": Close.FORBIDDEN, "reason": "child_pending", "message": "it waits"
    }  # fmt: skip
    assert (again["op"], again["code"]) == ("bye", Close.BAD_MESSAGE)
    assert gateway.closing is None
    assert set(gateway.devices) == {"barn-1"}
    assert rig.doorman.asked[-1] == Asked("north", "barn", ("barn-*",), "barn-2", is_metered=True)
    del rig.doorman.refusals["barn-2"]
    assert [m["op"] for _, m in rig.say(gateway, 3, greet("barn-2"))] == ["welcome"]


def test_file_that_cannot_be_read_is_a_pause() -> None:
    """A second later it is known."""
    rig = Rig()
    rig.doorman.is_away = True

    ((_, bye),) = rig.say(rig.connect(), 1, greet("barn-1"))

    assert (bye["op"], bye["retry_ms"]) == ("bye", module.RETRY_UNAVAILABLE_MS)


@pytest.mark.parametrize(
    "data",
    [greet("barn-1"), b"", b"x", b"\x03\x01", wrap(1, wrap(2, greet("barn-1"))), b'{"n":65536,"op":"bye"}', batch(1)],
    ids=["no number", "empty", "text", "torn", "nested", "huge", "batch"],
)
def test_message_of_nobody_ends_the_connection(data: bytes) -> None:
    """It is the gateway's own fault; every device's stream is free for the next connection."""
    rig = Rig()
    gateway = rig.connect()
    rig.say(gateway, 1, greet("barn-1"))

    rig.say_raw(gateway, data)

    assert gateway.closing is not None
    assert gateway.closing[0] == Close.BAD_MESSAGE
    assert not rig.downlink.can_reach("north", "barn-1")
    assert rig.registry.device("north", "barn-1").connections == 0
    assert rig.say(gateway, 1, greet("barn-1")) == []


@pytest.mark.parametrize("message", [SCHEMA, batch(1), b'{"op":"nonsense"}', b"\x02torn", b"{", b"\x01"], ids=repr)
def test_what_comes_before_hello_ends_nobody(message: bytes) -> None:
    """A number that is not in use is told to say hello; a bye of it needs no answer."""
    rig = Rig()
    gateway = rig.connect()

    ((number, bye),) = rig.say(gateway, 5, message)

    assert (number, bye["op"], bye["code"], gateway.closing) == (5, "bye", Close.BAD_MESSAGE, None)
    assert rig.say(gateway, 5, wire.encode(wire.Bye())) == []


def test_fault_of_one_device_ends_that_one() -> None:
    """Four unreadable messages, or a hello for another device: its number is free, the others go on."""
    rig = Rig()
    gateway = rig.connect()
    for number, device in ((1, "barn-1"), (2, "barn-2"), (3, "barn-3")):
        rig.say(gateway, number, greet(device))
    for _ in range(3):
        rig.say(gateway, 1, b'{"op":"nonsense"}')

    answers = rig.say(gateway, 1, b'{"op":"nonsense"}') + rig.say(gateway, 2, greet("barn-3"))

    assert [(n, m["op"], m.get("code")) for n, m in answers if m["op"] == "bye"] == [
        (1, "bye", Close.BAD_MESSAGE), (2, "bye", Close.FORBIDDEN),
    ]  # fmt: skip
    assert set(gateway.devices) == {"barn-3"}


def test_bye_frees_the_number_in_silence() -> None:
    """And the device's stream."""
    rig = Rig()
    gateway = rig.connect()
    rig.say(gateway, 1, greet("barn-1"))

    assert rig.say(gateway, 1, wire.encode(wire.Bye())) == []
    assert list(gateway.devices) == []
    assert [m["op"] for _, m in rig.say(gateway, 1, greet("barn-2"))] == ["welcome"]


def test_device_has_one_number() -> None:
    """A hello under another number ends the older one: numbers that nobody uses are not memory."""
    rig = Rig()
    gateway = rig.connect()
    rig.say(gateway, 1, greet("barn-1", "a" * 16))

    (over, welcome) = rig.say(gateway, 2, greet("barn-1", "b" * 16))

    assert (over[0], over[1]["code"], over[1]["reason"]) == (1, Close.TAKEN_OVER, "taken_over")
    assert (welcome[0], welcome[1]["op"]) == (2, "welcome")
    assert rig.registry.device("north", "barn-1").connections == 1
    assert rig.downlink.can_reach("north", "barn-1")


def test_newer_connection_takes_a_device_over() -> None:
    """The same stream through another connection: the older one's device is told there, the others stay."""
    rig = Rig()
    older, newer = rig.connect(), rig.connect()
    told: list[tuple[int, Any]] = []
    older.flush = lambda: told.extend(heard(older))
    for device in ("barn-1", "barn-2"):
        rig.say(older, 1 if device == "barn-1" else 2, greet(device))

    rig.say(newer, 5, greet("barn-1"))
    while newer.displaced:
        newer.displaced.pop().flush()

    assert [(number, message["code"]) for number, message in told] == [(1, Close.TAKEN_OVER)]
    assert (set(older.devices), set(newer.devices)) == ({"barn-2"}, {"barn-1"})
    older.closed()
    assert rig.downlink.can_reach("north", "barn-1")


def test_who_may_not_speak_any_more_is_ended() -> None:
    """Ignored, forgotten or enrolled: told why; what it had accepted is stored without an ack."""
    rig = Rig()
    gateway = rig.connect()
    for number, device in ((1, "barn-1"), (2, "barn-2"), (3, "barn-3")):
        rig.say(gateway, number, greet(device))
        rig.say(gateway, number, SCHEMA)
    rig.say(gateway, 1, batch(1))
    rig.doorman.refusals["barn-1"] = Refusal(Reason.CHILD_IGNORED, "no", 60_000)
    gateway.recheck()
    assert [(n, m["reason"]) for n, m in heard(gateway)] == [(1, "child_ignored")]

    rig.doorman.refusals["barn-2"] = Refusal(Reason.CHILD_TAKEN, "enrolled", 60_000)
    gateway.recheck({"barn-2"})
    rig.commit()

    assert [(n, m["reason"]) for n, m in heard(gateway)] == [(2, "child_taken")]
    assert set(gateway.devices) == {"barn-3"}
    assert not rig.downlink.can_reach("north", "barn-1")
    gateway.recheck()
    assert heard(gateway) == []


def test_sessions_of_a_connection_are_bounded() -> None:
    """At the limit a further device is refused; one that is here may begin anew."""
    rig = Rig()
    gateway = rig.connect()
    for number in range(1, module.MAX_CHILDREN + 1):
        rig.say(gateway, number, greet(f"barn-{number}"))

    ((_, bye),) = rig.say(gateway, 2000, greet("barn-x"))
    again = rig.say(gateway, 2000, greet("barn-1"))

    assert bye["reason"] == "child_quota"
    assert [m["op"] for _, m in again] == ["bye", "welcome"]
    assert len(gateway.devices) == module.MAX_CHILDREN


def test_line_is_probed_for_the_device_that_needs_it_most() -> None:
    """Only where all are metered it is left quiet."""
    rig = Rig()
    gateway = rig.connect()
    seen = [gateway.ping_s]
    for number, link in enumerate(("metered", "metered", "normal"), 1):
        rig.say(gateway, number, greet(f"barn-{number}", link=link))
        seen.append(gateway.ping_s)

    assert seen == [wire.PING_S, wire.METERED_PING_S, wire.METERED_PING_S, wire.PING_S]


class Guest:
    """Notes who comes, who goes and why."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def came(self, namespace: str, device: str) -> None:
        """Note it."""
        self.seen.append((device, "came"))

    def went(self, namespace: str, device: str, why: str) -> None:
        """Note it."""
        self.seen.append((device, why))


def test_devices_behind_a_gateway_come_and_go() -> None:
    """Each for itself: by its own bye, by a decision, and with the gateway's connection."""
    rig, guest = Rig(), Guest()
    rig.downlink.follow(guest)
    gateway = rig.connect()
    for number in (1, 2, 3):
        rig.say(gateway, number, greet(f"barn-{number}"))
    rig.say(gateway, 1, wire.encode(wire.Bye()))
    rig.doorman.refusals["barn-2"] = PENDING
    gateway.recheck()
    gateway.closed("no pong")

    assert guest.seen[:3] == [("barn-1", "came"), ("barn-2", "came"), ("barn-3", "came")]
    assert guest.seen[3:] == [("barn-1", "bye"), ("barn-2", "child_pending"), ("barn-3", "gateway: no pong")]


def test_full_journal_is_told_to_the_device() -> None:
    """`slow`, under its number."""
    rig = Rig()
    gateway = rig.connect()
    rig.say(gateway, 1, greet("barn-1"))
    rig.say(gateway, 1, SCHEMA)

    ((number, slow),) = rig.say(gateway, 1, batch(1), can_accept=False)

    assert (number, slow["op"]) == (1, "slow")


@pytest.mark.parametrize("seed", range(20))
def test_fuzzed_envelopes_do_no_harm(seed: int) -> None:
    """Bits flipped anywhere: the books stay right, what is said has a number, and closing leaves nothing behind."""
    dice = random.Random(seed)
    rig = Rig()
    rig.doorman.refusals["barn-4"] = PENDING
    messages = [*(greet(f"barn-{n}") for n in range(6)), SCHEMA, batch(1), batch(1, encode_binary), wire.pack(batch(2))]
    for _ in range(10):
        gateway = rig.connect()
        for _ in range(60):
            data = bytearray(wrap(dice.randrange(1, 8), dice.choice(messages)))
            if dice.random() < 0.3:
                data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
            rig.say_raw(gateway, bytes(data))
            assert len(gateway.devices) <= 7
            if gateway.closing is not None:
                break
            rig.commit()
            heard(gateway)
        gateway.closed()
        assert list(gateway.devices) == []
    assert all(device.connections == 0 for device in rig.registry.devices.values())
