"""`hub.command_file`: durable, final states stay, old orders go."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hub import command_file as module
from hub.command import Order, Outcome, Result, State
from hub.command_file import KEPT_NS, CommandFile

KEY = ("default", "k1")


def order(id: str = "k1", namespace: str = "default") -> Order:
    """Return an order to three fans."""
    return Order(namespace, id, "fan", {"speed": 3}, "fan-*", "ann", 5, 100, is_queued=True, size=12)


RESULTS = [
    Result("fan-1", State.SENT, sent_ns=5),
    Result("fan-2", State.QUEUED),
    Result("fan-10", State.REFUSED, None, "offline", None, 5),
]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[CommandFile]:
    """A file with one order."""
    with closing(CommandFile(tmp_path / "commands.sqlite3")) as file:
        file.add(order(), RESULTS)
        yield file


def states(file: CommandFile) -> list[State]:
    """Return the states of the order, by device."""
    told = file.find(*KEY)
    assert told is not None
    return [result.state for result in told.results]


def test_an_order_is_durable_when_add_returns(file: CommandFile, tmp_path: Path) -> None:
    """A file opened anew has it, with its devices in their order; each commit is fsynced."""
    assert file._database.execute("PRAGMA synchronous").fetchone() == (2,)

    with closing(CommandFile(tmp_path / "commands.sqlite3")) as again:
        told = again.find(*KEY)
        assert told is not None
        assert (told.order, told.results) == (order(), RESULTS)
        (waiting,) = again.waiting()
        assert [result.device for result in waiting.results] == ["fan-1", "fan-2"]
        assert again.find("other", "k1") is None


def test_outcomes_are_kept_in_order_and_final_states_stay(file: CommandFile) -> None:
    """A second outcome changes nothing, one of a device that was not asked neither."""
    file.record(
        [
            Outcome(KEY, "fan-1", State.DONE, 6, "3"), Outcome(KEY, "fan-1", State.FAILED, 7, None, "again?"),
            Outcome(KEY, "fan-2", State.SENT, 7), Outcome(KEY, "fan-9", State.DONE, 8, "1"),
            Outcome(KEY, "fan-10", State.DONE, 8, "1"), Outcome(("default", "none"), "fan-1", State.DONE, 8),
        ],
        {},
    )  # fmt: skip

    told = file.find(*KEY)
    assert told is not None
    assert told.results == [
        Result("fan-1", State.DONE, "3", "", 5, 6), Result("fan-2", State.SENT, sent_ns=7), RESULTS[2],
    ]  # fmt: skip
    assert file.waiting()[0].results == [Result("fan-2", State.SENT, sent_ns=7)]


def test_an_answer_that_came_late_replaces_a_time_out(file: CommandFile) -> None:
    """It says more; what was never sent cannot be answered."""
    file.record([Outcome(KEY, "fan-1", State.TIMED_OUT, 101), Outcome(KEY, "fan-2", State.CANCELLED, 101)], {})
    file.record([Outcome(KEY, "fan-1", State.DONE, 102, "3"), Outcome(KEY, "fan-2", State.DONE, 102, "3")], {})

    assert states(file) == [State.DONE, State.CANCELLED, State.REFUSED]


def test_listing_counts_what_may_be_seen(file: CommandFile) -> None:
    """Newest first, in pages; other namespaces and devices are not there."""
    file.add(order("k2"), RESULTS[:1])
    file.add(order("k3", "other"), RESULTS[:1])

    first, second = file.newest("default", 10, None, lambda device: device != "fan-10")

    assert [(s.order.id, dict(s.states), s.is_whole) for s in (first, second)] == [
        ("k2", {State.SENT: 1}, True), ("k1", {State.SENT: 1, State.QUEUED: 1}, False),
    ]  # fmt: skip
    assert [s.order.id for s in file.newest("default", 10, first.number, bool)] == ["k1"]


def test_declarations_are_replaced(file: CommandFile) -> None:
    """Each device has the last."""
    file.record([], {("default", "a"): "{}", ("other", "a"): "{}"})
    file.record([], {("default", "a"): '{"fan":{}}'})

    assert file.declared_by("default", ["a", "b"]) == {("default", "a"): '{"fan":{}}'}
    assert len(file.declared()) == 2


def test_equal_declarations_are_one_object_and_only_those_asked_for(file: CommandFile) -> None:
    """Also of more devices than one statement names: a fleet's declarations take the memory of a kind's."""
    names = [f"fan-{n}" for n in range(2 * module._NAMES_AT_ONCE + 1)]
    file.record([], {("default", name): '{"fan":{}}' for name in [*names, "other"]})

    found = file.declared_by("default", names)

    assert len(found) == len(names)
    assert len({id(text) for text in found.values()}) == len({id(text) for text in file.declared().values()}) == 1


def test_finished_orders_go_after_a_week(file: CommandFile) -> None:
    """Those that wait stay, however old."""
    file.trim(100 + KEPT_NS + 1)
    assert states(file)

    file.record([Outcome(KEY, "fan-1", State.DONE, 6, "3"), Outcome(KEY, "fan-2", State.EXPIRED, 100)], {})
    file.trim(100 + KEPT_NS)
    assert states(file)
    file.trim(100 + KEPT_NS + 1)
    assert file.find(*KEY) is None
    assert file._database.execute("SELECT count(*) FROM target").fetchone() == (0,)


def test_an_answer_as_a_whole_is_bounded(file: CommandFile) -> None:
    """Values beyond the bound are left out, and it is said."""
    value = '"' + "x" * (module.MAX_VALUES_CHARS - 2) + '"'
    file.record([Outcome(KEY, "fan-1", State.DONE, 6, value), Outcome(KEY, "fan-2", State.DONE, 6, "1")], {})

    told = file.find(*KEY)

    assert told is not None
    assert told.results[0].value == value
    assert told.results[1] == Result("fan-2", State.DONE, None, module.LEFT_OUT, None, 6)


def test_orders_of_a_device_are_found_newest_first(file: CommandFile) -> None:
    """Of its namespace only, with its own result; no further back than the bound."""
    file.add(order("k2"), [Result("fan-2", State.SENT, sent_ns=6)])
    file.add(order("k3"), [Result("fan-1", State.SENT, sent_ns=7)])
    file.add(order("k4", "other"), RESULTS)

    assert [(o.id, r) for o, r in file.of_device("default", "fan-1", 5)] == [
        ("k3", Result("fan-1", State.SENT, sent_ns=7)), ("k1", RESULTS[0]),
    ]  # fmt: skip
    assert [o.id for o, _ in file.of_device("default", "fan-2", 1)] == ["k2"]
    assert [o.id for o, _ in file.of_device("default", "fan-1", 5, looked_through=2)] == ["k3"]


def test_erasing_forgets_a_device_and_keeps_the_others(file: CommandFile, tmp_path: Path) -> None:
    """Of an order to several the others' outcomes stay; one to nobody else goes, and so do their bytes."""
    alone = Order("default", "k2", "diary", {"text": "my-secret"}, "fan-1", "ann", 5, 100, is_queued=True, size=12)
    file.add(alone, [Result("fan-1", State.DONE, '"my-secret-answer"', "", 5, 6)])
    file.record([], {("default", "fan-1"): '[{"name": "my-secret-command"}]'})

    assert file.erase("default", "fan-1") == 2
    assert file.erase("other", "fan-2") == 0

    assert file.find("default", "k2") is None
    assert states(file) == [State.QUEUED, State.REFUSED]
    assert file.declared_by("default", ["fan-1"]) == {}
    assert not any(b"my-secret" in path.read_bytes() for path in tmp_path.iterdir())
