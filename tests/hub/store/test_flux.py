"""What is asked of InfluxDB 2.x, to the letter, and what is made of its annotated CSV; no such server runs here."""

import json
from collections.abc import Iterator

import pytest

from hub.errors import StoreError
from hub.store.flux import FluxEngine, records_of
from hub.store.influx import parse_address
from hub.store.line_protocol import SeriesName
from tests.support.recorder import Recorder

NAME = SeriesName("default", "pump-1", "t")
OTHER = SeriesName("default", "pump-1", "n")
WHERE = 'r._measurement == "reading" and r.channel == "t" and r.device == "pump-1" and r.namespace == "default"'
ROWS = """#datatype,string,long,dateTime:RFC3339,long,double,long,boolean,string\r
#group,false,false,false,false,false,false,false,false\r
#default,0,,,,,,,\r
,result,table,_time,kind,value,value_int,value_bool,value_str\r
,,0,1970-01-01T00:00:00.000000001Z,1,-0,5,,\r
,,0,2026-11-26T18:13:20Z,2,,9007199254740993,,\r
,,0,1969-12-31T23:59:59.9Z,3,,,true,\r
,,0,2026-11-26T18:13:20.5Z,4,,,,"a ""b"",\nc"\r
,,0,2026-11-26T18:13:20.6Z,4,,,,\r
\r
#datatype,string,long,dateTime:RFC3339,long,long\r
#group,false,false,false,false,false\r
#default,1,,,,\r
,result,table,_time,kind,value_int\r
,,0,1970-01-01T00:00:01Z,2,7\r
\r
"""
COUNTS = """#datatype,string,long,long\r
#group,false,false,false\r
#default,,,\r
,result,table,_value\r
,1,0,3\r
"""


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """A server that records."""
    with Recorder() as server:
        yield server


@pytest.fixture
def engine(recorder: Recorder) -> Iterator[FluxEngine]:
    """An engine with a token."""
    engine = FluxEngine(parse_address(f"influxdb2+{recorder.url}/readings?org=farm"), "s3cret", timeout_s=5)
    yield engine
    engine.close()


def question(recorder: Recorder) -> str:
    """Return the Flux of the only request."""
    ((path, query, authorization, body),) = recorder.requests
    assert (path, query, authorization) == ("/api/v2/query", {"org": "farm"}, "Token s3cret")
    asked = json.loads(body)
    assert asked["type"] == "flux"
    assert asked["dialect"] == {"header": True, "annotations": ["datatype", "group", "default"]}
    found: str = asked["query"]
    return found


def test_write_is_one_request(engine: FluxEngine, recorder: Recorder) -> None:
    """The body goes as it is, in nanoseconds, to the bucket of the organisation, under the token."""
    engine.write(b"reading,channel=t kind=1i,value=1.0 5")

    where = {"org": "farm", "bucket": "readings", "precision": "ns"}
    assert recorder.requests == [("/api/v2/write", where, "Token s3cret", b"reading,channel=t kind=1i,value=1.0 5")]


def test_read(engine: FluxEngine, recorder: Recorder) -> None:
    """All series in one request, each under its number; each type comes back as it was, times to the nanosecond."""
    recorder.answer = (200, ROWS)

    found = engine.read([NAME, OTHER], -(2**63), 10, 7)

    first, second = question(recorder).split("\n")
    assert first == (
        'from(bucket: "readings") |> range(start: time(v: -9223372036854775806), stop: time(v: 10)) '
        f"|> filter(fn: (r) => {WHERE}) |> limit(n: 7) "
        '|> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value") '
        '|> keep(columns: ["_time", "kind", "value", "value_int", "value_bool", "value_str"]) '
        '|> sort(columns: ["_time"], desc: false) |> limit(n: 7) |> yield(name: "0")'
    )
    assert 'r.channel == "n"' in second
    assert second.endswith('yield(name: "1")')
    t = 1_795_716_800 * 10**9
    assert [[(at, repr(value)) for at, value in rows] for rows in found] == [
        [(1, "-0.0"), (t, "9007199254740993"), (-(10**8), "True"), (t + 5 * 10**8, repr('a "b",\nc')),
         (t + 6 * 10**8, "''")],
        [(10**9, "7")],
    ]  # fmt: skip


def test_read_backwards(engine: FluxEngine, recorder: Recorder) -> None:
    """The last rows of each field are enough for the last rows."""
    recorder.answer = (200, "\r\n")

    assert engine.read([NAME], 0, 10, 7, descending=True) == [[]]
    assert "|> tail(n: 7) |> pivot" in question(recorder)
    assert question(recorder).endswith('sort(columns: ["_time"], desc: true) |> limit(n: 7) |> yield(name: "0")')


def test_empty_range_is_not_asked_for(engine: FluxEngine, recorder: Recorder) -> None:
    """The server would answer an error."""
    assert engine.read([NAME], 10, 10, 7) == [[]]
    assert recorder.requests == []


def test_buckets(engine: FluxEngine, recorder: Recorder) -> None:
    """A question for each function; the first window, cut by the range, is the bucket that began before."""
    recorder.answer = (
        200,
        """#datatype,string,long,dateTime:RFC3339,double\r
#group,false,false,false,false\r
#default,0,,,\r
,result,table,_time,_value\r
,,0,1970-01-01T00:00:00.000000001Z,2\r
,,0,1970-01-01T00:00:00.000000055Z,2.5\r
\r
#datatype,string,long,dateTime:RFC3339,long\r
#group,false,false,false,false\r
#default,1,,,\r
,result,table,_time,_value\r
,,0,1970-01-01T00:00:00.000000001Z,3\r
,,0,1970-01-01T00:00:00.000000055Z,4\r
""",
    )

    found = engine.buckets([NAME], 1, 120, 60, -5, ["avg", "count"])

    first, second = question(recorder).split("\n")
    window = 'aggregateWindow(every: 60ns, offset: 55ns, fn: {}, createEmpty: false, timeSrc: "_start")'
    assert f'{WHERE} and r._field == "value") |> {window.format("mean")} |> yield(name: "0")' in first
    assert f'{window.format("count")} |> yield(name: "1")' in second
    assert repr(found) == "[[(-5, (2.0, 3)), (55, (2.5, 4))]]"


def test_count(engine: FluxEngine, recorder: Recorder) -> None:
    """A row has one kind; a series without rows has no answer, and 0."""
    recorder.answer = (200, COUNTS)

    assert engine.count([NAME, OTHER]) == [0, 3]
    assert f'{WHERE} and r._field == "kind") |> count() |> yield(name: "0")' in question(recorder)


def test_delete(engine: FluxEngine, recorder: Recorder) -> None:
    """A request of its own, over all of time, for the series alone."""
    engine.delete(NAME)

    ((path, query, _, body),) = recorder.requests
    assert (path, query) == ("/api/v2/delete", {"org": "farm", "bucket": "readings"})
    assert json.loads(body) == {
        "start": "1677-09-21T00:12:43.145224194Z",
        "stop": "2262-04-11T23:47:16.854775806Z",
        "predicate": '_measurement="reading" AND channel="t" AND device="pump-1" AND namespace="default"',
    }


def test_errors(engine: FluxEngine, recorder: Recorder) -> None:
    """A status, and an error that comes in the middle of an answer, say what the server said; never the token."""
    recorder.answer = (404, {"code": "not found", "message": "could not find bucket"})
    with pytest.raises(StoreError, match="404: could not find bucket") as found:
        engine.count([NAME])
    assert "s3cret" not in str(found.value)

    text = "#datatype,string,string\r\n#group,true,true\r\n#default,,\r\n,error,reference\r\n,out of memory,7\r\n"
    with pytest.raises(StoreError, match="out of memory"):
        list(records_of(text))
    with pytest.raises(StoreError, match="no annotated CSV"):
        list(records_of("<html>\r\n<body>\r\n"))
