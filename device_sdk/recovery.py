"""How a spool in files starts: reads what is there, and decides whether its stream may go on.

Owns: that decision, and what damage is declared. Place: after `spool_event` and
the two logs, before `file_spool`. Must not: raise for damaged files.

    the last run …                     what happens
    closed, or killed (same boot id)   the stream goes on
    did not close, other boot id       a power cut: its frames are acked first, then a new stream
                                       begins with a gap ``power_cut`` of unknown count
    left state that is damaged         a new stream begins at once: a frame that was sent may be
                                       missing here, and its number must not be given again

With durability ``fsync`` a power cut takes nothing, so it changes nothing: the torn end of
a log is what was being written, which no `record` had returned for and no hub had seen.
Another boot id also begins a new boot on the line of uptime (see `uptime`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from device_sdk.errors import Reason
from device_sdk.frozen import Frozen
from device_sdk.outbox import Outbox
from device_sdk.reading_log import ReadingLog
from device_sdk.spool_event import State, replay
from device_sdk.state_log import Loaded, StateLog
from device_sdk.uptime import UPTIME


class Recovered(Frozen):
    """What a spool starts with.

    ``last_ns``: no instant given from now on lies at or before it. ``damage``: unreadable places by reading file, all
    declared now.
    """

    outbox: Outbox
    readings: ReadingLog
    last_ns: int
    state_log: StateLog
    damage: dict[int, int]


def recover(
    path: Path, *, boot: str, segment_bytes: int, retain_bytes: int, new_stream: Callable[[], str]
) -> Recovered:
    """Return what the files in a locked directory hold.

    Raises:
        SpoolError: a newer SDK wrote them.
        OSError: the directory cannot be read.
    """
    state_log = StateLog(path, retain_bytes)
    loaded = state_log.load()
    was = State(Outbox(new_stream())) if loaded is None else replay(loaded.events)
    readings = ReadingLog(path, segment_bytes, was.marks, was.last_ns, was.thinned)
    outbox = was.outbox
    has_lost_power = not was.is_closed and was.boot not in ("", boot)
    is_power_cut = has_lost_power and was.durability == "second"
    state_damage = 0 if loaded is None else loaded.damaged
    places = state_damage + _new_damage(was, readings)
    if has_lost_power and was.durability == "fsync":
        places -= _torn_ends(was, readings, loaded)
    outbox.damaged += places
    if places and not is_power_cut:  # a power cut's own gap says already that something was lost
        outbox.lose(Reason.SPOOL_DAMAGED, None, {})
    if is_power_cut:
        outbox.is_ending = True
    is_state_whole = was.is_coherent and (has_lost_power or not state_damage)
    if not is_state_whole or (outbox.is_ending and not outbox.frames):
        outbox.restart(new_stream(), None)
    last_ns = max(readings.last_ns, _resume_uptime(was, readings, boot))
    return Recovered(outbox, readings, last_ns, state_log, dict(readings.found_damage))


def _resume_uptime(was: State, readings: ReadingLog, boot: str) -> int:
    """Find this boot's place on the line of uptime; return the last real time that earlier readings of it become."""
    line = was.outbox.uptime
    lost = (high for loss in was.outbox.losses.values() for _, high in loss.ranges.values() if high >= UPTIME)
    last = max(readings.last_uptime, max(lost, default=UPTIME - 1) - UPTIME)
    if was.boot == boot:
        line.resume(last)
    else:
        line.begin_boot(last, is_empty=not readings.left)
    placed = line.place(UPTIME + last) if last >= 0 else None
    return 0 if placed is None else placed[0]


def _torn_ends(was: State, readings: ReadingLog, loaded: Loaded | None) -> int:
    """Return how many of the places, declared by no earlier start, are the end of a log."""
    is_new = readings.torn_base is not None and readings.torn_base not in was.damage
    return is_new + (loaded is not None and loaded.is_torn)


def _new_damage(was: State, readings: ReadingLog) -> int:
    """Return how many unreadable places of the readings are not declared yet."""
    places = sum(max(0, found - was.damage.get(base, 0)) for base, found in readings.found_damage.items())
    is_cut_short = was.is_closed and was.end > readings.end
    return places + (readings.is_missing or is_cut_short)
