"""The examples for microcontrollers run as they are, with a real MicroPython; only what is soldered to it is played."""

import json
import shutil
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import Any

import pytest

from tests.device_sdk.micro.scripted_hub import ScriptedHub

ROOT = Path(__file__).parents[2]
MICROPYTHON = shutil.which("micropython", path=sysconfig.get_path("scripts"))
LIMIT_S = 20.0
# Here objects are twice as large as on a board: as 64 KiB there.
HEAP = "heapsize=128k"

NETWORK = """
STA_IF = 0
class WLAN:
    def __init__(self, which): self.has_tried = False
    def active(self, on): pass
    def connect(self, name, password): self.has_tried = (name, password) == ("attic", "wifi secret")
    def isconnected(self): return self.has_tried
"""
# The trimming values of the data sheet's example of a conversion, and such as real sensors have for humidity.
MACHINE = """
import struct
class Pin:
    OUT = 1
    def __init__(self, number, mode=0): self.level = 0
    def value(self, *level):
        if not level: return self.level
        self.level = int(level[0])
class I2C:
    def __init__(self, bus, sda, scl): self.has_begun, self.turn = False, 0
    def writeto_mem(self, address, register, data): self.has_begun |= (register, data) == (0xF4, b"\\x25")
    def readfrom_mem(self, address, register, size):
        if register == 0x88:
            p = 36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000
            return struct.pack("<HhhHhhhhhhhh", 27504, 26435, -1000, *p)
        if register == 0xA1: return bytes((75,))
        if register == 0xE1: return struct.pack("<hBbBbb", 362, 0, 20, 0x2D, 3, 30)
        assert register == 0xF7 and self.has_begun
        self.turn += 1
        if self.turn == 1: raise OSError(5)
        t, p, h = 519888, 415148, 28000
        return bytes((p >> 12, p >> 4 & 255, p << 4 & 255, t >> 12, t >> 4 & 255, t << 4 & 255, h >> 8, h & 255))
"""
DHT = """
class DHT22:
    def __init__(self, pin): self.turn = 0
    def measure(self):
        self.turn += 1
        # As MicroPython's own driver does, both.
        if self.turn == 1: raise OSError("ETIMEDOUT")
        if self.turn == 2: raise Exception("checksum error")
    def temperature(self): return 21.5
    def humidity(self): return 47.1
"""
# A quartz that is ten times as fast, so that no test waits for the pause between two measurements.
TIME = """
from utime import sleep, ticks_ms as real_ms
def ticks_ms(): return real_ms() * 10
"""


class Board:
    """A folder with what is on the board, and a hub in the same network."""

    def __init__(self, folder: Path, example: str) -> None:
        self.hub = ScriptedHub()
        shutil.copy(ROOT / "device_sdk" / "micro.py", folder)
        shutil.copy(ROOT / "docs" / "examples" / example, folder / "main.py")
        settings = f'WIFI, PASSWORD = "attic", "wifi secret"\nHUB, PORT, TOKEN = "127.0.0.1", {self.hub.port}, "t"\n'
        played = {"network": NETWORK, "machine": MACHINE, "dht": DHT, "time": TIME, "settings": settings}
        for name, text in played.items():
            (folder / f"{name}.py").write_text(text)
        self._output = (folder / "output").open("w+")
        command = [str(MICROPYTHON), "-X", HEAP, "main.py"]
        self._process = subprocess.Popen(command, cwd=folder, stdout=self._output, stderr=self._output)

    def wait_for(self, op: str) -> dict[str, Any]:
        """Return the first message with this op, or the first rows for ``rows``."""
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end and self._process.poll() is None:
            self.hub.turn()
            for came in self.hub.got:
                message: dict[str, Any] = json.loads(came.payload)
                if message.get("op", "rows" if "r" in message else "state") == op:
                    return message
            time.sleep(0.005)
        self._output.seek(0)
        raise AssertionError(f"no {op}; the board says: {self._output.read()}")

    def close(self) -> None:
        """Switch it off."""
        self._process.kill()
        self._process.wait(10)
        self._output.close()
        self.hub.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the board's files are."""
    if MICROPYTHON is None:
        pytest.skip("there is no MicroPython for this machine")
    return tmp_path


def test_esp32_with_dht22_records_and_obeys(folder: Path) -> None:
    """Its readings arrive with their units; the hub switches its light."""
    board = Board(folder, "esp32_dht22.py")
    board.hub.name = "esp32-attic"
    try:
        assert board.wait_for("schema")["channels"]["temperature"] == {"unit": "Cel", "every_s": 2}
        board.hub.say(op="command", id="k1", name="light", args={"on": True}, expires_ns="0")
        assert board.wait_for("reply") == {"op": "reply", "id": "k1", "ok": True, "value": {"on": True}}
        rows = board.wait_for("rows")
    finally:
        board.close()

    assert dict(zip(rows["f"], rows["r"][0][1:], strict=True)) == {"temperature": 21.5, "humidity": 47.1}


def test_pico_w_with_bme280_converts_as_the_data_sheet_does(folder: Path) -> None:
    """25.08 °C and 1006.53 hPa are its worked example."""
    board = Board(folder, "pico_w_bme280.py")
    board.hub.name = "pico-cellar"
    try:
        rows = board.wait_for("rows")
    finally:
        board.close()

    got = dict(zip(rows["f"], rows["r"][0][1:], strict=True))
    humidity = got.pop("humidity")
    assert got == {"temperature": 25.08, "pressure": 1006.53}
    assert humidity == pytest.approx(_humidity(28000, 128422.0), abs=0.1)


def _humidity(raw: int, t_fine: float) -> float:
    """Return %RH by the data sheet's formula for floats (appendix A)."""
    h1, h2, h3, h4, h5, h6 = 75, 362, 0, 20 << 4 | 13, 3 << 4 | 2, 30
    h = t_fine - 76800.0
    h = (raw - (h4 * 64.0 + h5 / 16384.0 * h)) * (
        h2 / 65536.0 * (1.0 + h6 / 67108864.0 * h * (1.0 + h3 / 67108864.0 * h))
    )
    return h * (1.0 - h1 * h / 524288.0)
