"""What announced itself to Home Assistant is read as it announced."""

from typing import Any

import pytest

from hub.decode.base import DecodeError
from hub.decode.dispatch import Decoders
from hub.decode.home_assistant import MAX_OWN_ENTITIES
from tests.support.foreign_messages import cases, check, publication


@pytest.mark.parametrize("case", cases("home_assistant"))
def test_message_is_read(case: dict[str, Any]) -> None:
    """Each message of tests/vectors/decode/home_assistant.json says what stands there."""
    check(case)


def test_announcements_are_bounded() -> None:
    """The one too many goes into quarantine, and can be given again when others are gone."""
    decoders = Decoders("pump")
    for at in range(MAX_OWN_ENTITIES):
        decoders.decode(publication(f"homeassistant/sensor/s{at}/config", {"state_topic": f"a/{at}"}))
    one_more = publication("homeassistant/sensor/one/config", {"state_topic": "a/one"})

    with pytest.raises(DecodeError, match="more than 200"):
        decoders.decode(one_more)
    decoders.decode(publication("homeassistant/sensor/s0/config", ""))
    decoders.decode(one_more)
    assert decoders.decode(publication("a/one", "7")).said[0].readings[0].value == 7
    assert decoders.decode(publication("a/0", "7")).decoder == "plain"


def test_announcement_is_learnt_from_the_broker() -> None:
    """It is kept there; a state that is kept is no reading."""
    decoders = Decoders()
    decoders.decode(publication("homeassistant/sensor/s/config", {"state_topic": "a/s"}, is_retained=True))

    assert decoders.decode(publication("a/s", "7", is_retained=True)).said[0].readings == ()
    assert decoders.decode(publication("a/s", "7")).decoder == "home-assistant"
