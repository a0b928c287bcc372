"""MQTT clients without sockets or packets: a hub's parts, its clients, and a line that notes what it is told."""

from collections.abc import Callable, Generator
from typing import cast

from device_sdk.reading import Channel, Value
from hub.child_book import Asked, Refusal
from hub.child_sessions import Admission
from hub.decode.base import Answer, Decoded, DecodeError, ForeignReading, Publication, Said
from hub.decode.dispatch import Decoders
from hub.errors import UnauthenticatedError, UnavailableError
from hub.foreign import Foreign
from hub.incident import Incident
from hub.model import Frame
from hub.mqtt.client import Client
from hub.mqtt.clients import Clients, Parts
from hub.mqtt.handler import Code, Connect, Received, Refused, Will
from hub.mqtt.topics import Topics
from hub.roles import Identity, Role
from hub.session import DeviceSession
from tests.support.hub_parts import HubParts

NOW = 1_795_376_000_000_000_000


class FakeLine:
    """Notes what is published, and how it was ended."""

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes, int]] = []
        self.flushed = 0
        self.ended: tuple[Code, str] | None = None

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """Note it."""
        self.published.append((topic, payload, qos))

    def end(self, code: Code, why: str) -> None:
        """Note it; the first one counts."""
        self.ended = self.ended or (code, why)

    def flush(self) -> None:
        """Count it."""
        self.flushed += 1

    def take(self) -> list[tuple[str, bytes, int]]:
        """Return and forget what was published."""
        taken, self.published = self.published, []
        return taken


class WordDecoders:
    """Decoders of a made-up format: ``lamp.t=21.5 door.open=1``, a word ``lamp.t:Cel`` tells a unit, ``?`` asks.

    ``!`` is a reading that is none, as a faulty decoder may give it.
    """

    def __init__(self, device: str = "") -> None:
        self.device = device
        self.known: dict[str, dict[str, Channel]] = {}
        self.has: Callable[[str, str], bool] = lambda device, channel: False

    def know(self, has: Callable[[str, str], bool]) -> None:
        """Keep it: every word is a name as it is."""
        self.has = has

    def decode(self, publication: Publication) -> Decoded:
        """Return what the words say."""
        readings: dict[str, list[ForeignReading]] = {}
        answers = []
        for word in publication.payload.decode().split():
            name, _, value = word.partition("=")
            device, _, channel = name.partition(".")
            if word == "?":
                answers.append(Answer(f"{publication.topic}/response", b"!"))
            elif word == "!":
                readings.setdefault(self.device, []).append(cast(ForeignReading, ("t", 1.0)))
            elif ":" in channel:
                channel, _, unit = channel.partition(":")
                self.known.setdefault(device, {})[channel] = Channel(channel, unit)
                readings.setdefault(device, [])
            elif value:
                readings.setdefault(device, []).append(ForeignReading(channel, float(value)))
            else:
                raise DecodeError(f"{word} is no word")
        said = [Said(device, tuple(given), self.channels_of(device)) for device, given in readings.items()]
        return Decoded("words", tuple(said), tuple(answers))

    def reading(self, publication: Publication) -> Generator[None, None, Decoded]:
        """Do as `decode`, with two pauses."""
        yield
        yield
        return self.decode(publication)

    def channels_of(self, device: str) -> tuple[Channel, ...]:
        """Return what words told of a device."""
        return tuple(self.known.get(device, {}).values())


class UnreadableAdmission:
    """The children's file is being changed: for now nobody knows."""

    def admit(self, asked: Asked) -> Refusal | None:
        """It cannot be seen."""
        raise UnavailableError("being changed")

    def is_accepted(self, namespace: str, gateway: str, device: str) -> bool:
        """Not as far as is known."""
        return False


class FailingAdmission(UnreadableAdmission):
    """Fails at the first question, and accepts everybody from the second on."""

    def __init__(self) -> None:
        self._has_failed = False

    def admit(self, asked: Asked) -> Refusal | None:
        """Fail, once."""
        if not self._has_failed:
            self._has_failed = True
            raise RuntimeError("once")
        return None


class MqttWorld:
    """A hub's parts with MQTT clients over them. ``turn`` is the loop's next turn, ``commit`` the writer's.

    It is the clients' doorkeeper, too; ``certificates``: the name of a certificate → the device of it.
    """

    def __init__(
        self,
        parts: HubParts,
        *,
        admission: Admission | None = None,
        make_decoders: Callable[[str], WordDecoders | Decoders] = WordDecoders,
    ) -> None:
        self.parts = parts
        self.frames: list[Frame] = []
        self.soon: list[Callable[[], None]] = []
        self.timers: list[Callable[[], None]] = []
        self.incidents: list[Incident] = []
        self.wrong: list[tuple[str, str]] = []
        self.certificates: dict[str, Identity] = {}
        self.inside: list[Client] = []
        self.is_full = False
        self.now_ns = NOW
        foreign = Foreign(parts.streams, parts.registry, self.frames.extend, self.soon.append)
        self.clients = Clients(
            Parts(
                Topics(), admission or parts.children, foreign, parts.registry, parts.downlink, self.begin,
                self.frames.extend, lambda: not self.is_full, self.later,
                lambda: self.now_ns,
            ),
            make_decoders,
        )  # fmt: skip
        # The clock stands: a large message is through in one turn. With 0 there is a turn for each of its pauses.
        self.clients.steps.step_ns = 1

    # --- what a hub does --------------------------------------------------------------------------------

    def begin(self, peer: str, namespace: str, device: str) -> DeviceSession:
        """Make a session."""
        return DeviceSession(
            namespace, device, self.parts.streams, self.parts.registry, downlink=self.parts.downlink, peer=peer,
            report=self.incidents.append,
        )  # fmt: skip

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Put something off."""
        (self.timers if delay_s else self.soon).append(call)

    def turns(self) -> None:
        """Do what is put off to next turns, until nothing is."""
        while self.soon:
            self.turn()

    def turn(self) -> None:
        """Do what was put off to the next turn."""
        calls, self.soon[:] = list(self.soon), []
        for call in calls:
            call()

    def pause(self) -> None:
        """Do what waited for a timer."""
        calls, self.timers[:] = list(self.timers), []
        for call in calls:
            call()

    def commit(self) -> None:
        """Store what was submitted, as the writer does, and tell the sessions."""
        frames, self.frames[:] = list(self.frames), []
        changes = self.parts.registry.take_changes()
        self.parts.journal.append(frames, changes)
        for owner in self.parts.streams.committed(frames):
            owner.flush()
        self.parts.registry.apply(frames)
        self.parts.store.write(frames)

    def refuse(self) -> None:
        """The disk is full: what was submitted is taken back."""
        frames, self.frames[:] = list(self.frames), []
        for owner in self.parts.streams.refused(frames):
            owner.flush()

    def settle(self) -> None:
        """Let turns and a commit pass."""
        self.turns()
        self.commit()
        self.turns()

    def values(self, device: str) -> list[tuple[str, Value]]:
        """Return what is stored of a device, by channel and time."""
        series = list(self.parts.registry.device("default", device).channels.values())
        names = {s.id: s.channel for s in series}
        rows = self.parts.store.read(list(names), 0, 2**62, 10_000)
        return [(names[r.series], r.value) for r in sorted(rows, key=lambda r: (names[r.series], r.time_ns))]

    # --- Doorkeeper ---------------------------------------------------------------------------------------

    def identify(self, peer: str, token: str | None, certificate: object) -> Identity:
        """Return who it is."""
        by_token = None if token is None else self.parts.identities.authenticate(token)
        identity = by_token if certificate is None else self.certificates.get(str(certificate))
        if identity is None or (token is not None and by_token is None):
            raise UnauthenticatedError("the token is wrong")
        return identity

    def refused(self, peer: str, why: str) -> None:
        """Note it."""
        self.wrong.append((peer, why))

    def entered(self, client: Client, certificate: object) -> None:
        """Note it."""
        self.inside.append(client)

    def left(self, client: Client) -> None:
        """Note it."""
        self.inside.remove(client)

    # --- what clients do ------------------------------------------------------------------------------------

    def client(
        self, name: str, token: str, *, id_: str = "c", version: int = 4, will: Will | None = None
    ) -> "ConnectedClient":
        """Return a client that was let in."""
        connected = ConnectedClient(self)
        assert connected.connect(name, token, id_=id_, version=version, will=will) is None
        return connected

    def device(self, name: str = "d", **options: object) -> "ConnectedClient":
        """Return a client of a new device."""
        return self.client(name, self.parts.identities.add_device(name), **options)  # type: ignore[arg-type]

    def gateway(self, name: str = "barn", prefix: str = "barn-*", **options: object) -> "ConnectedClient":
        """Return a client of a new gateway."""
        _, token = self.parts.identities.add_token(Role.GATEWAY, (prefix,), name)
        return self.client(name, token, **options)  # type: ignore[arg-type]


class ConnectedClient:
    """One connection as a test uses it; ``codes``: what its publications were told, by their numbers from 0."""

    def __init__(self, world: MqttWorld, peer: str = "10.0.0.7", certificate: object = None) -> None:
        self.world = world
        self.line = FakeLine()
        self.client = Client(world.clients, world, peer, certificate)
        self.codes: dict[int, Code] = {}
        self._count = 0

    def connect(
        self, name: str | None, token: str | None, *, id_: str = "c", version: int = 4, will: Will | None = None
    ) -> Refused | None:
        """Say CONNECT."""
        password = None if token is None else token.encode()
        return self.client.connect(Connect(id_, version, True, 60, name, password, will), self.line)

    def publish(self, topic: str, payload: bytes, *, qos: int = 1) -> int:
        """Publish; return its number in ``codes``."""
        number, self._count = self._count, self._count + 1

        def done(code: Code) -> None:
            assert number not in self.codes, "told once"
            self.codes[number] = code

        self.client.publish(Received(topic, payload, qos, False, False), self.world.now_ns, done)
        return number

    def closed(self, *, is_clean: bool = False) -> None:
        """The connection is gone."""
        self.client.closed(is_clean, "lost")
