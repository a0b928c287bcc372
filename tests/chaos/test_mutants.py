"""The harness is tested too: each program that is broken on purpose turns the run red that is there to catch it.

The other half, that the same runs are green with the sound programs, is `test_kill`, `test_power_cut`,
`test_spool_fault` and `test_fleet`; their seeds are the first ones here.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.fleet import run_fleet
from tests.chaos.kill import run as run_kill
from tests.chaos.power_cut import run_hub as run_power_cut
from tests.chaos.spool_fault import run_card, run_full
from tests.support.chaos_world import Outcome
from tests.support.loop_disk import missing_programs
from tests.support.mutants import HUB, SDK

# A kill hits the moment that matters in most rounds, not in all.
SEEDS = (1, 2, 3)
KILLS, CUTS = 8, 3
Symptom = Callable[[Outcome], bool]
# A broken program may never drain: then this is how long it is waited for.
DRAIN_S = 4.0


def kill(seed: int, folder: Path, hub: str, sdk: str) -> Outcome:
    return run_kill(KILLS, seed, folder, hub_mutant=hub, mutant=sdk, drain_s=DRAIN_S)


def power_cut(seed: int, folder: Path, hub: str, _: str) -> Outcome:
    return run_power_cut(CUTS, seed, folder, hub_mutant=hub, drain_s=DRAIN_S)


def card(seed: int, folder: Path, hub: str, _: str) -> Outcome:
    return run_card(seed, folder, hub_mutant=hub, drain_s=DRAIN_S)


def full(seed: int, folder: Path, _: str, sdk: str) -> Outcome:
    return run_full(seed, folder, mutant=sdk, drain_s=DRAIN_S)


def fleet(seed: int, folder: Path, hub: str, sdk: str) -> Outcome:
    folder.mkdir()
    run = run_fleet(folder, 60, seed, kills=1, hub_mutant=hub, mutant=sdk, limit_s=10.0)
    return Outcome(run.kills, sum(run.times.values()), is_balanced=run.verdict.is_balanced, troubles=run.faults)


def shows(text: str) -> Symptom:
    return lambda outcome: any(text in trouble for trouble in outcome.troubles)


def does_not_drain(outcome: Outcome) -> bool:
    return any("did not drain" in trouble for trouble in outcome.troubles)


Run = Callable[[int, Path, str, str], Outcome]
# Mutant → the run that catches it, and what it shows there.
CAUGHT: dict[str, tuple[Run, Symptom]] = {
    "normal_synchronous": (power_cut, lambda outcome: outcome.acked_lost > 0),
    "ack_before_commit": (kill, lambda outcome: outcome.acked_lost > 0),
    "no_dedupe": (kill, lambda outcome: outcome.doubled > 0),
    "no_chain": (card, lambda outcome: outcome.lost > 0),
    "delete_before_ack": (kill, lambda outcome: outcome.acked_lost > 0),
    "number_at_record": (full, does_not_drain),
    "forget_orders": (fleet, shows("in vain for all outcomes")),
    "forget_commands": (fleet, shows("2 effects")),
}


def parameters() -> list[object]:
    """Return the mutants, those that need a disk of their own marked so."""
    lacks = pytest.mark.skipif(bool(missing_programs()), reason=f"this machine lacks {missing_programs()}")
    marks = [pytest.mark.privileged, lacks]
    return [pytest.param(name, marks=marks if run is power_cut else []) for name, (run, _) in CAUGHT.items()]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", parameters())
def test_mutant_is_caught(tmp_path: Path, name: str) -> None:
    """The run is red, and for the reason that the fault is."""
    run, is_shown = CAUGHT[name]
    hub, sdk = (name, "") if name in HUB else ("", name)

    outcomes: list[Outcome] = []
    for seed in SEEDS:
        outcomes.append(run(seed, tmp_path / str(seed), hub, sdk))
        if is_shown(outcomes[-1]):
            break

    assert not outcomes[-1].is_green
    assert is_shown(outcomes[-1]), "\n".join(map(str, outcomes))


def test_every_mutant_is_tried() -> None:
    """A mutant that no run is named for proves nothing."""
    assert set(CAUGHT) == set(HUB) | set(SDK)
