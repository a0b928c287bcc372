"""The log of changes as readings of a real hub: watched without a gap or a duplicate through kills, by who may."""

import asyncio
import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from device_sdk import AuthenticationError, Client
from device_sdk.watch import WatchedReading
from hub.auth import Identities
from hub.change_log import CHANGES, MAX_REFUSALS, ChangeLog, Entry
from hub.passwords import hash_password
from hub.roles import Role
from hub.users import USERS, Users
from tests.support.hub_process import HubProcess

pytestmark = pytest.mark.end_to_end

ROUNDS, PER_ROUND = 5, 8
LIMIT_S = 40.0


def add_credentials(data: Path) -> dict[str, str]:
    """Make credentials beside the running hub; return name → token."""
    with closing(Identities(data / "identities.sqlite3")) as identities:
        return {
            "auditor": identities.add_token(Role.ADMIN, ("**", "$sys/audit"), "auditor")[1],
            "admin": identities.add_token(Role.ADMIN, ("**",), "admin")[1],
            "watcher": identities.add_token(Role.WATCHER, ("**",), "watcher")[1],
            "elsewhere": identities.add_token(Role.ADMIN, ("**", "$sys"), "x", namespace="north")[1],
        }


def change_much(hub: HubProcess, tokens: dict[str, str], number: int) -> None:
    """Enrol, revoke, sign in, be refused, and write beside the hub."""
    for place in range(PER_ROUND):
        name = f"pump-{number}-{place}"
        assert hub.request("POST", "/v1/devices", {"device": name}, tokens["admin"])[0] == 201
    assert hub.request("DELETE", f"/v1/devices/pump-{number}-0", token=tokens["admin"])[0] == 204
    assert hub.request("POST", "/v1/login", {"name": "anna", "password": "correct horse battery"})[0] in (200, 204)
    assert hub.request("GET", "/v1/devices", token="t0123456789ab.wrong")[0] == 401
    with closing(ChangeLog(hub.data / CHANGES)) as log:
        log.record(Entry("written beside the hub", str(number)))


async def collect(client: Client, pattern: str, seen: list[WatchedReading], since: str | None = "-1h") -> None:
    """Watch for ever."""
    watch = client.watch(pattern, since=since)
    try:
        while True:
            seen += await watch.batch()
    finally:
        await watch.close()


@pytest.mark.asyncio
@pytest.mark.timeout(120)
async def test_log_is_watched_without_gap_or_duplicate_through_kills(hub: HubProcess) -> None:
    """Killed right behind an answer, with entries written meanwhile: what is seen live is what log and history hold.

    Who watches everything sees nothing of it, nor does another namespace.
    """
    tokens = add_credentials(hub.data)
    with closing(Users(hub.data / USERS)) as users:
        users.add("anna", Role.ADMIN, hash=hash_password("correct horse battery"))
    seen: dict[str, list[WatchedReading]] = {name: [] for name in tokens}
    patterns = {"auditor": "$sys/audit", "admin": "**", "watcher": "*/*", "elsewhere": "$sys/**"}
    clients = {name: Client(hub.url, token) for name, token in tokens.items()}
    watching = [asyncio.create_task(collect(clients[name], patterns[name], seen[name])) for name in tokens]

    for number in range(ROUNDS):
        await asyncio.to_thread(change_much, hub, tokens, number)
        hub.kill()
        with closing(ChangeLog(hub.data / CHANGES)) as log:
            log.record(Entry("written while there is no hub", str(number)))
        await asyncio.to_thread(hub.start)
    # The refusals of the last round were counted in memory only; those of this one are written when the hub stops.
    assert hub.request("GET", "/v1/devices", token="t0123456789ab.wrong")[0] == 401
    await asyncio.to_thread(hub.stop)
    await asyncio.to_thread(hub.start)
    with closing(ChangeLog(hub.data / CHANGES)) as log:
        written = [(e.time_ns, e.what, e.target, e.outcome) for e in reversed(log.entries("default", 1000))]
    async with asyncio.timeout(LIMIT_S):
        while len(seen["auditor"]) < len(written):  # noqa: ASYNC110 - what a watcher has seen has no event
            await asyncio.sleep(0.05)
    await asyncio.sleep(1.0)  # what would be told twice would come now
    rows = await asyncio.to_thread(clients["auditor"].query, "$sys/audit")
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)

    def told(time_ns: object, value: object) -> tuple[object, ...]:
        entry = json.loads(str(value))
        return time_ns, entry["what"], entry["target"], entry["outcome"]

    assert [told(r.time_ns, r.value) for r in seen["auditor"]] == written
    assert sorted(told(row["time_ns"], row["value"]) for row in rows) == sorted(written)
    whats = [what for _, what, *_ in written]
    assert whats.count("POST /v1/devices") == ROUNDS * PER_ROUND
    assert {"DELETE /v1/devices/{device}", "sign in", "GET /v1/devices"} <= set(whats)
    assert whats.count("written beside the hub") == whats.count("written while there is no hub") == ROUNDS
    assert {name: len(of) for name, of in seen.items() if name != "auditor"} == dict.fromkeys(
        ("admin", "watcher", "elsewhere"), 0
    )
    audited = hub.get("/v1/audit?device=$sys", token=tokens["auditor"])
    assert (audited["balanced"], audited["devices"][0]["accepted"]) == (True, len(written))


@pytest.mark.asyncio
@pytest.mark.timeout(120)
async def test_thousands_of_entries_are_told_once_by_a_hub_that_is_killed_over_them(hub: HubProcess) -> None:
    """4,000 entries, 1,000 in one commit; after each the hub is killed while it tells them, at seeded moments."""
    rng = random.Random(4)
    tokens = add_credentials(hub.data)
    seen: list[WatchedReading] = []
    watching = asyncio.create_task(collect(Client(hub.url, tokens["auditor"]), "$sys/audit", seen))
    cut_short = 0

    with closing(ChangeLog(hub.data / CHANGES)) as log:
        for number in range(4):
            for place in range(MAX_REFUSALS):
                log.refused(Entry("sign in", f"{number}-{place}", "unauthenticated"))
            log.flush()
            await asyncio.sleep(rng.uniform(0.05, 0.7))
            hub.kill()
            cut_short += told_until_now(hub.data) < (number + 1) * MAX_REFUSALS
            await asyncio.to_thread(hub.start)
        written = [(e.time_ns, e.target) for e in reversed(log.entries("default", 9999))]
    async with asyncio.timeout(LIMIT_S):
        while len(seen) < len(written):  # noqa: ASYNC110 - what a watcher has seen has no event
            await asyncio.sleep(0.05)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)

    assert cut_short, "no kill came in between: the moments above must be others"
    assert len(written) == 4 * MAX_REFUSALS
    assert [(r.time_ns, json.loads(str(r.value))["target"]) for r in seen] == written


def told_until_now(data: Path) -> int:
    """Return how many entries the journal of a dead hub holds."""
    with closing(sqlite3.connect(data / "journal.sqlite3")) as database:
        return int(database.execute("SELECT coalesce(sum(accepted), 0) FROM mark WHERE device = '$sys'").fetchone()[0])


@pytest.mark.asyncio
async def test_log_is_no_device_and_not_for_everybody(hub: HubProcess) -> None:
    """Lists, history and ledgers name it to nobody who did not; who may not read it is refused, in any words."""
    tokens = add_credentials(hub.data)
    assert hub.request("POST", "/v1/devices", {"device": "pump"}, tokens["admin"])[0] == 201

    watch = Client(hub.url, tokens["auditor"]).watch("$sys/audit", since="-1h")
    async with asyncio.timeout(LIMIT_S):
        assert json.loads(str((await watch.batch())[0].value))["target"] == "pump"
    await watch.close()
    for name in ("auditor", "admin", "watcher"):
        for path in ("/v1/devices", "/v1/channels", "/v1/latest", "/v1/readings?from=0", "/v1/audit", "/v1/metadata"):
            assert "$sys" not in json.dumps(hub.get(path, token=tokens[name])), (name, path)
    for name in ("admin", "watcher", "elsewhere"):
        assert hub.get("/v1/latest?match=$sys", token=tokens[name])["readings"] == []
        assert hub.get("/v1/readings?from=0&match=$sys/audit", token=tokens[name])["rows"] == []
    for name in ("admin", "watcher"):
        refused = Client(hub.url, tokens[name]).watch("$sys/audit")
        with pytest.raises(AuthenticationError, match=r"no \* means \$sys"):
            await refused.batch()
        await refused.close()
    assert hub.request("POST", "/v1/tokens", {"role": "watcher", "match": ["$sys"]}, tokens["admin"])[0] == 400
    for body in ({"device": "$sys"}, {"device": "$sys/audit"}):
        assert hub.request("POST", "/v1/devices", body, tokens["admin"])[0] == 400
