"""Spools that are written back and spools that are full: the runs behind `test_spool_fault`.

python -m tests.chaos.spool_fault card --seed 7      an older copy of a spool runs, then the newer one comes back
python -m tests.chaos.spool_fault full --seed 7      the hub is killed and stays away until the spool is full
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from device_sdk.errors import Reason
from tests.support.chaos_world import DRAIN_S, Outcome, World

GROUP, DEVICE = "north", "n1"
GROUPS = {GROUP: (DEVICE,)}
_WAIT_S = 20.0
# The smallest spool takes about 1,500 samples of three numbers.
_SMALL_BYTES = 256 * 1024
_CHANNELS = 3
_SAMPLES = (2_500, 3_500)
_RATE_HZ = 1_000.0


def run_card(seed: int, folder: Path, *, hub_mutant: str = "", drain_s: float = DRAIN_S) -> Outcome:
    """Give one number of a stream two bodies: only the chain tells the hub which of them it has.

    The spool is copied. The newer history cuts frames that a frozen hub never reads; then the copy runs and the hub
    stores its frames under the same numbers; then the newer history comes back with frames that wait for their ack.
    """
    choice = random.Random(seed)
    with World(folder, GROUPS, hub_mutant=hub_mutant, job={"drain_s": drain_s}) as world:
        world.start()
        world.wait_seen("A", choice.randrange(1, 4))
        world.drain(GROUP)
        older, newer = folder / "older", folder / "newer"
        shutil.copytree(world.spool, older)
        _wait_connected(world, False)
        world.start_group(GROUP, delay_s=1.0)
        _wait_connected(world, True)
        os.kill(world.hub.pid, signal.SIGSTOP)
        world.wait_seen("F", choice.randrange(1, 6))
        world.kill_group(GROUP)
        world.kill_hub()
        world.spool.rename(newer)
        older.rename(world.spool)
        world.hub.start()
        world.start_group(GROUP)
        world.wait_seen("A", 10)
        world.drain(GROUP)
        world.spool.rename(older)
        newer.rename(world.spool)
        world.faults = 1
        return world.finish(may_have=(Reason.CHAIN_CONFLICT,), may_reuse=True)


def run_full(seed: int, folder: Path, *, mutant: str = "", drain_s: float = DRAIN_S) -> Outcome:
    """Kill the hub and let the device record more than its spool holds; the oldest readings go, each declared."""
    choice = random.Random(seed)
    job = {"drain_s": drain_s, "max_spool": _SMALL_BYTES, "rate_hz": _RATE_HZ}
    with World(folder, GROUPS, job={**job, "mutant": mutant}) as world:
        world.start()
        world.wait_seen("A")
        world.kill_hub()
        world.wait_seen("R", _CHANNELS * choice.randrange(*_SAMPLES))
        world.faults = 1
        outcome = world.finish(may_have=(Reason.SPOOL_FULL,))
        if not outcome.declared:
            outcome.troubles.append("the spool was never full")
        return outcome


def _wait_connected(world: World, is_connected: bool) -> None:
    limit = time.monotonic() + _WAIT_S
    while world.hub.get("/v1/devices")["devices"][0]["connected"] is not is_connected:
        assert time.monotonic() < limit, f"the hub does not say connected={is_connected}"
        time.sleep(0.01)


def main(arguments: list[str]) -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.spool_fault")
    parser.add_argument("what", choices=("card", "full"))
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    chosen = parser.parse_args(arguments)
    seed = random.randrange(2**32) if chosen.seed is None else chosen.seed
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        outcome = (run_card if chosen.what == "card" else run_full)(seed, Path(temporary))
    print(f"spool_fault {chosen.what} seed={seed} {outcome}")
    return 0 if outcome.is_green else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
