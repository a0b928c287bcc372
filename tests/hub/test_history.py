"""Parameters that do not go together are refused with the way out; what is left out has a sensible meaning."""

from collections.abc import Callable

import pytest

from hub.devices import Registry
from hub.errors import BadRequestError
from hub.history import MAX_POINTS, History
from hub.query import Answer, Query
from tests.support.frames import T0, FrameMaker, numbered
from tests.support.memory_store import MemoryStore

S = 10**9
NOW = T0 + 100 * S
Ask = Callable[..., Answer]


@pytest.fixture
def ask() -> Ask:
    """Return a function that asks of two sensors: 0 … 9 at T0 … T0 + 9 s, and 5 at T0 + 60 s; now is T0 + 100 s."""
    store, maker = MemoryStore(), FrameMaker()
    maker.find("a", "x")
    readings = [("x", T0 + at * S, float(at)) for at in range(10)]
    frames = numbered([maker.batch("a", readings), maker.batch("b", [("x", T0 + 60 * S, 5.0)])])
    store.write(frames)
    query = Query(Registry(maker.all_series()), store)

    def answer(match: str = "**", **parameters: object) -> Answer:
        return History(**parameters).answer(query, query.series("default", [match]), NOW)  # type: ignore[arg-type]

    return answer


def times(answer: Answer) -> list[int]:
    """Return the seconds since T0 of the rows."""
    return [(int(str(row[0])) - T0) // S for row in answer.rows]


def test_without_buckets_it_is_readings(ask: Ask) -> None:
    """A thousand by default, oldest first."""
    assert times(ask()) == [*range(10), 60]
    assert times(ask(limit=2, descending=True)) == [60, 9]


def test_buckets_end_with_the_newest_reading_unless_they_are_filled(ask: Ask) -> None:
    """What is empty behind is said only by who asks for it: until now, or until the end that is given."""
    start = str(T0)

    assert times(ask("b", start=start, bucket="20s")) == [60]
    assert times(ask("b", start=start, bucket="20s", fill="null")) == [0, 20, 40, 60, 80]
    assert times(ask("b", start=start, end=str(T0 + 140 * S), bucket="20s", fill="0")) == list(range(0, 140, 20))
    assert times(ask("b", last="100s", bucket="20s", fill="null", descending=True)) == [80, 60, 40, 20, 0]
    assert ask("b", start=str(T0 + 90 * S), bucket="20s").rows == []


def test_a_clock_that_is_far_ahead_stretches_no_chart() -> None:
    """What is a little ahead of now is in; what is years ahead is in no answer that ends now."""
    store, maker = MemoryStore(), FrameMaker()
    ahead = [("x", NOW + at * S, 1.0) for at in (-10, 30, 10**8)]
    store.write(numbered([maker.batch("a", ahead)]))
    query = Query(Registry(maker.all_series()), store)
    series = query.series("default", [])

    chart = History(last="60s", points=6, agg="count").answer(query, series, NOW)
    filled = History(last="60s", bucket="20s", agg="count", fill="null").answer(query, series, NOW)
    plain = History(last="60s", bucket="20s", agg="count").answer(query, series, NOW)

    assert (times(chart), [row[2] for row in chart.rows]) == ([80, 120], [1, 1])
    assert [row[2] for row in filled.rows] == [0, 0, 1, 0, 1, 0]
    assert sum(int(str(row[2])) for row in plain.rows) == 3


def test_buckets_are_paged(ask: Ask) -> None:
    """``next`` begins where the page ended; ``avg`` is asked for unless something else is."""
    first = ask("a", bucket="3s", limit=2)
    second = ask("a", bucket="3s", limit=2, page=first.next_page)

    assert first.columns == ("time_ns", "series", "avg")
    assert (len(first.rows), len(second.rows)) == (2, 2)
    assert sorted(first.rows + second.rows) == ask("a", bucket="3s").rows


def test_points_divide_the_range(ask: Ask) -> None:
    """At most as many as asked for, of equal length from the beginning; least and greatest are exact."""
    found = ask("a", start=str(T0), end=str(T0 + 10 * S), points=3)

    assert found.columns == ("time_ns", "series", "min", "max", "first", "last")
    assert [row[2:] for row in found.rows] == [(0, 3, 0, 3), (4, 6, 4, 6), (7, 9, 7, 9)]
    assert [row[0] for row in found.rows] == [T0, T0 + 3_333_333_334, T0 + 6_666_666_668]


def test_points_of_no_range_are_of_the_readings(ask: Ask) -> None:
    """From the oldest to the newest; of a range up to now, nothing newer is made up."""
    assert times(ask(points=2, agg="count")) == [0, 30]
    assert times(ask(last="100s", points=4, agg="count")) == [0, 50]
    assert ask("a", start=str(T0 + 50 * S), points=4).rows == []


def test_a_moment_has_the_last_reading_by_then(ask: Ask) -> None:
    """One row a series, with its own time; not older than the look-back, if there is one."""
    assert times(ask(at=str(T0 + 70 * S))) == [9, 60]
    assert times(ask(at=str(T0 + 5 * S + 1))) == [5]
    assert times(ask(at=str(T0 + 5 * S))) == [5]
    assert times(ask(at=str(T0 + 70 * S), lookback="30s")) == [60]
    assert ask(at=str(T0 - 1)).rows == []
    assert ask(at="now", received=True).columns == ("time_ns", "series", "value", "received_ns")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"at": "now", "last": "1h"}, "leave out last"),
        ({"at": "now", "bucket": "1h"}, "leave out last"),
        ({"at": "now", "limit": 5}, "leave out last"),
        ({"lookback": "1h"}, "add at"),
        ({"bucket": "1m", "points": 5}, "either bucket or points"),
        ({"tz": "UTC"}, "add bucket"),
        ({"points": 5, "tz": "UTC"}, "add bucket"),
        ({"agg": "min"}, "add bucket or points"),
        ({"fill": "null"}, "add bucket or points"),
        ({"bucket": "1m", "received": True}, "leave out bucket"),
        ({"bucket": "1m", "fill": "null"}, "add last, or from"),
        ({"bucket": "1m", "agg": "median"}, "'median'"),
        ({"bucket": "1m", "limit": 0}, "limit 0"),
        ({"bucket": "1x"}, "15m"),
        ({"bucket": "1d", "tz": "Mars/Olympus", "start": str(T0 + 1000 * S)}, "no time zone"),
        ({"points": 0}, "points 0: use 1 to"),
        ({"points": MAX_POINTS + 1}, "use 1 to"),
        ({"points": 5, "page": "1"}, "leave out page"),
        ({"points": 5, "limit": 10}, "leave out page and limit"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused(ask: Ask, parameters: dict[str, object], words: str) -> None:
    """The message says what to leave out, to add or to use."""
    with pytest.raises(BadRequestError, match=words):
        ask(**parameters)


def test_points_of_too_many_series_are_refused() -> None:
    """One answer holds 100,000 rows; the message says what would fit."""
    maker = FrameMaker()
    for number in range(11):
        maker.find(f"d{number}", "x")
    query = Query(Registry(maker.all_series()), MemoryStore())

    with pytest.raises(BadRequestError, match="10000 points of 11 series"):
        History(last="1h", points=10_000).answer(query, query.series("default", []), NOW)


def test_points_of_dropped_time_are_of_whole_minutes() -> None:
    """No more of them than were asked for, from sums and readings alike; the answer says from when readings are
    there, and leaves out the first of each, which nobody knows."""
    hour = 3600 * S
    begin = T0 // hour * hour
    store, maker = MemoryStore(), FrameMaker()
    store.write(numbered([maker.batch("a", [("x", begin + n * 60 * S, float(n)) for n in range(600)])]))
    query, now = Query(Registry(maker.all_series()), store), begin + 10 * hour
    series = query.series("default", ["**"])
    asked = History(start=str(begin + 30 * S), points=100)
    before = asked.answer(query, series, now)
    assert before.raw_from_ns is None

    store.drop_before([1], begin + 5 * hour)
    after = asked.answer(query, series, now)

    assert after.columns == ("time_ns", "series", "min", "max", "last")
    assert 80 <= len(after.rows) <= 100
    assert {(int(str(row[0])) - begin) % (60 * S) for row in after.rows} == {0}
    assert (after.rows[0][2], after.rows[-1][3]) == (0.0, 599.0)
    assert after.raw_from_ns == begin + 5 * hour
    assert History(start=str(begin)).answer(query, series, now).raw_from_ns == begin + 5 * hour
    assert History(start=str(begin + 6 * hour), points=9).answer(query, series, now).columns == before.columns
    assert History(at=str(begin + hour)).answer(query, series, now).raw_from_ns == begin + 5 * hour
    assert History(points=100).answer(query, series, now).rows[0][2] == 0.0
    assert len(History(bucket="1m").answer(query, series, now).rows) == 600
