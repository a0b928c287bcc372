"""What the decoders of one sender share: who it is, the names it uses, where its clock is.

Owns: no more than that. Place: after `naming`, before the decoders. Pure.
"""

from datetime import tzinfo

from hub.decode.naming import MAX_NAME_BYTES, MAX_OWN_NAME_BYTES, Names


class Scope:
    """One sender: the client of one credential, or one bridge.

    Args:
        device: the name of the one device that the sender is; empty where it speaks for many (a gateway, a bridge).
        zone: where its devices are, for times without a zone; None: such times are not used.
    """

    __slots__ = ("device", "names", "zone")

    def __init__(self, device: str = "", zone: tzinfo | None = None) -> None:
        self.device = device
        self.zone = zone
        self.names = Names(MAX_OWN_NAME_BYTES if device else MAX_NAME_BYTES)

    def own(self, text: str) -> str:
        """Return the device's name where one sender is one device by its nature: its credential says it better."""
        return self.device or self.names.device(text)
