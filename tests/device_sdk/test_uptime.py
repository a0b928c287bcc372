"""The line of uptime: one shift for boots that never learnt the time, each boot's own for those that did."""

import json

import pytest

from device_sdk.uptime import MAX_PAST, UPTIME, UptimeLine

S = 10**9
# A real time; positions are small numbers beside it.
T = 1_795_376_000 * S


def line_of(boots: list[tuple[int, int | None]]) -> UptimeLine:
    """Return a line after boots of (newest position in the boot, real time of the boot's zero or None)."""
    line, last = UptimeLine(), -1
    for newest, zero_ns in boots:
        line.begin_boot(last, is_empty=False)
        if zero_ns is not None:
            line.offset = line.offset_at(zero_ns, 0)
        last = line.base + newest
    return line


def test_this_moment_is_an_instant_until_the_time_is_learnt() -> None:
    """Before: beyond 64 bits, and without a place. After: real time, and so is what was given before."""
    line = UptimeLine()
    before = line.at(5 * S)

    assert (before, line.place(before)) == (UPTIME + 5 * S, None)

    line.offset = line.offset_at(T, 20 * S)

    assert line.at(25 * S) == T + 5 * S
    assert line.place(before) == (T - 15 * S, True)


def test_real_times_stay_as_they_are() -> None:
    """Only instants are moved, whatever the line has learnt."""
    line = line_of([(5, None), (5, T)])

    assert [line.place(time_ns) for time_ns in (-1, 0, T, 2**63 - 1)] == [
        (-1, True), (0, True), (T, True), (2**63 - 1, True),
    ]  # fmt: skip


def test_boots_that_never_learnt_the_time_end_where_the_next_begins() -> None:
    """Distances inside a boot are kept, the last reading lies one tick before the next boot's zero, both estimated."""
    line = line_of([(4 * S, None), (9 * S, None), (0, T)])
    first, second = UPTIME, UPTIME + 4 * S + 1

    assert line.place(second + 9 * S) == (T - 1, False)
    assert line.place(second + 6 * S) == (T - 1 - 3 * S, False)
    assert line.place(first + 4 * S) == (T - 2 - 9 * S, False)
    assert line.place(first) == (T - 2 - 13 * S, False)
    assert line.place(UPTIME + line.base) == (T, True)


def test_each_boot_that_learnt_the_time_keeps_its_own() -> None:
    """What it left un-numbered is exact also after the next boot learnt another shift; what it had estimated stays."""
    line = line_of([(2 * S, None), (3 * S, T), (4 * S, T + 1000 * S)])
    learnt = UPTIME + 2 * S + 1

    assert line.place(UPTIME + 2 * S) == (T - 1, False)
    assert line.place(learnt + 3 * S) == (T + 3 * S, True)
    assert line.place(learnt + 3 * S + 1) == (T + 1000 * S, True)


def test_a_run_ends_where_exact_and_estimated_meet() -> None:
    """A frame holds one kind; a reading whose place is not known ends it too."""
    line = line_of([(1, None), (5, T)])
    readings = [("t", UPTIME, 1.0), ("t", UPTIME + 1, 2.0), ("t", UPTIME + 2, 3.0), ("t", T + 9, 4.0)]

    assert line.place_run(readings) == ([("t", T - 2, 1.0), ("t", T - 1, 2.0)], True)
    assert line.place_run(readings[2:]) == ([("t", T, 3.0), ("t", T + 9, 4.0)], False)
    line.begin_boot(7, is_empty=False)
    assert line.place_run([("t", T, 1.0), ("t", UPTIME + 8, 2.0)]) == ([("t", T, 1.0)], False)
    assert line.place_run([("t", UPTIME + 8, 2.0)]) == ([], False)


def test_a_later_process_of_a_boot_gives_nothing_twice() -> None:
    """Even on a clock that stood still meanwhile."""
    line = UptimeLine()
    line.resume(7)

    assert (line.at(3), line.at(9)) == (UPTIME + 8, UPTIME + 9)


def test_a_boot_without_instants_costs_no_memory() -> None:
    """A machine that always knows the time keeps no past, and an empty spool forgets it."""
    line = UptimeLine()
    for _ in range(5):
        line.begin_boot(-1, is_empty=False)
        line.offset = T
    assert line.past == []

    line = line_of([(1, T), (1, T + S)])
    assert len(line.past) == 1
    line.begin_boot(3, is_empty=True)
    assert line.past == []


def test_the_past_is_bounded_and_what_falls_out_of_it_is_estimated() -> None:
    """A board that reboots for months without its hub keeps `MAX_PAST` shifts; older readings end before those."""
    line = line_of([(0, T + n * S) for n in range(MAX_PAST + 3)])

    assert len(line.past) == MAX_PAST
    assert line.place(UPTIME) == (T + 2 * S - 2, False)
    assert line.place(UPTIME + 2) == (T + 2 * S, True)


@pytest.mark.parametrize("line", [UptimeLine(), line_of([(2, T), (3, None), (4, T + S)])], ids=["new", "used"])
def test_line_round_trips_as_json(line: UptimeLine) -> None:
    """It lies in the spool's state."""
    copy = UptimeLine.from_object(json.loads(json.dumps(line.to_object())))

    assert (copy.base, copy.offset, copy.past) == (line.base, line.offset, line.past)


def test_ranges_of_both_kinds_stay_in_order() -> None:
    """First ≤ last also when one of them was given by hand; unknown ones stay as they are."""
    line = UptimeLine()
    unknown = {"t": (T, UPTIME + 5)}
    assert line.place_ranges(unknown) == unknown

    line.offset = -100

    assert line.place_ranges({"t": (T, UPTIME + 105), "u": (UPTIME + 101, UPTIME + 103)}) == {"t": (5, T), "u": (1, 3)}
