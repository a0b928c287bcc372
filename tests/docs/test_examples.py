"""The programs in ``docs/examples`` run as they stand, with fake sensors in the place of the real libraries."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.fake_hub import FakeHub

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
LIMIT_S = 20.0

# What the sensor libraries look like from the examples' side.
FAKE_LIBRARIES = {
    "board.py": "D4 = 4\ndef I2C():\n    return object()\n",
    "adafruit_dht.py": (
        "class DHT22:\n"
        "    reads = 0\n"
        "    def __init__(self, pin, use_pulseio=True):\n"
        "        assert pin == 4 and not use_pulseio\n"
        "    @property\n"
        "    def temperature(self):\n"
        "        DHT22.reads += 1\n"
        "        if DHT22.reads == 2:\n"
        "            raise RuntimeError('A full buffer was not returned. Try again.')\n"
        "        return 21.5\n"
        "    humidity = 47.1\n"
    ),
    "adafruit_bme280/__init__.py": "",
    "adafruit_bme280/basic.py": (
        "class Adafruit_BME280_I2C:\n"
        "    temperature, relative_humidity, pressure = 19.25, 51.5, 1013.25\n"
        "    def __init__(self, bus, address=0x77):\n"
        "        assert address == 0x76\n"
    ),
    # Sensors need seconds between reads, tests do not.
    "sitecustomize.py": "import time\nsleep = time.sleep\ntime.sleep = lambda s: sleep(min(s, 0.01))\n",
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a device with fake sensor libraries."""
    libraries = tmp_path / "libraries"
    for name, code in FAKE_LIBRARIES.items():
        path = libraries / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HUB_", "DEVICE_", "SPOOL_"))}
    return {
        **inherited, "PYTHONPATH": os.pathsep.join([str(libraries), str(EXAMPLES.parents[1])]),
        "DEVICE_NAME": "pi-attic", "SPOOL_DIR": str(tmp_path / "spool"), "XDG_STATE_HOME": str(tmp_path / "state"),
    }  # fmt: skip


@contextmanager
def _running(name: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / name)], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("dht22.py", {"temperature": 21.5, "humidity": 47.1}),
        ("bme280.py", {"temperature": 19.25, "humidity": 51.5, "pressure": 1013.25}),
    ],
)
def test_sensor_example_records_until_it_is_stopped(
    name: str, values: dict[str, float], environment: dict[str, str]
) -> None:
    """It delivers each channel with its unit, survives a failed read, and ends in order when systemd says so."""
    with FakeHub() as hub, _running(name, {**environment, "HUB_URL": hub.url}) as process:
        hub.wait_for(lambda: len(hub.model.readings) >= 3 * len(values), LIMIT_S)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=LIMIT_S)
        hub.wait_for(lambda: hub.model.byes == 1, LIMIT_S)

    assert process.returncode == 0, errors
    assert {r.channel: r.value for r in hub.model.readings} == values
    assert all(channel["unit"] for channel in hub.model.channels.values())


def test_quickstart_delivers_what_it_says(environment: dict[str, str]) -> None:
    """The first example of all: its last line is true."""
    with FakeHub(token="t0ken") as hub:
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / "quickstart.py"), hub.url, "t0ken", "20"],
            env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout == "60 readings are at the hub\n"
    assert len(set(hub.model.readings)) == 60
