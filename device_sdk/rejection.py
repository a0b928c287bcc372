"""What the hub refused of a device's readings: counted, and told in the log once a kind.

Owns: the count over all streams of a process, and which kinds were told. Place: after
`wire`, before `session`. Pure.
"""

import logging

from device_sdk import wire

logger = logging.getLogger("device_sdk.session")

# Peers choose channel and reason: past this many kinds everything is DEBUG, and memory stays bounded.
_MAX_KINDS = 2 * wire.MAX_CHANNELS


class Rejections:
    """Takes acks; ``total`` is how many readings were refused for good."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._before = 0
        self._now = 0
        self._told: set[tuple[str, str]] = set()

    @property
    def total(self) -> int:
        """Readings refused, over all streams."""
        return self._before + self._now

    def new_stream(self) -> None:
        """Note that the hub counts from 0 again."""
        self._before, self._now = self.total, 0

    def add(self, ack: wire.Ack) -> None:
        """Take what an ack says; it is cumulative, so a lost ack costs nothing."""
        self._now = max(self._now, ack.rejected_total)
        for rejection in ack.rejected:
            kind = (rejection.channel, rejection.reason)
            is_first = kind not in self._told and len(self._told) < _MAX_KINDS
            if is_first:
                self._told.add(kind)
            logger.log(
                logging.WARNING if is_first else logging.DEBUG,
                "rejected device=%s channel=%s reason=%s seq=%d index=%d",
                self._device, rejection.channel, rejection.reason, rejection.seq, rejection.index,
            )  # fmt: skip
