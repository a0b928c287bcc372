"""What a device tells of itself (over real connections: test_device)."""

from device_sdk.outbox import SpoolStatistics
from device_sdk.status import DeviceStatistics


def test_statistics_pass_on_everything_a_spool_counts() -> None:
    """A count added to the spool is not forgotten here; its disk error is the device's last error."""
    missing = set(SpoolStatistics._fields) - set(DeviceStatistics._fields)

    assert missing == {"disk_error"}
