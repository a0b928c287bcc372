"""Power cuts of the hub's disk and of a device's: the runs behind `test_power_cut`. Needs root.

    python -m tests.chaos.power_cut hub --cuts 50 --seed 7
    python -m tests.chaos.power_cut fsync --cuts 50 --seed 7         a device's spool with durability="fsync"
    python -m tests.chaos.power_cut second --cuts 50 --seed 7        the same with the default durability

A cut takes what was written and not fsynced: an ext4 file system on a loop device is shut down without flushing its
log, the process is killed, the disk mounted again. Ledger and the other side lie on a disk that keeps its power.
"""

import argparse
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from device_sdk.errors import Reason
from device_sdk.outbox import Durability
from tests.support.chaos_world import DRAIN_S, Outcome, World
from tests.support.loop_disk import LoopDisk

GROUP = "north"
GROUPS = {GROUP: ("n1", "n2", "n3")}
# Enough bytes that SQLite's log comes to its checkpoint in the long run.
_RATE_HZ = 100.0
_TEXT_CHARS = 1000
_LOAD_S = (0.1, 0.8)
# What a power cut may take with the default durability: the last second, and how late a busy machine's timer fires.
SECOND_NS = 1_000_000_000
SLACK_NS = 500_000_000


def run_hub(cuts: int, seed: int, folder: Path, *, hub_mutant: str = "", drain_s: float = DRAIN_S) -> Outcome:
    """Cut the power of the hub's disk ``cuts`` times while devices send."""
    choice = random.Random(seed)
    job = {"drain_s": drain_s, "rate_hz": _RATE_HZ, "text_chars": _TEXT_CHARS}
    with (
        LoopDisk(folder / "loop") as disk,
        World(folder, GROUPS, hub_mutant=hub_mutant, job=job, data=disk.path / "data") as world,
    ):
        world.start()
        for number in range(cuts):
            # At once after an ack, or while commits are under way.
            world.wait_seen("A")
            time.sleep(choice.choice((0.0, choice.uniform(*_LOAD_S))))
            disk.cut_power()
            world.kill_hub(may_have_ended=True)
            disk.come_back()
            world.faults += 1
            world.troubles += _damage_of(world.hub.data, folder / f"copy-{number}")
            world.hub.launch()
            # A device that has met a dead hub often waits long; one that has just been started does not.
            world.kill_group(GROUP)
            world.start_group(GROUP)
        return world.finish()


def run_device(cuts: int, seed: int, folder: Path, durability: Durability) -> Outcome:
    """Cut the power of a device's disk ``cuts`` times while it records; the hub keeps its own."""
    choice = random.Random(seed)
    cut_ns: list[int] = []
    with LoopDisk(folder / "loop") as disk, World(folder, GROUPS, spool=disk.path / "spool") as world:
        world.hub.start()
        for number in range(cuts):
            process = world.start_group(GROUP, boot=f"boot-{number}", durability=durability)
            world.wait_seen("R", 10)
            # Every other time the hub goes away, and nothing but the spool holds what is recorded.
            if is_alone := choice.randrange(2):
                world.wait_seen("A")
                world.kill_hub()
            time.sleep(choice.uniform(0.0, 2.5))
            process.freeze()
            cut_ns.append(time.time_ns())
            disk.cut_power()
            world.kill_group(GROUP)
            disk.come_back()
            world.faults += 1
            if is_alone:
                world.hub.start()
        outcome = world.finish(may_have=(Reason.POWER_CUT,), boot="boot-last", durability=durability)
        outcome.troubles += _beyond_promise(durability, outcome, world.missing(), cut_ns)
        return outcome


def _damage_of(data: Path, copy: Path) -> list[str]:
    """Check SQLite's files in a copy: opening them would repair them before the hub does."""
    shutil.copytree(data, copy)
    found = []
    for path in sorted(copy.glob("*.sqlite3")):
        with closing(sqlite3.connect(path)) as database:
            answer = database.execute("PRAGMA integrity_check").fetchall()
        if answer != [("ok",)]:
            found.append(f"{path.name}: {answer[:3]}")
    shutil.rmtree(copy)
    return found


def _beyond_promise(
    durability: Durability, outcome: Outcome, missing: list[tuple[str, int]], cut_ns: list[int]
) -> list[str]:
    """Say what a power cut took that it may not take: a verdict takes a gap of unknown count for any excuse."""
    if durability == "fsync":
        gaps = [f"a gap {reason}" for reason in outcome.reasons]
        return [*gaps, f"{len(missing)} readings are gone that record() had returned for"] if missing or gaps else []
    ages_ns = [min(cut - time_ns for cut in cut_ns if cut >= time_ns) for _, time_ns in missing]
    print(f"power_cut took {len(missing)} readings, the oldest {max(ages_ns, default=0) / 1e6:.0f} ms before its cut")
    return [f"lost {age_ns / 1e6:.0f} ms before a cut" for age_ns in ages_ns if age_ns > SECOND_NS + SLACK_NS][:1]


def main(arguments: list[str]) -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.power_cut")
    parser.add_argument("what", choices=("hub", "fsync", "second"))
    parser.add_argument("--cuts", type=int, default=10)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    chosen = parser.parse_args(arguments)
    seed = random.randrange(2**32) if chosen.seed is None else chosen.seed
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        folder = Path(temporary)
        if chosen.what == "hub":
            outcome = run_hub(chosen.cuts, seed, folder)
        else:
            outcome = run_device(chosen.cuts, seed, folder, chosen.what)
    print(f"power_cut {chosen.what} seed={seed} {outcome}")
    return 0 if outcome.is_green else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
