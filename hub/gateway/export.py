"""History as a file, streamed: CSV or one JSON object a line.

Owns: the columns ``device, channel, time, time_unix_ms, value, unit`` (and
``received`` when asked for) and how each is written. Place: above `query`; used by `endpoints` and by the offline
export of the command line. Values are exact: floats in their shortest form
that reads back equal, times in full.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

import orjson
from starlette.responses import StreamingResponse

from device_sdk.reading import Value
from hub.model import Series
from hub.query import iso_time
from hub.store.base import Row

COLUMNS = ("device", "channel", "time", "time_unix_ms", "value", "unit")
_ById = dict[int, Series]
_Units = dict[int, str | None]
_MEDIA = {"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson"}


def export_response(
    series: Sequence[Series], pages: Iterable[Sequence[Row]], form: str, *, received: bool = False
) -> StreamingResponse:
    """Return the streamed answer; each page is read and written in a thread while the client takes it."""
    return StreamingResponse(
        export_chunks(series, pages, form, received=received),
        media_type=_MEDIA[form],
        headers={"Content-Disposition": f'attachment; filename="readings.{form}"'},
    )


def export_chunks(
    series: Sequence[Series], pages: Iterable[Sequence[Row]], form: str, *, received: bool = False
) -> Iterator[bytes]:
    """Yield the file in pieces, one for each page of rows (CSV: its header line first)."""
    by_id = {s.id: s for s in series}
    units = {s.id: s.effective().unit for s in series}
    if form == "csv":
        yield (",".join([*COLUMNS, "received"] if received else COLUMNS) + "\r\n").encode()
    lines = _csv_lines if form == "csv" else _json_lines
    for page in pages:
        yield lines(by_id, units, page, received)


def unix_ms(time_ns: int) -> str:
    """Return milliseconds since 1970, exact: ``1795376000000`` or ``1795376000000.000001``."""
    ms, rest = divmod(time_ns, 10**6)
    return f"{ms}.{rest:06d}".rstrip("0") if rest else str(ms)


def _csv_lines(by_id: _ById, units: _Units, page: Sequence[Row], received: bool) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    for series_id, time_ns, value, received_ns in page:
        s = by_id[series_id]
        row = [s.device, s.channel, iso_time(time_ns), unix_ms(time_ns), _csv_value(value), units[series_id] or ""]
        if received:
            row.append("" if received_ns is None else iso_time(received_ns))
        writer.writerow(row)
    return text.getvalue().encode()


def _csv_value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def _json_lines(by_id: _ById, units: _Units, page: Sequence[Row], received: bool) -> bytes:
    lines = []
    for series_id, time_ns, value, received_ns in page:
        s = by_id[series_id]
        line: dict[str, object] = {
            "device": s.device,
            "channel": s.channel,
            "time": iso_time(time_ns),
            "time_unix_ms": orjson.Fragment(unix_ms(time_ns)),
            "value": value,
            "unit": units[series_id],
        }
        if received:
            line["received"] = None if received_ns is None else iso_time(received_ns)
        lines.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    return b"".join(lines)
