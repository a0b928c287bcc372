"""Several tabs of one browser: what each has seen, and the connections that the hub has for them."""

import time
from typing import Any

from hub.auth import Identities
from hub.roles import Role
from tests.browser.conftest import LIMIT_MS, Tab, World
from tests.browser.test_hub_client import COLLECT, by_time, call, stored

CHANNEL = "pump-1/temperature"


def token_of(world: World, role: Role = Role.WATCHER, ttl_s: float | None = None) -> str:
    """Make a token beside the running hub; with ``ttl_s`` one that ends."""
    identities = Identities(world.hub.data / "identities.sqlite3")
    try:
        return identities.add_token(role)[1] if ttl_s is None else identities.add_session(role, ttl_s)
    finally:
        identities.close()


def connections(world: World) -> list[dict[str, Any]]:
    """Return the connections that the hub has now."""
    found: list[dict[str, Any]] = world.hub.get("/v1/watchers", token=token_of(world, Role.ADMIN))["watchers"]
    return found


def wait_for_connections(world: World, count: int) -> list[dict[str, Any]]:
    """Return them when there are so many."""
    limit = time.monotonic() + LIMIT_MS / 1000
    while len(found := connections(world)) != count:
        assert time.monotonic() < limit, [(c["transport"], c["identity_id"], len(c["subscriptions"])) for c in found]
        time.sleep(0.05)
    return found


def collect(tab: Tab, match: str = CHANNEL, since: str = "-1m") -> None:
    """Watch from now on into ``seen``; returns when it is live."""
    call(tab, COLLECT, {"match": match, "since": since})
    tab.page.wait_for_function("() => watched.isLive && seen.length > 10")


def wait_for_more(tab: Tab, count: int = 10) -> None:
    """Return when so many more readings have come."""
    before = tab.page.evaluate("() => seen.length")
    tab.page.wait_for_function("(least) => seen.length >= least", arg=before + count)


def check(tab: Tab, world: World, match: str = CHANNEL) -> None:
    """What a tab has seen is what is stored from its first reading on: no gap; live each once and in order."""
    kept = stored(world, tab, match)
    tab.page.wait_for_function("(last) => seen.some(([time]) => time === last)", arg=kept[-1][0])
    seen = tab.page.evaluate("() => (watched.close(), seen)")
    live = seen[tab.page.evaluate("() => window.liveFrom") :]
    owed = kept[kept.index(by_time(seen)[0]) :]
    missing = [place for place, pair in enumerate(owed) if pair not in by_time(seen)]
    assert not missing, (len(owed), len(seen), missing)
    assert live == by_time(live)
