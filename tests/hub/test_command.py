"""`hub.command`: an order is the same message each time, and its states are open or final."""

from device_sdk.wire import Command
from hub.command import OPEN, Order, State


def test_an_order_is_sent_as_the_same_message_each_time() -> None:
    """The device knows a command by its id: sent again, nothing of it differs."""
    order = Order("default", "k1", "fan", {"speed": 3}, "*", "ann", 1, 100, is_queued=False)

    assert order.message() == order.message() == Command("k1", "fan", {"speed": 3}, 100)
    assert order.key == ("default", "k1")


def test_only_two_states_are_open() -> None:
    """Whatever is neither queued nor sent has ended."""
    assert set(State) - OPEN == {
        State.DONE, State.FAILED, State.TIMED_OUT, State.EXPIRED, State.REFUSED, State.CANCELLED,
    }  # fmt: skip
