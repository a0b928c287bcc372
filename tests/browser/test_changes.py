"""What the page does when the world changes: the hub goes away, devices come and fall silent."""

import re
import time
from contextlib import closing

from playwright.sync_api import expect

from hub.metadata import Edit, Metadata
from hub.model import SeriesKey
from tests.browser.conftest import OpenTab, World
from tests.browser.test_page import check_whole

GREY = "() => getComputedStyle(document.querySelector('.tiles')).filter"


def test_reconnects_without_a_gap(open_tab: OpenTab, world: World) -> None:
    """The hub is killed: everything is grey and 'as of'; it is back: live within 5 s, and no reading is missing."""
    tab = open_tab("#device=greenhouse-1&range=1m", expect_errors=True).live()

    world.hub.kill()
    expect(tab.page.locator("#connection-word")).to_have_text("Reconnecting…")
    expect(tab.page.locator("#connection-detail")).to_have_text(re.compile(r"^as of \d\d:\d\d:\d\d$"))
    expect(tab.page.locator("#badge")).to_have_text(re.compile(r"Online as of \d\d:\d\d:\d\d"))
    assert "grayscale" in tab.page.evaluate(GREY)
    frozen = tab.ask("window()")
    tab.page.wait_for_timeout(1500)
    assert tab.ask("window()") == frozen

    world.hub.start()
    back = time.monotonic()
    tab.wait("page.connection() === 'live'")
    assert time.monotonic() - back < 6
    world.sensors.flush()
    tab.wait(f"page.isLive() && BigInt(page.readings('temperature').times.at(-1)) > {time.time_ns()}n")
    check_whole(tab, world.hub, "greenhouse-1")
    assert tab.page.evaluate(GREY) == "none"
    # Chromium says of a killed server that it refuses, or that the socket it had kept is not connected.
    assert all("ERR_CONNECTION_REFUSED" in e or "ERR_SOCKET_NOT_CONNECTED" in e or "WebSocket" in e for e in tab.errors)


def test_new_device_appears_by_itself(open_tab: OpenTab, world: World) -> None:
    """A device enrolled while the page is open is in the list with its first reading, without a reload."""
    tab = open_tab().live()

    world.sensors.add("cellar-7", world.enrol("cellar-7")["cellar-7"])

    tab.wait("page.shown().includes('cellar-7')")
    expect(tab.page.locator("#device-cellar-7 .number")).to_have_text(re.compile(r"^\d\d\.\d$"))


def test_metadata_is_shown_while_the_page_is_open(open_tab: OpenTab, world: World) -> None:
    """A label, a site, tags, a unit and a scale set beside the hub reach an open page; the chart has one scale only."""
    tab = open_tab("#device=greenhouse-2&range=1m").live()
    before = tab.ask("readings('temperature')")["values"][0]
    device, channel = SeriesKey("default", "greenhouse-2", ""), SeriesKey("default", "greenhouse-2", "temperature")

    with closing(Metadata(world.hub.data / "metadata.sqlite3")) as metadata:
        metadata.change(Edit(device, {"label": "South house", "site": "south", "tags": ["old"]}), "tests")
        metadata.change(Edit(channel, {"scale": 100, "unit": "[degF]", "decimals": 0, "label": "Outside"}), "tests")

    expect(tab.page.locator("#device")).to_have_text("South house")
    expect(tab.page.locator("#facts")).to_contain_text("greenhouse-2")
    expect(tab.page.locator(".tile h3").first).to_have_text("Outside")
    expect(tab.page.locator(".tile .unit").first).to_have_text("°F")
    expect(tab.page.locator(".tile .number").first).to_have_text(re.compile(r"^\d,?\d\d\d$"))
    tab.wait("page.isLive() && page.readings('temperature').values.length > 0")
    values = tab.ask("readings('temperature')")["values"]
    assert min(values) > 10 * abs(before)
    row = tab.page.locator("#device-greenhouse-2")
    expect(row).to_have_attribute("aria-label", re.compile("^South house, Online, Outside"))
    tab.page.locator(".mark", has_text="south").click()
    tab.wait("page.shown().join() === 'greenhouse-2'")
    expect(tab.page.locator("#filter")).to_have_value("site:south")
    tab.page.locator(".mark", has_text="old").click()
    expect(tab.page.locator("#filter")).to_have_value("site:south tag:old")


def test_silent_device_turns_stale_and_its_gap_is_hatched(open_tab: OpenTab, world: World) -> None:
    """Silence beyond three intervals: counted as stale, said in words, and 'no data' instead of a line."""
    tab = open_tab("#device=pump-1&range=1m").live()

    world.sensors.silence("pump-1")

    expect(tab.page.locator("#badge")).to_have_text(re.compile("Stale"))
    expect(tab.page.locator("#facts")).to_contain_text(re.compile(r"last seen \d+ s ago"))
    expect(tab.page.locator("#device-pump-1")).to_have_attribute("aria-label", re.compile("Stale"))
    expect(tab.page.locator("#count-stale")).to_have_text("1")
    tab.wait("page.gaps(0).some((gap) => gap.kind === 'gap' && gap.seconds > 4)")
