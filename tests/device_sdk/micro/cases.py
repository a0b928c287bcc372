"""The rules of `device_sdk/micro.py`, one function each; ``python cases.py`` runs them and prints a line for each.

The clock is the test's own, the other end a scripted one in this process; both interpreters run the same file.
"""

import json
import sys

try:
    from collections.abc import Callable
    from typing import Any

    Vectors = dict[str, Any]
except ImportError:
    pass  # MicroPython, which does not look at annotations

from micro import Device
from scripted_hub import ScriptedHub, down, send_at_once

T_MS = 1_795_376_000_000
STREAM, BOOT = "9f3a6c01d2e4b587", "51c00a77aa01beef"


class Clocked(Device):  # type: ignore[misc]
    """A device whose uptime is what the test says."""

    clock_ms = 0

    def uptime(self) -> int:
        """Return it."""
        self.up = self.clock_ms
        return self.up


class World:
    """A device and its hub."""

    def __init__(self, **options: object) -> None:
        self.hub = ScriptedHub()
        self.device = Clocked("greenhouse-7", "127.0.0.1", self.hub.port, token="secret", **options)
        self.device.stream, self.device.boot = STREAM, BOOT
        self._sock: object = None

    def step(self, times: int = 1, ms: int = 0) -> None:
        """Let both have their turns, ``ms`` after each other."""
        for _ in range(times):
            self.device.clock_ms += ms
            self.device.tick()
            if self.device.sock is not self._sock:
                # Time is the test's, so the kernel must not wait for more to send.
                self._sock = self.device.sock
                send_at_once(self._sock)
            self.hub.turn()

    def until(self, is_so: Callable[[], object], ms: int = 0, limit: int = 3000) -> None:
        """Step until it is so."""
        for _ in range(limit):
            if is_so():
                return
            self.step(1, ms)
        raise AssertionError(f"it never came to that; the device says: {self.device.why}")

    def online(self) -> "World":
        """Step until the hub has welcomed the device, and has its schema."""
        self.until(lambda: self.device.online and not self.device.say and len(self.hub.got) > 2)
        self.step(3)
        return self

    def quiet(self) -> None:
        """Step until everything recorded is acked."""
        device = self.device
        self.until(lambda: not (device.ring or device.cut or device.lost or device.say), ms=10)

    @property
    def ups(self) -> list[Any]:
        """What came on `up`, read."""
        return [came.message for came in self.hub.got if came.topic.endswith("/up")]

    @property
    def frames(self) -> list[Any]:
        """What of it is numbered."""
        return [message for message in self.ups if "q" in message or "seq" in message]

    def readings(self) -> list[Any]:
        """All readings that the hub stored, sorted: (ms, channel, value)."""
        found = []
        for payload in self.hub.frames.values():
            frame = json.loads(payload)
            for row in frame.get("r", []):
                for name, value in zip(frame["f"], row[1:]):  # noqa: B905 - MicroPython's has no strict
                    if value is not None:
                        found.append((int(frame["t"]) + row[0], name, value))
        return sorted(found, key=lambda one: one[:2])

    def close(self) -> None:
        """End both."""
        self.device.close()
        self.hub.close()


def connection_begins_as_the_vectors_say(world: World, vectors: Vectors) -> None:
    """CONNECT carries will, user and token; then `down`, the birth (retained), a hello and the schema."""
    world.online()
    hub = world.hub

    connect = hub.connects[0]
    will = vectors["will"]["body"].encode()
    parts = (b"greenhouse-7", b"hub/v1/greenhouse-7/state", will, b"greenhouse-7", b"secret")
    assert connect == b"\0\4MQTT\4\xee\0\x1e" + b"".join([len(part).to_bytes(2, "big") + part for part in parts])
    assert hub.subscribed == [b"\0\1\0\x18hub/v1/greenhouse-7/down\1"]
    birth = hub.got[0]
    assert (birth.flags, birth.topic, birth.payload.decode()) == (
        3,
        vectors["birth"]["topic"],
        vectors["birth"]["body"],
    )
    assert hub.got[1].flags == 2
    assert hub.got[1].topic == vectors["hello"]["topic"]
    assert hub.got[1].message == json.loads(vectors["hello"]["body"])
    assert hub.got[2].message == {"op": "schema", "channels": {}}
    # The hub knows a message by how it begins; MicroPython keeps no order of keys.
    assert [came.payload[:6] for came in hub.got[1:]] == [b'{"op":', b'{"op":']


def answers_may_take_their_time(world: World, _: Vectors) -> None:
    """Nothing is sent before its turn, on a second connection neither."""
    for _n in range(2):
        world.hub.connack = None
        world.hub.subscribed.clear()
        world.until(lambda: world.device.sock is not None, ms=10)
        world.step(20, 10)
        assert world.hub.subscribed == []
        world.hub.send(b"\x20\2\0\0")
        world.until(lambda: world.hub.subscribed)
        world.hub.cut()
        world.until(lambda: world.device.sock is None)
    world.hub.connack = 0
    world.until(lambda: world.device.online, ms=10)


def schema_is_what_was_given(world: World, vectors: Vectors) -> None:
    """Channels and commands go as they are."""
    wanted = json.loads(vectors["schema with commands"]["body"])
    world.device.schema = {"channels": wanted["channels"], "commands": wanted["commands"]}
    world.online()

    assert world.hub.got[2].message == wanted


def a_channel_is_declared_before_its_first_frame(world: World, _: Vectors) -> None:
    """Whoever records it: the hub rejects readings of a channel that it does not know."""
    world.device.channels["a"] = {"unit": "Cel"}
    world.online()
    world.device.record("b", 1)
    world.quiet()
    world.device.record(a=1, b=2)
    world.device.record(c=1)
    world.quiet()

    known = [set(message["channels"]) if "channels" in message else message["f"] for message in world.ups[1:]]
    assert [sorted(names) for names in known] == [["a"], ["a", "b"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c"]]
    assert world.ups[-2]["channels"]["a"] == {"unit": "Cel"}


def rows_are_as_the_vectors_say(world: World, vectors: Vectors) -> None:
    """One row for each record, null where a channel is absent; times are uptime until the hub's time is known."""
    device, wanted = world.device, json.loads(vectors["rows"]["body"])
    device.clock_ms = 123
    device.record(temperature=21.53, humidity=44.1)
    device.clock_ms += 1000
    device.record(temperature=21.6, humidity=44)
    device.clock_ms += 1000
    device.record("humidity", 44.5)
    device.clock_ms = 5000
    world.hub.time_ns = (T_MS + 5000) * 1_000_000
    world.online().quiet()

    frame = world.frames[0]
    assert [frame["s"], frame["q"], frame["t"]] == [wanted["s"], wanted["q"], wanted["t"]]
    assert columns(frame) == columns(wanted)


def columns(frame: dict[str, Any]) -> dict[str, Any]:
    """Return offsets and values by channel: MicroPython keeps no order of keyword arguments."""
    rows = frame["r"]
    return {name: [(row[0], row[at + 1]) for row in rows] for at, name in enumerate(frame["f"])}


def values_keep_their_types(world: World, vectors: Vectors) -> None:
    """Floats, ints of 64 bits, bools and texts."""
    wanted = json.loads(vectors["rows of every type"]["body"])
    world.device.record(**dict(zip(wanted["f"], wanted["r"][0][1:])))  # noqa: B905
    world.quiet()

    got = columns(world.frames[0])
    assert got == columns(wanted)
    assert got["c"][0][1] is False


def no_value_is_counted_and_not_sent(world: World, _: Vectors) -> None:
    """None, NaN and infinities are no readings; zero, False and an empty text are."""
    world.device.record(a=None, b=float("nan"), c=float("inf"), d=-float("inf"))
    world.device.record(a=0, b=False, c="", d=0.0)
    world.quiet()

    assert world.device.no_value == 4
    assert len(world.readings()) == 4


def what_no_frame_can_carry_is_no_reading(world: World, _: Vectors) -> None:
    """A long text, or what is no value at all, holds up nothing; a dict is an error of the program's, at once."""
    world.online()
    world.device.record(a="x" * 20_000, b=[1], c=(1,), d=1)
    try:
        world.device.record(a={})
    except TypeError:
        world.device.record(a="x" * 799, e=2)
    world.quiet()

    assert world.device.no_value == 3
    assert sorted([name for _, name, _ in world.readings()]) == ["a", "d", "e"]
    assert len(world.hub.connects) == 1


def no_two_readings_share_an_instant(world: World, _: Vectors) -> None:
    """The later would replace the earlier: 1 ms is added."""
    for value in range(5):
        world.device.record("a", value)
    world.online().quiet()

    assert [(ms - T_MS, value) for ms, _, value in world.readings()] == [(n + 1, n) for n in range(5)]


def readings_wait_for_company(world: World, _: Vectors) -> None:
    """A frame goes a second after its first reading, or when there is enough for one."""
    world.online()
    world.device.record("a", 1)
    world.step(20, 45)
    assert world.frames == []
    world.step(20, 10)
    assert len(world.frames) == 1

    for value in range(31):
        world.device.record("a", value)
    world.step(5)
    assert len(world.frames) == 2


def a_message_is_less_than_1_kib(world: World, _: Vectors) -> None:
    """However much is recorded."""
    world.online()
    for at in range(400):
        world.device.record(temperature=20 + at / 7, humidity=at, state="on" if at % 3 else "a longer text, ü")
        world.step(1)
    world.quiet()

    assert max([len(came.payload) for came in world.hub.got]) <= 1024
    assert len(world.readings()) == 1200


def what_did_not_fit_is_a_gap(world: World, vectors: Vectors) -> None:
    """The oldest go; how many, of which channels and from when to when is said before what follows."""
    for _ in range(70):
        world.device.clock_ms += 1000
        world.device.record("temperature", 1.5)
    for _ in range(100):
        world.device.clock_ms += 1000
        world.device.record("door", True)
    world.device.clock_ms = 200_000
    world.hub.time_ns = (T_MS + 199_123) * 1_000_000
    world.online().quiet()

    gap, wanted = world.frames[0], json.loads(vectors["gap"]["body"])
    wanted["seq"] = 1
    wanted["ranges"]["temperature"] = [f"{T_MS + 123}000000", f"{T_MS + 69_123}000000"]
    assert gap == wanted
    assert world.device.dropped == 70
    assert len(world.readings()) == 100


def a_heap_that_is_full_for_a_moment_loses_no_reading(world: World, _: Vectors) -> None:
    """Whether a frame or a gap is being cut: what is not cut stays where it is."""

    class Short:
        """A row, or a range, at which memory is short once."""

        is_short = True

        def __init__(self, content: Any) -> None:
            self.content = content

        def __iter__(self) -> Any:
            return iter(self.content)

        def get(self, name: str) -> Any:
            if self.is_short:
                self.is_short = False
                raise MemoryError
            return self.content.get(name)

    device = world.device
    for value in range(120):
        device.record("a", value)
    for at in (10, 50, 99):
        device.ring[at] = (device.ring[at][0], Short(device.ring[at][1]))
    world.quiet()

    values = [value for _, _, value in world.readings()]
    lost = sum([json.loads(payload).get("count", 0) for payload in world.hub.frames.values()])
    assert values == list(range(20, 120))
    assert lost == device.dropped == 20
    # Nor a time: each is 1 ms behind the one before.
    times = [ms for ms, _, _ in world.readings()]
    assert times[-1] - times[0] == 99


def what_is_cut_is_never_dropped(world: World, _: Vectors) -> None:
    """A frame that has its number waits for its ack, however much is recorded; memory is bounded."""
    world.hub.acks = False
    world.online()
    for value in range(2000):
        world.device.record("a", value)
        world.step(1)
    assert len(world.device.cut) == 4
    assert len(world.device.ring) == 100
    world.hub.acks = True
    world.quiet()

    values = [value for _, _, value in world.readings()]
    lost = sum([json.loads(payload).get("count", 0) for payload in world.hub.frames.values()])
    assert len(values) + lost == 2000
    assert lost == world.device.dropped
    assert values[:40] == list(range(40))
    assert values[-100:] == list(range(1900, 2000))


def unacked_frames_come_again_after_a_cut(world: World, vectors: Vectors) -> None:
    """As they were, on the same stream; the hello says where it stands."""
    world.online()
    world.hub.acks = False
    for value in range(3):
        world.device.record("a", value)
        world.step(30, 100)
    assert [frame["q"] for frame in world.frames] == [1, 2, 3]
    before = [came.payload for came in world.hub.got[-3:]]

    world.hub.cut()
    world.hub.acks = True
    world.hub.got.clear()
    world.quiet()

    hello = json.loads(vectors["hello"]["body"])
    hello["next"], hello["seen"] = 4, "a.0"
    assert world.ups[0] == hello
    assert [came.payload for came in world.hub.got if b'"q"' in came.payload] == before
    assert [value for _, _, value in world.readings()] == [0, 1, 2]


def what_the_hub_has_is_not_sent_again(world: World, _: Vectors) -> None:
    """A lost ack costs nothing: the welcome says what is stored."""
    world.online()
    world.device.record("a", 1)
    stream = world.device.stream
    world.hub.acks = False
    world.until(lambda: len(world.frames) == 1, ms=100)
    world.hub.stored[stream] = 1
    world.hub.cut()
    world.hub.got.clear()
    world.until(lambda: world.device.online and not world.device.cut, ms=10)
    world.step(20)

    assert world.frames == []
    assert world.device.acked == 1


def puback_is_waited_for_and_the_message_sent_again(world: World, _: Vectors) -> None:
    """After 10 s, then 20: the same packet with DUP; nothing else meanwhile but pings."""
    world.device.channels["a"] = {}
    world.online()
    world.hub.takes = world.hub.acks = False
    world.device.record("a", 1)
    world.until(lambda: len(world.frames) == 1, ms=100)
    first = world.hub.got[-1]
    world.step(99, 100)
    assert world.hub.got[-1] is first
    world.step(3, 100)
    again = world.hub.got[-1]
    assert (again.flags, again.packet_id, again.payload) == (0x0A, first.packet_id, first.payload)
    world.step(190, 100)
    assert world.hub.got[-1] is again
    world.hub.takes = world.hub.acks = True
    world.quiet()

    assert len(world.readings()) == 1
    assert world.hub.pings > 0


def packet_identifiers_begin_again_at_1(world: World, _: Vectors) -> None:
    """Zero is none (MQTT-2.3.1-1)."""
    world.device.channels["a"] = {}
    world.online()
    world.device.pid = 65533
    world.hub.got.clear()
    for value in range(4):
        world.device.record("a", value)
        world.quiet()

    assert [int.from_bytes(came.packet_id, "big") for came in world.hub.got] == [65534, 65535, 1, 2]


def silence_ends_the_connection(world: World, _: Vectors) -> None:
    """A ping each 15 s; when nothing comes for 45, another connection."""
    world.online()
    world.step(40, 1000)
    assert world.hub.pings == 2
    assert world.device.online
    line, world.hub._line = world.hub._line, None
    for _n in range(47):
        world.device.clock_ms += 1000
        world.device.tick()
    assert not world.device.online
    assert world.device.why == "silence"
    line.close()
    world.until(lambda: world.device.online, ms=100)
    assert len(world.hub.connects) == 2


def attempts_are_spread_and_far_apart(world: World, _: Vectors) -> None:
    """Full jitter, up to 65 s; a connection that lasts makes them short again."""
    device = world.device
    world.hub.close()
    waits = []
    for _n in range(40):
        device.tick()
        assert device.sock is None
        waits.append(device.at - device.clock_ms)
        device.clock_ms = device.at
    assert max(waits[:1]) <= 1020
    assert 16_000 < max(waits) <= 65_280
    assert len(set(waits)) > 10
    assert device.tries == 6

    world.hub = ScriptedHub()
    device.address = ("127.0.0.1", world.hub.port)
    world.online()
    world.step(16, 1000)
    assert device.tries == 0


def attempts_that_wait_leave_time_between_them(world: World, _: Vectors) -> None:
    """A host that does not answer holds a tick for seconds; the pause begins behind them."""

    class Slow:
        """TLS that fails after a time-out."""

        def wrap_socket(self, sock: Any, server_hostname: str) -> Any:
            world.device.clock_ms += 5000
            raise OSError("timed out")

    world.device.tls = Slow()
    for _n in range(3):
        world.device.clock_ms = world.device.at
        world.device.tick()
        assert world.device.why == "timed out"
        assert world.device.at >= world.device.clock_ms


def tls_may_take_half_a_minute(world: World, _: Vectors) -> None:
    """On a small board it takes seconds: what is waited for the answers counts from its end."""

    class Line:
        """A socket of TLS."""

        def __init__(self, sock: Any) -> None:
            self.read, self.write, self.setblocking, self.close = sock.recv, sock.send, sock.setblocking, sock.close
            self.setsockopt = sock.setsockopt

    class Slow:
        """TLS of which the handshake takes long."""

        def wrap_socket(self, sock: Any, server_hostname: str) -> Any:
            world.device.clock_ms += 30_000
            return Line(sock)

    world.device.tls = Slow()
    world.hub.connack = None
    world.until(lambda: world.hub.connects, ms=10)
    world.step(30, 10)
    world.hub.send(b"\x20\2\0\0")
    world.until(lambda: world.device.online, ms=10)

    assert len(world.hub.connects) == 1


def a_refused_credential_waits_a_minute(world: World, _: Vectors) -> None:
    """A person must act; the reason is there to be read."""
    world.hub.connack = 5
    world.until(lambda: world.device.why)
    assert world.device.why == "refused 5"
    assert world.device.at == 60_000
    world.hub.connack = 0
    world.device.clock_ms = 60_000
    world.online()


def slow_is_waited_for(world: World, _: Vectors) -> None:
    """Nothing numbered until the hub wants to be asked again; then a hello, and all that is not acked."""
    world.online()
    world.hub.acks = False
    world.device.record("a", 1)
    world.until(lambda: len(world.frames) == 1, ms=100)
    world.hub.say(op="slow", why="disk_full", retry_ms=5000)
    world.device.record("a", 2)
    count = len(world.hub.got)
    world.step(49, 100)
    assert len(world.hub.got) == count
    world.hub.acks = True
    world.quiet()

    assert world.ups[-4]["op"] == "hello"
    assert [frame["q"] for frame in world.frames] == [1, 1, 2]
    assert len(world.readings()) == 2


def an_ack_does_not_prolong_a_pause(world: World, _: Vectors) -> None:
    """A hub behind a broker that stops says when to come back, and then acks what it stored last."""
    world.online()
    world.hub.acks = False
    world.device.record("a", 1)
    world.until(lambda: len(world.frames) == 1, ms=100)
    world.hub.say(op="bye", retry_ms=2000)
    world.hub.stored[STREAM] = 1
    world.hub.ack()
    world.until(lambda: not world.device.cut)
    assert not world.device.online
    world.step(25, 100)

    assert world.device.online


def an_error_is_answered_by_a_hello(world: World, vectors: Vectors) -> None:
    """Its welcome says from where to send again."""
    world.online()
    world.hub.acks = False
    for value in range(2):
        world.device.record("a", value)
        world.step(15, 100)
    assert len(world.frames) == 2
    world.hub.publish(vectors["error"]["body"].encode())
    world.hub.acks = True
    world.quiet()

    assert [frame["q"] for frame in world.frames] == [1, 2, 1, 2]


def no_ack_is_asked_about(world: World, _: Vectors) -> None:
    """A hello 20 s after a frame that nobody acked (the hub behind a broker restarted); after five, a new line."""
    world.online()
    world.hub.acks = False
    world.device.record("a", 1)
    world.until(lambda: len(world.frames) == 1, ms=100)
    world.hub.greets = False
    world.step(198, 100)
    assert [m["op"] for m in world.ups if "op" in m].count("hello") == 1
    world.step(4, 100)
    assert [m["op"] for m in world.ups if "op" in m].count("hello") == 2
    world.until(lambda: not world.device.online, ms=1000)
    assert world.device.why == "no welcome"
    assert [m["op"] for m in world.ups if "op" in m].count("hello") == 6


def the_hub_is_asked_for_the_time_each_hour(world: World, _: Vectors) -> None:
    """Crystals drift 0.2 s in it; also of a device that always has something to send."""
    world.online()
    for _n in range(3700):
        world.hub.got.clear()
        world.hub.frames.clear()
        world.device.record("a", 1)
        world.step(3, 333)
        if [message for message in world.ups if message.get("op") == "hello"]:
            break
    assert 3_590_000 < world.device.clock_ms < 3_620_000


def the_hubs_time_may_go_back(world: World, _: Vectors) -> None:
    """No reading then takes the place of an older one; when the time is right again, so are the readings."""
    world.online()
    for value in range(10):
        world.device.record("a", value)
        world.device.clock_ms += 1000
    world.quiet()
    world.hub.time_ns -= 3_600_000_000_000
    world.hub.cut()
    for value in range(10, 20):
        world.device.record("a", value)
    world.quiet()

    times = [ms for ms, _, _ in world.readings()]
    assert len(set(times)) == 20
    assert [value for _, _, value in world.readings()] == list(range(20))


def a_new_stream_takes_what_is_not_acked(world: World, vectors: Vectors) -> None:
    """Numbered from 1 again."""
    world.online()
    world.hub.acks = False
    world.device.record("a", 1)
    world.until(lambda: len(world.frames) == 1, ms=100)
    world.hub.publish(vectors["new stream"]["body"].encode())
    world.hub.acks = True
    world.quiet()

    first, second = world.frames[0], world.frames[-1]
    assert second["s"] == world.device.stream != first["s"]
    assert [second["q"], second["t"], second["r"]] == [1, first["t"], first["r"]]


def a_hub_that_was_restored_gets_a_new_stream(world: World, _: Vectors) -> None:
    """What it lost is gone from here; it knows by `seen`. Nothing is wedged."""
    world.online()
    for value in range(3):
        world.device.record("a", value)
        world.quiet()
    world.hub.stored[world.device.stream] = 1
    world.hub.cut()
    world.device.record("a", 3)
    world.quiet()

    hellos = [message for message in world.ups if message.get("op") == "hello"]
    assert hellos[1]["seen"] == "a.3"
    assert hellos[2]["stream"] == world.device.stream != STREAM
    assert world.frames[-1]["q"] == 1
    assert [value for _, _, value in world.readings()][-1] == 3


def words_for_the_stream_before_a_restart_are_ignored(world: World, vectors: Vectors) -> None:
    """An ack or a welcome that says more than was sent, or a welcome that nobody asked for."""
    world.hub.greets = world.hub.acks = False
    world.device.record("a", 1)
    world.until(lambda: len(world.ups) == 1)
    world.hub.publish(vectors["ack"]["body"].encode())
    world.hub.say(op="welcome", stored=3, chain="", pos="x", time_ns="1")
    world.step(10, 10)
    assert not world.device.online
    assert world.device.seen is None
    world.hub.welcome()
    world.until(lambda: len(world.frames) == 1, ms=100)
    wall = world.device.wall
    world.hub.say(op="welcome", stored=0, chain="", pos="x", time_ns="1")
    world.step(10, 10)

    assert world.device.wall == wall
    assert len(world.device.cut) == 1


def a_command_runs_once(world: World, vectors: Vectors) -> None:
    """Sent again, it is answered again and not run; one that fails says why."""
    ran = []

    def run(name: str, args: dict[str, Any]) -> dict[str, Any]:
        ran.append(name)
        if args["speed"] > 3:
            raise ValueError("the fan does not turn")
        return args

    world.device.on_command = run
    world.online()
    for _ in range(2):
        world.hub.publish(vectors["command"]["body"].encode())
        world.step(5)
    world.hub.say(op="command", id="k8", name="fan", args={"speed": 4}, expires_ns="1")
    world.step(5)

    reply = json.loads(vectors["reply"]["body"])
    assert world.ups[-3:] == [reply, reply, json.loads(vectors["reply of a failure"]["body"])]
    assert len(ran) == 2
    assert world.hub.answered >= 4


def a_command_runs_once_among_many(world: World, _: Vectors) -> None:
    """Those of which the answers are lost come again with all that did not run: nothing runs twice, all is answered."""
    ran = []
    world.device.on_command = lambda name, args: ran.append(args["n"])
    world.online()

    def answered() -> set[str]:
        return {message["id"] for message in world.ups if message.get("op") == "reply"}

    for takes in (False, True, True, True, True):
        world.hub.takes = takes
        for n in range(32):
            if f"k{n}" not in answered():
                world.hub.say(op="command", id=f"k{n}", name="fan", args={"n": n}, expires_ns="1")
            world.step(1)
        if not takes:
            world.hub.cut()
        # The hub is asked for what did not run; it gives it again after each schema.
        world.hub.takes = True
        world.device.record("a", 1)
        world.step(100, 100)

    assert sorted(ran) == list(range(32))
    assert len(answered()) == 32


def a_command_that_nobody_takes_is_answered(world: World, vectors: Vectors) -> None:
    """Not ok; the hub need not wait."""
    world.online()
    world.hub.publish(vectors["command"]["body"].encode())
    world.step(5)

    assert world.ups[-1]["op"] == "reply"
    assert world.ups[-1]["ok"] is False


def replies_that_cannot_leave_are_few(world: World, _: Vectors) -> None:
    """A hub that gives commands and takes nothing fills no memory."""
    world.device.on_command = lambda name, args: args
    world.online()
    world.hub.takes = False
    for n in range(40):
        world.hub.say(op="command", id=f"k{n}", name="fan", args={}, expires_ns="1")
        world.step(2)

    assert len(world.device.say) <= 9
    assert len(world.device.done) <= 16


def what_is_too_long_to_say_is_not_said(world: World, _: Vectors) -> None:
    """An answer that no socket of a board takes would end each connection, and nothing else would be sent."""
    world.device.on_command = lambda name, args: "x" * 20_000
    world.device.on_desired = lambda state: "x" * 20_000
    world.online()
    world.hub.say(op="command", id="k1", name="log", args={}, expires_ns="1")
    world.hub.say(op="desired", version=1, state={}, mark="a")
    world.device.record("a", 1)
    world.quiet()

    assert world.device.why == "too long"
    assert len(world.readings()) == len(world.hub.connects) == 1


def the_desired_state_is_reported(world: World, vectors: Vectors) -> None:
    """With version and mark as they came, and the state that the program says it has."""
    world.device.on_desired = lambda state: state
    world.online()
    world.hub.publish(vectors["desired"]["body"].encode())
    world.step(5)

    assert world.ups[-1] == json.loads(vectors["reported"]["body"])


def a_handler_that_fails_ends_nothing(world: World, vectors: Vectors) -> None:
    """Not the program, and not the connection: why is there to be read."""

    def fail(_state: object) -> object:
        raise OSError("the sensor does not answer")

    world.device.on_desired = fail
    world.online()
    world.hub.publish(vectors["desired"]["body"].encode())
    world.device.record("a", 1)
    world.quiet()

    assert world.device.why == "the sensor does not answer"
    assert len(world.hub.connects) == 1


def what_cannot_be_read_is_ignored(world: World, vectors: Vectors) -> None:
    """Whatever comes on `down`, the next message counts; each of QoS 1 is answered."""
    world.online()
    answered = world.hub.answered
    junk = [b"", b"{", b"[]", b"3", b"null", b"{}", b'{"op":7}', b'{"op":"ack"}', b'{"op":"ack","stored":"x"}', b"\xff"]
    junk += [b'{"op":"command"}', b'{"op":"desired","version":4,"state":{}}', b'{"op":"nothing"}', b"[" * 60]
    for payload in junk:
        world.hub.publish(payload)
        world.step(3)
    world.device.record("a", 1)
    world.quiet()

    assert world.hub.answered - answered >= len(junk)
    assert len(world.hub.connects) == 1


def what_is_larger_than_2_kib_is_skipped(world: World, _: Vectors) -> None:
    """And never held: neither a message of 3 KiB nor one of 40; what follows is read."""
    world.online()
    for size in (3_000, 40_000):
        whole = down(json.dumps({"op": "desired", "version": 1, "state": {"a": "x" * size}}).encode())
        for at in range(0, len(whole), 1000):
            world.hub.send(whole[at : at + 1000])
            world.step(4)
            assert len(world.device.rx) < 2600
    world.device.record("a", 1)
    world.quiet()

    assert len(world.hub.connects) == 1


def packets_may_come_a_byte_at_a_time(world: World, vectors: Vectors) -> None:
    """TCP has no messages."""
    world.device.on_command = lambda name, args: args
    world.online()
    for byte in down(vectors["command"]["body"].encode() + b" " * 200):
        world.hub.send(bytes((byte,)))
        world.step(1)
    world.step(5)

    assert world.ups[-1] == json.loads(vectors["reply"]["body"])


def a_full_heap_ends_no_program(world: World, _: Vectors) -> None:
    """Memory that is not there for a moment costs the connection, not the sensor loop."""
    world.online()

    def fail(_: bytes) -> int:
        raise MemoryError

    world.device.write = fail
    world.device.record("a", 1)
    world.until(lambda: not world.device.online, ms=100)
    world.quiet()

    assert len(world.readings()) == 1


def uptime_goes_on_when_the_ticks_begin_again(world: World, _: Vectors) -> None:
    """After 2**30 ms on a port of 32 bits, 12 days."""
    device = Device("a", "127.0.0.1")
    before = device.uptime()
    device.ticks += (1 << 30) - 1000

    assert 1000 <= device.uptime() - before < 60_000


CASES = [
    connection_begins_as_the_vectors_say,
    answers_may_take_their_time,
    schema_is_what_was_given,
    a_channel_is_declared_before_its_first_frame,
    rows_are_as_the_vectors_say,
    values_keep_their_types,
    no_value_is_counted_and_not_sent,
    what_no_frame_can_carry_is_no_reading,
    no_two_readings_share_an_instant,
    readings_wait_for_company,
    a_message_is_less_than_1_kib,
    what_did_not_fit_is_a_gap,
    a_heap_that_is_full_for_a_moment_loses_no_reading,
    what_is_cut_is_never_dropped,
    unacked_frames_come_again_after_a_cut,
    what_the_hub_has_is_not_sent_again,
    puback_is_waited_for_and_the_message_sent_again,
    packet_identifiers_begin_again_at_1,
    silence_ends_the_connection,
    attempts_are_spread_and_far_apart,
    attempts_that_wait_leave_time_between_them,
    tls_may_take_half_a_minute,
    a_refused_credential_waits_a_minute,
    slow_is_waited_for,
    an_ack_does_not_prolong_a_pause,
    an_error_is_answered_by_a_hello,
    no_ack_is_asked_about,
    the_hub_is_asked_for_the_time_each_hour,
    the_hubs_time_may_go_back,
    a_new_stream_takes_what_is_not_acked,
    a_hub_that_was_restored_gets_a_new_stream,
    words_for_the_stream_before_a_restart_are_ignored,
    a_command_runs_once,
    a_command_runs_once_among_many,
    a_command_that_nobody_takes_is_answered,
    replies_that_cannot_leave_are_few,
    what_is_too_long_to_say_is_not_said,
    the_desired_state_is_reported,
    a_handler_that_fails_ends_nothing,
    what_cannot_be_read_is_ignored,
    what_is_larger_than_2_kib_is_skipped,
    packets_may_come_a_byte_at_a_time,
    a_full_heap_ends_no_program,
    uptime_goes_on_when_the_ticks_begin_again,
]


def main(wanted: list[str]) -> None:
    """Run the cases (all, or those named) and say of each ``ok`` or what was wrong."""
    with open("micro.json") as file:
        vectors = {vector["name"]: vector for vector in json.load(file)}
    for case in CASES:
        if wanted and case.__name__ not in wanted:
            continue
        world = World()
        try:
            case(world, vectors)
        except Exception as error:
            print("failed", case.__name__)
            if hasattr(sys, "print_exception"):
                sys.print_exception(error)
            else:
                import traceback

                traceback.print_exc(file=sys.stdout)
        else:
            print("ok", case.__name__)
        world.close()


if __name__ == "__main__":
    main(sys.argv[1:])
