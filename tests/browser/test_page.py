"""The page in Chromium against a real hub: what a person sees and may rely on."""

import itertools
import re
import time

from playwright.sync_api import expect

from tests.browser.conftest import HOT, PHONE, OpenTab, Tab, World
from tests.support.hub_process import HubProcess

STEP_NS = 100_000_000
# Of the 1 h range.
BUCKET_NS = 5_000_000_000
# Pixels of the first chart that have a colour: lines and fills, not axes and grid, which are grey.
COUNT_COLOURED = """() => {
  const canvas = document.querySelector('.card canvas');
  if (!canvas) return 0;
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let i = 0; i < data.length; i += 4) {
    const [r, g, b, a] = data.subarray(i, i + 4);
    if (a > 200 && Math.max(r, g, b) - Math.min(r, g, b) > 60) count++;
  }
  return count;
}"""
# Names in the list in the very frame in which the first chart appears.
LIST_AT_FIRST_CHART = """() => new Promise((done) => {
  const look = () => (window.__page?.drawn(0) ? done(window.__page.shown()) : requestAnimationFrame(look));
  look();
})"""
SIDEWAYS = "() => document.documentElement.scrollWidth > innerWidth || document.body.scrollWidth > innerWidth"


def held(tab: Tab, channel: str = "temperature") -> list[tuple[int, float]]:
    """Return what the page holds of a channel."""
    readings = tab.ask(f"readings('{channel}')")
    return list(zip(map(int, readings["times"]), readings["values"], strict=True))


def stored(hub: HubProcess, device: str, channel: str, first_ns: int, last_ns: int) -> list[tuple[int, float]]:
    """Return what the hub holds of a channel in [first, last]."""
    path = f"/v1/readings?match={device}/{channel}&from={first_ns}&to={last_ns + 1}&limit=100000"
    return [(int(row[0]), row[2]) for row in hub.get(path)["rows"]]


def check_whole(tab: Tab, hub: HubProcess, device: str) -> None:
    """The page holds each reading of its window once, as the hub stored it, with no step beyond the interval."""
    page = held(tab)
    steps = {after[0] - before[0] for before, after in itertools.pairwise(page)}
    assert steps == {STEP_NS}
    limit = time.monotonic() + 10
    while (rows := stored(hub, device, "temperature", page[0][0], page[-1][0])) != page:
        assert time.monotonic() < limit, f"page: {len(page)} readings, store: {len(rows)}, of the same window"


def test_first_chart_is_drawn(open_tab: OpenTab) -> None:
    """Without login on loopback the page draws; no other host is asked, no error logged (the fixture checks)."""
    tab = open_tab().live()

    tab.page.wait_for_function(f"({COUNT_COLOURED})() > 300")
    expect(tab.page.locator("#connection-word")).to_have_text("Live")
    expect(tab.page.locator("#connection-detail")).to_have_text(re.compile(r"ms$"))
    expect(tab.page.locator("#device")).to_have_text("greenhouse-1")
    expect(tab.page.locator(".card h3").first).to_have_text("Temperature°C")
    expect(tab.page.locator(".tile .number").first).to_have_text(re.compile(r"^\d\d\.\d\d$"))


def test_history_and_live_join_without_a_gap(open_tab: OpenTab, world: World) -> None:
    """90 s of history and what came since are one row of readings: none missing, none twice, equal to a query."""
    tab = open_tab("#device=greenhouse-2&range=5m").live()
    joined = len(held(tab))

    tab.wait(f"page.readings('temperature').times.length > {joined + 30}")

    assert joined >= 890
    check_whole(tab, world.hub, "greenhouse-2")


def test_list_is_in_natural_order(open_tab: OpenTab) -> None:
    """greenhouse-2 stands before greenhouse-10, each with value, unit and words for a screen reader."""
    tab = open_tab().live()

    tab.wait("page.shown().join(' ') === 'greenhouse-1 greenhouse-2 greenhouse-10 oven-1 pump-1'")
    row = tab.page.locator("#device-pump-1")
    expect(row.locator(".unit")).to_have_text("°C")
    expect(row).to_have_attribute("aria-label", re.compile(r"^pump-1, Online, Temperature \d\d\.\d °C$"))


def test_filter(open_tab: OpenTab) -> None:
    """Words are joined by 'and'; state and channel are keys; a chip is the same as its word; mistakes are named."""
    tab = open_tab().live()
    field = tab.page.locator("#filter")

    for text, names in {
        "green -10": ["greenhouse-1", "greenhouse-2"],
        "*-1": ["greenhouse-1", "oven-1", "pump-1"],
        "channel:hum pump": ["pump-1"],
        "state:alert": [HOT],
        "state:offline": [],
    }.items():
        field.fill(text)
        tab.wait(f"page.shown().join(' ') === '{' '.join(names)}'")
    field.fill("colour:red")
    expect(tab.page.locator("#shown")).to_have_text("unknown filter colour:")
    field.fill("")
    tab.page.locator("#chip-alert").click()
    tab.wait(f"page.shown().join() === '{HOT}'")
    expect(field).to_have_value("state:alert")
    tab.page.locator("#chip-alert").click()
    tab.wait("page.shown().length === 5")


def test_alert_is_said_in_words(open_tab: OpenTab) -> None:
    """A value outside its normal range: badge, reason, count and colour, never colour alone."""
    tab = open_tab(f"#device={HOT}").live()

    expect(tab.page.locator("#badge")).to_have_text(re.compile("Alert"))
    expect(tab.page.locator("#facts")).to_contain_text("Temperature above 30 °C")
    expect(tab.page.locator("#count-alert")).to_have_text("1")
    expect(tab.page.locator(f"#device-{HOT} .sub")).to_have_text("above 30 °C")


def test_pause_and_resume(open_tab: OpenTab, world: World) -> None:
    """Paused, charts stand still and new readings are counted while tiles go on; resumed, nothing is missing."""
    tab = open_tab("#range=1m").live()
    tab.page.keyboard.press("Space")
    tab.wait("page.isPaused()")
    tab.frame()
    window, drawn, value = (
        tab.ask("window()"),
        tab.ask("drawn(0)"),
        tab.page.locator(".tile .number").first.text_content(),
    )

    expect(tab.page.locator("#pause-text")).to_have_text(re.compile(r"^Resume · ([4-9]\d|\d{3}) new$"))
    expect(tab.page.locator(".tile .number").first).not_to_have_text(value or "")
    assert tab.ask("window()") == window
    assert tab.ask("drawn(0)") == drawn

    tab.page.locator("#pause").click()
    tab.wait(f"!page.isPaused() && BigInt(page.window()[1]) > {window[1]}n && page.drawn(0).times.length > 500")
    expect(tab.page.locator("#pause-text")).to_have_text("Pause")
    check_whole(tab, world.hub, "greenhouse-1")


def test_drag_zooms_and_double_click_returns(open_tab: OpenTab) -> None:
    """A stretch drawn with the pointer is shown alone and stays; a double click goes back to live."""
    tab = open_tab("#range=1m").live()
    box = tab.page.locator(".card .u-over").first.bounding_box()
    assert box is not None

    tab.page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 40)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 60, steps=5)
    tab.page.mouse.up()
    tab.wait("page.isPaused()")
    first, last = map(int, tab.ask("window()"))
    assert 13e9 < last - first < 17e9
    tab.wait("page.drawn(0).times.length < 200")
    tab.page.mouse.dblclick(box["x"] + 100, box["y"] + 50)
    tab.wait("!page.isPaused()")


def test_address_keeps_what_is_shown(open_tab: OpenTab) -> None:
    """Device, range, filter and a paused window survive a reload: the same readings are drawn again."""
    tab = open_tab("#device=greenhouse-10&range=1m&filter=green").live()
    tab.page.keyboard.press("Space")
    tab.wait("page.isPaused() && location.hash.includes('to=')")
    tab.frame()
    window, drawn = tab.ask("window()"), tab.ask("drawn(0)")

    tab.page.reload()
    tab.live()

    assert tab.ask("device()") == "greenhouse-10"
    tab.wait("page.shown().join(' ') === 'greenhouse-1 greenhouse-2 greenhouse-10'")
    # The address holds milliseconds.
    assert all(abs(int(a) - int(b)) <= 1_000_000 for a, b in zip(window, tab.ask("window()"), strict=True))
    tab.wait(f"page.drawn(0).times.length >= {len(drawn['times']) - 2}")
    # What was still on its way when the window was frozen may have arrived meanwhile.
    again = [time for time in tab.ask("drawn(0)")["times"][1:] if int(time) <= int(drawn["times"][-1])]
    assert again == drawn["times"][-len(again) :]
    assert len(again) >= len(drawn["times"]) - 2


def test_long_range_is_an_envelope(open_tab: OpenTab, world: World) -> None:
    """Beyond raw readings, buckets hold minimum and maximum, up to the newest reading, each reading in one bucket."""
    tab = open_tab("#device=pump-1&range=1h").live()
    tab.wait(
        "page.drawn(0).kind === 'envelope' && page.drawn(0).times.length > 10"
        " && BigInt(page.readings('temperature').times.at(-1)) - BigInt(page.drawn(0).times.at(-1)) < 10_000_000_000n"
    )

    # One look: readings go on arriving between two.
    drawn, readings = tab.page.evaluate("() => [window.__page.drawn(0), window.__page.readings('temperature')]")

    buckets: dict[int, list[float]] = {}
    for time_ns, value in zip(map(int, readings["times"]), readings["values"], strict=True):
        buckets.setdefault(time_ns // BUCKET_NS * BUCKET_NS + BUCKET_NS // 2, []).append(value)
    folded = [(middle, min(values), max(values), len(values)) for middle, values in buckets.items()]
    rows = list(zip(map(int, drawn["times"]), drawn["min"], drawn["max"], drawn["counts"], strict=True))
    # The newest bucket is still filling, and readings may have come since it was drawn.
    assert rows[:-1] == folded[: len(rows) - 1]
    assert rows[-1][0] in buckets


def test_theme_follows_the_system_and_keeps_a_choice(open_tab: OpenTab) -> None:
    """Light where the system is light; the toggle's choice outlives a reload; going back follows the system again."""
    tab = open_tab(color_scheme="light").live()
    background = "() => getComputedStyle(document.body).backgroundColor"
    assert tab.page.evaluate(background) == "rgb(244, 246, 248)"

    tab.page.locator("#theme").click()
    assert tab.page.evaluate(background) == "rgb(10, 13, 18)"
    tab.page.reload()
    tab.live()
    assert tab.page.evaluate(background) == "rgb(10, 13, 18)"
    tab.page.keyboard.press("t")
    assert tab.page.evaluate(background) == "rgb(244, 246, 248)"
    tab.page.emulate_media(color_scheme="dark")
    assert tab.page.evaluate(background) == "rgb(10, 13, 18)"


def test_keyboard(open_tab: OpenTab) -> None:
    """/ searches, arrows walk through the list, digits choose the range, ? helps; no key is taken from a field."""
    tab = open_tab("#device=greenhouse-1").live()

    tab.page.keyboard.press("ArrowDown")
    tab.wait("page.device() === 'greenhouse-2'")
    tab.page.keyboard.press("2")
    expect(tab.page.locator("[data-range='5m']")).to_have_attribute("aria-pressed", "true")
    tab.page.keyboard.press("/")
    tab.page.keyboard.type("pump 1")
    expect(tab.page.locator("#filter")).to_have_value("pump 1")
    assert not tab.ask("isPaused()")
    tab.page.keyboard.press("Escape")
    tab.page.keyboard.press("?")
    expect(tab.page.locator("#help")).to_be_visible()
    tab.page.keyboard.press("Escape")
    expect(tab.page.locator("#help")).to_be_hidden()


def test_list_is_there_with_the_first_chart(open_tab: OpenTab) -> None:
    """An arrow pressed as soon as a chart is seen finds a list to walk through, however long the next texts take."""
    tab = open_tab()

    shown = tab.page.evaluate(LIST_AT_FIRST_CHART)

    assert len(shown) == 5


def test_phone(open_tab: OpenTab) -> None:
    """The list first, a device replaces it, back returns; nothing scrolls sideways; targets are 44 px or more."""
    tab = open_tab(viewport=PHONE, has_touch=True, is_mobile=True)
    tab.wait("page.shown().length === 5")
    expect(tab.page.locator("#watch")).to_be_hidden()
    assert not tab.page.evaluate(SIDEWAYS)
    expect(tab.page.locator("#device-pump-1")).to_contain_text("pump-1", use_inner_text=True)
    assert tab.page.locator("#device-pump-1").bounding_box()["height"] >= 44  # type: ignore[index]

    tab.page.locator("#device-pump-1").tap()
    tab.live()
    expect(tab.page.locator(".rail")).to_be_hidden()
    assert tab.ask("device()") == "pump-1"
    assert not tab.page.evaluate(SIDEWAYS)
    for control in ("#back", "#pause", "#ranges button >> nth=0", "#theme"):
        box = tab.page.locator(control).bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 44, control
    tab.page.go_back()
    expect(tab.page.locator(".rail")).to_be_visible()
    tab.page.set_viewport_size({"width": 320, "height": 640})
    assert not tab.page.evaluate(SIDEWAYS)


def test_desktop_needs_no_scrolling(open_tab: OpenTab) -> None:
    """At 1440 × 900 the whole watch view is in sight."""
    tab = open_tab().live()

    assert not tab.page.evaluate(SIDEWAYS)
    assert tab.page.evaluate(
        "() => { const w = document.getElementById('watch'); return w.scrollHeight <= w.clientHeight; }"
    )


def test_chosen_device_is_in_sight(open_tab: OpenTab) -> None:
    """A link to a device far down the list scrolls it into view, and arrows keep it there."""
    tab = open_tab("#device=pump-1", viewport={"width": 1440, "height": 420}).live()

    expect(tab.page.locator("#device-pump-1")).to_be_in_viewport()
    for _ in range(4):
        tab.page.keyboard.press("ArrowUp")
    expect(tab.page.locator("#device-greenhouse-1")).to_be_in_viewport()
