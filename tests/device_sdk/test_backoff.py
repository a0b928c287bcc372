"""Full jitter: how long to wait, and when to begin again."""

from device_sdk.backoff import Backoff


def test_bound_doubles_up_to_the_cap() -> None:
    """With the largest jitter the delays are base · 2ⁿ, then the cap."""
    backoff = Backoff(lambda: 1.0, base_s=0.5, cap_s=5.0)

    assert [backoff.failed(0.0) for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_delay_is_anywhere_between_zero_and_the_bound() -> None:
    """Full jitter takes the whole interval, so that many devices do not come back in waves."""
    draws = iter([0.0, 0.25, 0.999])
    backoff = Backoff(lambda: next(draws), base_s=1.0, cap_s=60.0)

    assert [backoff.failed(0.0) for _ in range(3)] == [0.0, 0.5, 3.996]


def test_stable_link_begins_again_from_the_base() -> None:
    """30 s of a standing connection reset the count; less does not."""
    backoff = Backoff(lambda: 1.0, base_s=1.0, cap_s=60.0)
    backoff.failed(0.0)
    backoff.failed(0.0)
    backoff.connected(100.0)

    assert backoff.failed(129.0) == 4.0

    backoff.connected(200.0)
    assert backoff.failed(230.0) == 1.0


def test_connection_time_counts_once() -> None:
    """Failed attempts after a stable link count from the base again, not from that link."""
    backoff = Backoff(lambda: 1.0, base_s=1.0, cap_s=60.0)
    backoff.connected(0.0)

    assert [backoff.failed(now) for now in (40.0, 90.0, 140.0)] == [1.0, 2.0, 4.0]


def test_floor_is_added_to_the_jitter() -> None:
    """What the hub wishes is the least; the jitter on top keeps devices apart."""
    backoff = Backoff(lambda: 0.5, base_s=1.0, cap_s=60.0)

    assert backoff.failed(0.0, at_least_s=60.0) == 60.5


def test_year_of_failures_stays_at_the_cap() -> None:
    """The count does not overflow anything."""
    backoff = Backoff(lambda: 1.0, base_s=0.5, cap_s=30.0)

    assert {backoff.failed(0.0) for _ in range(5000)} == {0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0}
