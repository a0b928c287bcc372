"""The live page of 20 lines in the docs, run as it stands."""

import re

from playwright.sync_api import expect

from tests.browser.conftest import OpenTab
from tests.support.hub_process import ROOT

EXAMPLE = ROOT / "docs" / "examples" / "live-page.html"


def test_example_shows_live_values(open_tab: OpenTab) -> None:
    """Served from the hub's address, it lists each device's temperature and goes on by itself."""
    # An answer of the hub itself: its Content-Security-Policy would forbid inline scripts, and it has no icon.
    tab = open_tab("healthz", bypass_csp=True, expect_errors=True)

    tab.page.set_content(EXAMPLE.read_text(encoding="utf-8"))

    row = tab.page.locator("tr", has_text="pump-1/temperature")
    expect(row).to_have_text(re.compile(r"\d\d\.\d"))
    before = row.inner_text()
    expect(row).not_to_have_text(before)
    expect(tab.page.locator("tr")).to_have_count(5)
