"""`hub.command_book` in virtual time: sent again at each connection, ended once, bounded."""

from typing import Any

import pytest

from device_sdk.wire import EXPIRED_ERROR, Reply
from hub.command import MAX_WAITING_BYTES_EACH, MAX_WAITING_EACH, Order, State
from hub.command_book import CommandBook


def order(id: str = "k1", expires_ns: int = 100, size: int = 10) -> Order:
    """Return an order to fans."""
    return Order("default", id, "fan", {}, "*", "ann", 0, expires_ns, is_queued=True, size=size)


@pytest.fixture
def book() -> CommandBook:
    """A book with one order: sent to a, queued for b."""
    book = CommandBook()
    book.add(order(), [("a", State.SENT), ("b", State.QUEUED)], 100)
    return book


def connect(book: CommandBook, device: str, now_ns: int, *, namespace: str = "default") -> Any:
    """Connect a device that declares its fan; return what is due."""
    book.entered(namespace, device)
    return book.declared(namespace, device, ["fan"], now_ns)


def test_each_connection_gets_what_is_unanswered(book: CommandBook) -> None:
    """What may have been sent goes at once; what was queued is first marked as sent, and then is like the other."""
    assert connect(book, "a", 1) == ([order()], [])
    again, first = connect(book, "b", 2)
    assert (again, [(o.device, o.state, o.at_ns) for o in first]) == ([], [("b", State.SENT, 2)])
    assert connect(book, "b", 3) == ([order()], [])
    assert connect(book, "c", 3) == connect(book, "a", 3, namespace="other") == ([], [])


def test_a_connection_gets_what_it_declared(book: CommandBook) -> None:
    """A program declares one command after the other; each is due once it did, and once."""
    book.entered("default", "a")
    assert not book.takes("default", "a", "fan")
    assert book.declared("default", "a", ["lamp"], 1) == ([], [])
    assert book.declared("default", "a", ["lamp", "fan"], 1) == ([order()], [])
    assert book.declared("default", "a", ["lamp", "fan", "door"], 1) == ([], [])
    assert book.takes("default", "a", "fan")


def test_a_queued_one_is_marked_as_sent_once(book: CommandBook) -> None:
    """What is sent already, or unknown, is not."""
    marked = [book.send(("default", "k1"), device, 1) for device in ("a", "b", "b", "c")]

    assert [[(o.device, o.state) for o in outcomes] for outcomes in marked] == [[], [("b", State.SENT)], [], []]


def test_an_answer_ends_it_and_is_never_asked_for_again(book: CommandBook) -> None:
    """After the reply nothing is sent; a second reply was not waited for."""
    outcome, was_open = book.heard("default", "a", Reply("k1", True, {"speed": 3}), 5)
    assert (outcome.state, outcome.value, was_open) == (State.DONE, '{"speed":3}', True)
    assert connect(book, "a", 6) == ([], [])
    assert book.heard("default", "a", Reply("k1", True), 7)[1] is False
    assert book.is_open(("default", "k1"))

    outcome, _ = book.heard("default", "b", Reply("k1", False, error="stuck"), 8)

    assert (outcome.state, outcome.error) == (State.FAILED, "stuck")
    assert not book.is_open(("default", "k1"))
    assert len(book) == 0


def test_a_device_that_got_it_too_late_says_expired(book: CommandBook) -> None:
    """That is a state of its own: it did not take effect."""
    assert book.heard("default", "a", Reply("k1", False, error=EXPIRED_ERROR), 5)[0].state is State.EXPIRED


def test_time_ends_it_and_says_what_is_known(book: CommandBook) -> None:
    """What may have been sent is timed out, what never was is expired; neither is sent to a later connection."""
    assert book.next_deadline() == 100
    assert book.tick(99, 5000) == []

    assert {(o.device, o.state, o.at_ns) for o in book.tick(100, 5000)} == {
        ("a", State.TIMED_OUT, 5000),
        ("b", State.EXPIRED, 5000),
    }

    assert connect(book, "a", 101) == ([], [])
    assert book.next_deadline() is None
    assert book.tick(200, 5000) == []


def test_cancelling_says_whether_it_may_take_effect(book: CommandBook) -> None:
    """Only open ones are cancelled, each once."""
    outcomes = book.cancel(("default", "k1"), ["a", "b", "c"], 9)

    assert {(o.device, o.state, "may take effect" in o.error) for o in outcomes} == {
        ("a", State.CANCELLED, True), ("b", State.CANCELLED, False),
    }  # fmt: skip
    assert book.cancel(("default", "k1"), ["a", "b"], 9) == []
    assert book.next_deadline() is None


def test_a_device_has_so_many_commands_waiting_and_no_more() -> None:
    """By count and by bytes; other devices are not concerned."""
    book = CommandBook()
    for n in range(MAX_WAITING_EACH):
        assert book.refusal("default", "a", 10) == ""
        book.add(order(f"k{n}"), [("a", State.SENT)], 100)
    assert str(MAX_WAITING_EACH) in book.refusal("default", "a", 10)
    assert book.refusal("default", "b", 10) == book.refusal("other", "a", 10) == ""

    book.add(order("large", size=MAX_WAITING_BYTES_EACH - 5), [("b", State.SENT)], 100)

    assert book.refusal("default", "b", 5) == ""
    assert "bytes" in book.refusal("default", "b", 6)
