"""Versions, declared dependencies and lock files agree with each other and with the code."""

import json
import re
import sys
import tomllib
from typing import Any

import pytest

from tests.architecture.source import ROOT, imported_names, modules, source_modules

HUB: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SDK: dict[str, Any] = tomllib.loads((ROOT / "device_sdk" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCKS = ("runtime", "dev", "build", "npm")
# Distribution name → what it is imported as, where the two differ.
_IMPORTED_AS = {
    "telemetry-device-sdk": "device_sdk",
    "pyyaml": "yaml",
    "argon2-cffi": "argon2",
    "import-linter": "importlinter",
    "paho-mqtt": "paho",
    "protobuf": "google",
    "python-socketio": "socketio",
}
# What docs/examples find on a Raspberry Pi; their tests bring fakes.
_SENSOR_LIBRARIES = {"adafruit_bme280", "adafruit_dht", "board"}
# Programs in tests/device_sdk/micro find what they import beside them, as on a board.
_BESIDE = {"micro", "scripted_hub"}
# What tests/bench/outage.py and bench_mqtt.py compare with: they install each into an environment of its own.
_PEERS = {"amqtt", "awscrt", "tb_device_mqtt"}
# Used without being imported: uvicorn picks httptools and uvloop, zoneinfo takes tzdata where the system has none.
_USED_BY_OTHERS = {"httptools", "uvloop", "tzdata"}
_OURS = {"device_sdk", "hub", "simulators", "tests", "docs", "deploy"}

# Of extras; imported when somebody asks, and their absence is said in words. Of the SDK: both have them.
_EXTRAS = {"discovery": {"zeroconf"}, "mqtt": {"aiomqtt", "paho"}}
_OPTIONAL = set().union(*_EXTRAS.values())
# What a notebook has anyway, in whose form `Client` gives rows.
_FRAMES = {"pandas", "polars", "pyarrow"}
# `aiohttp` comes with `influxdb-client[async]`; a hub asks its servers through it.
_OPTIONAL_OF_HUB = {"influxdb_client", "aiohttp", "google", "pyarrow", "socketio"}


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0].lower() for requirement in requirements}


def _import_names(requirements: list[str]) -> set[str]:
    return {_IMPORTED_AS.get(name, name.replace("-", "_")) for name in _names(requirements)}


def _locked(lock: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{lock}.lock").read_text(encoding="utf-8")
    return dict(re.findall(r"^([^\s=#]+)==([^\s;\\]+)", text, flags=re.MULTILINE))


def _third_party(*folders: str) -> set[str]:
    # The examples import the driver of their sensor, which is installed on the Raspberry Pi.
    ours = [module for module in modules(*folders) if not module.name.startswith("docs.examples.")]
    roots = {name.split(".")[0] for module in ours for name in imported_names(module)}
    return roots - set(sys.stdlib_module_names) - _OURS


def test_both_distributions_have_one_version() -> None:
    """The hub needs the SDK of its own version, which speaks the same wire."""
    assert SDK["version"] == HUB["version"]
    assert f"telemetry-device-sdk=={HUB['version']}" in HUB["dependencies"]


def test_changelog_begins_with_unreleased_and_then_this_version() -> None:
    """What is not released stands on top; the newest release below it, once there is one, is the version built here."""
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)

    assert headings[0] == "Unreleased"
    assert all(re.match(rf"\[?{re.escape(HUB['version'])}\]?\b", heading) for heading in headings[1:2])


@pytest.mark.parametrize("key", ["requires-python", "license", "license-files", "readme", "description", "classifiers"])
def test_metadata_is_complete(key: str) -> None:
    """Both distributions say what they are and under which licence."""
    assert HUB[key]
    assert SDK[key]


def test_licence_is_the_same_in_both() -> None:
    """Each distribution ships the whole text of Apache-2.0."""
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")

    assert "Apache License" in text
    assert (ROOT / "device_sdk" / "LICENSE").read_text(encoding="utf-8") == text


def test_sdk_depends_on_websockets_alone() -> None:
    """A device installs two packages."""
    assert _names(SDK["dependencies"]) == {"websockets"}
    assert _third_party("device_sdk") <= {"websockets"} | _OPTIONAL | _FRAMES


def test_hub_declares_what_it_imports_and_nothing_else() -> None:
    """The dependencies of the hub are the packages that hub/ and simulators/ import."""
    declared = _import_names(HUB["dependencies"])
    imported = _third_party("hub", "simulators")

    assert sorted(imported - declared - _OPTIONAL - _OPTIONAL_OF_HUB) == []
    assert sorted(declared - imported - _USED_BY_OTHERS - {"device_sdk"}) == []


def test_extras_are_the_optional_packages() -> None:
    """An extra of both distributions brings the packages that are imported only where they are, at one version."""
    for extra, packages in _EXTRAS.items():
        assert HUB["optional-dependencies"][extra] == SDK["optional-dependencies"][extra]
        assert _import_names(HUB["optional-dependencies"][extra]) == packages
    assert _import_names(HUB["optional-dependencies"]["socketio"]) == {"socketio"}
    assert _import_names(HUB["optional-dependencies"]["sparkplug"]) == {"google"}


def test_tests_import_only_what_dev_installs() -> None:
    """`pip install .[dev]` is enough to run the tests."""
    declared = _import_names(HUB["dependencies"]) | _import_names(HUB["optional-dependencies"]["dev"])

    assert sorted(_third_party("tests", "docs") - declared - _SENSOR_LIBRARIES - _PEERS - _BESIDE) == []


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_has_hashes_and_no_address(lock: str) -> None:
    """Each locked package has at least one sha256, and nothing says where it came from."""
    text = (ROOT / "requirements" / f"{lock}.lock").read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=[a-zA-Z0-9])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip())

    assert blocks
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert re.findall(r"\w+://|--index|--find-links|@ ", text) == []


def test_locks_agree_on_versions() -> None:
    """What is tested is what an installation gets: a package has one version in all lock files."""
    versions: dict[str, set[str]] = {}
    for lock in LOCKS:
        for name, version in _locked(lock).items():
            versions.setdefault(name, set()).add(version)

    assert {name: found for name, found in versions.items() if len(found) > 1} == {}
    assert set(_locked("runtime")) <= set(_locked("dev"))


def test_lock_holds_every_declared_package() -> None:
    """A dependency added to pyproject.toml is locked too (`sh requirements/lock.sh`)."""
    runtime = _names(HUB["dependencies"]) - {"telemetry-device-sdk"}
    dev = _names(HUB["optional-dependencies"]["dev"])

    assert sorted(runtime - set(_locked("runtime"))) == []
    assert sorted(dev - set(_locked("dev"))) == []


def test_page_lock_has_hashes_and_no_address() -> None:
    """package-lock.json names versions and integrity hashes; where npm fetches them from is the machine's affair."""
    packages = json.loads((ROOT / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    third_party = {name: entry for name, entry in packages.items() if name}

    assert set(third_party) >= {"node_modules/uplot", "node_modules/@fontsource-variable/inter"}
    assert all(entry["integrity"].startswith("sha512-") for entry in third_party.values())
    assert not any("resolved" in entry for entry in third_party.values())


def test_source_is_python_311() -> None:
    """No syntax newer than the oldest Python that both distributions promise."""
    assert HUB["requires-python"] == SDK["requires-python"] == ">=3.11"
    assert len(source_modules()) > 0
