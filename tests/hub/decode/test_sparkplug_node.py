"""What is known of a node: aliases, holes in the sequence, and when births are asked for."""

from itertools import pairwise

import pytest

from hub.decode.sparkplug_node import ASK_AGAIN_NS, ASK_SELDOM_NS, REORDER_NS, Known, Node

_S = 10**9


def _born(seq: int = 0) -> Node:
    node = Node(100)
    node.begin(seq, 1)
    return node


def _seen(node: Node, *numbers: int, now_ns: int = 0) -> Node:
    for number in numbers:
        node.saw(number, now_ns)
    return node


@pytest.mark.parametrize(
    "numbers",
    [(1, 2, 3), (0, 1), (1, 1, 2), (1, 3, 2, 4), (4, 2, 1, 3, 5), (*range(1, 256), 0, 1), (1, 300, 2), (1, None, 2)],
    ids=["in order", "birth again", "once more", "swapped", "late", "around", "no number", "none said"],
)  # fmt: skip
def test_whole_sequence_asks_for_nothing(numbers: tuple[int, ...]) -> None:
    """Messages that all came, in whatever order within the time, are no reason to ask."""
    node = _seen(_born(), *numbers)

    assert not node.is_due(REORDER_NS + 1)


@pytest.mark.parametrize("numbers", [(2,), (1, 3), (*range(1, 255), 0), (200,)])
def test_hole_is_due_after_the_time_for_reordering(numbers: tuple[int, ...]) -> None:
    """A number that was passed over may still come for some seconds; then births are due, also around 255."""
    node = _seen(_born(), *numbers, now_ns=_S)

    assert not node.is_due(_S + REORDER_NS - 1)
    assert node.is_due(_S + REORDER_NS)


def test_request_is_repeated_ever_more_rarely() -> None:
    """While no birth follows, a request comes after 10 s, 20 s, 40 s … at most each 10 min."""
    node = Node(100)
    node.want_births()
    times = []
    for second in range(4000):
        if node.is_due(second * _S):
            node.asked(second * _S)
            times.append(second)

    gaps = [b - a for a, b in pairwise(times)]
    assert gaps == [10, 20, 40, 80, 160, 320, 600, 600, 600, 600, 600][: len(gaps)]
    assert ASK_SELDOM_NS == 600 * _S


def test_birth_answers_the_request() -> None:
    """After a birth nothing is due; a new hole may be asked about 10 s after the last request."""
    node = _seen(_born(), 5)
    assert node.is_due(REORDER_NS)
    node.asked(REORDER_NS)
    node.begin(0, 1)

    assert not node.is_due(10**12)
    _seen(node, 5, now_ns=REORDER_NS)
    assert not node.is_due(2 * REORDER_NS)
    assert node.is_due(REORDER_NS + ASK_AGAIN_NS)


def test_clock_that_was_set_back_does_not_silence() -> None:
    """A hub whose wall clock goes back an hour asks at once instead of an hour later."""
    node = Node(100)
    node.want_births()
    node.asked(3600 * _S)

    assert node.is_due(0)


def test_alias_means_what_the_birth_said() -> None:
    """An alias is of one device of the node; a name too; alias 0 is one."""
    node = _born()
    pump = Known("pump", "speed", 9)
    node.learn("speed", 0, pump)

    assert node.find("pump", "", 0) == pump
    assert node.find("pump", "speed", None) == pump
    assert node.find("", "", 0) is None
    assert node.find("fan", "", 0) is None
    assert node.find("pump", "", None) is None


def test_death_of_a_device_forgets_its_metrics_alone() -> None:
    """Aliases of a device that is gone mean nothing; those of others stay."""
    node = _born()
    node.learn("speed", 1, Known("pump", "speed", 9))
    node.learn("speed", 2, Known("fan", "speed", 9))
    node.forget("pump")

    assert node.find("pump", "", 1) is None
    assert node.find("pump", "speed", None) is None
    assert node.find("fan", "", 2) is not None
    assert len(node) == 1


def test_memory_of_a_node_is_bounded() -> None:
    """A node may invent names under one alias, or aliases for one name: neither grows beyond the limit."""
    node = _born()
    for number in range(1000):
        node.learn("same", number, Known("", "a", 9))
    assert len(node) == 100

    node.begin(0, 1)
    for number in range(1000):
        node.learn(f"name {number}", 7, Known("", "a", 9))
    assert len(node) == 100
