"""The files in deploy/ are well-formed, locked down, and agree with the code they start."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hub.config import Config

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
CONTAINERFILE = (DEPLOY / "container" / "Containerfile").read_text(encoding="utf-8")
# The limit of the design; lower is better. `--threshold` takes tenths.
WORST_EXPOSURE = "25"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "container" / "compose.yaml").read_text(encoding="utf-8"))
    return loaded


def _systemd_analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_unit_has_no_unknown_setting(unit: Path, tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say, once the program to start exists."""
    copy = tmp_path / unit.name
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE))

    result = _systemd_analyze("verify", "--man=no", str(copy))

    # systemd also reports units of the machine that has nothing to do with ours.
    assert [line for line in result.stderr.splitlines() if unit.name in line] == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_unit_is_locked_down(unit: Path) -> None:
    """The exposure that systemd computes is at most 2.5 of 10."""
    result = _systemd_analyze("security", "--offline=true", f"--threshold={WORST_EXPOSURE}", "--no-pager", str(unit))

    assert result.returncode == 0, result.stdout.splitlines()[-1:]


def test_hub_flags_in_deploy_exist() -> None:
    """Each `--flag` that a unit or container gives to `hub serve` is a setting of the hub."""
    unit = (DEPLOY / "systemd" / "telemetry-hub.service").read_text(encoding="utf-8")
    started = "".join(line for line in re.findall(r"^ExecStart=(?:.*\\\n)*.*$", unit, flags=re.MULTILINE))
    command = CONTAINERFILE[CONTAINERFILE.index('CMD ["serve"') :]

    flags = set(re.findall(r"--[a-z-]+", started + command))

    assert flags >= {"--data", "--host", "--tls-cert", "--tls-key"}
    assert {flag[2:].replace("-", "_") for flag in flags} <= set(Config.model_fields)


def test_container_does_not_run_as_root() -> None:
    """The last USER of the Containerfile is a number other than 0: an orchestrator cannot check a name."""
    users = re.findall(r"^USER (\S+)", CONTAINERFILE, flags=re.MULTILINE)

    assert users[-1:] == ["10001"]


def test_container_images_are_pinned_and_nothing_unlocked_is_installed() -> None:
    """No `latest`, no ADD, no piping into a shell; every pip install is hash-checked or takes our own wheels."""
    images = re.findall(r"^FROM (\S+)", CONTAINERFILE, flags=re.MULTILINE)
    installs = re.findall(r"pip install [^&\n]*", CONTAINERFILE)

    assert images
    assert all(re.fullmatch(r"[a-z]+:\d+\.\d+-[a-z-]+", image) for image in images)
    assert installs
    assert all("--require-hashes" in install or "--no-deps /wheels/" in install for install in installs)
    assert not re.search(r"^ADD |\| *(ba)?sh", CONTAINERFILE, flags=re.MULTILINE)


def test_container_commands_are_lists() -> None:
    """ENTRYPOINT and CMD are in exec form, so that SIGTERM reaches the hub and not a shell."""
    commands = re.findall(r"^\s*(?:ENTRYPOINT|CMD) (.)", CONTAINERFILE, flags=re.MULTILINE)

    assert commands
    assert set(commands) == {"["}


def test_compose_services_have_no_rights_they_do_not_use(compose: dict[str, Any]) -> None:
    """Each service has a read-only root, no capabilities, and cannot gain any."""
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name


def test_compose_builds_the_containerfile(compose: dict[str, Any]) -> None:
    """The path of the build context and file exist as seen from the compose file."""
    build = compose["services"]["certificate"]["build"]
    context = (DEPLOY / "container" / build["context"]).resolve()

    assert context == DEPLOY.parent
    assert (context / build["dockerfile"]).is_file()


def test_influxdb_is_pinned_and_keeps_its_secrets_outside() -> None:
    """The image has a version, the port is this machine's, and no secret is in the file."""
    service = yaml.safe_load((DEPLOY / "influxdb" / "compose.yaml").read_text(encoding="utf-8"))["services"]["influxdb"]

    assert re.fullmatch(r"influxdb:2\.\d+", service["image"])
    assert service["ports"] == ["127.0.0.1:8086:8086"]
    secrets = [value for key, value in service["environment"].items() if re.search("TOKEN|PASSWORD", key)]
    assert len(secrets) == 2
    assert all(re.fullmatch(r"\$\{[A-Z_]+:\?.+\}", value) for value in secrets)


def test_influxdb_workflow_runs_the_contract_suite() -> None:
    """It gives the server and all that the suite's fixture asks the environment for, and names the same version."""
    job = yaml.safe_load((DEPLOY / "influxdb" / "workflow.yaml").read_text(encoding="utf-8"))["jobs"]["contract"]
    fixture = (DEPLOY.parent / "tests" / "contract" / "conftest.py").read_text(encoding="utf-8")
    service, step = job["services"]["influxdb"], job["steps"][-1]

    assert service["image"] in (DEPLOY / "influxdb" / "compose.yaml").read_text(encoding="utf-8")
    assert 'for name in ("URL", "ORG", "TOKEN")' in fixture
    assert set(step["env"]) == {"INFLUXDB_V2_URL", "INFLUXDB_V2_ORG", "INFLUXDB_V2_TOKEN"}
    assert step["env"]["INFLUXDB_V2_TOKEN"] == service["env"]["DOCKER_INFLUXDB_INIT_ADMIN_TOKEN"]
    assert "tests/contract" in step["run"]


def test_readme_names_every_file() -> None:
    """deploy/README.md lists each file of the folder."""
    readme = (DEPLOY / "README.md").read_text(encoding="utf-8")
    files = [path for path in DEPLOY.rglob("*") if path.is_file() and "__pycache__" not in path.parts]

    missing = [path.name for path in files if path.name != "README.md" and path.name not in readme]

    assert missing == []
