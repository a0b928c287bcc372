"""A time counts when it is plausible, and is exactly what was sent."""

from zoneinfo import ZoneInfo

import pytest

from hub.decode.moment import time_ns_of

T = 1_631_186_545


@pytest.mark.parametrize(
    ("sent", "time_ns"),
    [
        (T, T * 10**9), (T * 1000, T * 10**9), (T * 10**6, T * 10**9), (T * 10**9, T * 10**9),
        (1631186545.04, T * 10**9 + 40_000_000), (1631186545040.5, T * 10**9 + 40_500_000),
        ("2021-09-09T11:22:25Z", T * 10**9), ("2021-09-09T13:22:25.040+02:00", T * 10**9 + 40_000_000),
        (1234, None), (0, None), (-1.0, None), (float("nan"), None), (float("inf"), None), (10**30, None),
        (True, None), (None, None), ("now", None), ("2021-09-09", None), ("1970-01-01T00:00:09Z", None),
        ("2021-09-09T11:22:25", None), ("0001-01-01T00:00:00+23:59", None),
    ],
)  # fmt: skip
def test_time_is_plausible_or_none(sent: object, time_ns: int | None) -> None:
    """Seconds, milli-, micro- and nanoseconds, ISO 8601 with a zone."""
    assert time_ns_of(sent) == time_ns


def test_local_time_needs_a_zone() -> None:
    """Where it is known."""
    assert time_ns_of("2021-09-09T13:22:25", ZoneInfo("Europe/Berlin")) == T * 10**9
