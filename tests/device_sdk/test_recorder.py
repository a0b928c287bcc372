"""`device_sdk.recorder`: a channel's own door checks as `Device.record` does."""

import pytest

from device_sdk import Device, MisuseError


def test_closed_device_takes_nothing() -> None:
    """What is not open says so, by either door."""
    recorder = Device("d", "ws://127.0.0.1:1", spool=":memory:").channel("t")

    with pytest.raises(MisuseError, match="is not open"):
        recorder.record(1.5)


def test_a_value_of_a_channel_is_recorded_and_no_value_is_counted() -> None:
    """None and NaN are no readings and no errors; what is no value at all is misuse."""
    with Device("d", "ws://127.0.0.1:1", spool=":memory:", close_timeout_s=0) as device:
        recorder = device.channel("t")
        recorder.record(1.5)
        recorder.record(None)
        with pytest.raises(MisuseError):
            recorder.record(object())
        assert (device.status.pending, device.status.no_value) == (1, 1)
