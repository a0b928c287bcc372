"""When a frame is cut: at once after a pause, gathered while busy, minutes apart where bytes cost money."""

from device_sdk.pace import CUT_READINGS, CUT_S, METERED_CUT_S, RETRY_S, Pace


def test_first_reading_after_a_pause_goes_at_once() -> None:
    """Then readings are gathered for `CUT_S`."""
    pace = Pace(is_metered=False)
    assert pace.is_due(100.0, 1)
    pace.cut(100.0)

    assert not pace.is_due(100.0 + CUT_S / 2, 5)
    assert pace.deadline() == 100.0 + CUT_S
    assert pace.is_due(pace.deadline(), 5)


def test_enough_readings_do_not_wait() -> None:
    """A frame that is worth its cost goes at once, on any link."""
    for is_metered in (False, True):
        pace = Pace(is_metered=is_metered)
        pace.cut(100.0)
        assert not pace.is_due(100.001, CUT_READINGS - 1)
        assert pace.is_due(100.001, CUT_READINGS)


def test_metered_link_gathers_for_minutes() -> None:
    """Each frame costs the same whatever is in it."""
    pace = Pace(is_metered=True)
    pace.cut(100.0)

    assert not pace.is_due(99.0 + METERED_CUT_S, 10)
    assert pace.is_due(100.0 + METERED_CUT_S, 10)


def test_hurry_lasts_until_nothing_is_left() -> None:
    """All that was recorded by then is cut, then gathering begins again."""
    pace = Pace(is_metered=True)
    pace.cut(100.0)
    pace.hurry()
    assert pace.is_due(100.0, 1)
    assert pace.deadline() <= 100.0
    pace.cut(100.0)
    assert pace.is_due(100.0, 1)
    pace.is_empty()

    assert not pace.is_due(100.1, 1)


def test_disk_that_gave_nothing_is_not_asked_in_a_hot_loop() -> None:
    """Again after a second, or on a new connection and after an ack."""
    pace = Pace(is_metered=False)
    pace.hurry()
    pace.failed(100.0)
    assert not pace.is_due(100.5, CUT_READINGS)
    assert pace.deadline() == 100.0 + RETRY_S
    pace.again(100.5)

    assert pace.is_due(100.5, 1)
