"""`hub.gateway.rest.readings`: newest values and history."""

import asyncio
import io
import threading
import time
from typing import Any

import httpx
import pytest
from pyarrow import ipc, parquet
from starlette.responses import StreamingResponse

from hub.gateway.endpoint import Call
from hub.gateway.rest.readings import ExportQuery, export
from hub.metadata import Edit
from hub.model import SeriesKey
from hub.roles import Identity, Role
from tests.hub.gateway.conftest import T0, S, get
from tests.support.hub_parts import HubParts


@pytest.mark.asyncio
async def test_channels_and_latest_follow_the_pattern(admin: httpx.AsyncClient) -> None:
    """`match` selects; integers beyond 2**53 travel as text."""
    channels = await get(admin, "/v1/channels", match="pump-2")
    latest = await get(admin, "/v1/latest", match=["*/counter", "pump-10"])

    assert [c["channel"] for c in channels["channels"]] == ["counter", "temperature"]
    assert latest["readings"] == [
        {"device": "pump-2", "channel": "counter", "unit": None, "unit_shown": None, "time_ns": str(T0 + 1),
         "time": "2026-11-22T19:33:20.000000001Z", "value": str(2**60)},
        {"device": "pump-10", "channel": "door", "unit": None, "unit_shown": None, "time_ns": str(T0 + 2 * S),
         "time": "2026-11-22T19:33:22Z", "value": True},
    ]  # fmt: skip


@pytest.mark.asyncio
async def test_readings_are_paged_without_gap_or_double(admin: httpx.AsyncClient) -> None:
    """Following `next` gives every row once, in order."""
    answer = await get(admin, "/v1/readings", match="pump-2", limit=1)
    rows = answer["rows"]
    while answer["next"] is not None:
        answer = await get(admin, "/v1/readings", match="pump-2", limit=1, page=answer["next"])
        rows += answer["rows"]

    assert answer["columns"] == ["time_ns", "series", "value"]
    assert [s["channel"] for s in answer["series"]] == ["counter", "temperature"]
    assert rows == [
        [str(T0), 1, 20.5], [str(T0 + 1), 0, str(2**60)], [str(T0 + S), 1, 31.5], [str(T0 + 61 * S), 1, 22.5],
    ]  # fmt: skip


@pytest.mark.asyncio
async def test_readings_in_range_and_descending(admin: httpx.AsyncClient) -> None:
    """`from` is in, `to` is out; the newest come first when asked."""
    answer = await get(
        admin,
        "/v1/readings",
        match="pump-2/temperature",
        order="desc",
        **{"from": str(T0 + S), "to": "2026-11-22T19:34:21Z"},
    )

    assert answer["rows"] == [[str(T0 + S), 0, 31.5]]


@pytest.mark.asyncio
async def test_readings_say_when_they_were_received(admin: httpx.AsyncClient) -> None:
    """Asked for, each row ends with its receive time; of a bucket there is none to say."""
    begun = time.time_ns()
    answer = await get(admin, "/v1/readings", match="pump-2/temperature", received=True)
    export = await admin.get("/v1/export", params={"match": "pump-10", "received": "true"})
    bucket = await admin.get("/v1/readings", params={"received": "true", "bucket": "1m"})

    assert answer["columns"] == ["time_ns", "series", "value", "received_ns"]
    assert all(begun - 60 * S < int(row[3]) <= begun for row in answer["rows"])
    assert export.text.splitlines()[0].endswith(",unit,received")
    assert bucket.status_code == 400


@pytest.mark.asyncio
async def test_readings_in_buckets(admin: httpx.AsyncClient) -> None:
    """One row per bucket that has readings, with the functions asked for, in their order."""
    answer = await get(
        admin,
        "/v1/readings",
        match="pump-2/temperature",
        bucket="1m",
        agg="max,avg,count",
        **{"from": str(T0 - 60 * S)},
    )

    start = T0 // (60 * S) * 60 * S
    assert answer["columns"] == ["time_ns", "series", "max", "avg", "count"]
    assert answer["rows"] == [[str(start), 0, 31.5, 26.0, 2], [str(start + 60 * S), 0, 22.5, 22.5, 1]]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("question", "columns", "rows"),
    [
        pytest.param(
            {"from": "2026-11-22T00:00:00+05:45", "bucket": "1d", "tz": "Asia/Kathmandu", "agg": "max,integral"},
            ["max", "integral"],
            # 20.5 to 31.5 in a second, then to 22.5 in a minute. 19:33 UTC is the next day in Kathmandu.
            [["1795371300000000000", 0, 31.5, 1646.0]],
            id="local days",
        ),
        pytest.param(
            {"from": "2026-11-22T19:33:00Z", "to": "2026-11-22T19:36:00Z", "bucket": "1m", "agg": "count,mean",
             "fill": "null", "order": "desc"},
            ["count", "mean"],
            [["1795376100000000000", 0, 0, None], ["1795376040000000000", 0, 1, 22.5],
             ["1795375980000000000", 0, 2, 26.0]],
            id="filled, newest first",
        ),
        pytest.param(
            {"from": "2026-11-22T19:33:00Z", "to": "2026-11-22T19:35:00Z", "points": "2"},
            ["min", "max", "first", "last"],
            [["1795375980000000000", 0, 20.5, 31.5, 20.5, 31.5], ["1795376040000000000", 0, 22.5, 22.5, 22.5, 22.5]],
            id="points",
        ),
        pytest.param(
            {"at": "2026-11-22T19:34:00Z"}, ["value"], [["1795376001000000000", 0, 31.5]], id="at a moment",
        ),
        pytest.param({"at": "2026-11-22T19:34:00Z", "lookback": "30s"}, ["value"], [], id="nothing as new"),
    ],
)  # fmt: skip
async def test_readings_as_people_ask_for_them(
    admin: httpx.AsyncClient, question: dict[str, str], columns: list[str], rows: list[list[object]]
) -> None:
    """Each parameter reaches its meaning; what there is none of is null."""
    answer = await get(admin, "/v1/readings", match="pump-2/temperature", **question)

    assert answer["columns"] == ["time_ns", "series", *columns]
    assert answer["rows"] == rows
    assert answer["next"] is None


@pytest.mark.asyncio
async def test_buckets_are_paged_without_gap_or_double(admin: httpx.AsyncClient) -> None:
    """Following `next` gives every bucket once, in order."""
    question = {"match": "pump-2", "bucket": "1s", "agg": "last", "limit": 1, "from": str(T0)}
    answer = await get(admin, "/v1/readings", **question)
    rows, pages = answer["rows"], 1
    while answer["next"] is not None:
        answer = await get(admin, "/v1/readings", **question, page=answer["next"])
        rows, pages = rows + answer["rows"], pages + 1

    assert rows == [[str(T0), 1, 20.5], [str(T0), 0, str(2**60)], [str(T0 + S), 1, 31.5], [str(T0 + 61 * S), 1, 22.5]]
    assert pages > 2


@pytest.mark.asyncio
async def test_history_waits_for_the_store_and_says_when_it_is_behind(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """History never silently leaves out what was acked before the question."""
    hub.streams.head += 1
    hub.consumer.is_behind = True

    response = await admin.get("/v1/readings", params={"last": "1h"})

    assert (response.status_code, response.json()["error"]["reason"]) == (503, "unavailable")


@pytest.mark.asyncio
async def test_export_streams_every_reading(admin: httpx.AsyncClient) -> None:
    """The file holds the readings of the range in time order."""
    response = await admin.get("/v1/export", params={"match": "**", "format": "csv"})

    lines = response.text.splitlines()
    assert response.headers["content-type"].startswith("text/csv")
    assert lines[0] == "device,channel,time,time_unix_ms,value,unit"
    assert lines[1] == "pump-2,temperature,2026-11-22T19:33:20Z,1795376000000,20.5,Cel"
    assert len(lines) == 6


@pytest.mark.asyncio
async def test_slow_questions_leave_threads_to_others(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """However many are asked, what a command or a sign-in needs a thread for goes on."""
    go_on, read, revisions = threading.Event(), hub.store.read, hub.store.revisions
    versions: list[int] = []
    all_asked, loop = asyncio.Event(), asyncio.get_running_loop()

    def noted(series: Any) -> Any:
        versions.append(len(series))
        if len(versions) == 40:
            loop.call_soon_threadsafe(all_asked.set)
        return revisions(series)

    def slow(*args: Any, **kwargs: Any) -> Any:
        assert go_on.wait(60)
        return read(*args, **kwargs)

    hub.store.read, hub.store.revisions = slow, noted  # type: ignore[method-assign]
    asked = [asyncio.create_task(admin.get("/v1/readings", params={"limit": n})) for n in range(1, 41)]
    await all_asked.wait()
    await asyncio.wait_for(asyncio.to_thread(int), 10)
    go_on.set()

    assert {response.status_code for response in await asyncio.gather(*asked)} == {200}


@pytest.mark.asyncio
async def test_a_file_ends_while_devices_go_on(hub: HubParts) -> None:
    """It holds what there was when it was asked for, however slowly it is taken."""
    session = hub.connect("pump-2")
    call = Call(hub, Identity("t0", "tests", Role.ADMIN), {}, ("**",))
    response = await export(call, ExportQuery(match=["pump-2/temperature"]))
    assert isinstance(response, StreamingResponse)
    pieces = 0
    async for _ in response.body_iterator:
        pieces += 1
        hub.feed(session, ("temperature", T0 + (100 + pieces) * S, 1.0))
        assert pieces < 10


@pytest.mark.asyncio
async def test_a_scale_holds_for_a_whole_file_or_not_at_all(hub: HubParts) -> None:
    """What is set while a file is written holds for the next one."""
    session = hub.connect("pump-2")
    for begin in (100, 10_000):
        hub.feed(session, *(("temperature", T0 + (begin + at) * S, 1.0) for at in range(7500)))
    call = Call(hub, Identity("t0", "tests", Role.ADMIN), {}, ("**",))
    asked = ExportQuery.model_validate({"match": ["pump-2/temperature"], "from": str(T0 + 100 * S)})
    response = await export(call, asked)
    assert isinstance(response, StreamingResponse)
    pieces = aiter(response.body_iterator)
    lines: list[Any] = [await anext(pieces), await anext(pieces)]
    hub.metadata.change(Edit(SeriesKey("default", "pump-2", "temperature"), {"scale": 2.0}), "admin")
    hub.describe()
    lines += [piece async for piece in pieces]

    values = [line.split(",")[4] for line in b"".join(map(bytes, lines)).decode().splitlines()[1:]]
    assert values == ["1.0"] * 15_000


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"from": "0001-01-01T00:00:00Z", "to": "9999-12-31T00:00:00Z"}, 200),
        ({"last": "99999999999999w"}, 200),
        ({"page": "9999999999999999999"}, 200),
        ({"bucket": "9999999999999999w"}, 400),
        ({"from": "0001-01-01T00:00:00Z", "to": "9999-12-31T00:00:00Z", "points": "1"}, 200),
        ({"from": "0001-01-01T00:00:00Z", "to": "9999-12-31T00:00:00Z", "bucket": "292y", "fill": "linear"}, 200),
        ({"at": "9999-12-31T00:00:00Z", "lookback": "99999999999999w"}, 200),
        ({"order": "desc", "page": "-9223372036854775808"}, 200),
    ],
)
async def test_numbers_beyond_64_bits_are_answered(
    admin: httpx.AsyncClient, query: dict[str, str], status: int
) -> None:
    """A range wider than time itself is all there is; a bucket that long is the asker's mistake, not the hub's."""
    response = await admin.get("/v1/readings", params=query)

    assert response.status_code == status


@pytest.mark.asyncio
async def test_history_as_columns(admin: httpx.AsyncClient) -> None:
    """Readings and buckets come as Arrow or Parquet when asked for; single readings only from the export."""
    readings = await admin.get("/v1/export", params={"match": "pump-2", "format": "arrow"})
    minutes = {"match": "pump-2", "bucket": "1m", "from": str(T0)}
    buckets = await admin.get("/v1/readings", params=minutes | {"format": "parquet"})
    lines = await admin.get("/v1/readings", params=minutes | {"format": "csv"})
    page = await admin.get("/v1/readings", params=minutes | {"format": "csv", "limit": 1})
    single = await admin.get("/v1/readings", params={"match": "pump-2", "format": "arrow"})

    assert readings.headers["content-type"] == "application/vnd.apache.arrow.stream"
    assert readings.headers["etag"]
    assert ipc.open_stream(readings.content).read_all()["value_int"].to_pylist() == [None, 2**60, None, None]
    assert buckets.headers["content-disposition"].endswith('"readings.parquet"')
    assert parquet.read_table(io.BytesIO(buckets.content)).num_rows == 3
    assert len(lines.text.splitlines()) == 4
    assert "next-page" not in lines.headers
    assert page.headers["next-page"] == str((T0 // 60 // S + 1) * 60 * S)
    assert (single.status_code, single.json()["error"]["reason"]) == (400, "bad_request")
