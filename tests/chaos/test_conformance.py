"""The conformance suite on our own hub is green, and red on hubs that break a rule of watching."""

import asyncio
import random
import socket
import threading
from pathlib import Path

import pytest

from hub.auth import Identities
from hub.roles import Role
from tests.conformance.__main__ import ADAPTERS, main
from tests.conformance.scenarios import SCENARIOS, Job
from tests.conformance.target import own_hub
from tests.support.hub_process import HubProcess
from tests.support.mutants import LIVE

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


ALL = ("ws", "sse", "poll")
# Mutant → scenario, what each transport shows, and the transports that can: `recovered` is said by WebSocket alone.
CAUGHT: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "lose_readings": ("abort", "gaps", ALL),
    "send_twice": ("abort", "duplicates", ALL),
    "swap_readings": ("abort", "out of order", ALL),
    "no_journal_pages": ("resume", "gaps", ALL),
    "cursor_one_back": ("resume", "duplicates", ALL),
    "resume_late": ("resume", "gaps", ALL),
    "forget_old_cursors": ("resume", "resets, expected 0", ALL),
    "forget_live": ("resume", "never told that it is live", ALL),
    "deny_recovery": ("resume", "not recovered, and no reset", ("ws",)),
    "forget_runs": ("restart", "resets, expected 0", ALL),
    "any_cursor": ("restore", "0 resets, expected 1", ALL),
    "claim_recovery": ("restore", "recovered, and then a reset", ("ws",)),
    "endless_credentials": ("expire", "the replay did not; the ended credential was taken again", ALL),
    "wait_for_all": ("stall", "had to wait for the stalled", ALL),
    "lose_the_last": ("conflate", "ends with", ALL),
    "tell_old_values": ("conflate", "older than what came before", ALL),
    "ignore_the_rate": ("conflate", "messages in", ALL),
    # It ends the run: behind it nothing can be counted.
    "mix_values": ("abort", "away from its time", ("sse",)),
}


# They wait for what never comes most of the time, so some may at once.
AT_ONCE = 4


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What each transport showed of each mutant."""
    folder, room = tmp_path_factory.mktemp("mutants"), asyncio.Semaphore(AT_ONCE)

    async def faults(mutant: str) -> list[str]:
        scenario, _, transports = CAUGHT[mutant]
        place = folder / mutant
        place.mkdir()
        async with room, own_hub(place, mutant) as target:
            target.arrive_s = ARRIVE_S
            adapters = [ADAPTERS[name] for name in transports]
            try:
                rows = await SCENARIOS[scenario][0](target, adapters, Job(5, 0, 1, 1))
            except AssertionError as error:
                return [str(error)]
            return ["; ".join(row.faults) for row in rows]

    async def all_faults() -> dict[str, list[str]]:
        return dict(zip(CAUGHT, await asyncio.gather(*map(faults, CAUGHT)), strict=True))

    return asyncio.run(all_faults())


@pytest.mark.timeout(180)
@pytest.mark.parametrize("mutant", CAUGHT)
def test_a_broken_hub_is_found(mutant: str, found: dict[str, list[str]]) -> None:
    """A suite that cannot turn red proves nothing."""
    _, fault, transports = CAUGHT[mutant]

    assert len(found[mutant]) == len(transports), found[mutant]
    assert all(fault in text for text in found[mutant]), found[mutant]


def test_every_mutant_is_tried() -> None:
    """A mutant that no run is named for proves nothing."""
    assert set(CAUGHT) == set(LIVE)


@pytest.mark.parametrize("answers", [b"", b"HTTP/1.1 200 OK\r\n"], ids=["closes", "stops"])
def test_a_server_that_does_not_answer_is_shown(answers: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """The run ends by itself, with a row that says so, and is red."""

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                with listener.accept()[0] as connection:
                    connection.sendall(answers)
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), name="no hub")
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        code = main(["--url", url, "--token", "t", "--device", "d", "--device-token", "t", "--scenario", "abort"])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()

    shown = capsys.readouterr().out
    assert code == 1
    assert shown.count("could not be carried out") == len(ALL), shown
