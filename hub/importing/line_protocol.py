"""InfluxDB's line protocol, read from a file.

Owns: which lines are a point, which reading a field is. Place: after `lines` and `naming`; the grammar is that of
`hub.decode.point`. Pure but for what it reads.

What a hub has written to InfluxDB (`hub.store.line_protocol`) is known by its measurement and tags, and comes back as
it was.
"""

from collections.abc import Iterator

from device_sdk.reading import Value
from hub.decode.point import PRECISIONS, LineError, OpenTextError, Point, parse_point
from hub.importing.lines import Lines
from hub.importing.naming import Names, Template
from hub.importing.row import Items, Refused, RowError, checked, quoted
from hub.store.line_protocol import FIELDS, MEASUREMENT

# How far a text may go: it is 1 KiB at most, and what is longer has lost its quote.
_LINES_JOINED, _CHARS_JOINED = 100, 64 * 1024
# `influx_inspect export` writes such lines above its points.
_NO_POINT = ("#", "CREATE DATABASE ")


def read_line_protocol(lines: Lines, device: Template, channel: Template, precision: str) -> Items:
    """Yield a reading for each field of each point.

    Args:
        device, channel: what a reading's names are made of.
        precision: of the times, one of `PRECISIONS`.
    """
    names = Names()
    for line, text, point in _points(lines):
        if isinstance(point, Refused):
            yield point
        else:
            yield from _items(line, text, point, (device, channel, names), PRECISIONS[precision])


def _points(lines: Lines) -> Iterator[tuple[int, str, Point | Refused]]:
    for text in lines:
        line = lines.number
        for fault in lines.take_faults():
            yield line, text, fault
        if text.strip() and not text.startswith(_NO_POINT):
            try:
                yield line, text, _point(lines, text)
            except LineError as error:
                lines.give_back(lines.number - line)
                yield line, text, Refused(line, str(error), quoted(text))
                # Of lines that were taken and given back: they are handed on as empty ones now.
                for fault in lines.take_faults():
                    yield line, text, fault
        lines.mark()


def _point(lines: Lines, text: str) -> Point:
    """Return the point that begins with this line, with as many more as its texts go over."""
    while True:
        try:
            return parse_point(text)
        except OpenTextError:
            is_short = len(lines.taken) < _LINES_JOINED and len(text) < _CHARS_JOINED
            more = next(lines, None) if is_short else None
            if more is None or lines.has_faults:
                raise
            text += more


def _items(line: int, text: str, point: Point, naming: tuple[Template, Template, Names], factor: int) -> Items:
    known = {**point.tags, "measurement": point.measurement}
    is_ours = point.measurement == MEASUREMENT and {"device", "channel"} <= known.keys()
    for field, value in _own_fields(point) if is_ours else point.fields:
        try:
            if point.time is None:
                raise RowError("it has no time")
            device, channel = (known["device"], known["channel"]) if is_ours else _named(naming, known, field)
            yield checked(line, device, channel, point.time * factor, value)
        except RowError as error:
            yield Refused(line, f"{field}: {error}", quoted(text))


def _named(naming: tuple[Template, Template, Names], known: dict[str, str], field: str) -> tuple[str, str]:
    of_device, of_channel, names = naming
    known = {**known, "field": field}
    device = names.device(of_device.fill(known))
    return device, names.channel(device, of_channel.fill(known))


def _own_fields(point: Point) -> list[tuple[str, Value]]:
    """Return the one field that counts; a tool that writes a line for each field has lost which."""
    fields = dict(point.fields)
    kind = fields.get("kind")
    if isinstance(kind, int) and kind in FIELDS:
        return [(FIELDS[kind], fields[FIELDS[kind]])] if FIELDS[kind] in fields else []
    return [(name, value) for name, value in point.fields if name in FIELDS.values()]
