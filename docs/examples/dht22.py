"""Temperature and humidity from a DHT22 on GPIO 4 of a Raspberry Pi, every 2 s.

    python -m venv --system-site-packages env
    env/bin/pip install telemetry-device-sdk adafruit-circuitpython-dht
    DEVICE_NAME=pi-attic HUB_URL=wss://hub.local:8000 HUB_TOKEN=… HUB_CA=ca.pem env/bin/python dht22.py

As a service: ``deploy/systemd/telemetry-device.service``. The readings wait on the SD card while there is no network.
"""

import signal
import sys
import time

import adafruit_dht
import board

from device_sdk import Device

# The sensor measures every 2 s; asked sooner it repeats itself.
EVERY_S = 2.0


def read(sensor: adafruit_dht.DHT22) -> dict[str, float | None]:
    """Return both values, or None for both when the sensor did not answer: about one read in ten."""
    try:
        return {"temperature": sensor.temperature, "humidity": sensor.humidity}
    except RuntimeError:
        return {"temperature": None, "humidity": None}


def main() -> None:
    """Record until stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # systemd's stop: leave the `with` block in order
    sensor = adafruit_dht.DHT22(board.D4, use_pulseio=False)
    with Device.from_env() as device:
        device.channel("temperature", unit="Cel", every_s=EVERY_S, range=(-10, 40))
        device.channel("humidity", unit="%RH", every_s=EVERY_S)
        while True:
            device.record(read(sensor))  # None is skipped and counted
            time.sleep(EVERY_S)


if __name__ == "__main__":
    main()
