"""Tokens that end within seconds in a real browser: renewed on the connection, or by a new one; each reading once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.conftest import NewTab, World, enrol
from tests.browser.tabs import check, token_of, wait_for_connections, wait_for_more
from tests.browser.test_hub_client import call
from tests.support.hub_process import HubProcess
from tests.support.sensors import Sensors

TTL_S = 4.0
COLLECT = """
  window.seen = []; window.states = []; window.asked = 0;
  window.watched = m.watch(undefined, { match: 'pump-1/temperature', since: '-1m', share: a.share,
    token: async () => (asked++, await window.newToken()),
    onReading: ({ time, value }) => seen.push([String(time), value]), onState: (state) => states.push(state),
    onError: (error) => (window.failed = String(error)), onLive: () => (window.liveFrom ??= seen.length) });
"""


@pytest.mark.parametrize("share", [False, "ann"])
def test_token_is_renewed_on_the_connection(new_tab: NewTab, world: World, share: bool | str) -> None:
    """No reconnection: the state is never anything but live; with a shared connection one tab asks for all."""
    tabs = [new_tab() for _ in range(2 if share else 1)]
    given: list[str] = []

    def new_token() -> str:
        given.append(token_of(world, ttl_s=TTL_S))
        return given[-1]

    for tab in tabs:
        tab.page.expose_function("newToken", new_token)
        call(tab, COLLECT, {"share": share})
        tab.page.wait_for_function("() => watched.isLive")
    while len(given) < 4:
        wait_for_more(tabs[0], 5)
    for tab in tabs:
        wait_for_more(tab)
    # At once: tokens are given only while the test waits for a page.
    states = [tab.page.evaluate("() => [...states, window.failed ?? null]") for tab in tabs]
    asked = [tab.page.evaluate("() => asked > 0") for tab in tabs]
    (one,) = wait_for_connections(world, 1)
    for tab in tabs:
        check(tab, world)

    assert one["identity_id"] in {token.partition(".")[0] for token in given}
    assert states == [["live", None]] * len(tabs)
    assert asked.count(True) == 1


@pytest.mark.parametrize("is_function", [True, False])
def test_line_break_behind_a_token_is_none_of_it(new_tab: NewTab, world: World, is_function: bool) -> None:
    """As files and answers of servers end with: it goes by WebSocket like any other."""
    tab = new_tab()
    body = """
      window.hub = m.connect(undefined, { share: false, token: a.isFunction ? () => a.token : a.token });
      hub.watch({ match: 'pump-1/*', since: 'last', onReading() {}, onLive: () => (window.live = true) });
    """
    call(tab, body, {"token": f"{token_of(world)}\n", "isFunction": is_function})
    tab.page.wait_for_function("() => window.live")

    assert tab.page.evaluate("() => hub.transport") == "ws"


@pytest.fixture
def hooked(tmp_path: Path) -> Iterator[World]:
    """A hub whose hooks decide what each connection sees: it takes no token on a connection."""
    (tmp_path / "all_hook.py").write_text("def authorize(context, verb, patterns):\n    return True\n")
    environment = {"PYTHONPATH": str(tmp_path)}
    hub = HubProcess(tmp_path / "data", "--hook", "all_hook:authorize", environment=environment)
    with hub, Sensors(hub.ws_url, enrol(hub, "pump-1")) as sensors:
        yield World(hub, sensors)


def test_where_hooks_decide_it_reconnects_by_its_cursor(new_tab: NewTab, hooked: World) -> None:
    """`auth` is refused there: each new token is a new connection, at once, and nothing is missed."""
    tab = new_tab()
    tab.page.goto(f"{hooked.hub.url}/healthz")
    tab.page.expose_function("newToken", lambda: token_of(hooked, ttl_s=TTL_S))
    call(tab, COLLECT, {"share": False})
    tab.page.wait_for_function("() => states.filter((state) => state === 'live').length > 3")

    states: list[str] = tab.page.evaluate("() => states")
    check(tab, hooked)

    assert "refused" not in states
    assert tab.page.evaluate("() => window.failed ?? null") is None


def test_time_to_renew(new_tab: NewTab) -> None:
    """At random within the last third, at most a day from now, not without a pause."""
    body = (
        "return [m.renewAfter(100_000, 0), m.renewAfter(100_000, 0.5), m.renewAfter(500, 0.5), m.renewAfter(3e9, 0)];"
    )

    assert call(new_tab(), body) == [70_000, 80_000, 1000, 86_400_000]
