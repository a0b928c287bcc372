"""Sums of dropped readings: how they add up, their bytes, and what they refuse."""

import random

import pytest

from device_sdk.reading import Value
from hub.errors import BadRequestError, StoreError
from hub.store.rollup import (
    HOUR_NS,
    MINUTE_NS,
    SPANS,
    Sums,
    added,
    block_of,
    by_minute,
    check_answerable,
    coarser,
    decode,
    encode,
)

T0 = 1_767_225_600 * 10**9


def test_readings_add_up_in_any_order() -> None:
    """Late ones, too: least, greatest, last keep their type, bools are 0 and 1, text is left out, later wins a tie."""
    readings: list[tuple[int, Value]] = [
        (T0 + 5, 2.5),
        (T0 + 1, True),
        (T0 + 9, "x"),
        (T0 + 5, -1),
        (T0 + MINUTE_NS, 4),
    ]

    assert by_minute(readings) == [
        Sums(T0, 3, 2.5, -1, 2.5, T0 + 5, -1),
        Sums(T0 + MINUTE_NS, 1, 4.0, 4, 4, T0 + MINUTE_NS, 4),
    ]
    assert repr(by_minute(readings)[0].greatest) == "2.5"


def test_added_keeps_where_the_older_begins() -> None:
    """Two sums are one; the last is by time, not by order."""
    older, newer = Sums(T0, 2, 3.0, 1.0, 2.0, T0 + 9, 2.0), Sums(T0 + 1, 1, 5.0, 5.0, 5.0, T0 + 3, 5.0)

    assert added(older, newer) == Sums(T0, 3, 8.0, 1.0, 5.0, T0 + 9, 2.0)


def test_coarser_sums_begin_at_their_origin() -> None:
    """Minutes become steps that begin at origin + k * step, also before 1970."""
    minutes = by_minute([(n * MINUTE_NS, 1) for n in range(-90, 90)])

    found = coarser(minutes, HOUR_NS, 15 * MINUTE_NS)

    assert [(one.start_ns // MINUTE_NS, one.readings) for one in found] == [(-105, 45), (-45, 60), (15, 60), (75, 15)]


@pytest.mark.parametrize("step_ns", list(SPANS))
@pytest.mark.parametrize("begin", [T0, -SPANS[HOUR_NS]])
def test_blocks_come_back_exactly(step_ns: int, begin: int) -> None:
    """A block of any sums, ints and floats mixed, is the same read back (seed 3)."""
    source = random.Random(3)
    begin = block_of(begin, step_ns) * SPANS[step_ns]
    values: list[float | int] = [
        source.choice([source.uniform(-1e9, 1e9), source.randrange(-(2**63), 2**63), -0.0]) for _ in range(3000)
    ]
    for chance in (0.1, 1.0):
        places = [place for place in range(SPANS[step_ns] // step_ns) if source.random() < chance]
        sums = [
            Sums(
                begin + place * step_ns, source.randrange(1, 2**40), source.uniform(-9, 9), source.choice(values),
                source.choice(values), begin + place * step_ns + source.randrange(step_ns), source.choice(values),
            )
            for place in places
        ]  # fmt: skip

        found = decode(encode(sums, step_ns), block_of(begin, step_ns), step_ns)

        assert repr(found) == repr(sums)


def test_a_day_of_minutes_is_small() -> None:
    """A reading a minute costs less than 6 bytes a minute, six a minute less than 20 (seed 1)."""
    for gap, most in ((60, 6), (10, 20)):
        source, value, readings = random.Random(1), 20.0, []
        for at in range(0, 86_400, gap):
            value += source.gauss(0, 0.05)
            readings.append((T0 + at * 10**9, round(value, 2)))

        assert len(encode(by_minute(readings), MINUTE_NS)) < most * 1440


def test_damaged_blocks_are_errors() -> None:
    """Any byte that changed, and a block cut short, is a `StoreError` and nothing else."""
    body = encode(by_minute([(T0, 1.0), (T0 + MINUTE_NS, 2)]), MINUTE_NS)
    damaged = [body[:at] + bytes((body[at] ^ 1,)) + body[at + 1 :] for at in range(len(body))]

    for wrong in (*damaged, body[:-1], b"", body[:5]):
        with pytest.raises(StoreError, match="damaged"):
            decode(wrong, block_of(T0, MINUTE_NS), MINUTE_NS)


def test_a_refusal_says_what_to_ask_instead() -> None:
    """From when readings are there, and which functions and buckets sums can answer."""
    with pytest.raises(BadRequestError, match=r"before 2026-01-01T00:00:00Z were dropped.*first of them.*avg, count"):
        check_answerable(T0, HOUR_NS, 0, ["first", "avg"])
    with pytest.raises(BadRequestError, match=r"by the minute.*whole minutes"):
        check_answerable(T0, 10 * 10**9, 0, ["avg"])
