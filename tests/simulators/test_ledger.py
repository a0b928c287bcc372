"""The witness: what it wrote is what happened, also after a kill in the middle of a line."""

from pathlib import Path

import pytest

from device_sdk.reading import Value
from simulators.ledger import Ledger, canonical, load, load_baseline, write_baseline


def test_everything_written_is_read_back(tmp_path: Path) -> None:
    """Readings, frames and acks of several devices come back by device."""
    ledger = Ledger(tmp_path)
    ledger.recorded("a", "temperature", 5, 21.5)
    ledger.recorded("a", "state", 6, "ein\tTab\nund mehr")
    ledger.recorded("b", "door", 7, True)
    ledger.frame_hook("a")(1, b"body", "00ff")
    ledger.ack_hook("a")(1, "00ff")
    ledger.close()

    witnesses = load(tmp_path)

    assert set(witnesses) == {"a", "b"}
    assert witnesses["a"].readings == {"temperature": {5: "21.5"}, "state": {6: '"ein\\tTab\\nund mehr"'}}
    assert witnesses["a"].produced == 2
    assert list(witnesses["a"].frames) == [("00ff", 1)]
    assert witnesses["a"].acked == {"00ff": 1}
    assert witnesses["b"].readings == {"door": {7: "true"}}


def test_lines_are_in_the_kernel_after_flush(tmp_path: Path) -> None:
    """A killed process loses nothing it had flushed: no close is needed."""
    ledger = Ledger(tmp_path)
    ledger.recorded("a", "t", 5, 1.0)
    ledger.ack_hook("a")(3, "s")

    assert load(tmp_path)["a"].produced == 1
    ledger.close()


def test_torn_last_line_is_left_out(tmp_path: Path) -> None:
    """A line without its end was not finished, so it does not count."""
    (tmp_path / "x.ledger").write_text("R\ta\tt\t5\t1.0\nR\ta\tt\t6\t2")

    assert load(tmp_path)["a"].readings == {"t": {5: "1"}}


def test_files_of_several_processes_add_up(tmp_path: Path) -> None:
    """Each process has its own file; together they are one ledger."""
    for time_ns in (1, 2):
        ledger = Ledger(tmp_path)
        ledger.recorded("a", "t", time_ns, 1.0)
        ledger.close()

    assert load(tmp_path)["a"].produced == 2


def test_correction_keeps_the_last_value_and_counts(tmp_path: Path) -> None:
    """The same instant again is a correction."""
    ledger = Ledger(tmp_path)
    for value in (1.0, 2.0, 3.0):
        ledger.recorded("a", "t", 5, value)
    ledger.close()

    witness = load(tmp_path)["a"]

    assert witness.readings == {"t": {5: "3"}}
    assert witness.repeats == {("t", 5): 2}
    assert witness.produced == 3


def test_reading_that_a_kill_interrupted_is_known(tmp_path: Path) -> None:
    """Begun and not recorded by the end of its process; what another process records at that time is another one."""
    first, second = Ledger(tmp_path, "first"), Ledger(tmp_path, "second")
    for time_ns in (5, 6):
        first.begun("a", "t", time_ns, 1.0)
    first.recorded("a", "t", 5, 1.0)
    second.begun("a", "t", 6, 2.0)
    second.recorded("a", "t", 6, 2.0)
    first.close()
    second.close()

    witness = load(tmp_path)["a"]

    assert witness.readings == {"t": {5: "1", 6: "2"}}
    assert witness.begun == {("t", 6): "1"}


def test_number_of_a_frame_used_twice_is_seen(tmp_path: Path) -> None:
    """The same frame sent again by a new process is fine; another body under its number is not."""
    ledger = Ledger(tmp_path)
    for body in (b"one", b"one", b"two"):
        ledger.frame_hook("a")(1, body, "s")
    ledger.close()

    assert load(tmp_path)["a"].reused == 1


def test_first_baseline_stays(tmp_path: Path) -> None:
    """A second run with the same ledger does not take its own first run for older readings."""
    assert load_baseline(tmp_path) == frozenset()

    write_baseline(tmp_path, ["a"])
    write_baseline(tmp_path, ["a", "b"])

    assert load_baseline(tmp_path) == {"a"}


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (5, 5.0, True),
        (0.1, 0.1, True),
        (0.1, 0.1000001, False),
        (True, 1, False),
        ("5", 5, False),
        (2**53 + 1, float(2**53), False),
        (-0.0, 0.0, True),
    ],
)
def test_canonical_form_tells_values_apart(one: Value, other: Value, is_same: bool) -> None:
    """An int equals the float it widened to; nothing else is equal that differs."""
    assert (canonical(one) == canonical(other)) is is_same
