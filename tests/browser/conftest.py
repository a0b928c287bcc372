"""Fixtures of the browser tests: Chromium, a real hub with fake sensors, and a page that tells on itself."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from hub.auth import Identities
from tests.support.hub_process import ROOT, HubProcess
from tests.support.sensors import Sensors

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
NAMES = ("greenhouse-1", "greenhouse-2", "greenhouse-10", "pump-1", "oven-1")
HOT = "oven-1"
LIMIT_MS = 15_000

expect.set_options(timeout=LIMIT_MS)


@dataclass
class Tab:
    """One open page, and everything it should not have done."""

    page: Page
    base: str
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def ask(self, expression: str) -> Any:
        """Return the value of an expression on ``window.__page``, e.g. ``isPaused()``."""
        return self.page.evaluate(f"() => window.__page.{expression}")

    def wait(self, expression: str, limit_ms: int = LIMIT_MS) -> None:
        """Return when an expression on ``window.__page`` is true."""
        self.page.wait_for_function(f"() => {{ const page = window.__page; return {expression}; }}", timeout=limit_ms)

    def frame(self) -> None:
        """Return when a frame has been drawn from the state as it is now."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def open(self, address: str = "") -> "Tab":
        """Load the page and wait until its first device is live and drawn."""
        self.page.goto(f"{self.base}/{address}")
        return self

    def live(self) -> "Tab":
        """Wait until history is joined and the first chart is drawn."""
        self.wait("page.isLive() && page.drawn(0) !== null && page.drawn(0).times.length > 0")
        return self


@dataclass
class World:
    """A hub and its sensors."""

    hub: HubProcess
    sensors: Sensors

    def enrol(self, *names: str) -> dict[str, str]:
        """Return name → token of devices newly enrolled beside the running hub."""
        return enrol(self.hub, *names)


OpenTab = Callable[..., Tab]
NewTab = Callable[..., Tab]


def enrol(hub: HubProcess, *names: str) -> dict[str, str]:
    """Enrol devices beside the running hub; return name → token."""
    identities = Identities(hub.data / "identities.sqlite3")
    try:
        return {name: identities.add_device(name) for name in names}
    finally:
        identities.close()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Chromium without a window and without a word to anybody outside."""
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}: apt-get install chromium")
    if not (ROOT / "hub" / "page" / "vendor" / "uPlot.esm.js").exists():
        pytest.skip("hub/page/vendor is empty: `make test` fills it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A hub with five devices at 10 Hz and 90 s of history, shared by the tests of a module."""
    hub = HubProcess(tmp_path_factory.mktemp("hub") / "data")
    with hub, Sensors(hub.ws_url, enrol(hub, *NAMES), hot=HOT) as sensors:
        yield World(hub, sensors)


@pytest.fixture
def open_tab(chromium: Browser, world: World) -> Iterator[OpenTab]:
    """Return a function that opens the page in a fresh profile; afterwards no tab may have complained."""
    tabs: list[Tab] = []

    def open_one(address: str = "", *, expect_errors: bool = False, **context: Any) -> Tab:
        options: dict[str, Any] = {
            "viewport": DESKTOP,
            "color_scheme": "dark",
            "timezone_id": "Europe/Berlin",
            **context,
        }
        page = chromium.new_context(**options).new_page()
        page.set_default_timeout(LIMIT_MS)
        tab = Tab(page, world.hub.url)
        _listen(tab, world.hub.url)
        if not expect_errors:
            tabs.append(tab)
        return tab.open(address)

    yield open_one
    # Before the end: a browser complains of a page that is left while its connection opens, whatever the page does.
    complaints = [([*tab.errors], [*tab.foreign]) for tab in tabs]
    for context in chromium.contexts:
        context.close()
    assert all(not errors and not foreign for errors, foreign in complaints), complaints


@pytest.fixture
def new_tab(chromium: Browser, world: World) -> Iterator[NewTab]:
    """Return a function that opens a tab of the hub's origin without its page; all are of one profile."""
    context = chromium.new_context(bypass_csp=True)
    context.set_default_timeout(LIMIT_MS)

    def open_one(script: str = "") -> Tab:
        page = context.new_page()
        if script:
            page.add_init_script(script)
        page.goto(f"{world.hub.url}/healthz")
        return Tab(page, world.hub.url)

    yield open_one
    context.close()


def _listen(tab: Tab, base: str) -> None:
    def requested(request: Request) -> None:
        if not request.url.startswith((base, base.replace("http", "ws"), "data:")):
            tab.foreign.append(request.url)

    tab.page.on("request", requested)
    tab.page.on("pageerror", lambda error: tab.errors.append(str(error)))
    tab.page.on(
        "console", lambda message: tab.errors.append(message.text) if message.type in ("error", "warning") else None
    )
