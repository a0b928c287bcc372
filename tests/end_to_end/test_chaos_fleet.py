"""A fleet through random faults, by the command a user types: nothing is lost, and the witness would have seen it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hub.cli.rest import RestClient
from simulators.ledger import load
from simulators.verdict import compare
from tests.end_to_end.conftest import admin_token
from tests.support.hub_process import ROOT, HubProcess

pytestmark = pytest.mark.timeout(120)
Rows = list[dict[str, Any]]


def run(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one ``hub`` command in a folder, with its temporary files there, to its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "XDG_STATE_HOME": str(folder)}
    command = [sys.executable, "-m", "hub", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=100, env=environment)


def struck(told: str) -> int:
    """Return how many faults the command says it did."""
    found = re.search(r"chaos seed \d+: (\d+) faults on \d+ connections \(", told)
    assert found is not None, told
    return int(found[1])


def test_fleet_through_dozens_of_faults_loses_and_doubles_nothing(hub: HubProcess, tmp_path: Path) -> None:
    """20 devices for 10 s, hit every 2 s: the ledger balances; one that nobody asked for is gone afterwards."""
    done = run(
        "simulate", "fleet", "--chaos", 7, "--chaos-every", 2, "--devices", 20, "--rate", 5, "--duration", 10,
        "--url", hub.url, "--data", hub.data, folder=tmp_path,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "ledger balanced: 3,500 produced, 3,500 stored, 0 lost, 0 doubled, 0 altered" in done.stdout
    assert struck(done.stdout) >= 24
    assert list(tmp_path.glob("hub-ledger-*")) == []


def test_faults_stand_before_a_hub_with_tls_too(tmp_path: Path) -> None:
    """The certificate is checked against the name in the URL, though TCP goes to the proxy's address."""
    made = run("tls", "init", "--data", "data", folder=tmp_path)
    assert made.returncode == 0, made.stderr
    tls = tmp_path / "data" / "tls"
    options = ("--tls-cert", str(tls / "server.pem"), "--tls-key", str(tls / "server-key.pem"))
    fleet = ("simulate", "fleet", "--chaos", 8, "--chaos-every", 1, "--devices", 10, "--rate", 5, "--duration", 5)
    with HubProcess(tmp_path / "data", *options, ca=tls / "ca.pem") as hub:
        where = ("--url", f"https://localhost:{hub.port}", "--token", admin_token(hub))
        done = run(*fleet, *where, "--ca", tls / "ca.pem", folder=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "ledger balanced: " in done.stdout
    assert struck(done.stdout) >= 10


def without(rows: Rows, n: int) -> Rows:
    """Lose a row."""
    return rows[:n] + rows[n + 1 :]


def doubled(rows: Rows, n: int) -> Rows:
    """Store a row twice."""
    return [*rows, rows[n]]


def altered(rows: Rows, n: int) -> Rows:
    """Change a value."""
    return [*rows[:n], {**rows[n], "value": "not this"}, *rows[n + 1 :]]


def invented(rows: Rows, n: int) -> Rows:
    """Store a row that no device produced."""
    return [*rows, {**rows[n], "time": "2020-01-01T00:00:00Z"}]


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Rows, dict[str, Any]]:
    """Return (witnesses, rows, audit) of a fleet that went through faults to a real hub."""
    folder = tmp_path_factory.mktemp("run")
    with HubProcess(folder / "data") as hub:
        done = run(
            "simulate", "fleet", "--chaos", 9, "--chaos-every", 0.5, "--devices", 5, "--rate", 20, "--duration", 2,
            "--ledger", "ledger", "--url", hub.url, "--data", hub.data, folder=folder,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        client = RestClient(hub.url)
        with client.stream("/v1/export", {"format": "ndjson", "match": ["**"]}) as answer:
            rows = [json.loads(line) for line in answer]
        return load(folder / "ledger"), rows, client.get("/v1/audit")


@pytest.mark.parametrize(
    ("mutate", "count"),
    [(without, "lost"), (doubled, "doubled"), (altered, "altered"), (invented, "unwitnessed")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_verdict_finds_any_one_wrong_row(
    real_run: tuple[dict[str, Any], Rows, dict[str, Any]], mutate: Callable[[Rows, int], Rows], count: str
) -> None:
    """The balance of a real run is no blindness: with any single row gone, doubled, changed or new it is red."""
    witnesses, rows, audit = real_run

    assert compare(witnesses, rows, audit).is_balanced
    for n in range(0, len(rows), 7):
        verdict = compare(witnesses, mutate(rows, n), audit)
        assert (verdict.is_balanced, verdict.total(count)) == (False, 1), rows[n]


def test_verdict_finds_a_reading_taken_twice(real_run: tuple[dict[str, Any], Rows, dict[str, Any]]) -> None:
    """A hub that takes a frame again keeps one row, and its audit counts one as superseded: that is red, too."""
    witnesses, rows, audit = real_run
    series = [{**s, "superseded": s["superseded"] + (n == 0)} for n, s in enumerate(audit["series"])]

    assert compare(witnesses, rows, {**audit, "series": series}).total("doubled") == 1
