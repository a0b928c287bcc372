"""Device shadows of AWS IoT: what a thing reports of itself is readings.

Owns: the topics of shadows. Place: one of the decoders. Pure. What is desired of a thing is no reading, and answers of
the service, which a bridge sees too, would be the same readings once more.
Source: AWS IoT Core, device shadow MQTT topics.
"""

from hub.decode.base import Decoded, DecodeError, ForeignReading, Publication, Said
from hub.decode.scope import Scope
from hub.decode.value import flatten, load


class AwsShadow:
    """Reads ``$aws/things/THING/shadow/update``, of a named shadow too; see `hub.decode.base.Decoder`."""

    __slots__ = ("_scope",)
    name = "aws-shadow"

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def decode(self, publication: Publication) -> Decoded | None:
        """Return the reported state of a thing."""
        match publication.topic.split("/"):
            case ["$aws", "things", thing, "shadow", "name", shadow, *what] if thing and shadow:
                prefix = shadow
            case ["$aws", "things", thing, "shadow", *what] if thing:
                prefix = ""
            case _:
                return None
        if what != ["update"]:
            return Decoded(self.name, ignored="a shadow is asked for, deleted or answered: no reading")
        document = load(publication.payload)
        state = document.get("state") if isinstance(document, dict) else None
        if not isinstance(state, dict):
            raise DecodeError('an update of a shadow is {"state": {"reported": {"temp": 21}}}')
        reported = state.get("reported")
        if reported is None:
            return Decoded(self.name, ignored="what is desired of a thing, not what it reports")
        device = self._scope.own(thing)
        channel = self._scope.names.channel
        readings = tuple(
            [ForeignReading(channel(device, path or "value"), value) for path, value in flatten(reported, prefix)]
        )
        return Decoded(self.name, (Said(device, readings),) if readings else (), ignored="" if readings else "no value")
