"""The conformance suite on our own hub is green, and red on hubs that break a rule of watching."""

import asyncio
import random
from pathlib import Path

import pytest

from hub.auth import Identities
from hub.roles import Role
from tests.conformance.__main__ import ADAPTERS, main
from tests.conformance.scenarios import SCENARIOS, Job
from tests.conformance.target import own_hub
from tests.support.hub_process import HubProcess

ABORTS, NIGHTLY_ABORTS, NIGHTLY_READINGS = 30, 1000, 10**6
# What a broken hub leaves out never comes.
ARRIVE_S = 3.0


@pytest.mark.timeout(180)
def test_watchers_miss_nothing_and_get_nothing_twice() -> None:
    """All scenarios, on each transport that the hub has; about 20 s."""
    assert main(["--aborts", str(ABORTS), "--seed", "1"]) == 0


@pytest.mark.timeout(120)
def test_a_hub_that_runs_elsewhere_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By a watcher's and a device's token; what needs a hold on it is left out and said."""
    with HubProcess(tmp_path / "data") as hub:
        identities = Identities(hub.data / "identities.sqlite3")
        device, (_, watcher) = identities.add_device("probe"), identities.add_token(Role.WATCHER)
        identities.close()
        arguments = ["--url", hub.url, "--token", watcher, "--device", "probe", "--device-token", device]

        code = main([*arguments, "--aborts", "3", "--scenario", "abort", "--scenario", "restore"])

    shown = capsys.readouterr()
    assert code == 0, shown
    assert "| abort | ws |" in shown.out
    assert "restore: left out" in shown.err


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_conformance_through_a_thousand_aborts() -> None:
    """1,000 aborts and 10^6 readings for each transport, other places each night."""
    seed = random.SystemRandom().randrange(2**32)
    arguments = ["--aborts", str(NIGHTLY_ABORTS), "--readings", str(NIGHTLY_READINGS), "--seed", str(seed)]

    assert main(arguments) == 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("mutant", "scenario", "fault"),
    [
        ("any_cursor", "restore", "0 resets, expected 1"),
        ("no_journal_pages", "resume", "gaps"),
        ("cursor_one_back", "resume", "duplicates"),
    ],
)
def test_a_broken_hub_is_found(mutant: str, scenario: str, fault: str, tmp_path: Path) -> None:
    """A suite that cannot turn red proves nothing."""

    async def faults() -> list[str]:
        async with own_hub(tmp_path, mutant) as target:
            target.arrive_s = ARRIVE_S
            rows = await SCENARIOS[scenario][0](target, [ADAPTERS["ws"], ADAPTERS["sse"]], Job(0, 0, 0, 1))
            return ["; ".join(row.faults) for row in rows]

    found = asyncio.run(faults())

    assert len(found) == 2
    assert all(fault in text for text in found), found
