"""How simulated devices reach a hub, and how their work ends: drained and counted.

Owns: opening devices, flow control, the drain, the summary. Place: after
`ledger`, before `fleet`, `replay`, `host` and `demo`. Uses the SDK's public
names only.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from device_sdk import Device, FlushTimeoutError
from device_sdk.reading import Value
from simulators.ledger import Ledger

# A device that far behind waits for acks: bounds the simulator's memory when the hub is slower than the file.
MAX_PENDING = 5_000
_WAIT_S = 0.005


@dataclass(frozen=True, slots=True)
class Link:
    """Where the hub is and with which tokens.

    ``spool`` None keeps un-acked readings in memory only; ``close_timeout_s`` is how long the end may wait for acks;
    ``connect_to`` is where TCP is opened instead of the URL's host and port: a proxy in front of the hub.
    """

    url: str
    tokens: Mapping[str, str]
    ca: Path | None = None
    fingerprint: str | None = None
    spool: Path | None = None
    close_timeout_s: float = 2.0
    connect_to: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did. ``acked`` counts readings the hub holds durably or refused for good (``rejected``)."""

    devices: int
    recorded: int
    acked: int
    pending: int
    dropped: int
    rejected: int
    no_value: int
    seconds: float
    last_errors: tuple[str, ...] = ()

    @property
    def is_drained(self) -> bool:
        """Tell whether nothing waits any more."""
        return self.pending == 0


class SimulatedLink:
    """One open device together with its witness.

    ``is_lasting``: its spool outlives the process, so each reading is witnessed before and after `record()`.
    """

    def __init__(self, device: Device, name: str, ledger: Ledger | None, *, is_lasting: bool = False) -> None:
        self.device = device
        self.name = name
        self.recorded = 0
        self._ledger = ledger
        self._is_lasting = is_lasting and ledger is not None
        self._last_ns = 0

    def record(self, values: Mapping[str, Value], time_ns: int | None = None) -> None:
        """Record values of one instant; with a ledger the time is always explicit, or it could not be compared."""
        if time_ns is None and self._ledger is not None:
            time_ns = self._last_ns = max(time.time_ns(), self._last_ns + 1)
        ledger = self._ledger
        if ledger is None or time_ns is None:
            self.device.record(values, time=time_ns)
            self.recorded += len(values)
            return
        if self._is_lasting:
            for channel, value in values.items():
                ledger.begun(self.name, channel, time_ns, value)
            ledger.flush()
        self.device.record(values, time=time_ns)
        self.recorded += len(values)
        for channel, value in values.items():
            ledger.recorded(self.name, channel, time_ns, value)
        if self._is_lasting:
            ledger.flush()

    async def wait_for_room(self) -> None:
        """Wait until fewer than `MAX_PENDING` readings are un-acked. May be cancelled."""
        while self.device.status.pending > MAX_PENDING:  # noqa: ASYNC110 - acks come by the hundred, no event each
            await asyncio.sleep(_WAIT_S)


@asynccontextmanager
async def open_devices(
    link: Link, names: Iterable[str], ledger: Ledger | None = None
) -> AsyncIterator[dict[str, SimulatedLink]]:
    """Open one device per name; all are closed at the end, at the same time, whether drained or not."""
    opened: dict[str, SimulatedLink] = {}
    try:
        for name in names:
            device = Device(
                name,
                link.url,
                token=link.tokens[name],
                spool=":memory:" if link.spool is None else link.spool / name,
                ca=link.ca,
                fingerprint=link.fingerprint,
                connect_to=link.connect_to,
                on_frame=ledger.frame_hook(name) if ledger else None,
                on_ack=ledger.ack_hook(name) if ledger else None,
                close_timeout_s=link.close_timeout_s,
            )
            opened[name] = SimulatedLink(await device.__aenter__(), name, ledger, is_lasting=link.spool is not None)
        yield opened
    finally:
        await asyncio.gather(*(one.device.__aexit__(None, None, None) for one in opened.values()))


async def drain(links: Sequence[SimulatedLink], limit_s: float) -> None:
    """Wait until every reading is acked or ``limit_s`` is over; what is left shows in the summary."""

    async def drain_one(link: SimulatedLink) -> None:
        try:
            await link.device.flush_async(limit_s)
        except FlushTimeoutError:
            return  # counted as pending

    await asyncio.gather(*(drain_one(link) for link in links))


def summarise(links: Sequence[SimulatedLink], seconds: float) -> Summary:
    """Return the counts of all devices; call before they are closed."""
    statuses = [link.device.status for link in links]
    recorded = sum(link.recorded for link in links)
    pending, dropped = sum(s.pending for s in statuses), sum(s.dropped for s in statuses)
    no_value = sum(s.no_value for s in statuses)
    errors = dict.fromkeys(str(s.last_error) for s in statuses if s.last_error and s.pending)
    return Summary(
        devices=len(links),
        recorded=recorded,
        acked=max(0, recorded - pending - dropped - no_value),
        pending=pending,
        dropped=dropped,
        rejected=sum(s.rejected for s in statuses),
        no_value=no_value,
        seconds=seconds,
        last_errors=tuple(errors)[:3],
    )
