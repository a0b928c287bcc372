"""Readings: the newest of each series, history, history as a file.

Place: `hub.gateway.rest`. What touches the store runs in a thread.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import fields
from functools import partial
from typing import Annotated, Literal

import orjson
from pydantic import ConfigDict, Field
from starlette.responses import Response

from device_sdk.reading import Value
from hub.errors import BadRequestError
from hub.gateway.endpoint import (
    Answer,
    Call,
    Duration,
    Endpoint,
    JsonObject,
    Matching,
    Patterns,
    Question,
    When,
    json_value,
    unit_object,
)  # fmt: skip
from hub.gateway.etag import answer_version
from hub.gateway.export import MEDIA, answer_response, export_response
from hub.grid import MAX_ZONE_CHARS
from hub.history import AGG_HELP, BUCKET_FUNCTIONS, FILL_HELP, MAX_POINTS, POINT_FUNCTIONS, USUAL_LIMIT, History, Reach
from hub.model import Series
from hub.query import MAX_LIMIT, iso_time, time_range
from hub.roles import Verb

Received = Annotated[
    bool, Field(description="Also say when the hub received each reading: exact, or up to a second too early.")
]
Raw = Annotated[bool, Field(description="Values as they are stored, without the channel's scale and offset.")]


# Threads of their own: one question may take many seconds, and commands and sign-ins wait in the loop's few threads.
# Each may take some 100 MB, and they share one interpreter: more at once would be no faster.
_QUESTIONS = ThreadPoolExecutor(4, thread_name_prefix="hub history")
_ASKED = {field.name for field in fields(History)} - {"descending"}


class LatestQuery(Matching):
    """Which series."""

    raw: Raw = False


class ReadingsQuery(Question):
    """Which readings, in what order, raw or in buckets."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    match: Patterns = []
    last: Duration = None
    start: When = Field(default=None, alias="from")
    end: When = Field(default=None, alias="to")
    at: Annotated[
        str | None,
        Field(max_length=64, description="A time: instead of a range, the last reading of each series by then."),
    ] = None
    lookback: Annotated[
        str | None, Field(max_length=32, description="How much older than `at`; any age if absent.")
    ] = None
    bucket: Annotated[
        str | None, Field(max_length=32, description="A number with ms, s, m, h, d or w, or a whole one of mo or y.")
    ] = None
    tz: Annotated[
        str | None, Field(max_length=MAX_ZONE_CHARS, description="Zone of `bucket`, e.g. Europe/Brussels; else UTC.")
    ] = None
    points: Annotated[
        int | None, Field(ge=1, le=MAX_POINTS, description="Instead of `bucket`: cut the range into as many, at most.")
    ] = None
    agg: Annotated[
        str | None,
        Field(max_length=200, description=f"{AGG_HELP} Else {BUCKET_FUNCTIONS}, of points {POINT_FUNCTIONS}."),
    ] = None
    fill: Annotated[str | None, Field(max_length=32, description=FILL_HELP)] = None
    limit: Annotated[
        int | None,
        Field(
            ge=1, le=MAX_LIMIT, description=f"Rows of one answer (about). Else {USUAL_LIMIT}, of buckets {MAX_LIMIT}."
        ),
    ] = None
    order: Literal["asc", "desc"] = "asc"
    page: Annotated[str | None, Field(max_length=40, description="`next` of the answer before.")] = None
    received: Received = False
    raw: Raw = False
    format: Annotated[
        Literal["json", "csv", "ndjson", "arrow", "parquet"],
        Field(description="Buckets as a file, with `next` in the header `Next-Page`; for readings use `/v1/export`."),
    ] = "json"


class ExportQuery(Question):
    """Which readings, written as a file."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    match: Patterns = []
    last: Duration = None
    start: When = Field(default=None, alias="from")
    end: When = Field(default=None, alias="to")
    format: Annotated[
        Literal["csv", "ndjson", "arrow", "parquet"],
        Field(description="`arrow` (an IPC stream) and `parquet` need the hub's extra `arrow`."),
    ] = "csv"
    received: Received = False
    raw: Raw = False


class LatestReading(Answer):
    """The newest reading of one series."""

    device: str
    channel: str
    unit: str | None
    unit_shown: str | None
    time_ns: str
    time: str
    value: Value


class Latest(Answer):
    """One reading per series that has any."""

    readings: list[LatestReading]


class SeriesName(Answer):
    """A series by name."""

    device: str
    channel: str
    unit: str | None
    unit_shown: str | None


class Readings(Answer):
    """Rows as ``columns`` names them; column ``series`` is an index into ``series``.

    ``raw_from_ns``: of the range asked for, single readings before this were dropped (of some of the series), and only
    their sums are kept; null: none was.
    """

    series: list[SeriesName]
    columns: list[str]
    rows: list[list[Value | None]]
    next: str | None
    raw_from_ns: str | None


async def list_latest(call: Call, query: LatestQuery) -> JsonObject:
    """Give the newest reading of each series, by event time."""
    readings = [
        {
            "device": s.device, "channel": s.channel, **unit_object(s),
            "time_ns": str(time_ns), "time": iso_time(time_ns), "value": json_value(value),
        }
        for s, time_ns, value in call.hub.query.latest(call.series(query.match), raw=query.raw)
    ]  # fmt: skip
    return {"readings": readings}


async def list_readings(call: Call, query: ReadingsQuery) -> Response:
    """Give history: raw rows or aggregates in buckets, page by page, or the readings of one moment.

    The answer has an ``ETag``. Sent back as ``If-None-Match``, it gives 304 without a body as long as the answer would
    be the same; of a range that ended it stays while live readings go on.
    """
    series, now_ns = call.series(query.match), time.time_ns()
    if query.format != "json" and query.bucket is None and query.points is None:
        raise BadRequestError(f"format {query.format} is of buckets here: give bucket, or ask /v1/export for readings")
    asked = History(**query.model_dump(include=_ASKED), descending=query.order == "desc")
    version = await answer_version(call, "readings", query, series, asked.reach(now_ns))
    if version.is_held:
        return version.not_modified()
    # All of it in a thread: writing 100,000 rows takes as long as reading them, and acks would wait for it.
    work = partial(_answered, call, asked, series, now_ns, query.format, version.headers)
    return await asyncio.get_running_loop().run_in_executor(_QUESTIONS, work)


def _answered(
    call: Call, asked: History, series: Sequence[Series], now_ns: int, form: str, headers: Mapping[str, str]
) -> Response:
    answer = asked.answer(call.hub.query, series, now_ns)
    if form != "json":
        return answer_response(answer, form, headers)
    found = {
        "series": [{"device": s.device, "channel": s.channel, **unit_object(s)} for s in answer.series],
        "columns": list(answer.columns),
        "rows": [[str(row[0]), row[1], *map(json_value, row[2:])] for row in answer.rows],
        "next": answer.next_page,
        "raw_from_ns": None if answer.raw_from_ns is None else str(answer.raw_from_ns),
    }
    return Response(orjson.dumps(found), headers=headers, media_type="application/json")


async def export(call: Call, query: ExportQuery) -> Response:
    """Stream readings as CSV, JSON lines, Arrow or Parquet, by time, in bounded memory; ``ETag`` as ``/v1/readings``.

    The file ends with the newest reading of when it was asked for; scales and types are those of then. A channel that
    widens or gets its first type meanwhile cuts Arrow and Parquet off: ask again.

    Arrow and Parquet: ``device``, ``channel``, ``unit`` are dictionaries, ``time`` and ``received`` timestamp[ns, UTC],
    ``value`` int64, float64, bool or string. Where the channels are of several types, ``value`` is float64 and null
    where there is no number, and ``value_int``, ``value_bool``, ``value_str`` hold what is of that type, exactly.
    """
    series = call.series(query.match)
    start_ns, end_ns = time_range(query.start, query.end, query.last, time.time_ns())
    version = await answer_version(call, "export", query, series, Reach(start_ns, end_ns))
    if version.is_held:
        return version.not_modified()
    # In a thread: what writes the file may have to be loaded first.
    return await asyncio.to_thread(_file, call, query, series, (start_ns, end_ns), version.headers)


def _file(
    call: Call, query: ExportQuery, series: Sequence[Series], span: tuple[int, int], headers: Mapping[str, str]
) -> Response:
    # A file takes minutes. A scale that is set meanwhile would hold from some line on.
    held = [copy(s) for s in series]
    # And it ends: whoever takes it slower than devices send would be sent what they send for ever.
    newest_ns = call.hub.query.newest_ns(held)
    end_ns = span[0] if newest_ns is None else min(span[1], newest_ns + 1)
    pages = call.hub.query.dump(held, span[0], end_ns, received=query.received, raw=query.raw)
    return export_response(held, pages, query.format, received=query.received, raw=query.raw, headers=headers)


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/v1/latest", "Newest readings", Verb.READ, LatestQuery, Latest, list_latest),
    Endpoint("GET", "/v1/readings", "History, raw or in buckets", Verb.READ, ReadingsQuery, Readings, list_readings),
    Endpoint("GET", "/v1/export", "History as a file", Verb.READ, ExportQuery, None, export,
             media=tuple(MEDIA[form].partition(";")[0] for form in MEDIA)),
)  # fmt: skip
