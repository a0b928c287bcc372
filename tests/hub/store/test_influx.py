"""What is asked of InfluxDB, to the byte, and what is made of its answers; `tests/contract` asks real servers."""

from collections.abc import Iterator
from urllib.parse import parse_qs

import pytest

from hub.errors import ConfigError, StoreError
from hub.store.influx import Address, InfluxEngine, parse_address
from hub.store.line_protocol import SeriesName
from hub.store.remote import RefusedLinesError
from tests.support.recorder import Recorder

NAME = SeriesName("default", "pump-1", "t")
TAGS = "channel='t' AND device='pump-1' AND namespace='default'"
FIELDS = "kind, value, value_int, value_bool, value_str"


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """A server that records."""
    with Recorder() as server:
        yield server


@pytest.fixture
def engine(recorder: Recorder) -> Iterator[InfluxEngine]:
    """An engine with a token."""
    address = parse_address(f"influxdb+{recorder.url}/readings?org=farm")
    engine = InfluxEngine(address, "s3cret", timeout_s=5)
    yield engine
    engine.close()


def questions(recorder: Recorder) -> list[str]:
    """Return what was asked in the last request, statement by statement."""
    path, _, _, body = recorder.requests[-1]
    assert path == "/query"
    form = parse_qs(body.decode())
    assert (form["db"], form["epoch"]) == (["readings"], ["ns"])
    return form["q"][0].split(";")


def test_address() -> None:
    """The scheme says how, the path which database, the query whose."""
    assert parse_address("influxdb+https://h:1/db?org=o") == Address("https://h:1", "db", "o")
    assert parse_address("influxdb+http://h/db") == Address("http://h", "db", "-")
    assert parse_address("influxdb2+http://h/my%20bucket?org=o") == Address("http://h", "my bucket", "o", True)


@pytest.mark.parametrize(
    "text",
    [
        "influxdb+http://h:8086", "influxdb://h/db", "influxdb+http://h/a/b", "influxdb+http://u:p@h/db",
        "influxdb2+http://h/bucket", "influxdb3+http://h/db", "influxdb+http://h/db?token=u:p",
    ],
)  # fmt: skip
def test_address_that_cannot_be(text: str) -> None:
    """It says what to write instead, and shows no password."""
    with pytest.raises(ConfigError, match="store") as found:
        parse_address(text)
    assert "u:p" not in str(found.value)


def test_write_is_one_request(engine: InfluxEngine, recorder: Recorder) -> None:
    """The body goes as it is, with its precision, to the bucket of the organisation, under the token."""
    engine.write(b"reading,channel=t kind=1i,value=1.0 5")

    assert recorder.requests == [
        (
            "/api/v2/write",
            {"org": "farm", "bucket": "readings", "precision": "ns"},
            "Token s3cret",
            b"reading,channel=t kind=1i,value=1.0 5",
        )
    ]


@pytest.mark.parametrize(
    ("status", "kind"), [(400, RefusedLinesError), (413, RefusedLinesError), (422, RefusedLinesError),
                         (401, StoreError), (404, StoreError), (429, StoreError), (503, StoreError)]
)  # fmt: skip
def test_refusal_is_told_from_trouble(
    engine: InfluxEngine, recorder: Recorder, status: int, kind: type[StoreError]
) -> None:
    """What is in the lines is halved and set aside; all else is tried again. The token is in no message."""
    recorder.answer = (status, {"code": "x", "message": "unable to parse s3"})
    with pytest.raises(StoreError, match=f"{status}: unable to parse") as found:
        engine.write(b"x")

    assert type(found.value) is kind
    assert "s3cret" not in str(found.value)


@pytest.mark.parametrize("status", [401, 403])
def test_wrong_token_is_told(engine: InfluxEngine, recorder: Recorder, status: int) -> None:
    """With the setting it comes by; one that may write and not read is told as well."""
    recorder.answer = (status, {"code": "unauthorized", "message": "unauthorized access"})

    for work in (lambda: engine.write(b"x"), lambda: engine.count([NAME])):
        with pytest.raises(StoreError, match=f"{status}: unauthorized access .*HUB_STORE_TOKEN") as found:
            work()
        assert type(found.value) is StoreError


@pytest.mark.parametrize(
    ("said", "dropped"),
    [
        ("partial write: field type conflict: input field value is type float dropped=20", 20),
        ("partial write: points beyond retention policy dropped=1", 1),
        ("unable to parse 'reading,channel=dropped=3 '", None),
        ("partial write: dropped=3 of them: unable to parse", None),
    ],
)
def test_refusal_says_of_how_many(engine: InfluxEngine, recorder: Recorder, said: str, dropped: int | None) -> None:
    """So that lines which are all refused need no halving."""
    recorder.answer = (400, f'{{"error":"{said}"}}')

    with pytest.raises(RefusedLinesError) as found:
        engine.write(b"x")

    assert found.value.dropped == dropped


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "Client sent an HTTP request to an HTTPS server.\n"),
        (400, "<html><h1>400 Bad Request</h1></html>"),
        (422, "[]"),
        (200, "<html>Please sign in</html>"),
        (202, ""),
    ],
)
def test_answer_of_somebody_else_to_a_write(engine: InfluxEngine, recorder: Recorder, status: int, said: str) -> None:
    """A proxy, or a port that wants TLS, neither takes lines nor refuses any: they are sent again."""
    recorder.answer = (status, said)

    with pytest.raises(StoreError, match=f"{status}.*is the address right") as found:
        engine.write(b"x")

    assert type(found.value) is StoreError


def test_read(engine: InfluxEngine, recorder: Recorder) -> None:
    """One statement a series, the range closed, in the order asked for; each type comes back as it was."""
    rows = [
        [1, 1, 5, None, None, None], [2, 2, 0.5, 9007199254740993, None, None], [3, 3, None, None, True, None],
        [4, 4, None, None, None, "x"],
    ]  # fmt: skip
    recorder.answer = (200, {"results": [{"series": [{"values": rows}]}, {}]})

    found = engine.read([NAME, NAME], -(2**63), 10, 7, descending=True)

    assert (
        questions(recorder)
        == [
            f"SELECT {FIELDS} FROM reading WHERE {TAGS} AND time >= -9223372036854775806 AND time <= 9 "
            "ORDER BY time DESC LIMIT 7"
        ]
        * 2
    )
    assert [[(at, repr(value)) for at, value in rows] for rows in found] == [
        [(1, "5.0"), (2, "9007199254740993"), (3, "True"), (4, "'x'")], []
    ]  # fmt: skip


def test_negative_zero_keeps_its_sign(engine: InfluxEngine, recorder: Recorder) -> None:
    """The server writes it as -0, which is a whole number to most who read it."""
    recorder.answer = (200, '{"results":[{"series":[{"values":[[1,1,-0,null,null,null]]}]}]}')

    assert repr(engine.read([NAME], 0, 10, 7)) == "[[(1, -0.0)]]"


def test_buckets(engine: InfluxEngine, recorder: Recorder) -> None:
    """Buckets from any origin; whole numbers in an answer are floats, but for counts."""
    recorder.answer = (200, {"results": [{"series": [{"values": [[60, 2, 3]]}]}]})

    found = engine.buckets([NAME], 0, 120, 60, -5, ["avg", "count"])

    assert questions(recorder) == [
        f"SELECT mean(value), count(value) FROM reading WHERE {TAGS} AND time >= 0 AND time <= 119 "
        "GROUP BY time(60ns, 55ns) fill(none)"
    ]
    assert repr(found) == "[[(60, (2.0, 3))]]"


def test_count_and_delete(engine: InfluxEngine, recorder: Recorder) -> None:
    """Of the series alone."""
    recorder.answer = (200, {"results": [{"series": [{"values": [[0, 3]]}]}, {}]})

    assert engine.count([NAME, NAME]) == [3, 0]
    engine.delete(NAME)
    assert questions(recorder) == [f"DELETE FROM reading WHERE {TAGS}"]


def test_error_inside_an_answer_is_an_error(engine: InfluxEngine, recorder: Recorder) -> None:
    """It comes with status 200."""
    recorder.answer = (200, {"results": [{"error": "database not found: readings"}]})

    with pytest.raises(StoreError, match="database not found"):
        engine.count([NAME])


def test_answer_that_was_cut_is_an_error(engine: InfluxEngine, recorder: Recorder) -> None:
    """With ``max-row-limit`` a server leaves rows out, and says so beside them."""
    recorder.answer = (200, {"results": [{"series": [{"values": [[0, 3]], "partial": True}]}]})

    with pytest.raises(StoreError, match="max-row-limit"):
        engine.count([NAME])


@pytest.mark.parametrize("said", ["<html>", "[]", "{}", '{"results":null}'])
def test_answer_of_somebody_else_is_an_error(engine: InfluxEngine, recorder: Recorder, said: str) -> None:
    """Of a proxy's page of success, too."""
    recorder.answer = (200, said)

    with pytest.raises(StoreError, match="is this InfluxDB"):
        engine.count([NAME])


@pytest.mark.parametrize("status", [302, 307, 308])
def test_redirects_are_not_followed(engine: InfluxEngine, recorder: Recorder, status: int) -> None:
    """Readings and token go to the address that was given, and to no other."""
    recorder.answer, recorder.headers = (status, ""), {"Location": f"{recorder.url}/elsewhere"}

    with pytest.raises(StoreError, match=str(status)):
        engine.write(b"x")
    with pytest.raises(StoreError, match=str(status)):
        engine.count([NAME])
    assert [path for path, *_ in recorder.requests] == ["/api/v2/write", "/query"]


def test_fleet_is_asked_in_parts(engine: InfluxEngine, recorder: Recorder) -> None:
    """A hundred series a request."""
    recorder.answer = (200, {"results": [{}] * 100})
    engine.count([NAME] * 200)

    assert [len(parse_qs(body.decode())["q"][0].split(";")) for *_, body in recorder.requests] == [100, 100]


def test_server_that_is_not_there(recorder: Recorder) -> None:
    """It says where it looked; closing is harmless, twice, and what comes after is an error."""
    engine = InfluxEngine(Address("http://127.0.0.1:1", "db", "-"), timeout_s=5)
    for work in (lambda: engine.write(b"x"), lambda: engine.count([NAME])):
        with pytest.raises(StoreError, match=r"127\.0\.0\.1:1 cannot be reached"):
            work()
    engine.close()
    engine.close()
    with pytest.raises(StoreError, match="closed"):
        engine.count([NAME])
