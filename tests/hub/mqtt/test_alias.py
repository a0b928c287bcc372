"""An alias stands for the topic it was given last, or for nothing."""

import pytest

from hub.mqtt.alias import MAX_ALIASES, MAX_CHARS, Aliases
from hub.mqtt.field import NONE, Property, WrongPacketError
from hub.mqtt.handler import Code


def topic_of(aliases: Aliases, topic: str, alias: int) -> str:
    """The topic of a publication that has an alias."""
    return aliases.topic_of(topic, {Property.TOPIC_ALIAS: alias})


def test_alias_stands_for_the_last_topic_it_was_given() -> None:
    """Each for its own."""
    aliases = Aliases()
    calls = [("a", 1), ("b", MAX_ALIASES), ("", 1), ("c", 1), ("", 1), ("", MAX_ALIASES)]

    assert [topic_of(aliases, *call) for call in calls] == ["a", "b", "a", "c", "c", "b"]
    assert aliases.topic_of("d", NONE) == "d"


@pytest.mark.parametrize(
    ("topic", "alias", "code"),
    [
        ("a", 0, Code.TOPIC_ALIAS_INVALID),
        ("a", MAX_ALIASES + 1, Code.TOPIC_ALIAS_INVALID),
        ("", 1, Code.PROTOCOL_ERROR),
        ("a" * (MAX_CHARS + 1), 1, Code.QUOTA_EXCEEDED),
    ],
    ids=["0", "beyond the maximum", "of nothing", "of a long topic"],
)
def test_alias_that_cannot_be_is_refused(topic: str, alias: int, code: Code) -> None:
    """With the code that the standard has for it; nothing is kept."""
    aliases = Aliases()
    with pytest.raises(WrongPacketError) as caught:
        topic_of(aliases, topic, alias)
    assert caught.value.code is code
    with pytest.raises(WrongPacketError):
        topic_of(aliases, "", alias)
