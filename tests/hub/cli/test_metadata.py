"""``hub metadata``: set, unset, show, history, export and import, on a running hub and on its files."""

import json
import time
from contextlib import closing
from pathlib import Path

import pytest

from device_sdk import Device
from hub.auth import Identities
from tests.hub.cli.conftest import Run
from tests.support.hub_process import HubProcess

# Within a second on a quiet machine.
LIMIT_S = 10.0


@pytest.fixture(params=["rest", "files"])
def where(request: pytest.FixtureRequest, hub: HubProcess, admin: str) -> list[object]:
    """The running hub, or its files beside it, as options."""
    return ["--url", hub.url, "--token", admin] if request.param == "rest" else ["--data", hub.data]


def test_what_is_set_holds_and_is_remembered(run: Run, where: list[object], recorded: str) -> None:
    """Set and unset, shown with where each came from; the history says old and new, and what held at a time."""
    channel = f"{recorded}/temperature"
    told = run("metadata", "set", recorded, "label=North house", "site=north", "tag+=tomatoes", "tags+=a,b", *where)
    assert (told.code, told.err) == (0, f"{recorded}: set\n")
    assert run("metadata", "set", recorded, "tags-=b", *where).code == 0
    assert run("metadata", "set", channel, "decimals=1", "scale=0.1", "offset=-5", *where).code == 0
    assert run("metadata", "unset", channel, "offset", *where).code == 0

    shown = run("metadata", "show", recorded, *where).out
    found = run("metadata", "show", recorded, "--json", *where).json
    history = run("metadata", "history", channel, "--json", *where).json
    then = run("metadata", "history", channel, "--at", history["changes"][-1]["time_ns"], *where)

    assert found["devices"] == [
        {"device": recorded, "set": {"label": "North house", "site": "north", "tags": ["a", "tomatoes"]}}
    ]
    assert [line.split() for line in shown.splitlines() if "temperature" in line] == [
        [channel, "unit", "°C", "declared"], [channel, "decimals", "1", "set"], [channel, "scale", "0.1", "set"],
    ]  # fmt: skip
    newest = history["changes"][0]
    assert (newest["field"], newest["old"], newest["new"]) == ("offset", -5.0, None)
    assert len(history["changes"]) == 4
    assert sorted(line.split()[0] for line in then.out.splitlines()[1:]) == ["decimals", "offset", "scale"]
    assert "North house" in run("metadata", "history", recorded, *where).out


def test_scale_shows_in_queries_and_raw_does_not(run: Run, where: list[object], recorded: str) -> None:
    """`hub query` and `hub export` show the scaled value, with --raw the stored one."""
    run("metadata", "set", f"{recorded}/temperature", "scale=10", *where)
    reading = [f"{recorded}/temperature", "--from", 0, *where]
    shown = [row["value"] for row in run("query", "--json", *reading).json]
    raw = [row["value"] for row in run("query", "--json", "--raw", *reading).json]
    lines = run("export", "--raw", "--format", "ndjson", *reading).out.splitlines()
    assert (shown[:2], raw[:2], json.loads(lines[0])["value"]) == ([200.0, 210.0], [20.0, 21.0], 20.0)


def test_watch_shows_the_scale_within_a_second(run: Run, hub: HubProcess, recorded: str) -> None:
    """What is set on the files of a running hub holds for its watchers."""
    run("metadata", "set", f"{recorded}/temperature", "scale=0.1", "unit=K", "--data", hub.data)
    watch = ["watch", f"{recorded}/temperature", "--since", "2026-11-22T19:33:00Z", "-n", 1, "--json", "--url", hub.url]

    ends = time.monotonic() + LIMIT_S
    while (found := run(*watch).json)["unit"] != "K" and time.monotonic() < ends:
        pass

    assert (found["value"], found["unit"]) == (2.0, "K")


def test_declared_label_cannot_write_to_the_terminal(run: Run, hub: HubProcess, name: str) -> None:
    """A device may declare any text; people see what it is made of."""
    with closing(Identities(hub.data / "identities.sqlite3")) as identities:
        token = identities.add_device(name)
    with Device(name, hub.ws_url, token=token, spool=":memory:") as device:
        device.channel("x", label="\x1b[2J").record(1.0)
        device.flush(20)

    shown = run("metadata", "show", name, "--url", hub.url).out

    assert "\x1b" not in shown
    assert "\\x1b[2J" in shown


@pytest.mark.parametrize("form", ["toml", "csv"])
def test_export_is_imported_without_a_change(
    run: Run, where: list[object], name: str, tmp_path: Path, form: str
) -> None:
    """A file that was exported changes nothing, and gives another device the same when its name is replaced."""
    run("metadata", "set", name, 'label=Pump, "1"', "notes=two\nlines", "tags=b,a", "lat=1.5", "lon=-2", *where)
    run("metadata", "set", f"{name}/power", "unit=W", "scale=0.1", "kind=counter", "every_s=3600", *where)
    file = tmp_path / f"all.{form}"
    assert run("metadata", "export", name, "--format", form, "-o", file, *where).err == f"{file}: 2 rows\n"
    assert run("metadata", "export", name, "--format", form, *where).out.replace("\r", "") == file.read_text()

    same = run("metadata", "import", file, *where)
    file.write_text(file.read_text().replace(name, f"{name}-copy"))
    trial = run("metadata", "import", file, "--dry-run", "--json", *where)
    none = run("metadata", "show", f"{name}-copy", "--json", *where).json
    made = run("metadata", "import", file, *where)

    assert (same.code, same.err) == (0, "nothing changes\n2 rows: 0 changed, 0 wrong\n")
    assert (trial.code, [len(row["changed"]) for row in trial.json]) == (0, [5, 4])
    assert none == {"devices": [], "channels": []}
    assert made.err == "2 rows: 2 changed, 0 wrong\n"
    held = [run("metadata", "show", n, "--json", *where).json for n in (name, f"{name}-copy")]
    assert json.dumps(held[1]).replace(f"{name}-copy", name) == json.dumps(held[0])


def test_wrong_row_is_reported_and_loses_nothing_else(run: Run, where: list[object], name: str, tmp_path: Path) -> None:
    """Each wrong row is named with its line and why; the others are set; the code is 1."""
    file = tmp_path / "rows.csv"
    wrong = f"{name},t,,none\n{name},u,,0\n{name * 64},,Bad,\n{name},{'c' * 1000},Bad,\nno name,,Bad,\n"
    file.write_text(f"device,channel,label,scale\n{name},,Good,\n{wrong}{name},v,Also,2\n")

    done = run("metadata", "import", file, "--json", *where)

    assert done.code == 1
    assert [(row["where"], row["changed"], bool(row["error"])) for row in done.json] == [
        ("line 2", ["label"], False), *((f"line {n}", [], True) for n in range(3, 8)),
        ("line 8", ["label", "scale"], False),
    ]  # fmt: skip
    assert done.err == "7 rows: 2 changed, 5 wrong\n"
    assert "line 4" in run("metadata", "import", file, *where).out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["set", "a", "label"], "FIELD=VALUE"), (["set", "a", "label+=x"], "tags"), (["set", "a/b/c", "x=1"], "DEVICE"),
        (["set", "a*", "label=x"], "DEVICE"), (["set", "a/t", "scale=much"], "number"),
        (["set", "a", "size=1"], "size"), (["unset", "a/t", "size"], "size"), (["import", "a.txt"], ".toml"),
        (["import", "torn.toml"], "TOML"),
        (["import", "latin.csv"], "UTF-8"), (["history", "a", "--at", "soon"], "soon"), (["show", "a/b/c"], "pattern"),
    ],
    ids=str,
)  # fmt: skip
def test_mistake_is_a_usage_error_and_named(
    run: Run, hub: HubProcess, tmp_path: Path, arguments: list[object], word: str
) -> None:
    """Code 2, and the message says what to write."""
    (tmp_path / "torn.toml").write_text("[device")
    (tmp_path / "latin.csv").write_bytes("device,label\na,é\n".encode("latin-1"))

    outcome = run("metadata", *arguments, "--data", hub.data)

    assert outcome.code == 2, outcome
    assert word in outcome.err
