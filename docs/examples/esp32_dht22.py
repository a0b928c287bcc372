"""Temperature and humidity from a DHT22 on GPIO 4 of an ESP32 with MicroPython: docs/how-to/microcontrollers.md.

On the board: this file as ``main.py``, ``micro.py``, and a ``settings.py`` with WIFI, PASSWORD, HUB, PORT and TOKEN.
"""

import dht
import machine
import network
from micro import Device
from settings import HUB, PASSWORD, PORT, TOKEN, WIFI

wlan = network.WLAN(network.STA_IF)
wlan.active(True)
if not wlan.isconnected():  # after a soft reset it is
    wlan.connect(WIFI, PASSWORD)  # goes on by itself; the readings wait in memory until the hub is reached

sensor = dht.DHT22(machine.Pin(4))
led = machine.Pin(2, machine.Pin.OUT)
device = Device(
    "esp32-attic", HUB, PORT, token=TOKEN,
    channels={"temperature": {"unit": "Cel", "every_s": 2}, "humidity": {"unit": "%RH", "every_s": 2}},
    commands={"light": {"args": {"on": {"type": "bool", "required": True}}}},
)  # fmt: skip


def obey(name: str, args: dict[str, bool]) -> dict[str, bool]:
    """Do what the hub asks for; what is returned is its answer, and an exception too."""
    led.value(args["on"])
    return {"on": bool(led.value())}


device.on_command = obey
while True:
    try:
        sensor.measure()
        device.record(temperature=sensor.temperature(), humidity=sensor.humidity())
    except Exception:  # OSError: no answer; a plain Exception: the driver's "checksum error"
        device.record(temperature=None)  # counted as no value
    device.wait(2)  # it measures every 2 s; meanwhile the connection is looked after
