"""Adafruit IO's topics: ``USER/feeds/KEY``, a group's ``USER/feeds/GROUP.KEY``, values as text, JSON or CSV.

Owns: those forms. Place: one of the decoders. Pure.

Feeds of no group are channels of the device ``USER``, those of a group of ``USER-GROUP``. A place that comes with a
value is readings beside it, ``KEY.lat``, ``KEY.lon``, ``KEY.ele``.
Source: Adafruit IO's MQTT API, 2024.
"""

from collections.abc import Iterator

from device_sdk.reading import Value
from hub.decode.base import Decoded, DecodeError, ForeignReading, Publication, Said
from hub.decode.moment import time_ns_of
from hub.decode.scope import Scope
from hub.decode.value import MAX_VALUES, json_value, load, text_of, word_value

_PLACE = ("lat", "lon", "ele")


class AdafruitIo:
    """Reads feeds and groups; see `hub.decode.base.Decoder`."""

    __slots__ = ("_scope",)
    name = "adafruit"

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def decode(self, publication: Publication) -> Decoded | None:
        """Return the values of a feed, or of the feeds of a group."""
        segments = publication.topic.split("/")
        if len(segments) not in (3, 4) or segments[1] not in ("feeds", "groups") or not all(segments):
            return None
        user, kind, key = segments[:3]
        form = segments[3] if len(segments) == 4 else ""
        if form not in ("", "json", "csv", "get"):
            return None
        if kind == "groups" and not form:
            return None
        if form == "get":
            return Decoded(self.name, ignored="a question for the last value")
        group, dot, feed = key.partition(".") if kind == "feeds" else (key, ".", "")
        if not dot:
            group, feed = "", key
        document = load(publication.payload) if form == "json" or publication.payload[:1] == b"{" else None
        lines = text_of(publication.payload) if document is None else ""
        time_ns = time_ns_of(document.get("created_at"), self._scope.zone) if isinstance(document, dict) else None
        if kind == "groups":
            found = _group_of_document(document) if document is not None else _group_of_lines(lines)
        else:
            found = _feed_of_document(feed, document) if document is not None else _feed_of_line(feed, lines, form)
        device = self._scope.device or self._scope.names.device(f"{user}/{group}" if group else user)
        prefix = f"{group}." if self._scope.device and group else ""
        channel = self._scope.names.channel
        readings = tuple(
            [
                ForeignReading(channel(device, prefix + name), value, time_ns)
                for name, value in found
                if value is not None
            ]
        )
        return Decoded(self.name, (Said(device, readings),) if readings else (), ignored="" if readings else "no value")


def _feed_of_document(feed: str, document: object) -> Iterator[tuple[str, Value | None]]:
    if not isinstance(document, dict) or "value" not in document:
        raise DecodeError('a value of a feed is {"value": 23.5}')
    yield feed, _value(document["value"])
    yield from _place(feed, document)


def _feed_of_line(feed: str, line: str, form: str) -> Iterator[tuple[str, Value | None]]:
    if form != "csv":
        yield feed, word_value(line)
        return
    value, *place = line.split(",")
    yield feed, word_value(value.strip())
    yield from _place(feed, dict(zip(_PLACE, (_number(text) for text in place), strict=False)))


def _group_of_document(document: object) -> Iterator[tuple[str, Value | None]]:
    feeds = document.get("feeds") if isinstance(document, dict) else None
    if not isinstance(feeds, dict) or not isinstance(document, dict):
        raise DecodeError('values of a group are {"feeds": {"temperature": 23.5}}')
    if len(feeds) > MAX_VALUES:
        raise DecodeError(f"a group of more than {MAX_VALUES} feeds")
    for feed, value in feeds.items():
        yield feed, _value(value)
    where = document.get("location")
    yield from _place("location", where if isinstance(where, dict) else {})


def _group_of_lines(text: str) -> Iterator[tuple[str, Value | None]]:
    lines = text.splitlines()
    if len(lines) > MAX_VALUES:
        raise DecodeError(f"a group of more than {MAX_VALUES} feeds")
    for line in lines:
        feed, comma, value = line.partition(",")
        if not comma or not feed.strip():
            raise DecodeError("a line of a group is temperature,23.5")
        yield feed.strip(), word_value(value.strip())


def _place(feed: str, where: dict[str, object]) -> Iterator[tuple[str, Value | None]]:
    for name in _PLACE:
        value = where.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{feed}.{name}", json_value(float(value))


def _value(value: object) -> Value | None:
    """Return a value of JSON; Adafruit IO writes numbers as texts too."""
    return word_value(value.strip()) if isinstance(value, str) else json_value(value)


def _number(text: str) -> object:
    value = word_value(text.strip())
    return value if isinstance(value, int | float) else None
