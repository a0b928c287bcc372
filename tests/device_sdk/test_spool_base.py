"""Limits that both spools share."""

import pytest

from device_sdk.errors import MisuseError
from device_sdk.spool_base import MIN_LIMIT_BYTES, body_limit, check_limit, window_limit


def test_smallest_limit_is_accepted_and_less_is_not() -> None:
    """The message names the least that works."""
    assert check_limit(MIN_LIMIT_BYTES) == MIN_LIMIT_BYTES

    with pytest.raises(MisuseError, match="at least 262144"):
        check_limit(MIN_LIMIT_BYTES - 1)


def test_default_spool_cuts_full_frames_for_a_full_window() -> None:
    """At 64 MB neither limit is felt: frames of 200 KiB, or 32 frames of 30 KB in flight."""
    assert body_limit(64_000_000) >= 200 * 1024
    assert window_limit(64_000_000) >= 32 * 30_000
