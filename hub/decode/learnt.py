"""What decoders have said of channels: kept until a channel has a reading, then handed on, and again when it changes.

Owns: that memory and its bound. Place: after `naming`, before `dispatch`. Pure.

A device announces many channels that never come: settings, switches nobody installed, what another program computes. A
channel is known to the hub from its first reading on.
"""

from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from typing import TypeVar

from device_sdk.reading import Channel
from hub.decode.base import ForeignReading, Said, at_once
from hub.decode.naming import Names

# Channels of a sender of many devices, 550 bytes each (measured; with the longest texts 900), of one that is a device.
MAX_LEARNT = 5_000
MAX_OWN_LEARNT = 400
# Channels and readings between which others are heard: half a millisecond.
_STEP = 100
_Item = TypeVar("_Item")


class Learnt:
    """What is known of channels; what is forgotten, the longest known first, is said again with the next reading."""

    __slots__ = ("_known", "_most", "_told")

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[tuple[str, str], Channel] = OrderedDict()
        self._told: dict[tuple[str, str], Channel] = {}

    def has_news(self, said: Said) -> bool:
        """Say whether there is anything for `take`; most messages say what is known."""
        device, known, told = said.device, self._known, self._told
        for channel in said.channels:
            if _adds(known.get((device, channel.name)), channel):
                return True
        for reading in said.readings:  # noqa: SIM110 - a third faster than `any`, in the path of each message
            if (device, reading.channel) not in told:
                return True
        return False

    def take(self, said: Said, names: Names) -> Said:
        """Learn; return it with the channels that the hub does not know as they are."""
        return at_once(self.taking(said, names))

    def taking(self, said: Said, names: Names) -> Generator[None, None, Said]:
        """Do as `take`, with pauses; something else may be learnt meanwhile."""
        device, known, told = said.device, self._known, self._told
        news: dict[tuple[str, str], Channel] = {}
        for channels in _parts(said.channels):
            self._learn(device, channels)
            yield
        for readings in _parts(said.readings):
            self._hear(device, readings, names, news)
            yield
        for channels in _parts(said.channels):
            for channel in channels:
                key = (device, channel.name)
                if key in told and told[key] != known[key]:
                    told[key] = news[key] = known[key]
            yield
        while len(known) > self._most:
            told.pop(known.popitem(last=False)[0], None)
        return said._replace(channels=tuple(news.values()))

    def _learn(self, device: str, channels: Sequence[Channel]) -> None:
        known = self._known
        for channel in channels:
            key = (device, channel.name)
            before = known.get(key)
            known[key] = channel if before is None else _merged(before, channel)

    def _hear(
        self, device: str, readings: Sequence[ForeignReading], names: Names, news: dict[tuple[str, str], Channel]
    ) -> None:
        """Note of which channels there are readings, and those that had none in ``news``."""
        known, told = self._known, self._told
        for reading in readings:
            key = (device, reading.channel)
            if key not in known:
                known[key] = Channel(reading.channel, label=names.label(device, reading.channel))
            elif key not in told and known[key].label is None:
                known[key] = known[key]._replace(label=names.label(device, reading.channel))
            if key not in told:
                told[key] = news[key] = known[key]

    def told_of(self, device: str) -> tuple[Channel, ...]:
        """Return the channels of a device that had readings."""
        return tuple(channel for (name, _), channel in self._told.items() if name == device)

    def known_of(self, device: str) -> tuple[Channel, ...]:
        """Return the channels of a device of which anything was said."""
        return tuple(channel for (name, _), channel in self._known.items() if name == device)


def _parts(items: tuple[_Item, ...]) -> Iterator[Sequence[_Item]]:
    return (items[at : at + _STEP] for at in range(0, len(items), _STEP))


def _adds(known: Channel | None, told: Channel) -> bool:
    """Say whether something is told that is not known."""
    if known is None or known == told:
        return known is None
    return any(new is not None and new != old for old, new in zip(known, told, strict=True))


def _merged(known: Channel, told: Channel) -> Channel:
    """Return what is known with what is told now: a message may say the unit, another the label."""
    return Channel._make(old if new is None else new for old, new in zip(known, told, strict=True))
