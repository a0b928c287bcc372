"""Pages of buckets are what the definitions say, reading by reading, wherever ranges, buckets and pages begin."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from statistics import stdev
from typing import Literal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.reading import Value, ValueType
from hub.aggregate import FUNCTIONS
from hub.bucket_page import BucketPages, Question
from hub.description import ChannelDescription
from hub.errors import BadRequestError
from hub.grid import even_grid, grid_of
from hub.model import Series
from tests.support.frames import FrameMaker, numbered
from tests.support.memory_store import MemoryStore

S = 10**9
HOUR = 3600 * S
DAY = 24 * HOUR
BRUSSELS = ZoneInfo("Europe/Brussels")
Readings = list[tuple[int, Value]]
Numbers = list[tuple[int, float]]
Row = tuple[Value | None, ...]


class CountingStore(MemoryStore):
    """Counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.aggregates = 0
        self.reads = 0

    def aggregate(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        """Count, then answer."""
        self.aggregates += 1
        return super().aggregate(*args, **kwargs)

    def read(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        """Count, then answer."""
        self.reads += 1
        return super().read(*args, **kwargs)


def world(*channels: Readings, **described: object) -> tuple[CountingStore, list[Series]]:
    """Return a store and the series of channels c0, c1, …, described alike."""
    store, maker = CountingStore(), FrameMaker()
    names = [f"c{i}" for i in range(len(channels))]
    found = [maker.find("pump", name) for name in names]
    for series in found:
        series.described = ChannelDescription(**described)  # type: ignore[arg-type]
    frames = [
        maker.batch("pump", [(name, at, value) for at, value in readings])
        for name, readings in zip(names, channels, strict=True)
        if readings
    ]
    store.write(numbered(frames))
    return store, found


def everything(store: MemoryStore, question: Question, limit: int = 10**6, *, descending: bool = False) -> list[Row]:
    """Follow the pages to the end; each holds at least the limit, but for the last."""
    rows: list[Row] = []
    page: int | None = None
    for _ in range(1000):
        found, following = BucketPages(store, question, store).page(limit, page, descending=descending)
        rows += found
        if following is None:
            return rows
        assert len(found) >= limit
        page = int(following)
    raise AssertionError("the pages do not end")


def defined(name: str, numbers: Numbers, low: int, high: int, is_counter: bool) -> float | None:
    """Return an aggregate of [low, high) by its definition; ``numbers`` are all that the series ever had."""
    values = [value for at, value in numbers if low <= at < high]
    before = [reading for reading in numbers if reading[0] < low][-1:]
    chain = [*before, *((at, value) for at, value in numbers if low <= at < high)]
    if name in ("integral", "integral_h", "twa"):
        return of_lines(name, numbers, low, high, values)
    if not values:
        return 0 if name == "count" else None
    seconds = (chain[-1][0] - chain[0][0]) / S
    increase = sum(b - a if b >= a else max(b, 0) for (_, a), (_, b) in pairwise(chain))
    change = increase if is_counter else chain[-1][1] - chain[0][1]
    simple: dict[str, Callable[[], float | None]] = {
        "min": lambda: min(values), "max": lambda: max(values), "count": lambda: len(values),
        "sum": lambda: sum(values), "mean": lambda: sum(values) / len(values), "avg": lambda: sum(values) / len(values),
        "first": lambda: values[0], "last": lambda: values[-1], "increase": lambda: increase,
        "std": lambda: stdev(map(float, values)) if len(values) > 1 else None,
        "rate": lambda: change / seconds if seconds else None,
    }  # fmt: skip
    return simple[name]()


def of_lines(name: str, numbers: Numbers, low: int, high: int, values: list[float]) -> float | None:
    """Return the integral of the lines between readings as far as they are in [low, high), or their mean."""
    area = covered = 0.0
    for (t0, v0), (t1, v1) in pairwise(numbers):
        begin, end = max(t0, low), min(t1, high)
        if begin < end:
            at_begin, at_end = (v0 + (v1 - v0) * ((t - t0) / (t1 - t0)) for t in (begin, end))
            area += (at_begin + at_end) / 2 * (end - begin) / S
            covered += (end - begin) / S
    if name == "twa":
        return area / covered if covered else (values[0] if values else None)
    return None if not covered else area / (1 if name == "integral" else 3600)


def shown(numbers: Readings, scale: float, offset: float) -> Numbers:
    """Return the numbers of a series as they are shown; text is left out."""
    return [(at, value * scale + offset) for at, value in sorted(dict(numbers).items()) if not isinstance(value, str)]


VALUES = st.one_of(st.integers(-50, 50), st.floats(-100, 100), st.booleans(), st.just("text"))
READINGS = st.lists(st.tuples(st.integers(-30, 60).map(lambda s: s * S), VALUES), max_size=25)


@given(
    st.lists(READINGS, min_size=1, max_size=3),
    st.integers(1, 25),
    st.integers(-20, 20),
    st.tuples(st.integers(-25, 20), st.integers(1, 50)),
    st.booleans(),
    st.sampled_from([(1.0, 0.0), (0.5, 3.0)]),
    st.integers(1, 9),
    st.booleans(),
)
def test_every_aggregate_is_as_defined(
    channels: list[Readings], step: int, origin: int, span: tuple[int, int], is_counter: bool,
    scaling: tuple[float, float], limit: int, descending: bool,
) -> None:  # fmt: skip
    """Of any readings, in any buckets, of counters and gauges, scaled or not, in pages of any size, either way."""
    start, end = span[0] * S, sum(span) * S
    kind = "counter" if is_counter else "gauge"
    store, series = world(*channels, kind=kind, scale=scaling[0], offset=scaling[1])
    cut = partial(even_grid, origin * S, step * S)
    question = Question(series, start, end, cut, FUNCTIONS)
    expected = []
    edges = cut(start, end).edges(0, cut(start, end).count)
    # A counter falls where what is stored does: with an offset that is not where what is shown falls below 0.
    stored = [shown(channel, 1, 0) for channel in channels]
    numbers = [shown(channel, *scaling) for channel in channels]
    for low, high in pairwise(edges):
        for i in range(len(channels)):
            bounds = (max(low, start), min(high, end))
            values = [
                defined(name, stored[i] if name in ("increase", "rate") else numbers[i], *bounds, is_counter)
                for name in FUNCTIONS
            ]
            if any(value is not None for name, value in zip(FUNCTIONS, values, strict=True) if name != "count"):
                expected.append((low, i, *values))

    found = everything(store, question, limit, descending=descending)

    if descending:
        found.reverse()
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    for row, known in zip(found, expected, strict=True):
        for name, value, right in zip(FUNCTIONS, row[2:], known[2:], strict=True):
            scale = scaling[0] if name in ("increase", "rate") else 1
            expect = None if right is None else pytest.approx(right * scale, rel=1e-9, abs=1e-6)
            assert value == expect, name


def test_an_increase_goes_on_over_buckets_and_resets() -> None:
    """The rise from the reading before belongs to where the later one arrived; after a reset it begins at 0."""
    store, series = world([(0, 10), (9 * S, 12), (21 * S, 15), (22 * S, 4)], kind="counter")
    cut = partial(even_grid, 0, 10 * S)

    rows = everything(store, Question(series, 5 * S, 30 * S, cut, ("increase", "rate", "count")))

    assert rows == [(0, 0, 2.0, 2 / 9, 1), (20 * S, 0, 7.0, 7 / 13, 2)]


def test_watts_become_watt_hours_also_where_nothing_was_read() -> None:
    """A kilowatt from 0:30 to 3:30 is half an hour of it, two whole ones, and half a one."""
    store, series = world([(HOUR // 2, 1000.0), (7 * HOUR // 2, 1000.0)])
    question = Question(series, 0, 4 * HOUR, partial(even_grid, 0, HOUR), ("integral_h", "twa", "mean", "count"))

    assert everything(store, question) == [
        (0, 0, 500.0, 1000.0, 1000.0, 1), (HOUR, 0, 1000.0, 1000.0, None, 0), (2 * HOUR, 0, 1000.0, 1000.0, None, 0),
        (3 * HOUR, 0, 500.0, 1000.0, 1000.0, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fill", "means"),
    [
        pytest.param(None, {10: 4.0, 40: 1.0}, id="none"),
        pytest.param("null", {0: None, 10: 4.0, 20: None, 30: None, 40: 1.0, 50: None}, id="null"),
        pytest.param("previous", {0: 8.0, 10: 4.0, 20: 4.0, 30: 4.0, 40: 1.0, 50: 1.0}, id="previous"),
        pytest.param("linear", {0: 6.0, 10: 4.0, 20: 3.0, 30: 2.0, 40: 1.0, 50: 3.0}, id="linear"),
        pytest.param(-1.0, {0: -1.0, 10: 4.0, 20: -1.0, 30: -1.0, 40: 1.0, 50: -1.0}, id="a number"),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 100])
@pytest.mark.parametrize("descending", [False, True])
def test_fill(fill: str | float | None, means: dict[int, float | None], limit: int, descending: bool) -> None:
    """Neighbours beside the range and beside a page count; a count of nothing is 0."""
    store, series = world([(-5 * S, 8.0), (12 * S, 4.0), (41 * S, 0.0), (43 * S, 2.0), (60 * S, "x"), (69 * S, 5.0)])
    question = Question(series, 0, 60 * S, partial(even_grid, 0, 10 * S), ("mean", "count"), fill)

    rows = everything(store, question, limit, descending=descending)

    counts = {10: 1, 40: 2}
    expected = [(at * S, 0, mean, counts.get(at, 0)) for at, mean in means.items()]
    assert rows == (expected[::-1] if descending else expected)


@pytest.mark.parametrize("upto", [2, 20, 21, 99])
@pytest.mark.parametrize("fill", ["previous", "linear"])
@pytest.mark.parametrize("first", [0, 5])
@pytest.mark.parametrize("descending", [False, True])
def test_fill_is_as_before_the_drop(
    fill: Literal["previous", "linear"], upto: int, first: int, descending: bool
) -> None:
    """Neighbours that were dropped count as before, wherever ranges and pages begin."""
    store, series = world([(h * HOUR, float(h)) for h in (0, 1, 2, 20, 22, 50)])
    question = Question(series, first * HOUR, 30 * HOUR, partial(even_grid, 0, HOUR), ("mean",), fill)
    before = everything(store, question, descending=descending)
    while store.drop_before([1], upto * HOUR):
        pass

    for limit in (1, 5, 100):
        assert everything(store, question, limit, descending=descending) == before


def test_a_year_of_local_days_is_a_handful_of_questions() -> None:
    """Two sensors, every hour for a year, by days of Brussels: 23, 24 and 25 hours, as counted one by one."""
    begin = datetime(2026, 1, 1, tzinfo=BRUSSELS)
    start, end = (int(t.timestamp()) * S for t in (begin, begin.replace(year=2027)))
    sensors: list[Readings] = [[(t, float((t // S * k) % 977)) for t in range(start, end, HOUR)] for k in (7, 11)]
    store, series = world(*sensors)
    by_day: dict[tuple[int, int], list[float]] = {}
    for i, readings in enumerate(sensors):
        for t, value in readings:
            midnight = datetime.fromtimestamp(t // S, BRUSSELS).replace(hour=0, minute=0, second=0)
            by_day.setdefault((int(midnight.timestamp()) * S, i), []).append(float(value))

    cut = partial(grid_of, "1d", "Europe/Brussels")
    rows = everything(store, Question(series, start, end, cut, ("count", "min", "max", "sum")))

    assert rows == [(*key, len(of), min(of), max(of), sum(of)) for key, of in sorted(by_day.items())]
    assert {row[2] for row in rows} == {23, 24, 25}
    assert (store.aggregates, store.reads) == (5, 0)


def test_empty_years_are_passed_over() -> None:
    """Seconds since 1970, of which three hold a reading, cost some questions and no gigabytes, either way."""
    now = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp()) * S
    store, series = world([(now, 1.0), (now + 5 * S, 2.0), (now + DAY, 3.0)])
    question = Question(series, 0, now + DAY + 1, partial(grid_of, "1s", None), ("last",))

    for descending in (False, True):
        rows = everything(store, question, 10, descending=descending)

        assert [row[2] for row in rows] == ([3.0, 2.0, 1.0] if descending else [1.0, 2.0, 3.0])
    assert store.aggregates + store.reads < 60


def test_a_channel_of_text_is_not_searched_for_numbers() -> None:
    """What lies beside a range of it is not read: it may be years."""
    store, series = world([(at, "text") for at in range(5000)])
    series[0].type = ValueType.STR
    question = Question(series, 5000, 6000, partial(even_grid, 0, 1000), ("rate", "twa"), "linear")

    assert everything(store, question) == [(5000, 0, None, None)]
    assert store.reads == 0


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_what_was_dropped_is_not_passed_over(limit: int, descending: bool) -> None:
    """After empty time come the sums of readings that are no longer there, as the readings did."""
    store, series = world(
        [*((5 * DAY + at * HOUR, 1.0) for at in range(3)), *((at * DAY, 2.0) for at in (8, 30, 31))],
        [(9 * DAY, 1.0), (31 * DAY, 2.0)],
    )
    question = Question(series, 0, 32 * DAY, partial(grid_of, "1m", None), ("count", "max"))
    before = everything(store, question, limit, descending=descending)
    dropped = store.drop_before([1, 2], 29 * DAY)

    assert dropped == 5
    assert len(before) == 8
    assert everything(store, question, limit, descending=descending) == before


def test_the_last_of_dropped_readings_is_still_known() -> None:
    """What a counter rose since, and the line from it: a range that begins where readings do lacks nothing."""
    store, series = world([(at * 1000 * S, at * 3.0) for at in range(40)], kind="counter")
    question = Question(series, 5 * HOUR, 9 * HOUR, partial(grid_of, "1h", None), ("increase", "rate", "integral"))
    before = everything(store, question)
    store.drop_before([1], 5 * HOUR)

    assert store.raw_from([1]) == {1: 5 * HOUR}
    assert everything(store, question) == before


@pytest.mark.parametrize("fill", ["previous", "linear"])
def test_the_neighbours_of_a_range_may_have_been_dropped(fill: str) -> None:
    """What their sums say is shown as their readings were; what sums do not know is null."""
    store, series = world([(DAY, 1.0), (2 * DAY + HOUR, 3.0), (8 * DAY, 5.0), (20 * DAY, 9.0)])
    question = Question(series, 3 * DAY, 6 * DAY, partial(grid_of, "1d", None), ("mean", "last"), fill)
    unknown = replace(question, functions=("std", "first"))
    before = everything(store, question)
    store.drop_before([1], 10 * DAY)

    assert everything(store, question) == before
    assert before[0][2] == (3.0 if fill == "previous" else pytest.approx(3.0 + 2.0 / 6))
    with pytest.raises(BadRequestError, match="by the minute"):
        everything(store, unknown)
    assert everything(store, replace(unknown, start_ns=10 * DAY, end_ns=11 * DAY)) == [(10 * DAY, 0, None, None)]


@pytest.mark.parametrize("descending", [False, True])
def test_an_integral_since_1970_begins_with_the_first_reading(descending: bool) -> None:
    """Nothing is to be said before it; from then on each bucket has its share, also those between readings."""
    now = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp()) * S
    store, series = world([(now, 1.0), (now + 100 * S, 1.0)])
    question = Question(series, 0, now + 100 * S, partial(grid_of, "1s", None), ("integral",))

    rows = everything(store, question, 7, descending=descending)

    rows.sort()
    assert [row[:2] for row in rows] == [(now + i * S, 0) for i in range(100)]
    assert [row[2] for row in rows] == pytest.approx([1.0] * 100)
    assert store.aggregates < 40


@pytest.mark.parametrize("upto", [0, 1010, 1080, 9999])
@pytest.mark.parametrize("descending", [False, True])
def test_no_sum_is_passed_over_behind_empty_buckets(descending: bool, upto: int) -> None:
    """Buckets of dropped readings come in every page as before the drop, also where no reading is left between."""
    hours = [*range(1000, 1020), *range(1060, 1090), 5000]
    store, series = world([(h * HOUR, float(h)) for h in hours], [(1500 * HOUR, 1.0), (1800 * HOUR, 2.0)])
    while store.drop_before([1, 2], upto * HOUR):
        pass
    question = Question(series, -4000 * HOUR, 6000 * HOUR, partial(even_grid, 0, HOUR), ("count",))

    rows = everything(store, question, 5, descending=descending)

    found = [row[0] // HOUR for row in rows if row[1] == 0]  # type: ignore[operator]
    assert found == (hours[::-1] if descending else hours)
    assert len(rows) == len(hours) + 2


def test_a_page_is_bounded_by_buckets_of_all_series() -> None:
    """A page ends where a bucket does: more than its limit by the other series of that bucket, and no more."""
    readings: Readings = [(at * S, 1.0) for at in range(50)]
    store, series = world(*[readings] * 4)
    question = Question(series, 0, 50 * S, partial(even_grid, 0, S), ("count",))

    rows, following = BucketPages(store, question).page(6, None, descending=False)
    back, preceding = BucketPages(store, question).page(6, None, descending=True)

    assert (len(rows), following) == (8, str(2 * S))
    assert (len(back), preceding) == (8, str(48 * S))


def test_days_of_a_place_for_local_averages() -> None:
    """Kathmandu's day begins at 18:15 UTC."""
    noon = int(datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()) * S
    store, series = world([(noon + h * HOUR, float(h)) for h in range(24)])
    cut = partial(grid_of, "1d", "Asia/Kathmandu")

    rows: Sequence[Row] = everything(store, Question(series, noon, noon + DAY, cut, ("min", "max")))

    midnight = datetime(2026, 6, 1, tzinfo=ZoneInfo("Asia/Kathmandu"))
    starts = [int((midnight + timedelta(days=d)).timestamp()) * S for d in (0, 1)]
    assert rows == [(starts[0], 0, 0.0, 6.0), (starts[1], 0, 7.0, 23.0)]
