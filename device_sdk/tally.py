"""What became of a device's readings since its process began, as its session has seen it.

Owns: counts of acks, rejections and welcomes; the log lines of rejections. Place: beside
`turn`, before `session`. Pure.
"""

from __future__ import annotations

import logging
from collections import Counter

from device_sdk import wire

logger = logging.getLogger("device_sdk.session")


class Tally:
    """Counts over all streams and connections of one process.

    ``settled``: readings that no longer need delivery; ``acked_frames`` also counts declared losses.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self.settled = 0
        self.acked_frames = 0
        self.welcomes = 0
        self._rejected_before = 0
        self._rejected_total = 0
        self._warned: Counter[tuple[str, str]] = Counter()

    @property
    def rejected(self) -> int:
        """Readings the hub refused for good, over all streams."""
        return self._rejected_before + self._rejected_total

    @property
    def reconnects(self) -> int:
        """How often a hub took the hello again after the first time."""
        return max(0, self.welcomes - 1)

    def acked(self, readings: int) -> None:
        """Count a frame that is durable at the hub, or whose loss is declared."""
        self.settled += readings
        self.acked_frames += 1

    def add(self, ack: wire.Ack) -> None:
        """Take what an ack says of refused readings; its count is cumulative, so a lost ack costs nothing."""
        self._rejected_total = max(self._rejected_total, ack.rejected_total)
        for rejection in ack.rejected:
            self._report(rejection)

    def new_stream(self) -> None:
        """Begin counting a stream; the hub counts each from 0."""
        self._rejected_before += self._rejected_total
        self._rejected_total = 0

    def _report(self, rejection: wire.Rejection) -> None:
        """Log a reading the hub refused: the first of each channel and reason as a warning."""
        key = (rejection.channel, rejection.reason)
        # Peers choose channel and reason: past this many kinds everything is DEBUG, and memory stays bounded.
        is_first = key not in self._warned and len(self._warned) < 2 * wire.MAX_CHANNELS
        if is_first:
            self._warned[key] = 1
        logger.log(
            logging.WARNING if is_first else logging.DEBUG,
            "rejected device=%s channel=%s reason=%s seq=%d index=%d",
            self._device, rejection.channel, rejection.reason, rejection.seq, rejection.index,
        )  # fmt: skip
