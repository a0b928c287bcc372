"""Fake sensors on the real SDK: a few devices that record from a thread, with history before they start."""

import math
import threading
import time
from contextlib import ExitStack
from types import TracebackType

from device_sdk import Device

HISTORY_S = 90
S = 10**9


class Sensors:
    """Devices that record ``temperature``, ``humidity`` and ``door`` at ``hz`` until the block ends.

    Args:
        url: of the hub, ``ws://…``.
        tokens: device name → token; each has 90 s of history before the block begins.
        hz: readings per second and channel; times lie on an exact grid.
        hot: a device whose temperature is above its normal range.
    """

    def __init__(self, url: str, tokens: dict[str, str], *, hz: int = 10, hot: str = "") -> None:
        self._url = url
        self._tokens = tokens
        self._step_ns = S // hz
        self._hot = hot
        self._devices: dict[str, Device] = {}
        self._stack = ExitStack()
        self._silent: set[str] = set()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sensors", daemon=True)

    def silence(self, name: str) -> None:
        """Let one device record no more; its connection stays."""
        self._silent.add(name)

    def flush(self) -> None:
        """Return when everything recorded so far is stored."""
        for device in self._devices.values():
            device.flush(20)

    def add(self, name: str, token: str) -> None:
        """Let one more device begin; it has no history."""
        self._devices = {**self._devices, name: self._open(name, token)}

    def __enter__(self) -> "Sensors":
        self._devices = {name: self._open(name, token) for name, token in self._tokens.items()}
        self._next_ns = (time.time_ns() // self._step_ns) * self._step_ns - HISTORY_S * S
        self._record_until(time.time_ns())
        self.flush()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        self._thread.join(10)
        self._stack.close()

    def _open(self, name: str, token: str) -> Device:
        device = self._stack.enter_context(Device(name, self._url, token=token, spool=":memory:", close_timeout_s=0.2))
        every_s = self._step_ns / S
        device.channel("temperature", unit="Cel", range=(10.0, 30.0), every_s=every_s, label="Temperature")
        device.channel("humidity", unit="%RH", every_s=every_s)
        device.channel("door", every_s=every_s)
        return device

    def _run(self) -> None:
        while not self._ends.wait(self._step_ns / S / 2):
            self._record_until(time.time_ns())

    def _record_until(self, now_ns: int) -> None:
        while self._next_ns <= now_ns:
            for at, (name, device) in enumerate(self._devices.items()):
                if name not in self._silent:
                    self._record(device, self._next_ns, at, 14.0 if name == self._hot else 0.0)
            self._next_ns += self._step_ns

    def _record(self, device: Device, time_ns: int, at: int, warmer: float) -> None:
        t = time_ns / S
        temperature = round(21 + at % 5 + warmer + 0.8 * math.sin(t / 19 + at) + 0.05 * math.sin(t * 7), 3)
        humidity = round(60 + 5 * math.sin(t / 31 + at), 2)
        device.record(
            {"temperature": temperature, "humidity": humidity, "door": math.sin(t / 23 + at) > 0.8}, time=time_ns
        )
