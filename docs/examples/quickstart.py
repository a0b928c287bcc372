"""The first readings: a sine that looks like a room.

    python quickstart.py ws://127.0.0.1:8000 TOKEN [COUNT]

The address is where ``hub serve`` listens; the token is what ``hub devices add quickstart`` printed.
"""

import math
import sys
import time

from device_sdk import Device

url, token = sys.argv[1], sys.argv[2]
count = int(sys.argv[3]) if len(sys.argv) > 3 else 60

with Device("quickstart", url, token=token) as device:
    temperature = device.channel("temperature", unit="Cel", every_s=0.5, range=(18, 24))
    for n in range(count):
        temperature.record(21 + 2 * math.sin(n / 10))
        device.record(humidity=45.0, window_open=n % 20 == 0)
        time.sleep(0.5)
    device.flush()
    print(f"{3 * count} readings are at the hub")
