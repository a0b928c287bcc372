"""Build both distributions, install them into empty environments, and use them as a person would (part of `.ci/run`).

What must hold: the two wheels share no file and ship all of their sources; the SDK works alone and brings websockets
alone; a hub starts from the wheel and serves its page; removing one leaves the other whole, or says why it cannot run.
Everything happens in a temporary folder, built from a copy of the files that git knows: leftovers of a checkout cannot
help.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START_LIMIT_S = 30
STOP_LIMIT_S = 10
# A checkout on PYTHONPATH or in the current folder would stand in for what the wheel lacks.
CLEAN_ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HUB_"))}


def main() -> None:
    """Run every check; the first that fails ends the program with what was expected."""
    with tempfile.TemporaryDirectory(prefix="telemetry-wheels-") as name:
        folder = Path(name)
        steps: list[tuple[str, Callable[[], object]]] = [
            ("build", lambda: build(folder)),
            ("contents", lambda: check_contents(folder)),
            ("SDK alone", lambda: check_sdk_alone(folder)),
            ("hub", lambda: check_hub(folder)),
            ("removing one", lambda: check_removal(folder)),
        ]
        for step, run_step in steps:
            start = time.monotonic()
            run_step()
            print(f"wheels: {step}: ok in {time.monotonic() - start:.1f} s", flush=True)


# ------------------------------------------------------------------------------------------------------------- build


def build(folder: Path) -> None:
    """Make sdists, and wheels from the sdists, in folder/dist, with the locked build tools of `.venv`."""
    source = folder / "source"
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for file in filter(None, listed.split("\0")):
        if (ROOT / file).is_file():
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, source / file)
    for project in (source / "device_sdk", source):
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(project))


def wheel(folder: Path, distribution: str) -> Path:
    """Return the one wheel of a distribution."""
    found = list((folder / "dist").glob(f"{distribution.replace('-', '_')}-*.whl"))
    require(len(found) == 1, f"one wheel of {distribution}, found {found}")
    return found[0]


def check_contents(folder: Path) -> None:
    """Compare the wheels with each other and with the tree."""
    hub = set(zipfile.ZipFile(wheel(folder, "telemetry-hub")).namelist())
    sdk = set(zipfile.ZipFile(wheel(folder, "telemetry-device-sdk")).namelist())

    require(not hub & sdk, f"no file in both wheels, but {sorted(hub & sdk)}")
    for names, packages in ((hub, ("hub", "simulators")), (sdk, ("device_sdk",))):
        info = next(name.split("/")[0] for name in names if ".dist-info/" in name)
        tops = {name.split("/")[0] for name in names} - {info}
        require(tops == set(packages), f"only {packages} in the wheel, but {sorted(tops)}")
        require(f"{info}/licenses/LICENSE" in names, f"the licence in {info}")
        expected = set().union(*(set(shipped_files(folder / "source", package)) for package in packages))
        shipped = {name for name in names if not name.startswith(info)}
        missing, extra = expected - shipped, {name for name in shipped - expected if "/vendor/" not in name}
        require(not missing and not extra, f"the tree in the wheel; missing {sorted(missing)}, extra {sorted(extra)}")
    for name in ("uPlot.esm.js", "uPlot.min.css", "uPlot-LICENSE.txt", "InterVariable.woff2", "Inter-LICENSE.txt"):
        require(f"hub/page/vendor/{name}" in hub, f"hub/page/vendor/{name} in the hub's wheel")


def shipped_files(source: Path, package: str) -> Iterator[str]:
    """Yield what a package must ship: modules, py.typed, and the page."""
    for path in (source / package).rglob("*"):
        name = path.relative_to(source).as_posix()
        is_ours = path.is_file() and not path.name.startswith(".") and not {"vendor", "build"} & set(path.parts)
        if is_ours and (path.suffix == ".py" or path.name == "py.typed" or name.startswith("hub/page/")):
            yield name


# ------------------------------------------------------------------------------------------------------ environments


class Environment:
    """A virtual environment, empty at first; what is installed takes the locked versions."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / name
        self.scratch = folder / f"{name}-scratch"
        self.scratch.mkdir(exist_ok=True)
        self._constraints = folder / "constraints.txt"
        lock = (ROOT / "requirements" / "runtime.lock").read_text(encoding="utf-8")
        # With its marker: a package may be locked to one version for each Python.
        self._constraints.write_text("\n".join(re.findall(r"^[^\s#]+==[^\\\n]+", lock, flags=re.MULTILINE)))
        if not self.path.exists():
            run(sys.executable, "-m", "venv", str(self.path))

    def install(self, *arguments: str | Path) -> None:
        """Run `pip install`."""
        self.python("-m", "pip", "install", "-qq", "-c", str(self._constraints), *map(str, arguments))

    def python(self, *arguments: str) -> str:
        """Run this environment's interpreter away from the checkout and return what it printed."""
        return run(str(self.path / "bin" / "python"), *arguments, cwd=self.scratch)

    def packages(self) -> set[str]:
        """Return the names of what is installed, but for the installers."""
        listed = json.loads(self.python("-m", "pip", "list", "--format", "json", "--disable-pip-version-check"))
        return {entry["name"].lower() for entry in listed} - {"pip", "setuptools", "wheel"}


def check_sdk_alone(folder: Path) -> None:
    """The SDK brings websockets alone and imports without anything of the hub."""
    environment = Environment(folder, "sdk")
    environment.install(wheel(folder, "telemetry-device-sdk"))

    packages = environment.packages()
    require(packages == {"telemetry-device-sdk", "websockets"}, f"the SDK and websockets alone, but {sorted(packages)}")
    environment.python(
        "-c",
        "import sys, device_sdk; from device_sdk import Device, Channel, Reading\n"
        "found = {'pydantic', 'hub', 'simulators', 'uvicorn', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'import device_sdk loads {found}' if found else 0)",
    )


def check_hub(folder: Path) -> None:
    """A hub from the wheel answers and serves a page whose files are all there."""
    environment = Environment(folder, "hub")
    environment.install(wheel(folder, "telemetry-hub"), wheel(folder, "telemetry-device-sdk"))
    environment.python("-m", "pip", "check")

    for script in ("hub", "telemetry-hub"):
        require("serve" in run(str(environment.path / "bin" / script), "--help"), f"`{script} --help` names serve")
    with running_hub(environment) as url:
        health = json.loads(fetch(f"{url}/healthz"))
        require(health.get("status") == "ok", f"/healthz says ok, but {health}")
        page = fetch(f"{url}/").decode()
        require("<html" in page.lower(), "GET / is the page")
        references = re.findall(r"""(?:src|href)="(?!https?:|data:|#|//)([^"]+\.(?:js|css|woff2|svg))[^"]*\"""", page)
        require(bool(references), "the page names its scripts and styles")
        for reference in references:
            fetch(urllib.parse.urljoin(f"{url}/", reference))


@contextmanager
def running_hub(environment: Environment) -> Iterator[str]:
    """Start `hub serve` on a free port, yield its URL once it is healthy, and require a clean stop on SIGTERM."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    log = environment.scratch / "hub.log"
    command = [str(environment.path / "bin" / "hub"), "serve", "--data", "data", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=environment.scratch,
            env=CLEAN_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_healthy(process, url, log)
        yield url
        process.send_signal(signal.SIGTERM)
        code = process.wait(STOP_LIMIT_S)
        require(code == 0, f"`hub serve` ends with 0 on SIGTERM, but {code}:\n{log.read_text()}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return when /healthz answers; fail with the log when the hub ends or is too slow."""
    limit = time.monotonic() + START_LIMIT_S
    while time.monotonic() < limit and process.poll() is None:
        try:
            fetch(f"{url}/healthz")
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"wheels: the hub did not answer at {url}/healthz:\n{log.read_text()}")


def check_removal(folder: Path) -> None:
    """Without the hub the SDK works; without the SDK the hub says what is missing, and comes back with it."""
    environment = Environment(folder, "hub")

    environment.python("-m", "pip", "uninstall", "-qq", "-y", "telemetry-hub")
    environment.python("-c", "from device_sdk import Device")
    require(not list(environment.path.glob("lib/python*/site-packages/hub")), "no folder of the hub is left")

    environment.install("--no-deps", wheel(folder, "telemetry-hub"))
    environment.python("-m", "pip", "uninstall", "-qq", "-y", "telemetry-device-sdk")
    hub = subprocess.run(
        [str(environment.path / "bin" / "hub"), "serve"],
        cwd=environment.scratch,
        env=CLEAN_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=START_LIMIT_S,
    )
    said = hub.stdout + hub.stderr
    require(
        hub.returncode != 0 and "telemetry-device-sdk" in said and "Traceback" not in said,
        f"without the SDK `hub` names the package that is missing, but code {hub.returncode} and:\n{said}",
    )
    environment.install("--no-deps", wheel(folder, "telemetry-device-sdk"))
    run(str(environment.path / "bin" / "hub"), "--help")


# ------------------------------------------------------------------------------------------------------------ basics


def run(*command: str, cwd: Path | None = None) -> str:
    """Run a command away from the checkout's settings; end with its output when it fails."""
    result = subprocess.run(
        command, cwd=cwd, env=CLEAN_ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise SystemExit(f"wheels: {' '.join(command)} ended with {result.returncode}:\n{result.stdout}{result.stderr}")
    return result.stdout


def fetch(url: str) -> bytes:
    """Return the body of a 200 answer."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError as error:
        raise SystemExit(f"wheels: GET {url} answered {error.code}") from error


def require(holds: bool, what: str) -> None:
    """End the program when a rule does not hold."""
    if not holds:
        raise SystemExit(f"wheels: expected: {what}")


if __name__ == "__main__":
    main()
