"""kill -9 of the hub and of device processes at random moments, under load: the run behind `test_kill`.

    python -m tests.chaos.kill --kills 1000 --seed 7 --way broker

prints one line of figures and exits with 0 when nothing acked was lost, nothing doubled and the ledger balances
exactly. Half of the moments are chosen in spite: just after a frame left a device, which a frozen hub does not read any
more, or just after an ack reached it. Devices connect by WebSocket, by MQTT at the hub's port, or through a broker,
which is killed too, and now and then comes back with what it wrote down some time ago.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.support.chaos_world import DRAIN_S, Outcome, World
from tests.support.hub_process import free_port
from tests.support.mosquitto import Mosquitto

GROUPS = {"north": ("n1", "n2", "n3"), "south": ("s1", "s2", "s3")}
HUB, BROKER = "hub", "broker"
WAYS = ("websocket", "mqtt", "broker")
# One kill in so many meets a process that has just been started.
_EARLY = 5
_EARLY_S = 0.6
# Between the line of the witness and the kill: about one commit.
_SPITE_S = 0.004
# Without an event the moment comes anyway: devices wait for their next attempt after a hub's restart.
_EVENT_LIMIT_S = 3.0


def run(
    kills: int,
    seed: int,
    folder: Path,
    *,
    hub_mutant: str = "",
    mutant: str = "",
    drain_s: float = DRAIN_S,
    way: str = "websocket",
) -> Outcome:
    """Kill ``kills`` times, then drain and compare; the same seed makes the same choices."""
    choice = random.Random(seed)
    job = {"mutant": mutant, "drain_s": drain_s}
    port = str(free_port())
    url = "" if way == "websocket" else f"mqtt://127.0.0.1:{port}"
    options = {"mqtt": ("--mqtt-port", port), "broker": ("--mqtt-url", url)}.get(way, ())
    with ExitStack() as stack:
        broker = None
        if way == "broker":
            folder.mkdir(parents=True, exist_ok=True)
            broker = stack.enter_context(Mosquitto(folder, int(port), "max_queued_messages 0"))
        world = stack.enter_context(
            World(folder, GROUPS, hub_mutant=hub_mutant, job=job, options=options, url=url)
        )  # fmt: skip
        world.start()
        for _ in range(kills):
            victim = choice.choice((HUB, HUB, *GROUPS) if broker is None else (HUB, BROKER, *GROUPS))
            if victim == BROKER and not choice.randrange(3):
                assert broker is not None, "a victim by this way alone"
                broker.save()
            _await_moment(world, victim, choice)
            if victim == BROKER:
                assert broker is not None, "a victim by this way alone"
                broker.kill()
                broker.start()
            elif victim == HUB:
                world.kill_hub()
                world.hub.launch()
            else:
                world.kill_group(victim)
                world.start_group(victim)
            world.faults += 1
        return world.finish()


def _await_moment(world: World, victim: str, choice: random.Random) -> None:
    group = None if victim in (HUB, BROKER) else victim
    if not choice.randrange(_EARLY):
        time.sleep(choice.uniform(0, _EARLY_S))
        return
    # A kill proves most when there is work under way: the hub has acked again, the device has recorded again.
    world.wait_seen("R" if victim in GROUPS else "A", group=group, limit_s=_EVENT_LIMIT_S)
    match choice.randrange(4):
        case 0:
            if victim == HUB:
                # It dies with frames that it has not read.
                os.kill(world.hub.pid, signal.SIGSTOP)
            world.wait_seen("F", group=group, limit_s=_EVENT_LIMIT_S)
            time.sleep(choice.uniform(0, _SPITE_S))
        case 1:
            world.wait_seen("A", group=group, limit_s=_EVENT_LIMIT_S)
            time.sleep(choice.uniform(0, _SPITE_S))
        case _:
            time.sleep(choice.uniform(0, 0.3))


def main(arguments: list[str]) -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    parser.add_argument("--way", choices=WAYS, default=WAYS[0])
    parser.add_argument("--folder", type=Path, default=None, help="keep ledger, logs and data here")
    chosen = parser.parse_args(arguments)
    seed = random.randrange(2**32) if chosen.seed is None else chosen.seed
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        outcome = run(chosen.kills, seed, chosen.folder or Path(temporary), way=chosen.way)
    print(f"kill way={chosen.way} seed={seed} {outcome}")
    return 0 if outcome.is_green else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
