"""Commands that simulated devices of a fleet obey: ``blink`` and ``set_interval``.

Owns: what each device was told. Place: after `link`, before `fleet`. Uses the SDK's public names only.
"""

from collections.abc import Mapping

from simulators.link import SimulatedLink

# A day: what sleeps longer is no simulation that anybody watches.
MAX_INTERVAL_S = 86_400.0


class Obedience:
    """What one simulated device was told to do."""

    def __init__(self) -> None:
        self.blinks = 0
        # 0: each sample that the fleet's schedule has for it.
        self.interval_s = 0.0
        self._next_s = 0.0

    def is_due(self, now_s: float) -> bool:
        """Say whether a sample of the schedule is to be taken, at monotonic time ``now_s``."""
        if now_s < self._next_s:
            return False
        self._next_s = now_s + self.interval_s
        return True

    async def blink(self, times: int = 1) -> dict[str, int]:
        """Blink."""
        self.blinks += times
        return {"blinks": self.blinks}

    async def set_interval(self, seconds: float) -> dict[str, float]:
        """Take samples at least so many seconds apart; 0: as the simulation was started."""
        if not 0 <= seconds <= MAX_INTERVAL_S:
            raise ValueError(f"{seconds:g} s: use 0 to {MAX_INTERVAL_S:g}")
        self.interval_s, self._next_s = seconds, 0.0
        return {"seconds": seconds}


def obey(links: Mapping[str, SimulatedLink]) -> dict[str, Obedience]:
    """Have all devices declare and obey these commands; return what each is told."""
    told = {name: Obedience() for name in links}
    for name, link in links.items():
        link.device.command(told[name].blink)
        link.device.command(told[name].set_interval)
    return told
