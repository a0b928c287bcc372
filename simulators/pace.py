"""How often a simulated device measures, as its desired state says.

Owns: ``interval_s`` of one device. Place: before `fleet`. Uses the SDK's public names only.
"""

from collections.abc import Callable, Mapping
from typing import Any

from device_sdk import Device


class Pace:
    """Applies ``interval_s`` of the desired state and reports what it applied; without one every sample is due.

    Args:
        device: open, or opened later.
        clock: monotonic seconds.
    """

    def __init__(self, device: Device, clock: Callable[[], float]) -> None:
        self.interval_s = 0.0
        self._device = device
        self._clock = clock
        self._due_at = 0.0
        device.on_desired(self._apply)

    def is_due(self) -> bool:
        """Say whether a sample is to be taken now; then the next is due an interval later."""
        if not self.interval_s:
            return True
        now = self._clock()
        if now < self._due_at:
            return False
        self._due_at = now + self.interval_s
        return True

    async def _apply(self, state: Mapping[str, Any]) -> None:
        wanted = state.get("interval_s")
        # Whatever a person wrote: what is no interval is not applied, and what is reported then differs.
        if isinstance(wanted, int | float) and not isinstance(wanted, bool) and wanted > 0:
            self.interval_s = wanted
        elif wanted is None:
            self.interval_s = 0.0
        self._due_at = 0.0
        self._device.report(interval_s=self.interval_s or None)
