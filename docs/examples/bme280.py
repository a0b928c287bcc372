"""Temperature, humidity and pressure from a BME280 on the I²C bus of a Raspberry Pi, every second.

    sudo raspi-config nonint do_i2c 0
    python -m venv --system-site-packages env
    env/bin/pip install telemetry-device-sdk adafruit-circuitpython-bme280
    DEVICE_NAME=pi-garden HUB_URL=wss://hub.local:8000 HUB_TOKEN=… HUB_CA=ca.pem env/bin/python bme280.py

As a service: ``deploy/systemd/telemetry-device.service``. The readings wait on the SD card while there is no network.
"""

import signal
import sys
import time

import board
from adafruit_bme280 import basic

from device_sdk import Device

EVERY_S = 1.0
# Most cheap boards; Adafruit's own answers at 0x77.
ADDRESS = 0x76


def main() -> None:
    """Record until stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # systemd's stop: leave the `with` block in order
    sensor = basic.Adafruit_BME280_I2C(board.I2C(), address=ADDRESS)
    with Device.from_env() as device:
        device.channel("temperature", unit="Cel", every_s=EVERY_S, range=(-20, 45))
        device.channel("humidity", unit="%RH", every_s=EVERY_S)
        device.channel("pressure", unit="hPa", every_s=EVERY_S, range=(950, 1050))
        next_at = time.monotonic()
        while True:
            # One instant for the three, and a rhythm that does not drift with the time a read takes.
            device.record(temperature=sensor.temperature, humidity=sensor.relative_humidity, pressure=sensor.pressure)
            next_at += EVERY_S
            time.sleep(max(0.0, next_at - time.monotonic()))


if __name__ == "__main__":
    main()
