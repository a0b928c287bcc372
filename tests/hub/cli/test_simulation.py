"""``hub simulate``: fleets, replays and this machine against a real hub, with ledgers that balance."""

from pathlib import Path

import pytest

from tests.hub.cli.conftest import Run
from tests.support.hub_process import HubProcess

CSV = "date,T,P\n2016-01-11 17:30:00, 19.5,50\n2016-03-27 02:10:00,20.5,\n"


@pytest.fixture
def csv_map(tmp_path: Path, name: str) -> Path:
    """Return a map of the small file onto two devices."""
    path = tmp_path / "map.toml"
    columns = [("T", f"{name}-room", "temperature"), ("P", f"{name}-house", "power")]
    tables = [f'[[column]]\nname = "{n}"\ndevice = "{d}"\nchannel = "{c}"\n' for n, d, c in columns]
    path.write_text('time = "date"\n' + "".join(tables))
    (tmp_path / "data.csv").write_text(CSV)
    return path


def test_fleet_balances_its_ledger(run: Run, hub: HubProcess, name: str) -> None:
    """Every reading produced is stored once; a later check says the same."""
    where = ("--url", hub.url, "--data", hub.data)

    outcome = run(
        "simulate", "fleet", "--devices", 4, "--rate", 20, "--duration", 0.2, "--prefix", name, "--ledger", "l", *where
    )

    assert outcome.code == 0, outcome.err
    assert "ledger balanced: 56 produced, 56 stored, 0 lost, 0 doubled, 0 altered" in outcome.out


def test_fleet_may_connect_elsewhere(run: Run, hub: HubProcess, name: str) -> None:
    """To a broker, or where nobody is: then the readings were not acked."""
    where = ("--url", hub.url, "--data", hub.data, "--device-url", "mqtt://127.0.0.1:1")

    outcome = run("simulate", "fleet", "--devices", 1, "--duration", 1, "--drain", 0.1, "--prefix", name, *where)

    assert outcome.code == 1
    assert "broker 127.0.0.1:1 cannot be reached" in outcome.err


@pytest.mark.parametrize("where", ["url", "data"])
def test_verdict_turns_red_when_a_reading_is_missing(run: Run, hub: HubProcess, name: str, where: str) -> None:
    """A ledger balances later, too, against the hub or its files; with one reading the hub never got it fails."""
    run("simulate", "fleet", "--devices", 1, "--duration", 1, "--prefix", name, "--ledger", "l",
        "--url", hub.url, "--data", hub.data)  # fmt: skip
    ask = ("simulate", "verdict", "--ledger", "l", f"--{where}", hub.url if where == "url" else hub.data)

    sound = run(*ask)
    Path("l", "more.ledger").write_text(f"R\t{name}0001\ttemperature\t1795376000000000000\t20.5\n")
    red = run(*ask)

    assert sound.code == 0, sound.err
    assert (red.code, "ledger NOT balanced" in red.out, " 1 lost, 0 doubled" in red.out) == (1, True, True)
    assert "the ledger in l does not balance" in red.err


def test_replay_balances_its_ledger(run: Run, hub: HubProcess, admin: str, csv_map: Path, name: str) -> None:
    """Values and times are those of the file; the devices are enrolled by REST."""
    where = ("--url", hub.url, "--token", admin)

    outcome = run("simulate", "replay", "data.csv", "--map", csv_map, "--tz", "+01:00", "--ledger", "l", *where)

    assert outcome.code == 0, outcome.err
    assert "2 rows, 3 readings of 2 devices and 2 channels, 1 blanks" in outcome.err
    assert "ledger balanced: 3 produced, 3 stored" in outcome.out
    rows = run("query", f"{name}-room", "--from", 0, "--json", "--url", hub.url).json
    assert [(row["time"], row["value"]) for row in rows] == [
        ("2016-01-11 16:30:00Z", 19.5), ("2016-03-27 01:10:00Z", 20.5),
    ]  # fmt: skip


def test_replay_of_impossible_times_sends_nothing(run: Run, hub: HubProcess, csv_map: Path, name: str) -> None:
    """A local time that does not exist is named with its row; nothing is guessed and nothing sent."""
    where = ("--url", hub.url, "--data", hub.data)

    outcome = run("simulate", "replay", "data.csv", "--map", csv_map, "--tz", "Europe/Brussels", *where)

    assert outcome.code == 1
    assert "row 2 (line 3): 2016-03-27 02:10:00 does not exist in Europe/Brussels" in outcome.err
    assert "nothing was sent" in outcome.err
    assert run("query", f"{name}-room", "--from", 0, "--json", "--url", hub.url).json == []


def test_replay_may_skip_faults_and_still_says_so(run: Run, hub: HubProcess, csv_map: Path, name: str) -> None:
    """With --skip-faults the good rows are sent; the exit code still tells that some were not."""
    where = ("--url", hub.url, "--data", hub.data)

    outcome = run(
        "simulate", "replay", "data.csv", "--map", csv_map, "--tz", "Europe/Brussels", "--skip-faults", *where
    )

    assert outcome.code == 1
    assert "1 rows of data.csv were left out" in outcome.err
    assert len(run("query", f"{name}-*", "--from", 0, "--json", "--url", hub.url).json) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param((), "has no zone; say --tz", id="no zone"),
        pytest.param(("--tz", "Brussels"), "IANA name", id="bad zone"),
        pytest.param(("--tz", "UTC", "--rebase-time", "then"), "only choice is now", id="rebase"),
        pytest.param(("--tz", "UTC", "--time", "when"), "no column 'when'", id="time column"),
    ],
)
def test_mistaken_replay_is_explained(run: Run, csv_map: Path, arguments: tuple[str, ...], says: str) -> None:
    """Before anything is enrolled or sent."""
    outcome = run("simulate", "replay", "data.csv", *arguments)

    assert outcome.code in (1, 2)
    assert says in outcome.err


def test_replay_without_a_map_makes_one_device(run: Run, hub: HubProcess, csv_map: Path, name: str) -> None:
    """Every column becomes a channel; the past may be moved to end now."""
    where = ("--url", hub.url, "--data", hub.data)

    outcome = run(
        "simulate", "replay", "data.csv", "--device", name, "--tz", "+01:00", "--rebase-time", "now", "--json", *where
    )

    assert outcome.code == 0, outcome.err
    assert outcome.json["recorded"] == 3
    rows = run("query", name, "--last", "1m", "--json", "--url", hub.url).json
    assert [(row["channel"], row["value"]) for row in rows] == [("T", 20.5)]


def test_host_is_a_device(run: Run, hub: HubProcess, name: str) -> None:
    """This machine's processor, memory and disk are recorded."""
    where = ("--url", hub.url, "--data", hub.data)

    outcome = run("simulate", "host", "--name", name, "--every", 0.05, "--duration", 0.1, "--ledger", "l", *where)

    assert outcome.code == 0, outcome.err
    channels = {row["channel"] for row in run("query", name, "--last", "5m", "--json", "--url", hub.url).json}
    assert {"cpu", "memory", "disk"} <= channels


def test_simulation_without_rights_is_refused(run: Run, hub: HubProcess, name: str) -> None:
    """Neither an admin's token nor the hub's folder: nothing can be enrolled."""
    outcome = run("simulate", "fleet", "--prefix", name, "--url", hub.url)

    assert outcome.code == 4
    assert "hub tokens add --role admin" in outcome.err
