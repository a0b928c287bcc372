"""Which decoder reads a message: the table of all of them, and the order in which they are asked.

Owns: that order. Place: after the decoders. Pure. Must not: know what any of them does.
"""

from collections.abc import Callable, Generator, Sequence
from datetime import tzinfo
from functools import lru_cache
from itertools import chain
from typing import NamedTuple
from zoneinfo import ZoneInfo

from device_sdk.reading import Channel
from hub.decode.adafruit import AdafruitIo
from hub.decode.aws_shadow import AwsShadow
from hub.decode.base import MAX_TOPIC_BYTES, Decoded, DecodeError, Decoder, LongDecoder, Publication
from hub.decode.esphome import EspHome
from hub.decode.home_assistant import HomeAssistant
from hub.decode.homie import Homie
from hub.decode.learnt import MAX_LEARNT, MAX_OWN_LEARNT, Learnt
from hub.decode.line import Line
from hub.decode.naming import Has
from hub.decode.plain import Plain
from hub.decode.plugin import load
from hub.decode.scope import Scope
from hub.decode.senml import Senml
from hub.decode.shelly import Shelly
from hub.decode.sparkplug import Sparkplug
from hub.decode.tasmota import Tasmota
from hub.decode.thingsboard import ThingsBoard
from hub.decode.zigbee2mqtt import Zigbee2Mqtt

# Topics come again and again; of senders that invent them 6 MB are kept. Longer ones are looked at each time.
_KEPT_TOPICS = 16 * 1024
_MAX_KEPT_CHARS = 200
_NOBODYS = "no decoder knows what it is"


class Entry(NamedTuple):
    """A decoder in the table.

    Args:
        make: makes it, for one scope, when the first message comes that it is asked about.
        first: first segments of its topics (``tele`` of ``tele/plug/SENSOR``), and it is asked about no other; empty:
            any topic.
        part: one of these is somewhere in each of its topics, and it is asked about no other; empty: any topic.
    """

    make: Callable[[Scope], Decoder]
    first: tuple[str, ...] = ()
    part: tuple[str, ...] = ()


# In the order in which they are asked; the first that does not answer None has the message.
TABLE: tuple[Entry, ...] = (
    # Families that are known by their topics.
    Entry(Sparkplug, ("spBv1.0",)),
    Entry(Homie, ("homie",)),
    Entry(AwsShadow, ("$aws",)),
    Entry(Zigbee2Mqtt),
    Entry(Tasmota, part=("tele/", "stat/", "cmnd/", "tasmota/discovery/")),
    Entry(Shelly, part=("shellies/", "rpc", "online", "/debug/log", "/status/")),
    Entry(EspHome, part=("/state", "/status", "/debug", "esphome/discover/")),
    # What Home Assistant discovery has announced.
    Entry(HomeAssistant),
    # ThingsBoard.
    Entry(ThingsBoard, ("v1", "v2")),
    # Topics that begin with anybody's name.
    Entry(AdafruitIo, part=("/feeds/", "/groups/")),
    # What the payload is: line protocol, SenML, and whatever is text or JSON.
    Entry(Line),
    Entry(Senml),
    Entry(Plain),
)  # fmt: skip


class Decoders:
    """The decoders of one sender, and all that they remember of it.

    Idle 2 kB. A sender of many devices fills at most 4 MB with names (`naming`), 5 MB with what was said of channels
    (`learnt`) and 8 MB with what was announced to Home Assistant, one that is a device 1 MB in all: measured with the
    longest texts. With a thousand usual sensors it is 3 MB.

    Args:
        device: the name of the one device that the sender is; empty where it speaks for many.
        zone: where its devices are, for times without a zone; None: such times are not used.
        plugins: asked before ours.
    """

    __slots__ = ("_learnt", "_made", "_plugins", "scope")

    def __init__(
        self, device: str = "", *, zone: tzinfo | None = None, plugins: Sequence[Callable[[], Decoder]] = ()
    ) -> None:
        self.scope = Scope(device, zone)
        self._plugins = [make() for make in plugins]
        self._made: dict[Callable[[Scope], Decoder], Decoder] = {}
        self._learnt = Learnt(MAX_OWN_LEARNT if device else MAX_LEARNT)

    def know(self, has: Has) -> None:
        """Take what says which names the hub has from earlier; see `hub.decode.naming.Names.know`."""
        self.scope.names.know(has)

    def decode(self, publication: Publication) -> Decoded:
        """Return what a message says; channels are in it with their first reading, and when something of them is new.

        Raises:
            DecodeError: it cannot be read; says why.
        """
        if len(publication.topic) > MAX_TOPIC_BYTES:
            raise DecodeError(f"a topic of more than {MAX_TOPIC_BYTES} characters")
        decoded = self._ask(publication)
        if publication.is_retained and any(one.readings for one in decoded.said):
            decoded = _kept(decoded)
        learnt = self._learnt
        is_known = False
        for one in decoded.said:  # not `any`: this is in the path of each message
            if learnt.has_news(one):
                return decoded._replace(said=tuple([learnt.take(each, self.scope.names) for each in decoded.said]))
            is_known = is_known or bool(one.channels)
        if is_known:
            return decoded._replace(said=tuple([one._replace(channels=()) for one in decoded.said]))
        return decoded

    def reading(self, publication: Publication) -> Generator[None, None, Decoded]:
        """Do as `decode`, of a large message, and yield at times, so that others are heard."""
        if len(publication.topic) > MAX_TOPIC_BYTES:
            raise DecodeError(f"a topic of more than {MAX_TOPIC_BYTES} characters")
        decoded = yield from self._asking(publication)
        if publication.is_retained and any(one.readings for one in decoded.said):
            decoded = _kept(decoded)
        said = []
        for one in decoded.said:
            said.append((yield from self._learnt.taking(one, self.scope.names)))
            yield
        return decoded._replace(said=tuple(said))

    def channels_of(self, device: str) -> tuple[Channel, ...]:
        """Return what is known of a device's channels that had readings: for one that only now may speak."""
        return self._learnt.told_of(device)

    def announced_of(self, device: str) -> tuple[Channel, ...]:
        """Return what is known of a device's channels, also of those without a reading."""
        return self._learnt.known_of(device)

    def _ask(self, publication: Publication) -> Decoded:
        decoder: Decoder | None = None
        try:
            for decoder in self._plugins:
                decoded = decoder.decode(publication)
                if decoded is not None:
                    return decoded
            made = self._made
            for entry in entries_of(publication.topic):
                decoder = made.get(entry.make) or self._make(entry)
                decoded = decoder.decode(publication)
                if decoded is not None:
                    return decoded
        except DecodeError:
            raise
        except Exception as error:  # a message must end neither the connection it came by nor the bridge
            raise _failed(decoder, error) from error
        raise DecodeError(_NOBODYS)

    def _asking(self, publication: Publication) -> Generator[None, None, Decoded]:
        """Do as `_ask`, with a pause behind each decoder; most know none."""
        made, decoder = self._made, None
        ours = (made.get(entry.make) or self._make(entry) for entry in entries_of(publication.topic))
        try:
            for decoder in chain(self._plugins, ours):
                if isinstance(decoder, LongDecoder):
                    decoded = yield from decoder.reading(publication)
                else:
                    decoded = decoder.decode(publication)
                if decoded is not None:
                    return decoded
                yield
        except DecodeError:
            raise
        except Exception as error:
            raise _failed(decoder, error) from error
        raise DecodeError(_NOBODYS)

    def _make(self, entry: Entry) -> Decoder:
        decoder = self._made[entry.make] = entry.make(self.scope)
        return decoder


def _failed(decoder: Decoder | None, error: Exception) -> DecodeError:
    return DecodeError(f"decoder {decoder and decoder.name} failed: {error!r}")


def _kept(decoded: Decoded) -> Decoded:
    """Return what a message that the broker kept tells of channels."""
    said = tuple(one._replace(readings=()) for one in decoded.said)
    return decoded._replace(said=said, ignored="kept by the broker from before: no new reading")


def _by_first() -> dict[str, tuple[Entry, ...]]:
    segments = {segment for entry in TABLE for segment in entry.first}
    return {
        segment: tuple(entry for entry in TABLE if not entry.first or segment in entry.first) for segment in segments
    }


def entries_of(topic: str) -> tuple[Entry, ...]:
    """Return the decoders that a topic may be for, in their order."""
    return _entries_of_short(topic) if len(topic) <= _MAX_KEPT_CHARS else _entries_of(topic)


def _entries_of(topic: str) -> tuple[Entry, ...]:
    entries = _BY_FIRST.get(topic.partition("/")[0], _ANY)
    return tuple([entry for entry in entries if not entry.part or any(part in topic for part in entry.part)])


_entries_of_short = lru_cache(_KEPT_TOPICS)(_entries_of)
_BY_FIRST = _by_first()
_ANY = tuple(entry for entry in TABLE if not entry.first)


def decoders_of(decoder: Sequence[str], device_zone: str | None) -> Callable[[str], Decoders]:
    """Return what makes the decoders of one sender (`Decoders`) as the settings of these names say.

    Raises:
        ConfigError: a decoder cannot be loaded.
    """
    plugins = load(decoder)
    zone = None if device_zone is None else ZoneInfo(device_zone)
    return lambda device: Decoders(device, zone=zone, plugins=plugins)
