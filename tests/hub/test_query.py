"""Questions are read strictly, answered in pages, and never show what was not granted."""

from dataclasses import replace
from functools import partial

import pytest

from device_sdk.columns import Column
from device_sdk.reading import Channel, ValueType
from hub.bucket_page import Question
from hub.devices import Registry
from hub.errors import BadRequestError
from hub.grid import even_grid
from hub.model import Frame, Kind, SeriesColumn, StreamKey
from hub.query import MAX_LIMIT, Query, iso_time, parse_duration, parse_time, time_range
from tests.support.memory_store import MemoryStore

S = 10**9
T0 = 1_790_000_000 * S
NOW = T0 + 1000 * S
CUT = partial(even_grid, 0, 5 * S)


@pytest.fixture
def query() -> Query:
    """Devices a-2 and a-10 with channel x (ten readings each, at the same seconds) and a-2 with channel y."""
    registry, store = Registry(()), MemoryStore()
    for device in ("a-10", "a-2"):
        registry.declare("default", device, [Channel("x", "Cel", ValueType.FLOAT), Channel("y")])
    registry.declare("other", "a-2", [Channel("x")])
    frames = []
    for offset, device in enumerate(("a-10", "a-2"), 1):
        series = registry.devices[("default", device)].channels["x"]
        column = SeriesColumn(series, Column("x", list(range(10)), [float(n) for n in range(10)]))
        key = StreamKey("default", device, "00" * 8)
        frames.append(Frame(key, 1, Kind.BATCH, NOW, b"", b"", T0, S, (column,), 10, offset=offset))
    store.write(frames)
    registry.apply(frames)
    return Query(registry, store)


def test_series_are_matched_granted_and_in_natural_order(query: Query) -> None:
    """Only the caller's namespace, only what is asked for, only what is granted."""
    found = query.series("default", ["**/x"])

    assert [(s.namespace, s.device) for s in found] == [("default", "a-2"), ("default", "a-10")]
    assert [s.device for s in query.series("default", ["**/x"], ["a-10/**"])] == ["a-10"]
    assert query.series("nobody", ["**"]) == []


def test_pages_give_every_row_once(query: Query) -> None:
    """Ascending or descending, pages end at time borders: no row twice, none left out."""
    series = query.series("default", ["**/x"])
    for descending in (False, True):
        rows, page = [], None
        for _ in range(30):
            answer = query.readings(series, 0, NOW, 3, descending=descending, page=page)
            rows += answer.rows
            page = answer.next_page
            if page is None:
                break

        times = [int(str(row[0])) for row in rows]
        assert page is None
        assert len(rows) == len(set(rows)) == 20
        assert times == sorted(times, reverse=descending)


def test_buckets_answer_one_row_a_bucket_and_series(query: Query) -> None:
    """Buckets carry the functions in the order asked for."""
    question = Question(query.series("default", ["a-2/x"]), T0, T0 + 10 * S, CUT, ("max", "count"))
    answer = query.buckets(question, 100, None, descending=False)

    assert answer.columns == ("time_ns", "series", "max", "count")
    assert answer.rows == [(T0, 0, 4.0, 5), (T0 + 5 * S, 0, 9.0, 5)]
    assert query.buckets(replace(question, series=[]), 100, None, descending=False).rows == []


def test_newest_and_oldest_are_of_any_series(query: Query) -> None:
    """Where nothing is known in memory the store says it; of no readings there is neither."""
    series = query.series("default", ["**/x"])

    assert (query.newest_ns(series), query.oldest_ns(series, T0 + 1, NOW)) == (T0 + 9 * S, T0 + S)
    assert (query.newest_ns([]), query.oldest_ns(series, 0, T0)) == (None, None)


def test_latest_names_series_that_have_a_reading(query: Query) -> None:
    """A channel that was declared and never read has no latest value."""
    found = query.latest(query.series("default", ["a-2"]))

    assert [(s.channel, t, v) for s, t, v in found] == [("x", T0 + 9 * S, 9.0)]


def test_bad_questions_are_refused_with_the_way_out(query: Query) -> None:
    """Each refusal says what may be asked."""
    series = query.series("default", ["**"])
    for limit in (0, MAX_LIMIT + 1):
        with pytest.raises(BadRequestError, match="limit"):
            query.readings(series, 0, 1, limit, descending=False, page=None)
        with pytest.raises(BadRequestError, match="limit"):
            query.buckets(Question(series, 0, 1, CUT, ("avg",)), limit, None, descending=False)
    with pytest.raises(BadRequestError, match="page"):
        query.readings(series, 0, 1, 1, descending=False, page="next")
    with pytest.raises(BadRequestError, match="page"):
        query.buckets(Question(series, 0, 1, CUT, ("avg",)), 1, "next", descending=False)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("250ms", 250 * 10**6),
        ("90s", 90 * S),
        ("1.5h", 5400 * S),
        ("-15m", 900 * S),
        ("7d", 604_800 * S),
        ("4.1s", 4_100_000_000),
        ("2.3h", 8280 * S),
    ],
)
def test_durations_are_read_exactly(text: str, nanoseconds: int) -> None:
    """A number and a unit; the sign in front is only a habit."""
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("now", NOW),
        ("-15m", NOW - 900 * S),
        ("1790000000", T0),
        ("1790000000000", T0),
        (str(T0 + 1), T0 + 1),
        ("2026-09-21T14:13:20Z", T0),
        ("2026-09-21T16:13:20.000000001+02:00", T0 + 1),
        ("1969-12-31T23:59:59.5Z", -S // 2),
        ("2026-09-21T14:13:20,25Z", T0 + S // 4),
        ("20260921T141320.25Z", T0 + S // 4),
    ],
)
def test_times_are_read_to_the_nanosecond(text: str, time_ns: int) -> None:
    """RFC 3339 with up to nine digits, an epoch by its size, or relative to now."""
    assert parse_time(text, NOW) == time_ns


@pytest.mark.parametrize("text", ["yesterday", "2026-09-21T14:13:20", "12h", "", "2026-13-01T00:00:00Z"])
def test_times_that_would_be_a_guess_are_refused(text: str) -> None:
    """No zone, no date, no number: no answer."""
    with pytest.raises(BadRequestError):
        parse_time(text, NOW)


def test_time_range_takes_last_or_both_ends() -> None:
    """``last`` reaches to the newest reading; mixing it with from or to is refused."""
    assert time_range(None, None, "1h", NOW)[0] == NOW - 3600 * S
    assert time_range("-2h", "-1h", None, NOW) == (NOW - 7200 * S, NOW - 3600 * S)
    with pytest.raises(BadRequestError, match="either"):
        time_range("-2h", None, "1h", NOW)
    with pytest.raises(BadRequestError, match="before"):
        time_range("-1h", "-2h", None, NOW)


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (T0, "2026-09-21T14:13:20Z"),
        (T0 + 5 * 10**6, "2026-09-21T14:13:20.005Z"),
        (T0 + 1000, "2026-09-21T14:13:20.000001Z"),
        (T0 + 1, "2026-09-21T14:13:20.000000001Z"),
    ],
)
def test_iso_time_has_as_many_digits_as_it_needs(time_ns: int, text: str) -> None:
    """What is written reads back as the same instant."""
    assert iso_time(time_ns) == text
    assert parse_time(text, 0) == time_ns


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("9999-12-31T00:00:00Z", 2**63 - 1),
        ("0001-01-01T00:00:00Z", -(2**63)),
        ("9999999999999999999", 2**63 - 1),
        ("-99999999999999w", -(2**63)),
    ],
)
def test_times_beyond_64_bits_are_the_first_or_the_last(text: str, time_ns: int) -> None:
    """A time no store can hold asks for everything up to there; it is no error."""
    assert parse_time(text, 0) == time_ns
