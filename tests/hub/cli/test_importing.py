"""``hub import`` against a real hub: files as they come, killed in the middle, exported again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hub.auth import Identities
from hub.cli.exit_code import ExitCode
from hub.roles import Role
from tests.hub.cli.conftest import Run
from tests.support.hub_process import ROOT, HubProcess, free_port


@pytest.fixture
def to_hub(hub: HubProcess, admin: str) -> list[object]:
    """Return the options that lead to a hub."""
    return ["--url", hub.url, "--token", admin]


def write_log(path: Path, rows: int) -> Path:
    """Write a table of two channels, one row a second from 2024 on."""
    with path.open("w") as file:
        file.write("time,level,door\n")
        for at in range(rows):
            file.write(f"{1_704_067_200 + at},{at / 8},{'true' if at % 2 else 'false'}\n")
    return path


def test_file_is_stored_once_however_often(run: Run, to_hub: list[object], tmp_path: Path, name: str) -> None:
    """The second time all is there already, and the numbers say so; a bad line is told with its number."""
    file = write_log(tmp_path / "log.csv", 500)
    with file.open("a") as more:
        more.write("1704067199,3\nsoon,1,true\n1704067198,,nan\n")

    first = run("import", file, "--device", name, "--refused", tmp_path / "refused.csv", "--json", *to_hub)
    second = run("import", file, "--device", name, "--json", *to_hub)

    assert (first.code, second.code) == (ExitCode.FAILED, ExitCode.FAILED)
    assert "line 502: 2 cells; the header has 3: 1704067199,3" in first.err
    assert [(f["read"], f["stored"], f["already"], f["refused"], f["blank"]) for o in (first, second) for f in o.json] \
        == [(1002, 1000, 0, 2, 2), (1002, 0, 1000, 2, 2)]  # fmt: skip
    refused = (tmp_path / "refused.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in refused] == [["file", "line"], ["log.csv", "502"], ["log.csv", "503"]]


def test_other_unit_than_the_hub_has_is_said(run: Run, to_hub: list[object], tmp_path: Path, name: str) -> None:
    """The unit of what is there stays, and the exit code says that the file's numbers may mean something else."""
    files = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for at, (file, unit) in enumerate(zip(files, ("Cel", "degF"), strict=True)):
        file.write_text(f"device,channel,time,value,unit\n{name},t,{1_704_067_200 + at},20.5,{unit}\n")

    first, second = (run("import", file, *to_hub) for file in files)

    assert (first.code, second.code) == (ExitCode.OK, ExitCode.FAILED)
    assert f"b.csv: {name}/t is in Cel and stays so; here it is degF" in second.err
    assert "1 stored" in second.err


def test_refused_lines_of_several_files_say_of_which(run: Run, to_hub: list[object], tmp_path: Path, name: str) -> None:
    """One header, and a name of any bytes: what is no text in it is escaped, for the hub's log too."""
    bad = [tmp_path / "a.csv", Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9\x1b.csv"))]
    for file in bad:
        file.write_text("time,level\n1704067199,1\nsoon,1\n")

    told = run("import", *bad, "--device", name, "--refused", tmp_path / "refused.csv", *to_hub)

    assert told.code == ExitCode.FAILED
    assert "caf\\udce9\\x1b.csv line 3: 'soon' is no time" in told.err
    refused = (tmp_path / "refused.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in refused] == [
        ["file", "line"], ["a.csv", "3"], ["caf\\udce9\\x1b.csv", "3"],
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["csv", "ndjson", "parquet"])
def test_export_comes_back_to_the_byte(
    run: Run, to_hub: list[object], tmp_path: Path, recorded: str, form: str
) -> None:
    """Export → import into an empty hub → export: units, types, texts and times are the same."""
    exported = tmp_path / f"a.{form}"
    run("export", recorded, "--format", form, "--output", exported, *to_hub)
    with HubProcess(tmp_path / "other") as other:
        identities = Identities(other.data / "identities.sqlite3")
        _, token = identities.add_token(Role.ADMIN)
        identities.close()
        there: list[object] = ["--url", other.url, "--token", token]
        imported = run("import", exported, *there)
        run("export", "--format", form, "--output", tmp_path / "b", *there)

    assert imported.code == ExitCode.OK
    assert "11 stored" in imported.err
    assert (tmp_path / "b").read_bytes() == exported.read_bytes()


@pytest.mark.slow
def test_import_that_is_killed_goes_on(
    run: Run, hub: HubProcess, admin: str, to_hub: list[object], tmp_path: Path, name: str
) -> None:
    """Killed three times while it sends (slow: 400,000 readings), then the hub too: each reading is stored once."""
    file = write_log(tmp_path / "log.csv", 200_000)
    command = [sys.executable, "-m", "hub", "import", str(file), "--device", name, *map(str, to_hub)]

    at_kills = []
    for _ in range(3):
        before = stored(hub, admin, name)
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while stored(hub, admin, name) <= before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        at_kills.append(stored(hub, admin, name))
    last = run("import", file, "--device", name, "--json", *to_hub)
    again = run("import", file, "--device", name, "--json", *to_hub)

    (report,), (repeated,) = last.json, again.json
    assert 0 < at_kills[0] < at_kills[1] < at_kills[2] < 400_000
    assert report["stored"] + report["already"] == 400_000
    assert report["already"] >= at_kills[2]
    assert (repeated["stored"], repeated["already"]) == (0, 400_000)
    audit = hub.get(f"/v1/audit?device={name}", admin)
    assert audit["balanced"] is True
    assert {(s["channel"], s["accepted"], s["superseded"], s["rows"]) for s in audit["series"]} == {
        ("level", 200_000, 0, 200_000), ("door", 200_000, 0, 200_000),
    }  # fmt: skip


def test_file_that_changes_while_it_is_read_is_said(
    hub: HubProcess, admin: str, to_hub: list[object], tmp_path: Path, name: str
) -> None:
    """A log that is rotated by truncation has lost its rest: that is no success."""
    file = write_log(tmp_path / "log.csv", 80_000)
    command = [sys.executable, "-m", "hub", "import", str(file), "--device", name, "--json", *map(str, to_hub)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not stored(hub, admin, name) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)

    os.truncate(file, 100)
    out, told = process.communicate(timeout=60)

    assert process.returncode == ExitCode.FAILED
    assert "log.csv changed while it was read" in told
    assert json.loads(out)[0]["read"] < 160_000


@pytest.mark.slow
def test_import_waits_for_a_hub_that_is_killed(run: Run, tmp_path: Path) -> None:
    """kill -9 of the hub while it imports (slow: two starts): the import goes on by itself, nothing twice."""
    file = write_log(tmp_path / "log.csv", 200_000)
    with HubProcess(tmp_path / "data") as hub:
        identities = Identities(hub.data / "identities.sqlite3")
        _, token = identities.add_token(Role.ADMIN)
        identities.close()
        command = [sys.executable, "-m", "hub", "import", str(file), "--url", hub.url, "--token", token]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 30
        while stored(hub, token, "log") < 20_000 and time.monotonic() < deadline:
            time.sleep(0.01)
        hub.kill()
        hub.start()
        told = process.communicate(timeout=60)[1]
        audit = hub.get("/v1/audit?device=log", token)

    assert process.returncode == 0, told
    assert "trying again" in told
    assert {(s["accepted"], s["superseded"], s["rows"]) for s in audit["series"]} == {(200_000, 0, 200_000)}


def stored(hub: HubProcess, token: str, device: str) -> int:
    """Return the readings that are durable of a device."""
    return sum(int(s["accepted"]) for s in hub.get(f"/v1/audit?device={device}", token)["streams"])


@pytest.mark.parametrize(
    ("text", "options", "code", "word"),
    [
        ("a,b\n1,2\n", [], ExitCode.USAGE, "--time"),
        ("time,b\n1,2\n", ["--tz", "Mars"], ExitCode.USAGE, "Mars"),
        ("time,b\n1,2\n", ["--device-column", "who"], ExitCode.USAGE, "who"),
        ("", [], ExitCode.USAGE, "columns"),
        ("time,b\n2024-01-01 00:00:00,2\n", [], ExitCode.FAILED, "--tz"),
    ],
    ids=["time", "zone", "column", "empty", "naive"],
)
def test_what_cannot_be_read_is_said(
    run: Run, to_hub: list[object], tmp_path: Path, text: str, options: list[str], code: ExitCode, word: str
) -> None:
    """With the option that helps."""
    file = tmp_path / "x.csv"
    file.write_text(text)

    outcome = run("import", file, *options, *to_hub)

    assert outcome.code == code
    assert word in outcome.err


def test_map_and_zone_are_taken(run: Run, to_hub: list[object], tmp_path: Path, name: str) -> None:
    """One file, two devices, units and types from a map; times of a wall clock in a zone."""
    (tmp_path / "map.toml").write_text(
        f'time = "when"\n[[column]]\nname = "T1"\ndevice = "{name}"\nchannel = "temperature"\nunit = "Cel"\n'
        f'[[column]]\nname = "n"\ndevice = "{name}-b"\nchannel = "count"\ntype = "int"\n'
    )
    file = tmp_path / "x.csv"
    file.write_text('when;T1;n;junk\n"2024-07-01 12:00:00";" 20.5";7;x\n')

    outcome = run("import", file, "--map", tmp_path / "map.toml", "--tz", "Europe/Brussels", *to_hub)
    exported = run("export", f"{name}*", *to_hub)

    assert "2 stored" in outcome.err
    assert exported.out.replace("\r", "").splitlines()[1:] == [
        f"{name},temperature,2024-07-01T10:00:00Z,1719828000000,20.5,Cel",
        f"{name}-b,count,2024-07-01T10:00:00Z,1719828000000,7,",
    ]


def test_import_that_failed_before_it_began_leaves_no_file(run: Run, tmp_path: Path) -> None:
    """The same command works again: a file of refusals is there once something was refused."""
    file, refused = write_log(tmp_path / "log.csv", 1), tmp_path / "refused.csv"
    nowhere = f"http://127.0.0.1:{free_port()}"

    codes = [run("import", file, "--refused", refused, "--url", nowhere).code for _ in range(2)]

    assert codes == [ExitCode.UNREACHABLE, ExitCode.UNREACHABLE]
    assert not refused.exists()


def test_no_file_and_no_format_are_said(run: Run, to_hub: list[object], tmp_path: Path) -> None:
    """Before a hub is asked."""
    (tmp_path / "x.dat").write_text("time,b\n")

    assert run("import", tmp_path / "none.csv", *to_hub).code == ExitCode.NOT_FOUND
    assert run("import", tmp_path / "x.dat", *to_hub).code == ExitCode.USAGE
