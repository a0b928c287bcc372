"""A stranger's Raspberry Pi, from a claim code to readings: ``python -m tests.end_to_end.stranger_pi`` (root, ip).

The Pi is a network namespace that sees the hub and nothing else, with Python, a folder of two wheels (the SDK's, built
here, and that of its one dependency) and an empty environment. Prints what a person would see; ``--write`` puts that
into docs/how-to/claim-a-device.md, secrets, times and ports replaced.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path

from tests.support.hub_process import ROOT, HubProcess

PAGE = ROOT / "docs" / "how-to" / "claim-a-device.md"
BEGIN, END = "<!-- transcript: python -m tests.end_to_end.stranger_pi --write -->\n", "<!-- end of transcript -->"
NAME = "greenhouse-7"
_LIMIT_S = 120.0
# What differs from run to run → what stands in the page.
_REPLACED = (
    (r"\bc[0-9a-f]{12}\.[a-z2-7]{26}\b", "c3f0b6a1d2e47.mzxw6ytboi5gk3tmn5xw4ylqme"),
    (r"\bd[0-9a-f]{12}\.[\w-]{43}", "d9a1c0ffee123.(43 more characters)"),
    (r"\b[0-9a-f]{64}\b", "5e7c…(64 digits)"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z", "2026-11-26 08:15:00.000Z"),
    (r"\bwebsockets-[\d.]*\d", "websockets-17.0"),
    (r"\b10\.213\.\d+\.1:\d+\b", "10.213.78.1:8000"),
    (r"\b10\.213\.\d+\.1\b", "10.213.78.1"),
)


class Transcript:
    """Runs commands and keeps what was typed and printed."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        """Note where we are."""
        self.lines.append(f"# {text}")

    def run(
        self, shown: str, *command: str, cwd: Path, environment: dict[str, str], keep: str = "."
    ) -> tuple[str, str]:
        """Run a command; note ``shown`` and the lines it printed that match ``keep``; return its output and errors."""
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_LIMIT_S, cwd=cwd, env=environment, check=False
        )
        if done.returncode:
            raise AssertionError(f"{shown}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        printed = [line for line in (done.stderr + done.stdout).splitlines() if re.search(keep, line)]
        self.lines += [f"$ {shown}", *printed]
        return done.stdout, done.stderr

    def __str__(self) -> str:
        text = "\n".join(self.lines)
        for pattern, instead in _REPLACED:
            text = re.sub(pattern, instead, text)
        return f"```console\n{text}\n```\n"


def run_stranger() -> str:
    """Play it all once; return the transcript with secrets replaced."""
    with tempfile.TemporaryDirectory() as folder, _namespace() as (namespace, address):
        home, pi = Path(folder) / "hub", Path(folder) / "pi"
        for made in (home, pi, pi / "wheels", pi / "bin"):
            made.mkdir()
        _make_wheels(pi / "wheels", Path(folder))
        (pi / "bin" / "python3").symlink_to(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")
        sensor = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
        (pi / "sensor.py").write_text(sensor, encoding="utf-8")
        return str(_play(Transcript(), home, pi, namespace, address))


def _play(out: Transcript, home: Path, pi: Path, namespace: str, address: str) -> Transcript:
    hub_environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def on_hub(shown: str, keep: str = ".") -> str:
        command = [sys.executable, "-m", *shown.split()]
        return out.run(shown, *command, cwd=home, environment=hub_environment, keep=keep)[0]

    def on_pi(shown: str, keep: str = ".") -> None:
        environment = {"HOME": str(pi), "PATH": f"{pi / 'bin'}:/usr/bin:/bin", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        command = ["ip", "netns", "exec", namespace, "sh", "-c", shown]
        out.run(shown, *command, cwd=pi, environment=environment, keep=keep)

    out.say("on the hub: a certificate; then `hub serve` with it, on the hub's address")
    told = on_hub(f"hub tls init --name {address}", keep="^fingerprint")
    fingerprint = re.findall(r"\b[0-9a-f]{64}\b", told)[0]
    tls = home / "hub-data" / "tls"
    options = ("--tls-cert", str(tls / "server.pem"), "--tls-key", str(tls / "server-key.pem"), "--log-level", "debug")
    with HubProcess(home / "hub-data", *options, ca=tls / "ca.pem", host=address) as hub:
        out.say("a one-time code for a new device")
        code = on_hub(f"hub devices add {NAME} --claim --url {hub.url} --data hub-data").strip()
        out.say("on the Raspberry Pi")
        on_pi("python3 -m venv telemetry")
        on_pi("telemetry/bin/pip install --no-index --find-links wheels telemetry-device-sdk", keep="^Successfully")
        on_pi(
            f"telemetry/bin/python -m device_sdk claim {hub.url} {code} --fingerprint {fingerprint} --out environment"
        )
        on_pi("cat environment")
        on_pi("set -a; . ./environment; telemetry/bin/python sensor.py")
        out.say("on the hub")
        on_hub(f"hub audit {NAME} --data hub-data", keep="readings")
        on_hub(f"hub query {NAME}/temperature --last 1h --data hub-data")
    token = re.findall(r"^HUB_TOKEN=(.*)$", (pi / "environment").read_text(encoding="utf-8"), re.MULTILINE)[0]
    log = hub.log.read_text(encoding="utf-8")
    assert "hub" in log, "it says where it listens"
    assert not [secret for secret in (code, token) if secret in log], "no code and no token is in any log"
    return out


def _make_wheels(folder: Path, work: Path) -> None:
    """Build the SDK's wheel from a copy of its folder, and pack its dependency as it is installed here."""
    copy = work / "device_sdk"
    shutil.copytree(ROOT / "device_sdk", copy, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(copy)]
    subprocess.run(command, check=True, capture_output=True, timeout=_LIMIT_S)
    found = distribution("websockets")
    tag = re.findall(r"^Tag: (\S+)$", found.read_text("WHEEL") or "", re.MULTILINE)[0]
    with zipfile.ZipFile(folder / f"websockets-{found.version}-{tag}.whl", "w") as wheel:
        for file in found.files or ():
            if (
                ".." not in file.parts
                and "__pycache__" not in file.parts
                and file.name not in ("INSTALLER", "REQUESTED")
            ):
                wheel.write(str(file.locate()), str(file))


@contextmanager
def _namespace() -> Iterator[tuple[str, str]]:
    """Give a network namespace and the hub's address in the network that joins the two; both are gone afterwards."""
    number = os.getpid() % 250
    name, near, far = f"pi{os.getpid()}", f"hub{number}", f"pi{number}"
    net = f"10.213.{number}"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        _ip("address", "add", f"{net}.1/24", "dev", near)
        _ip("link", "set", near, "up")
        _ip("-n", name, "address", "add", f"{net}.2/24", "dev", far)
        _ip("-n", name, "link", "set", far, "up")
        yield name, f"{net}.1"
    finally:
        _ip("netns", "delete", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=30)


def page_with(transcript: str) -> str:
    """Return the how-to page with a transcript in its place."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    return f"{before}{BEGIN}\n{transcript}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    printed = run_stranger()
    print(printed)
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page_with(printed), encoding="utf-8")
