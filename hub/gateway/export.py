"""History as a file, streamed: CSV, one JSON object a line, and what `arrow` writes.

Owns: the columns ``device, channel, time, time_unix_ms, value, unit`` (and ``received`` when asked for; of buckets, the
aggregates in the place of ``value``) and how each is written. Place: above `query` and `arrow`; used by
`rest.readings` and by the offline export of the command line. Values are exact: floats in their shortest form that
reads back equal, times in full.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

import orjson
from starlette.responses import Response, StreamingResponse

from device_sdk.reading import Value
from hub.gateway import arrow
from hub.model import Series
from hub.query import Answer, iso_time
from hub.store.base import Row

COLUMNS = ("device", "channel", "time", "time_unix_ms", "value", "unit")
_ById = dict[int, Series]
_Units = dict[int, str | None]
MEDIA = {"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson", **arrow.MEDIA}


def export_response(
    series: Sequence[Series],
    pages: Iterable[Sequence[Row]],
    form: str,
    *,
    received: bool = False,
    raw: bool = False,
    headers: Mapping[str, str],
) -> StreamingResponse:
    """Return the streamed answer; each page is read and written in a thread while the client takes it.

    Raises:
        BadRequestError: the format needs what is not installed.
    """
    chunks = export_chunks(series, pages, form, received=received, raw=raw)
    return StreamingResponse(chunks, media_type=MEDIA[form], headers={**headers, **_named(form)})


def answer_response(answer: Answer, form: str, headers: Mapping[str, str]) -> Response:
    """Return buckets as a file, and where the next page begins in its head; call it in a thread.

    Raises: as `export_response`.
    """
    write = {"csv": _csv_answer, "ndjson": _json_answer}.get(form)
    body = arrow.answer_file(answer, form) if write is None else write(answer)
    following = {} if answer.next_page is None else {"Next-Page": answer.next_page}
    return Response(body, media_type=MEDIA[form], headers={**headers, **following, **_named(form)})


def export_chunks(
    series: Sequence[Series],
    pages: Iterable[Sequence[Row]],
    form: str,
    *,
    received: bool = False,
    raw: bool = False,
) -> Iterator[bytes]:
    """Return the file in pieces, one for each page of rows or few of them.

    Args:
        raw: the values are as they are stored; Arrow's columns have their types.

    Raises: as `export_response`, at once.
    """
    if form in arrow.MEDIA:
        return arrow.reading_chunks(series, pages, form, received=received, raw=raw)
    return _text_chunks(series, pages, form, received)


def _text_chunks(
    series: Sequence[Series], pages: Iterable[Sequence[Row]], form: str, received: bool
) -> Iterator[bytes]:
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


def _csv_answer(answer: Answer) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["device", "channel", "time", "time_unix_ms", *answer.columns[2:], "unit"])
    for s, time_ns, values in _named_rows(answer):
        cells = ["" if value is None else _csv_value(value) for value in values]
        writer.writerow([s.device, s.channel, iso_time(time_ns), unix_ms(time_ns), *cells, s.effective().unit or ""])
    return text.getvalue().encode()


def _json_answer(answer: Answer) -> bytes:
    lines = []
    for s, time_ns, values in _named_rows(answer):
        line = {"device": s.device, "channel": s.channel, "time": iso_time(time_ns),
                "time_unix_ms": orjson.Fragment(unix_ms(time_ns)), **dict(zip(answer.columns[2:], values, strict=True)),
                "unit": s.effective().unit}  # fmt: skip
        lines.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    return b"".join(lines)


def _named_rows(answer: Answer) -> Iterator[tuple[Series, int, tuple[Value | None, ...]]]:
    for time_ns, at, *values in answer.rows:
        assert isinstance(at, int), "a row begins with its time and its series"
        assert isinstance(time_ns, int), "a row begins with its time and its series"
        yield answer.series[at], time_ns, tuple(values)


def _named(form: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="readings.{arrow.SUFFIX.get(form, form)}"'}
