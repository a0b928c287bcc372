"""Temperature, humidity and pressure from a BME280 on a Raspberry Pi Pico W: docs/how-to/microcontrollers.md.

SDA on GPIO 0, SCL on GPIO 1. On the board: this file as ``main.py``, ``micro.py``, and a ``settings.py`` with WIFI,
PASSWORD, HUB, PORT and TOKEN. What the sensor's numbers mean: Bosch's data sheet BST-BME280-DS002, section 4.2.
"""

import struct

import machine
import network
from micro import Device
from settings import HUB, PASSWORD, PORT, TOKEN, WIFI

ADDRESS = 0x76
i2c = machine.I2C(0, sda=machine.Pin(0), scl=machine.Pin(1))
T1, T2, T3, P1, P2, P3, P4, P5, P6, P7, P8, P9 = struct.unpack("<HhhHhhhhhhhh", i2c.readfrom_mem(ADDRESS, 0x88, 24))
H1 = i2c.readfrom_mem(ADDRESS, 0xA1, 1)[0]
H2, H3, e4, e5, e6, H6 = struct.unpack("<hBbBbb", i2c.readfrom_mem(ADDRESS, 0xE1, 7))
H4, H5 = e4 << 4 | e5 & 15, e6 << 4 | e5 >> 4


def read() -> tuple[float, float, float]:
    """Measure once; return °C, %RH and hPa. In whole numbers, which are exact where floats have 32 bits."""
    i2c.writeto_mem(ADDRESS, 0xF2, b"\x01")
    i2c.writeto_mem(ADDRESS, 0xF4, b"\x25")
    device.wait(0.02)
    data = i2c.readfrom_mem(ADDRESS, 0xF7, 8)
    raw_p, raw_t = (data[at] << 12 | data[at + 1] << 4 | data[at + 2] >> 4 for at in (0, 3))
    raw_h = data[6] << 8 | data[7]
    t = ((raw_t >> 3) - (T1 << 1)) * T2 >> 11
    t += (((raw_t >> 4) - T1) ** 2 >> 12) * T3 >> 14

    a = t - 128000
    b = a * a * P6 + (a * P5 << 17) + (P4 << 35)
    a = ((1 << 47) + (a * a * P3 >> 8) + (a * P2 << 12)) * P1 >> 33
    p = ((1048576 - raw_p << 31) - b) * 3125 // a
    p = (p + (P9 * (p >> 13) ** 2 >> 25) + (P8 * p >> 19) >> 8) + (P7 << 4)

    h = t - 76800
    scale = ((h * H6 >> 10) * ((h * H3 >> 11) + 32768) >> 10) + 2097152
    h = ((raw_h << 14) - (H4 << 20) - H5 * h + 16384 >> 15) * (scale * H2 + 8192 >> 14)
    h = min(max(h - (((h >> 15) ** 2 >> 7) * H1 >> 4), 0), 419430400)
    return (t * 5 + 128 >> 8) / 100, round((h >> 12) / 1024, 1), round(p / 25600, 2)


wlan = network.WLAN(network.STA_IF)
wlan.active(True)
device = Device(
    "pico-cellar", HUB, PORT, token=TOKEN,
    channels={"temperature": {"unit": "Cel"}, "humidity": {"unit": "%RH"}, "pressure": {"unit": "hPa"}},
)  # fmt: skip
while True:
    if not wlan.isconnected():
        wlan.connect(WIFI, PASSWORD)  # a Pico W does not come back by itself
    try:
        temperature, humidity, pressure = read()
        device.record(temperature=temperature, humidity=humidity, pressure=pressure)
    except OSError:
        device.record(temperature=None)  # the sensor did not answer: counted as no value
    device.wait(10)
