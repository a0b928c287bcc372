"""The page's pure modules, called in the browser: words for values, and the buffer of readings."""

import random
from typing import Any

import pytest

from hub.unit import unit_shown
from tests.browser.conftest import OpenTab, Tab


@pytest.fixture
def tab(open_tab: OpenTab) -> Tab:
    """A tab in which modules can be imported."""
    return open_tab()


def call(tab: Tab, module: str, body: str, argument: Any = None) -> Any:
    """Import a module as ``m`` and return the value of ``body``, in which ``a`` is the argument."""
    return tab.page.evaluate(f"async (a) => {{ const m = await import('/page/{module}.js'); {body} }}", argument)


@pytest.mark.parametrize(
    ("value", "unit", "kind", "shown"),
    [
        (21.456, "Cel", "float", "21.46 °C"),
        (-0.004, "Cel", "float", "0.00 °C"),
        (-3.5, "Cel", "float", "−3.50 °C"),
        (45.04, "%RH", "float", "45.0 %"),
        (2.0, "furlong", "float", "2.00 furlong"),
        (617.4, "ppm", "float", "617 ppm"),
        (12345, None, "int", "12,345 "),
        (0.00123, "V", "float", "0.00 V"),
        (0.00123, "kg", "float", "0.0012 kg"),
        (3 * 1024**3, "By", "int", "3.00 GiB"),
        (True, None, "bool", "on "),
        ("idle", None, "str", "idle "),
    ],
)
def test_values_are_written_for_people(tab: Tab, value: object, unit: str | None, kind: str, shown: str) -> None:
    """Units as people write them, fitting digits, a real minus, never "−0.0"."""
    argument = {"value": value, "channel": {"unit": unit, "unit_shown": unit_shown(unit), "type": kind}}

    text = call(tab, "format", "const v = m.valueText(a.value, a.channel); return `${v.text} ${v.unit}`;", argument)

    assert text == shown


def test_decimals_that_a_person_set_are_shown(tab: Tab) -> None:
    """Neither the unit's habit nor a narrow place takes any of them away."""
    body = "return [m.valueText(21.4567, a, 1).text, m.valueText(3, { ...a, type: 'int' }).text];"

    assert call(tab, "format", body, {"unit": "Cel", "type": "float", "decimals": 3}) == ["21.457", "3.000"]


def test_filter_knows_sites_tags_and_labels(tab: Tab) -> None:
    """Sites and tags are whole words, as the hub chooses by them; a label is a name; a mark switches its word."""
    body = """
      const device = { name: 'greenhouse-1', label: 'North House', site: 'North', tags: ['tomatoes', 'old'],
                       state: 'online', channels: [] };
      return [a.map((text) => m.matches(m.parseFilter(text), device)), m.toggleWord('x site:n', 'site:n'),
              m.toggleWord('x', 'tag:t')];
    """
    words = ["site:north", "site:nor", "site:nor*", "tag:old", "tag:old,new", "tag:new", "-tag:new", "house-1", "north"]

    matched = call(tab, "filter", body, words)

    assert matched == [[True, False, True, True, True, False, True, True, True], "x", "x tag:t"]


def test_buffer_is_an_ordered_set_of_instants(tab: Tab) -> None:
    """Any order of arrival gives the same readings; the same instant twice is one, the later value wins."""
    random.seed(7)
    arrivals = [(random.randrange(3000), float(n)) for n in range(5000)]
    body = """
      const buffer = new m.SeriesBuffer(5000);
      for (const [time, value] of a) buffer.upsert(time, value);
      return [...buffer.times.subarray(buffer.start, buffer.end)].map((t, i) => [t, buffer.values[buffer.start + i]]);
    """

    held = call(tab, "buffer", body, arrivals)

    assert [tuple(pair) for pair in held] == sorted(dict(arrivals).items())


def test_buffer_is_bounded(tab: Tab) -> None:
    """A million readings leave at most twice the limit, the newest; what was forgotten is known."""
    body = """
      const buffer = new m.SeriesBuffer(1000);
      for (let t = 0; t < 1e6; t++) buffer.upsert(t, t);
      return { length: buffer.length, memory: buffer.times.length, last: buffer.lastTime, forgotten: buffer.forgotten,
               first: buffer.times[buffer.start] };
    """

    held = call(tab, "buffer", body)

    assert held["length"] <= 2000
    assert held["memory"] <= 2000
    assert held["last"] == 999_999
    assert held["first"] == held["forgotten"] + 1


def test_gaps_are_where_three_intervals_pass(tab: Tab) -> None:
    """Neighbours further apart than the gap are not joined; a silent end is a gap; before the first reading is not."""
    body = """
      const s = 1e9, times = Float64Array.from([10, 11, 12, 20, 21, 30].map((t) => t * s));
      const view = { kind: 'raw', times, values: times, gap: 3 * s };
      return { gaps: m.gapsOf(view, 0, 40 * s).map((g) => [g.from / s, g.to / s, g.kind]), lone: m.isolated(view) };
    """

    found = call(tab, "view", body)

    assert found["gaps"] == [[0, 10, "before"], [12, 20, "gap"], [21, 30, "gap"], [30, 40, "gap"]]
    assert found["lone"] == [5]


def test_envelope_keeps_the_newest_buckets_while_history_arrives(tab: Tab) -> None:
    """Raw readings on their way take nothing from the hub's buckets; once they have caught up, they continue them."""
    body = """
      const { SeriesBuffer } = await import('/page/buffer.js');
      const { fromEpoch } = await import('/page/clock.js');
      const base = fromEpoch('1700000000000000000'), S = 1e9;
      const envelope = new m.Envelope('d', base, null, 5000);
      const starts = Float64Array.from({ length: 24 }, (_, i) => base + i * 5 * S);
      const ones = new Float64Array(24).fill(1);
      envelope._channels.set('c', { starts, avg: ones, min: ones, max: ones, counts: ones });
      envelope.loadedAt = base + 120 * S;
      const raw = new SeriesBuffer(1000);
      return a.map((until) => {
        for (let s = raw.length; s <= until; s++) raw.upsert(base + s * S, 2);
        const { times, counts } = envelope.view('c', raw, S);
        return [(times.at(-1) - base) / S, times.length, counts.reduce((sum, count) => sum + count)];
      });
    """

    seen = call(tab, "envelope", body, [20, 100, 119, 130])

    # 24 buckets of the hub end at 120 s; the last 60 s of them are unsettled, then made from raw readings.
    assert seen == [[117.5, 24, 24], [117.5, 24, 24], [117.5, 24, 12 + 60], [132.5, 27, 12 + 71]]


def test_hours_on_the_axis_follow_the_wall_clock(tab: Tab) -> None:
    """On the day of the change to summer time, ticks stay on full local hours and each day is named once."""
    body = """
      const clock = await import('/page/clock.js');
      const from = clock.fromMs(Date.parse('2026-03-28T15:30:00Z'));
      const { step, ticks } = m.timeTicks(from, from + 24 * 3600e9, 500);
      return m.tickTexts(ticks, step, true);
    """

    texts = call(tab, "axis", body)

    assert texts == ["18:00\nMar 28", "21:00", "00:00\nMar 29", "03:00", "06:00", "09:00", "12:00", "15:00"]
