"""``hub watchers``: who watches a running hub, for people and for programs."""

import json

import httpx

from device_sdk.wire import WATCH_PATH
from tests.hub.cli.conftest import Run
from tests.support.hub_process import HubProcess


def test_watchers_of_a_running_hub(run: Run, hub: HubProcess, admin: str, recorded: str) -> None:
    """A stream over a real socket is listed with what it asked for; the totals stand behind the table."""
    headers = {"Authorization": f"Bearer {admin}"}
    with httpx.stream("GET", f"{hub.url}{WATCH_PATH}?match={recorded}", headers=headers) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("retry: ")

        said = run("watchers", "--url", hub.url, "--token", admin)
        told = run("watchers", "--url", hub.url, "--token", admin, "--json").json

    (line,) = [line for line in said.out.splitlines() if f"{recorded}/*" in line]
    (one,) = [w for w in told["watchers"] if w["subscriptions"][0]["match"] == [f"{recorded}/*"]]
    assert said.code == 0
    assert all(word in line for word in (one["name"], "tests", "admin", "sse", "127.0.0.1"))
    assert "connections" in said.err
    assert told["live"]["watchers"] >= 1, json.dumps(told)


def test_watchers_takes_an_operator(run: Run, hub: HubProcess) -> None:
    """Who only reads does not see who else does."""
    assert run("watchers", "--url", hub.url).code == 4
