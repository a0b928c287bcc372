"""``python -m tests.fuzz.mqtt --n 1000000 --seed 1``: hostile MQTT clients against conversations without sockets.

Owns: conversations that a client may lead, what can be wrong in their bytes, and the rules that must hold whatever
comes: no exception, whole packets of a server, no answer to what was never asked, a bystander who notices nothing.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from hub.mqtt.conversation import Conversation
from hub.mqtt.field import NONE, Property
from hub.mqtt.packet import PacketReader
from hub.mqtt.recent import Recent
from tests.support import mqtt_packets as say
from tests.support.mqtt_handler import RecordingHandler

T0 = 1_790_000_000_000_000_000
_TOPICS = ("a", "home/bedroom/temperature", "$SYS/x", "ü/🌡", "a//b", "t" * 250, "hub/v1/dev/up")
_FILTERS = ("a", "#", "+/b", "hub/v1/dev/down", "$share/g/a", "a/#", "x" * 300)
_SERVER_HEADS = {0x20, 0x30, 0x32, 0x40, 0x90, 0xB0, 0xD0, 0xE0}
MAX_PACKETS = 12


@dataclass
class Fuzzed:
    """What was sent, and which rules were broken."""

    packets: int = 0
    connections: int = 0
    taken: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        ends = " ".join(f"{name}={count}" for name, count in self.ends.most_common(4))
        rate = self.packets / self.seconds if self.seconds else 0
        return (f"{self.packets} packets on {self.connections} connections, {self.taken} taken, {rate:.0f}/s, "
                f"{len(self.faults)} faults; {ends}")  # fmt: skip


class Client:
    """One connection to a shared memory of recent publications; ``told`` is all it was answered."""

    def __init__(self, recent: Recent, *, is_prompt: bool = True) -> None:
        self.handler = RecordingHandler(is_prompt=is_prompt)
        self.talk = Conversation(self.handler, recent, new_client_id=lambda: "given", now=0.0)
        self.told = b""

    def send(self, data: bytes) -> bytes:
        """Feed bytes; return what is answered."""
        self.talk.receive(data, 1.0, T0)
        said = self.talk.take_output()
        self.told += said
        return said


def conversation(random: Random) -> list[bytes]:
    """Return the packets of a client that keeps to the standard, and that does not go before it has said all."""
    version = random.choice((4, 5))
    packets = [_connect(random, version)]
    aliases: list[int] = []
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: _publish(random, version, aliases),
        lambda: _publish(random, version, aliases),
        lambda: _publish(random, version, aliases),
        lambda: say.subscribe(
            random.randint(1, 65_535),
            *((random.choice(_FILTERS), random.randrange(3)) for _ in range(random.randint(1, 3))),
            version=version,
        ),
        lambda: say.unsubscribe(random.randint(1, 65_535), random.choice(_FILTERS), version=version),
        lambda: say.PINGREQ,
        lambda: say.puback(random.randint(1, 65_535)),
    )
    packets += [random.choice(kinds)() for _ in range(random.randint(1, MAX_PACKETS))]
    if random.random() < 0.5:
        packets.append(say.DISCONNECT if version == 4 or random.random() < 0.5 else b"\xe0\x02\x04\x00")
    return packets


def mutated(random: Random, packets: list[bytes]) -> list[bytes]:
    """Return the packets with one to four things wrong in them."""
    packets = list(packets)
    for _ in range(random.randint(1, 4)):
        # CONNECT is mostly left alone, or nothing behind it would ever be looked at.
        number = 0 if random.random() < 0.05 else random.randrange(1, len(packets))
        packets[number] = _mutated(random, packets[number], random.choice(packets))
    if random.random() < 0.1:
        del packets[random.randrange(len(packets))]
    if random.random() < 0.1:
        packets.insert(random.randrange(len(packets) + 1), random.randbytes(random.randrange(1, 300)))
    return packets


def fuzz(count: int, seed: int) -> Fuzzed:
    """Send ``count`` packets, most of them on connections where something is wrong."""
    fuzzed, number = Fuzzed(), 0
    begun = time.perf_counter()
    recent = Recent(max_clients=100)
    bystander = Client(recent)
    bystander.send(say.connect("bystander"))
    while fuzzed.packets < count and not fuzzed.faults:
        random = Random(f"{seed}/{number}")
        packets = mutated(random, conversation(random))
        try:
            _play(random, packets, recent, fuzzed)
        except Exception as error:
            fuzzed.faults.append(f"connection {number}: {error!r}")
        number += 1
        if bystander.send(say.publish("b", b"x", number % 65_535 + 1)) != say.puback(number % 65_535 + 1):
            fuzzed.faults.append(f"connection {number}: the bystander was not answered")
        bystander.handler.received.clear()
    fuzzed.connections, fuzzed.seconds = number, time.perf_counter() - begun
    return fuzzed


def played(packets: bytes, cut: Callable[[bytes], list[bytes]]) -> tuple[bytes, list[object], bool]:
    """Return all that came of a stream of bytes in the pieces that ``cut`` makes: answers, publications, the end."""
    client = Client(Recent())
    for piece in cut(packets):
        client.send(piece)
    return client.told, [*client.handler.connects, *client.handler.received], client.talk.is_closed


def _play(random: Random, packets: list[bytes], recent: Recent, fuzzed: Fuzzed) -> None:
    client = Client(recent, is_prompt=random.random() < 0.7)
    for packet in packets:
        was_closed = client.talk.is_closed
        said = client.send(packet)
        assert not (was_closed and said), "nothing is said after the end"
        if random.random() < 0.1:
            client.handler.store(random.randrange(5))
            client.told += client.talk.take_output()
        fuzzed.packets += 1
    if random.random() < 0.3:
        client.talk.tick(random.choice((2.0, 100.0, 1e6)), T0)
        client.told += client.talk.take_output()
    client.talk.lost("the end")
    client.handler.store()
    fuzzed.taken += len(client.handler.received)
    fuzzed.ends[client.handler.ended[0][1][:24] if client.handler.ended else "never let in"] += 1
    _check(client)


def _check(client: Client) -> None:
    told = say.packets(client.told)
    assert all(head in _SERVER_HEADS for head, _ in told), "a server does not say that"
    assert not told or told[0][0] == 0x20, "CONNACK comes first"
    assert [head for head, _ in told[1:]].count(0x20) == 0, "and once"
    assert len(client.handler.ended) == bool(told and told[0][1][1] == 0), "the handler is told of an end it knows of"
    acks = sum(head == 0x40 for head, _ in told)
    assert acks <= sum(received.qos for received in client.handler.received) + _again(client), "an ack too many"
    is_new = bool(client.handler.connects) and client.handler.connects[0].version == 5
    assert is_new or all(head != 0xE0 for head, _ in told[:-1]), "DISCONNECT is the last"


def _again(client: Client) -> int:
    """How many publications may have been acknowledged that were known already."""
    return 0 if not client.handler.connects else MAX_PACKETS + 2


def _connect(random: Random, version: int) -> bytes:
    properties: say.PropertyValues = NONE
    if random.random() < 0.5:
        properties = {
            Property.SESSION_EXPIRY: random.choice((0, 60, 2**32 - 1)),
            Property.RECEIVE_MAXIMUM: random.choice((1, 10, 65_535)),
            Property.MAXIMUM_PACKET_SIZE: random.choice((60, 200, 2**28)),
        }
    return say.connect(
        random.choice(("c", "client-7", "ü", "")),
        version,
        keep_alive_s=random.choice((0, 1, 60, 65_535)),
        username=random.choice((None, "device")),
        will=random.choice((None, ("w/t", b"gone", 1, True))),
        properties=properties,
    )


def _publish(random: Random, version: int, aliases: list[int]) -> bytes:
    topic, packet_id = random.choice(_TOPICS), random.choice((0, random.randint(1, 65_535), random.randint(1, 3)))
    properties: dict[Property, int | str | bytes] = {}
    if version == 5 and random.random() < 0.3:
        properties[Property.CONTENT_TYPE] = "application/json"
        properties[Property.TOPIC_ALIAS] = alias = random.randint(1, 16)
        if alias in aliases and random.random() < 0.5:
            topic = ""
        aliases.append(alias)
    payload = random.choice((b"", b"21.5", random.randbytes(random.randrange(3000)), b'{"temperature":21.5}'))
    return say.publish(
        topic, payload, packet_id, version, is_retained=random.random() < 0.2, properties=properties,
        is_again=bool(packet_id) and random.random() < 0.2,
    )  # fmt: skip


def _mutated(random: Random, packet: bytes, other: bytes) -> bytes:
    if not packet:
        return random.randbytes(3)
    at = random.randrange(len(packet))
    # What is wrong near the beginning is wrong with the head, the length or a field, not with a payload.
    at = min(at, random.choice((3, 8, 20, 10_000)))
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: packet[:at] + bytes((packet[at] ^ 1 << random.randrange(8),)) + packet[at + 1 :],
        lambda: packet[:at] + random.choice((b"\0", b"\xff", b"\x7f", b"\x80", b"+", b"#")) + packet[at + 1 :],
        lambda: packet[:at],
        lambda: packet[:at] + random.randbytes(random.randrange(1, 9)) + packet[at:],
        lambda: packet[:at] + packet[at + random.randrange(1, 9) :],
        lambda: packet + packet,
        lambda: packet[:at] + other[at:],
        lambda: say.packet(packet[0], random.randbytes(random.randrange(60))),
        lambda: say.packet(random.randrange(256), packet[2:]),
        lambda: _refilled(random, packet, at),
    )
    return random.choice(kinds)()


def _refilled(random: Random, packet: bytes, at: int) -> bytes:
    """Return a packet whose body was changed, with the length that the changed body has."""
    reader = PacketReader()
    try:
        reader.feed(packet)
        found = reader.next()
    except ValueError:
        return packet
    except Exception:
        return packet[::-1]
    if found is None:
        return packet
    head, body = found
    changed = body[:at] + random.randbytes(random.randrange(6)) + body[at + random.randrange(6) :]
    return say.packet(head, changed)


def main(arguments: list[str]) -> int:
    """Run, print the figures and what broke; 0 when nothing did."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.mqtt", description="Hostile MQTT clients.")
    parser.add_argument("--n", type=int, default=20_000, help="packets")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    fuzzed = fuzz(options.n, options.seed)
    print(fuzzed)
    print("".join(f"{fault}\n" for fault in fuzzed.faults), end="")
    return bool(fuzzed.faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
