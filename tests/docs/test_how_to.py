"""The commands of how-to pages run as printed."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from device_sdk import Device
from hub.auth import Identities
from hub.mqtt.compact import is_rows, read_rows
from hub.roles import Role
from tests.docs.test_readme import commands
from tests.support.hub_process import ROOT, HubProcess, free_port
from tests.support.mqtt_hub import MqttHub, Paho, until


@pytest.mark.slow
def test_commands_that_inject_faults_run(tmp_path: Path) -> None:
    """Each ends with exit code 0 against a hub with its files in ./hub-data; only ports are other ones."""
    told = commands((ROOT / "docs" / "how-to" / "inject-faults.md").read_text(encoding="utf-8"))
    assert len(told) == 5
    with HubProcess(tmp_path / "hub-data") as hub:
        environment = {**os.environ, "HUB_URL": hub.url, "PYTHONPATH": str(ROOT)}
        for command in told:
            assert command.startswith("hub simulate "), command
            line = command.replace("9000", str(free_port())).replace("127.0.0.1:8000", f"127.0.0.1:{hub.port}")
            done = subprocess.run(
                line.replace("hub", f"{sys.executable} -m hub", 1), shell=True, capture_output=True, text=True,
                timeout=60, cwd=tmp_path, env=environment,
            )  # fmt: skip
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            assert done.stdout.strip(), command


@pytest.mark.slow
def test_commands_about_certificates_run(tmp_path: Path) -> None:
    """From the authority to the end of a device's certificate and back, in the order of the page, beside no hub."""
    told = commands((ROOT / "docs" / "how-to" / "connect-by-certificate.md").read_text(encoding="utf-8"))
    told = [command for command in told if not command.startswith("hub serve")]
    assert len(told) == 6
    # No hub answers here: who printed a command without --data meant one without TLS.
    environment = {**os.environ, "HUB_URL": f"http://127.0.0.1:{free_port()}", "PYTHONPATH": str(ROOT)}
    fingerprint = ""
    for command in told:
        line = command.replace("hub", f"{sys.executable} -m hub", 1).replace("FINGERPRINT", fingerprint)
        done = subprocess.run(
            line, shell=True, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        fingerprint = "".join(re.findall(r"\b[0-9a-f]{64}\b", done.stdout)[-1:]) or fingerprint


@pytest.mark.slow
def test_questions_about_history_run(tmp_path: Path) -> None:
    """Commands and program answer from a house with a meter that was reset, and with numbers that are right."""
    page = (ROOT / "docs" / "how-to" / "query-history.md").read_text(encoding="utf-8")
    told = commands(page)
    assert len(told) == 3
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    hour_ns = 3600 * 10**9
    now_ns = time.time_ns()
    with HubProcess(tmp_path / "hub-data") as hub:
        identities = Identities(hub.data / "identities.sqlite3")
        token = identities.add_device("house")
        identities.close()
        with Device("house", hub.ws_url, token=token, spool=":memory:") as device:
            # A kilowatt for 24 hours, and a meter of Wh that counts it and is reset once.
            for at in range(25):
                time_ns = now_ns + (at - 25) * hour_ns
                device.record(power=1000.0, energy=at * 1000 if at < 12 else (at - 12) * 1000, time=time_ns)
            device.flush(20)
        environment = {**os.environ, "HUB_URL": hub.url, "PYTHONPATH": str(ROOT)}
        for command in told:
            line = command.replace("hub", f"{sys.executable} -m hub", 1)
            done = subprocess.run(
                f"{line} --json", shell=True, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment
            )
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            rows = json.loads(done.stdout)
            assert rows, command
            if "increase" in command:
                assert sum(row["increase"] for row in rows) == 23_000
            if "integral_h" in command:
                assert sum(row["integral_h"] for row in rows) == pytest.approx(24_000)
        code = program.replace("http://127.0.0.1:8000", hub.url) + "print(len(then), len(newest))"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "2 3", done.stdout


@pytest.mark.slow
def test_commands_that_import_history_run(tmp_path: Path) -> None:
    """In the order of the page, against a hub with its files in ./hub-data, with the answers that the page shows."""
    page = (ROOT / "docs" / "how-to" / "import-history.md").read_text(encoding="utf-8")
    with HubProcess(tmp_path / "hub-data") as hub:
        identities = Identities(hub.data / "identities.sqlite3")
        _, token = identities.add_token(Role.ADMIN)
        identities.close()
        environment = {**os.environ, "HUB_URL": hub.url, "HUB_TOKEN": token, "PYTHONPATH": str(ROOT)}
        for command in commands(page):
            line = re.sub(r"^hub ", f"{sys.executable} -m hub ", command)
            done = subprocess.run(
                line, shell=True, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment
            )
            told = done.stdout + done.stderr
            assert done.returncode == 0, f"{command}: {told}"
            assert told.strip() in page, command


def test_decoder_of_the_page_is_that_of_the_example() -> None:
    """It stands in docs/examples/heat_pump.py, which tests/hub/decode/test_plugin.py runs."""
    page = (ROOT / "docs" / "how-to" / "existing-devices.md").read_text(encoding="utf-8")
    example = (ROOT / "docs" / "examples" / "heat_pump.py").read_text(encoding="utf-8")

    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)

    assert len(blocks) == 1
    assert blocks[0] in example


def test_hooks_of_the_page_are_those_of_the_example() -> None:
    """Each block stands in docs/examples/hooks.py, which a hub runs in tests/end_to_end/test_hooks.py."""
    page = (ROOT / "docs" / "how-to" / "hooks.md").read_text(encoding="utf-8")
    example = (ROOT / "docs" / "examples" / "hooks.py").read_text(encoding="utf-8")

    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)

    assert len(blocks) == 2
    assert [block for block in blocks if block not in example] == []


@pytest.mark.slow
def test_readings_by_http_are_answered_as_printed(tmp_path: Path) -> None:
    """Each command of the page answers what stands below it, and the program with InfluxDB's client runs.

    Slow: a hub and a process for each command.
    """
    page = (ROOT / "docs" / "how-to" / "http-ingest.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    told = [tuple(part.split("\n", 1)) for block in blocks for part in block.removeprefix("$ ").split("\n$ ")]
    assert len(told) == 8
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    with HubProcess(tmp_path / "hub-data") as hub:
        environment = {**os.environ, "HUB_URL": hub.url, "PYTHONPATH": str(ROOT)}
        for command, *answer in told:
            line = command.replace("hub devices", f"{sys.executable} -m hub devices", 1)
            done = subprocess.run(
                line, shell=True, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment
            )
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            expected = re.escape("".join(answer).strip()).replace("…", '[^"]+')
            assert re.fullmatch(expected, done.stdout.strip()), f"{command}: {done.stdout}"
        environment["HUB_TOKEN"] = (tmp_path / "token").read_text(encoding="utf-8").strip()
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=environment
        )
        assert done.returncode == 0, done.stderr
        latest = {
            one["channel"]: one["value"] for one in hub.get("/v1/latest?match=greenhouse-7")["readings"]
        }  # fmt: skip

    assert latest["pump.left.flow"] == 12.5
    assert (latest["rain"], latest["battery"], latest["air.north.humidity"]) == (3, 3.9, 61)


@pytest.mark.slow
def test_devices_of_the_mqtt_page_get_in(tmp_path: Path) -> None:
    """Its program is stored, with the token that its first command printed; its gateway's device is accepted."""
    page = (ROOT / "docs" / "how-to" / "mqtt.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (row,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    add_device, add_gateway, look, accept = commands(page)
    with MqttHub(tmp_path / "hub-data") as hub:
        identities = Identities(hub.data / "identities.sqlite3")
        _, admin = identities.add_token(Role.ADMIN)
        identities.close()
        environment = {**os.environ, "HUB_URL": hub.url, "HUB_TOKEN": admin, "PYTHONPATH": str(ROOT)}

        def run(command: str) -> str:
            line = command.replace("hub", f"{sys.executable} -m hub", 1)
            done = subprocess.run(
                line, shell=True, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment
            )
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            return done.stdout

        token = re.findall(r"\b[a-z][0-9a-f]{12}\.[\w-]{43}", run(add_device))[0]
        code = f"TOKEN = {token!r}\n" + program.replace("1883", str(hub.mqtt_port))
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment
        )
        assert done.returncode == 0, done.stderr
        until(lambda: hub.values("greenhouse-7") == [21.5], "the reading")

        token = re.findall(r"\b[a-z][0-9a-f]{12}\.[\w-]{43}", run(add_gateway))[0]
        with Paho(hub, "zigbee", token) as client:
            client.publish("zigbee2mqtt/kitchen-sensor", '{"temperature":20.5}')
            assert "kitchen-sensor" in run(look)
            run(accept)
            client.publish("zigbee2mqtt/kitchen-sensor", '{"temperature":20.75}')
        until(lambda: hub.values("kitchen-sensor") == [20.75], "the reading of the sensor")

    assert is_rows(row.encode())
    assert read_rows(row.encode(), json.loads(row)["s"]).count == 3
