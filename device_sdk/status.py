"""What a device tells of itself: `Status` at a glance, `DeviceStatistics` in full.

Owns: both records. Place: after `courier`, before `device`, which hands them out.
"""

from __future__ import annotations

from collections.abc import Mapping

from device_sdk.courier import Courier
from device_sdk.errors import FlushTimeoutError, Reason
from device_sdk.frozen import Frozen
from device_sdk.session import Session
from device_sdk.spool import SpoolStatistics


class Status(Frozen):
    """What `Device.status` shows; counts are readings.

    ``pending``: recorded, not yet durable at the hub. ``oldest_age_s``: age of the
    oldest of them, None when there is none. ``dropped``: lost to a full spool or
    disk, each declared to the hub. ``no_value``: None or not finite, skipped.
    ``rejected``: refused by the hub for good. ``last_error``: why there is no
    connection, or why the disk refuses; None while all is well.
    """

    online: bool
    pending: int
    oldest_age_s: float | None
    dropped: int
    no_value: int
    rejected: int
    spool_bytes: int
    spool_limit_bytes: int
    last_error: str | None


class DeviceStatistics(Frozen):
    """What `Device.statistics` counts: the whole of what spool and conversation know; `Status` is the short form.

    Readings, unless said otherwise. Still here: ``pending``: not yet durable at the hub; ``unnumbered``: of
    these, not yet in a frame; ``backlog``: of these, from before the last outage ended, while newer ones overtake
    them (0: all go in order); ``frames``: frames sent and not acked; ``oldest_time_ns``: UTC epoch ns of the
    oldest pending reading, None without one.
    Space: ``bytes``, ``limit_bytes``, ``peak_bytes`` of the spool (peak: of this process).
    Lost, ever in this spool, each declared to the hub: ``dropped`` = the sum of ``dropped_by`` reason, of which
    ``thinned`` were left out for a coarser picture and, since this object was opened, ``refused`` were new ones that
    a full spool or disk did not take; ``damaged``: places in its files that could not be read.
    ``no_value``: None or not finite, skipped.
    Since this object was opened: ``acked_frames``, ``acked_readings``: durable at the hub; ``rejected``: refused
    by it for good; ``reconnects``: connections it welcomed after the first.
    ``last_error``: why there is no connection, or why the disk refuses; None while all is well.
    """

    online: bool
    pending: int
    unnumbered: int
    backlog: int
    frames: int
    oldest_time_ns: int | None
    bytes: int
    limit_bytes: int
    peak_bytes: int
    dropped: int
    dropped_by: Mapping[str, int]
    thinned: int
    refused: int
    damaged: int
    no_value: int
    acked_frames: int
    acked_readings: int
    rejected: int
    reconnects: int
    last_error: str | None


def count(held: SpoolStatistics, session: Session, courier: Courier) -> DeviceStatistics:
    """Return the counts of one moment."""
    tally = session.tally
    return DeviceStatistics(
        online=courier.is_online,
        pending=held.pending,
        unnumbered=held.unnumbered,
        backlog=held.backlog,
        frames=held.frames,
        oldest_time_ns=held.oldest_time_ns,
        bytes=held.bytes,
        limit_bytes=held.limit_bytes,
        peak_bytes=held.peak_bytes,
        dropped=held.dropped,
        dropped_by=held.dropped_by,
        thinned=held.dropped_by.get(Reason.THINNED, 0),
        refused=held.refused,
        damaged=held.damaged,
        no_value=held.no_value,
        acked_frames=tally.acked_frames,
        acked_readings=tally.settled,
        rejected=tally.rejected,
        reconnects=tally.reconnects,
        last_error=held.disk_error or courier.last_error,
    )


def flush_timeout(device: str, status: Status, timeout_s: float) -> FlushTimeoutError:
    """Return the error of a flush that took longer: how much is left, and why as far as known."""
    why = f"; {status.last_error}" if status.last_error else ""
    return FlushTimeoutError(
        f"device {device}: {status.pending} readings are not at the hub after {timeout_s:g} s{why}. "
        "They stay in the spool and are delivered later."
    )
