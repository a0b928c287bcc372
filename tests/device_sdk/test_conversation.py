"""Tests of `device_sdk.conversation`."""

import logging

import pytest

from device_sdk.conversation import TRANSITIONS, Conversation, State, Trigger
from device_sdk.errors import ProtocolError

# A way from OFFLINE to each state.
WAYS: dict[State, tuple[Trigger, ...]] = {
    State.OFFLINE: (),
    State.GREETING: (Trigger.CONNECTED,),
    State.RUNNING: (Trigger.CONNECTED, Trigger.WELCOME),
    State.PAUSED: (Trigger.CONNECTED, Trigger.WELCOME, Trigger.SLOW),
    State.ENDING: (Trigger.CONNECTED, Trigger.END),
}


def _conversation_in(state: State) -> Conversation:
    conversation = Conversation("greenhouse-7")
    for trigger in WAYS[state]:
        conversation.apply(trigger)
    assert conversation.state is state
    return conversation


@pytest.mark.parametrize("state", State, ids=lambda s: s.value)
@pytest.mark.parametrize("trigger", Trigger, ids=lambda t: t.value)
def test_apply_follows_the_table_and_nothing_else(state: State, trigger: Trigger) -> None:
    """A trigger in the table leads where it says; any other is an error that names both and changes nothing."""
    conversation = _conversation_in(state)
    target = TRANSITIONS.get((state, trigger))

    if target is not None:
        conversation.apply(trigger)
        assert conversation.state is target
        return
    with pytest.raises(ProtocolError, match=f"{trigger.value} does not belong in state {state.value}"):
        conversation.apply(trigger)
    assert conversation.state is state


@pytest.mark.parametrize("state", [s for s in State if s is not State.OFFLINE], ids=lambda s: s.value)
def test_every_connection_can_end_and_go(state: State) -> None:
    """From every state but OFFLINE both sides may end, and the connection may be lost."""
    assert TRANSITIONS[state, Trigger.END] is State.ENDING
    assert TRANSITIONS[state, Trigger.DISCONNECTED] is State.OFFLINE


def test_apply_logs_changes_only(caplog: pytest.LogCaptureFixture) -> None:
    """Each change of state is one DEBUG line with the device; staying is none."""
    conversation = _conversation_in(State.RUNNING)

    with caplog.at_level(logging.DEBUG, "device_sdk.conversation"):
        conversation.apply(Trigger.ACK)
        conversation.apply(Trigger.BYE)

    assert [r.getMessage() for r in caplog.records] == ["= device=greenhouse-7 running -> ending by bye"]
