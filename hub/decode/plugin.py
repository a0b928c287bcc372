"""Decoders of other people's packages, asked before ours (``hub serve --decoder``).

Owns: what of an object is a decoder, and that whatever it does stays within a message: an exception is a reason for the
quarantine, and so are names and values that no hub takes. Place: after `base`, before `dispatch`.
"""

from collections.abc import Callable, Sequence

from device_sdk.errors import MisuseError
from device_sdk.reading import Channel, check_channel_name, check_device_name, check_value
from device_sdk.wire import MAX_TIME_NS, MIN_TIME_NS
from hub import plugin
from hub.decode.base import Decoded, DecodeError, Decoder, ForeignReading, Publication, Said
from hub.decode.naming import label_of
from hub.errors import ConfigError

# Packages name their decoders in this group.
GROUP = "telemetry_hub.decoders"
_MAX_UNIT_CHARS = 32


def load(names: Sequence[str]) -> tuple[Callable[[], Decoder], ...]:
    """Import decoders; each of what is returned gives the decoder of one sender.

    Args:
        names: ``package.module:name``, or the name of an entry point of `GROUP`. What it leads to is a function that
            takes a `Publication`, an object with a method ``decode`` that does, or a class of such objects: of a class
            one is made for each sender, without arguments, so that it may remember something.

    Raises:
        ConfigError: a name leads nowhere, or to no decoder; says which.
    """
    return tuple(map(_load, names))


def _load(name: str) -> Callable[[], Decoder]:
    target: object = plugin.find("decoder", GROUP, name)
    if isinstance(target, type):
        kind = target
        _decode_of(name, plugin.make("decoder", name, kind))
        return lambda: Guarded(name, _decode_of(name, kind()))
    decode = _decode_of(name, target) if hasattr(target, "decode") else target
    if not callable(decode):
        raise ConfigError(f"decoder {name!r} is neither a function nor has it a method decode")
    return lambda: Guarded(name, decode)


def _decode_of(name: str, made: object) -> Callable[[Publication], object]:
    decode: Callable[[Publication], object] | None = getattr(made, "decode", None)
    if not callable(decode):
        raise ConfigError(f"decoder {name!r} is neither a function nor has it a method decode")
    return decode


class Guarded:
    """A decoder of somebody else."""

    __slots__ = ("_decode", "name")

    def __init__(self, name: str, decode: Callable[[Publication], object]) -> None:
        self.name = name
        self._decode = decode

    def decode(self, publication: Publication) -> Decoded | None:
        """Return what it says, when a hub can take that; see `hub.decode.base.Decoder`."""
        try:
            decoded = self._decode(publication)
            return None if decoded is None else self._checked(decoded)
        except DecodeError:
            raise
        except Exception as error:  # foreign code is run: it may raise anything, and give anything
            raise DecodeError(f"decoder {self.name} failed: {error!r}") from error

    def _checked(self, decoded: object) -> Decoded:
        if not isinstance(decoded, Decoded):
            raise DecodeError(f"decoder {self.name} gave a {type(decoded).__name__}, not what a message says (Decoded)")
        try:
            said = tuple(map(_said, decoded.said))
        except MisuseError as error:
            raise DecodeError(f"decoder {self.name}: {error}") from error
        return decoded._replace(decoder=self.name, said=said)


def _said(said: Said) -> Said:
    readings = []
    for channel, given, time_ns in said.readings:
        value = check_value(check_channel_name(channel), given)
        if time_ns is not None and type(time_ns) is not int:
            raise MisuseError(
                f"channel {channel!r}: its time is a {type(time_ns).__name__}, not an int of ns since 1970"
            )
        if time_ns is not None and not MIN_TIME_NS <= time_ns < MAX_TIME_NS:
            raise MisuseError(f"channel {channel!r}: its time is not between the years 2000 and 2100, in ns")
        if value is not None:
            readings.append(ForeignReading(channel, value, time_ns))
    return Said(check_device_name(said.device), tuple(readings), tuple(map(_channel, said.channels)))


def _channel(channel: Channel) -> Channel:
    check_channel_name(channel.name)
    if channel.unit is not None and len(channel.unit) > _MAX_UNIT_CHARS:
        raise MisuseError(f"channel {channel.name!r}: a unit of more than {_MAX_UNIT_CHARS} characters")
    return channel if channel.label is None else channel._replace(label=label_of(channel.label))
