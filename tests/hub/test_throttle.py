"""`hub.throttle`: free tries, growing delays, bounds."""

from hub.throttle import FORGET_S, FREE_TRIES, MAX_KEYS, Throttle


def test_delay_doubles_after_the_free_tries_up_to_its_limit() -> None:
    """Five tries at once, then 1, 2, 4 … s from the try before, at most what the key says; a wait counts nothing."""
    throttle = Throttle()
    waits = []
    now = 0.0

    for _ in range(FREE_TRIES + 5):
        wait = throttle.begin({"a": 10.0}, now)
        waits.append(wait)
        if wait:
            assert throttle.begin({"a": 10.0}, now) == wait
            now += wait
            assert throttle.begin({"a": 10.0}, now) == 0

    assert waits == [0, 0, 0, 0, 0, 1, 2, 4, 8, 10]


def test_success_takes_back_its_own_try_or_all() -> None:
    """One account that signs in does not free the address of the others' failures."""
    throttle = Throttle()
    for _ in range(FREE_TRIES):
        throttle.begin({"address": 60.0, "name": 60.0}, 0.0)

    throttle.succeeded("address")
    throttle.succeeded("name", forget=True)

    assert throttle.begin({"address": 60.0}, 0.0) == 0
    assert throttle.begin({"address": 60.0}, 0.0) == 1
    assert [throttle.begin({"name": 60.0}, 0.0) for _ in range(FREE_TRIES)] == [0] * FREE_TRIES


def test_quiet_hour_begins_again() -> None:
    """What is long ago does not count."""
    throttle = Throttle()
    for _ in range(FREE_TRIES):
        throttle.begin({"a": 1e9}, 0.0)

    assert throttle.begin({"a": 1e9}, 0.5) > 0
    assert throttle.begin({"a": 1e9}, FORGET_S) == 0


def test_keys_are_bounded() -> None:
    """A flood of new keys drops the ones quiet longest."""
    throttle = Throttle()

    for number in range(MAX_KEYS + 10):
        throttle.begin({str(number): 1.0}, 0.0)

    assert len(throttle) == MAX_KEYS
