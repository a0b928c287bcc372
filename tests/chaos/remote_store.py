"""A database server that is killed, and away, while devices record: the run behind `test_remote_store`.

    python -m tests.chaos.remote_store --kills 3 --outage 300 --seed 7

prints one line of figures and exits with 0 when nothing was lost, nothing doubled and the ledger balances exactly.
Between the kills of the server the hub and device processes are killed too.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from hub.cli.rest import RestClient
from tests.chaos.kill import GROUPS
from tests.support.chaos_world import Outcome, World
from tests.support.influxdb import Influxd

# The store tries again ten seconds after it failed for long; then it has a backlog.
_CATCH_UP_S = 120.0
_DOWN_S = 1.5


def run(kills: int, outage_s: float, seed: int, folder: Path) -> Outcome:
    """Kill the server ``kills`` times, then keep it away for ``outage_s``, under load; then drain and compare."""
    choice = random.Random(seed)
    server_folder = folder / "influxd"
    server_folder.mkdir(parents=True)
    with Influxd(server_folder) as server, World(folder, GROUPS, options=("--store", server.address)) as world:
        world.start()
        client = RestClient(world.hub.url)
        for number in range(kills):
            world.wait_seen("A")
            time.sleep(choice.uniform(0, 0.3))
            server.kill()
            if number % 3 == 1:
                world.kill_hub()
                world.hub.launch()
            if number % 3 == 2:
                group = choice.choice(list(GROUPS))
                world.kill_group(group)
                world.start_group(group)
            time.sleep(choice.uniform(0, _DOWN_S))
            server.start()
            world.faults += 1
        world.hub.wait_ready()
        server.kill()
        most_behind, ends = 0, time.monotonic() + outage_s
        while time.monotonic() < ends:
            time.sleep(min(1.0, outage_s))
            most_behind = max(most_behind, _behind(client))
        if not most_behind:
            world.troubles.append("nobody could see that the store was behind")
        server.start()
        world.faults += 1
        _catch_up(client, world)
        outcome = world.finish()
        print(f"most behind={most_behind} frames")
        return outcome


def _behind(client: RestClient) -> int:
    status = client.get("/healthz")
    return int(status["head"]) - int(status["store_applied"])


def _catch_up(client: RestClient, world: World) -> None:
    limit = time.monotonic() + _CATCH_UP_S
    # Devices go on recording: a few frames behind is level.
    while _behind(client) > 50:
        if time.monotonic() > limit:
            world.troubles.append(f"the store is {_behind(client)} frames behind {_CATCH_UP_S:g} s after the outage")
            return
        time.sleep(0.2)


def main(arguments: list[str]) -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.remote_store", description=__doc__)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--outage", type=float, default=300.0, help="seconds")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    chosen = parser.parse_args(arguments)
    seed = random.randrange(2**32) if chosen.seed is None else chosen.seed
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        outcome = run(chosen.kills, chosen.outage, seed, Path(temporary))
    print(f"remote_store seed={seed} {outcome}")
    return 0 if outcome.is_green else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
