"""`hub log`: who changed what, by REST and from a folder."""

import subprocess
import sys
from pathlib import Path

from tests.hub.cli.conftest import Run
from tests.support.hub_process import ROOT, HubProcess


def test_changes_by_rest_and_offline_are_in_one_log(run: Run, hub: HubProcess, admin: str, name: str) -> None:
    """What was done over the network and what was done with --data, oldest first."""
    at = ("--url", hub.url, "--token", admin)
    run("devices", "add", name, *at)
    run("devices", "rm", name, "--data", hub.data)

    outcome = run("log", "--device", name, "--json", *at)

    assert outcome.code == 0
    assert [(e["what"], e["role"]) for e in outcome.json] == [
        ("POST /v1/devices", "admin"),
        ("hub devices rm", "offline"),
    ]
    assert "POST /v1/devices" in run("log", "--what", "POST", "--who", "tests", *at).out
    assert "nothing in the log" in run("log", "--who", "nobody at all", *at).err


def test_follow_shows_what_comes(run: Run, hub: HubProcess, admin: str, name: str, tmp_path: Path) -> None:
    """With --follow a change appears by itself."""
    command = [sys.executable, "-m", "hub", "log", "--follow", "--device", name, "--url", hub.url, "--token", admin]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as following:
        run("devices", "add", name, "--url", hub.url, "--token", admin)
        line = following.stdout.readline() if following.stdout else ""
        following.kill()

    assert f"POST /v1/devices  {name}  ok" in line


def test_follow_needs_a_hub(run: Run, tmp_path: Path) -> None:
    """A folder is read once."""
    assert run("log", "--follow", "--data", tmp_path).code == 2


def test_log_is_shown_as_readings_to_who_names_it(run: Run, hub: HubProcess, admin: str, name: str) -> None:
    """Watched, queried and audited by its name with a token that holds it, or on the files; by nobody's wildcard."""
    made = run(
        "tokens", "add", "--role", "admin", "--match", "**", "--match", "$sys/audit", "--name", name, "--json",
        "--url", hub.url, "--token", admin,
    )  # fmt: skip
    at = ("--url", hub.url, "--token", made.json["token"])
    run("devices", "add", name, *at)

    watched = run("watch", "$sys/audit", "--since", "-1h", "-n", "1", "--json", *at)
    asked = run("query", "$sys/audit", "--last", "1h", "--json", *at)
    everything = run("query", "--last", "1h", "--json", *at)
    audited = run("audit", "$sys", "--json", *at)
    on_files = run("query", "$sys", "--last", "1h", "--json", "--data", hub.data)
    refused = run("tokens", "add", "--role", "watcher", "--match", "$sys", *at)

    assert '\\"what\\"' in watched.out
    assert f'\\"target\\":\\"{name}\\"' in asked.out
    assert f'\\"target\\":\\"{name}\\"' in on_files.out
    assert "audit" not in everything.out
    assert [(d["device"], d["balanced"]) for d in audited.json["devices"]] == [("$sys", True)]
    assert (refused.code, "manage everything" in refused.err) == (2, True)
