"""One channel of a device, as `Device.channel` gives it: a value a call, without building a mapping.

Owns: `ChannelRecorder`. Place: the fast door of `device`, whose parts it uses as `Device.record` does.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from device_sdk.errors import MisuseError
from device_sdk.reading import check_value, to_time_ns

if TYPE_CHECKING:
    from device_sdk.device import Device


class ChannelRecorder:
    """One channel of a device: made by `Device.channel`."""

    __slots__ = ("_device", "name")

    def __init__(self, device: Device, name: str) -> None:
        self._device = device
        self.name = name

    def record(self, value: object, time: datetime | int | None = None) -> None:
        """Record one value; see `Device.record`, which this does without building a mapping."""
        device = self._device
        spool, courier, timekeeper = device._spool, device._courier, device._timekeeper
        if spool is None or courier is None or timekeeper is None:
            raise MisuseError(f"device {device.name} {device._closed_because}")
        checked = check_value(self.name, value)
        time_ns = None if time is None else to_time_ns(time)
        if checked is None:
            spool.skip_no_value(1)
            return
        now_ns = device._clock.wall_ns()
        if now_ns < timekeeper.known_from_ns:
            timekeeper.record(((self.name, checked),), time_ns, now_ns)
        elif time_ns is None:
            spool.record_one(self.name, checked, now_ns)
        else:
            spool.record(((self.name, checked),), time_ns, now_ns)
        courier.wake()
