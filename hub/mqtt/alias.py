"""Numbers that stand for topics, on one connection of MQTT 5.

Owns: how many there are, and what they may take. Place: inside `hub.mqtt.conversation`. Pure.
"""

from hub.mqtt.field import Properties, Property, WrongPacketError, number_of
from hub.mqtt.handler import Code

# A gateway repeats some dozens of topics; more than these need not be held for each connection.
MAX_ALIASES = 16
# Of a topic that is given an alias.
MAX_CHARS = 1024


class Aliases:
    """What the client's aliases stand for: 16 KiB characters at most."""

    __slots__ = ("_topics",)

    def __init__(self) -> None:
        self._topics: dict[int, str] = {}

    def topic_of(self, topic: str, properties: Properties) -> str:
        """Return the topic of a publication; an empty one is what its alias stands for.

        Raises:
            WrongPacketError: the alias is out of bounds, or stands for nothing.
        """
        if Property.TOPIC_ALIAS not in properties:
            return topic
        alias = number_of(properties, Property.TOPIC_ALIAS, 0)
        if not 1 <= alias <= MAX_ALIASES:
            raise WrongPacketError(f"topic alias {alias} is not in 1 to {MAX_ALIASES}", Code.TOPIC_ALIAS_INVALID)
        if not topic:
            if alias not in self._topics:
                raise WrongPacketError(f"topic alias {alias} stands for nothing", Code.PROTOCOL_ERROR)
            return self._topics[alias]
        if len(topic) > MAX_CHARS:
            raise WrongPacketError("an alias for a very long topic", Code.QUOTA_EXCEEDED)
        self._topics[alias] = topic
        return topic
