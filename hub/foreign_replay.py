"""Foreign messages of the quarantine, read again: by today's decoders, for whom their sender may speak today.

Owns: which readings such a message has now. Place: after `decode` and `children`; `hub.replay` makes a frame of them.
Must not: remember anything. What decoders learn from announcements is not known here: readings lack a unit then, and a
message that needs what came before it (an alias of Sparkplug) stays where it is.
"""

from collections.abc import Callable, Sequence

from hub.child_sessions import Admission
from hub.children import Enrolled
from hub.decode.base import Decoded, DecodeError, ForeignReading, Publication, Said
from hub.decode.dispatch import Decoders
from hub.journal.base import QuarantineEntry
from hub.validate import MalformedError


class ForeignMessages:
    """Reads entries that `Foreign.quarantine` made. Its look at who is enrolled reads a file: call it in a thread.

    Args:
        make_decoders: makes those of one sender: of a device by its name, or of a gateway (no name).
    """

    def __init__(self, make_decoders: Callable[[str], Decoders], enrolled: Enrolled, admission: Admission) -> None:
        self._make_decoders = make_decoders
        self._enrolled = enrolled
        self._admission = admission

    def read(self, entry: QuarantineEntry, body: bytes) -> Said:
        """Return what the message says of one device, each reading with a time.

        Raises:
            MalformedError: it still cannot be read, has no readings, speaks of several devices, or of one that its
                sender may not speak for.
            UnavailableError: it cannot be seen now who its sender is.
        """
        namespace, sender, _ = entry.key
        is_device = self._enrolled.is_enrolled(sender, namespace=namespace)
        try:
            publication = Publication.from_bytes(body, entry.received_ns)
            decoded = self._make_decoders(sender if is_device else "").decode(publication)
        except (DecodeError, ValueError) as error:
            raise MalformedError(str(error)) from error
        said = _of_one(decoded)
        if is_device:
            # A device's credential speaks for one device, whatever the topic calls it.
            said = said._replace(device=sender)
        elif not self._admission.is_accepted(namespace, sender, said.device):
            raise MalformedError(f"{said.device} waits: hub children accept {sender} {said.device}")
        return said._replace(readings=timed(said.readings, entry.received_ns))


def timed(readings: Sequence[ForeignReading], received_ns: int) -> tuple[ForeignReading, ...]:
    """Return the readings with the receive time where they have none; two of a channel share no instant."""
    given: dict[str, int] = {}
    found = []
    for reading in readings:
        if reading.time_ns is None:
            given[reading.channel] = time_ns = given.get(reading.channel, received_ns - 1) + 1
            reading = reading._replace(time_ns=time_ns)
        found.append(reading)
    return tuple(found)


def _of_one(decoded: Decoded) -> Said:
    said = [one for one in decoded.said if one.readings]
    if not said:
        raise MalformedError(f"it has no readings: {decoded.ignored or decoded.decoder}")
    if len({one.device for one in said}) > 1:
        # One commit stores an entry and marks it replayed: the frame of one device.
        raise MalformedError(f"it speaks of {len(said)} devices: let it be sent again")
    readings = tuple(reading for one in said for reading in one.readings)
    return Said(said[0].device, readings, tuple(channel for one in said for channel in one.channels))
