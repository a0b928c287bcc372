"""Attempts are limited by address and in total, and counted in bounded memory."""

import pytest

from hub.gateway.attempts import ATTEMPTS, FAILURE_EVERY_S, FAILURES, MAX_ADDRESSES, Attempts


def fail(attempts: Attempts, address: str, now: float, times: int) -> list[float]:
    """Try and fail as often as allowed; return what each attempt was answered."""
    waits = []
    for _ in range(times):
        waits.append(attempts.begin(address, now))
        if not waits[-1]:
            attempts.failed(address, now)
    return waits


def test_failures_of_an_address_are_limited() -> None:
    """A burst, then one each six seconds; the answer says how long to wait."""
    attempts = Attempts()

    burst = fail(attempts, "192.0.2.1", 100.0, int(FAILURES) + 1)
    later = fail(attempts, "192.0.2.1", 100.0 + FAILURE_EVERY_S, 2)

    assert burst == [0.0] * int(FAILURES) + [FAILURE_EVERY_S]
    assert later == [0.0, FAILURE_EVERY_S]


def test_guesses_that_were_under_way_together_are_paid_for() -> None:
    """Fifty at once are made, and then the address waits for twice the burst; not for ever."""
    attempts = Attempts()
    begun = [attempts.begin("192.0.2.1", 0.0) for _ in range(50)]
    for _ in range(50):
        attempts.failed("192.0.2.1", 0.0)

    assert set(begun) == {0.0}
    assert attempts.begin("192.0.2.1", 0.0) == (FAILURES + 1) * FAILURE_EVERY_S


def test_another_address_is_not_held_back() -> None:
    """One that fails slows only itself."""
    attempts = Attempts()
    fail(attempts, "192.0.2.1", 0.0, 100)

    assert attempts.begin("192.0.2.2", 0.0) == 0.0


def test_success_costs_the_address_nothing() -> None:
    """A fleet behind one address claims as fast as the limit in total allows; nothing is remembered of it."""
    attempts = Attempts()

    assert {attempts.begin("192.0.2.1", 0.0) for _ in range(400)} == {0.0}
    assert len(attempts) == 0


def test_all_attempts_together_are_limited() -> None:
    """A flood of addresses, each with one attempt, is answered with a wait."""
    attempts = Attempts()
    allowed = [attempts.begin(f"10.0.{n // 256}.{n % 256}", 0.0) for n in range(int(ATTEMPTS) + 1)]

    assert allowed[:-1] == [0.0] * int(ATTEMPTS)
    assert 0 < allowed[-1] < 1


def test_what_succeeded_is_given_back() -> None:
    """A fleet that is switched on at once waits for its fsyncs alone; never more than the limit are under way."""
    attempts = Attempts()
    for _ in range(10 * int(ATTEMPTS)):
        assert attempts.begin("192.0.2.1", 0.0) == 0.0
        attempts.succeeded()
    attempts.succeeded()
    under_way = [attempts.begin("192.0.2.1", 0.0) for _ in range(int(ATTEMPTS) + 1)]

    assert under_way[:-1] == [0.0] * int(ATTEMPTS)
    assert under_way[-1] > 0


def test_addresses_are_forgotten_beyond_the_limit() -> None:
    """A hundred thousand addresses take the memory of ten thousand."""
    attempts = Attempts()
    for n in range(MAX_ADDRESSES + 50):
        attempts.failed(f"address-{n}", 0.0)

    assert len(attempts) == MAX_ADDRESSES


@pytest.mark.parametrize(
    ("one", "other"),
    [("2001:db8::1", "2001:db8::ffff:2"), ("::ffff:192.0.2.1", "192.0.2.1"), ("fe80::1%eth0", "fe80::2%eth0")],
)
def test_addresses_of_one_subscriber_count_together(one: str, other: str) -> None:
    """An IPv6 network of 64 bits is one, and so are the two spellings of an IPv4 address."""
    attempts = Attempts()
    fail(attempts, one, 0.0, int(FAILURES))

    assert attempts.begin(other, 0.0) > 0
