"""The journal's record: one frame ↔ bytes, many of them in the body of one commit row.

Owns: the layout below. Place: after `journal.base`, used by `journal.sqlite`.
Pure. Bodies are trusted: they were validated before they came here.

Record, little-endian, no padding:
    u32 body bytes | u8 kind | u8 late columns | u16 reason bytes | u32 stream | u32 readings | u64 seq
    | i64 received_ns | u64 rejected | u64 dropped | 16 B chain | reason (UTF-8) | per late column: u8 index, i64 before
    | body
``stream`` is the row id of the stream's mark. Readings of a late column with a time < ``before`` are late. The body
describes itself: ``{`` begins JSON, anything else is a binary batch. Series are not in the record: they are found by
(namespace, device, channel) of the body's columns. 64 bytes a frame are 0.6 a reading in batches of 100.
"""

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from device_sdk.columns import decode_batch
from device_sdk.errors import ProtocolError
from device_sdk.reading import INT_MAX
from hub.errors import JournalError
from hub.model import Frame, Kind, Series, SeriesColumn, SeriesKey, StreamKey

_HEAD = struct.Struct("<IBBHIIQqQQ16s")
_LATE = struct.Struct("<Bq")
HEAD_BYTES = _HEAD.size
# A reason is a sentence; the u16 before it could hold more.
_MAX_REASON_BYTES = 1000

FindSeries = Callable[[SeriesKey], Series | None]


class Record(NamedTuple):
    """A record's head and where its parts lie in the row: enough to skip it or to take it apart."""

    kind: int
    stream: int
    readings: int
    seq: int
    received_ns: int
    rejected: int
    dropped: int
    chain: bytes
    reason_at: int
    late_at: int
    body_at: int
    end: int


def encode(frame: Frame, stream: int) -> bytes:
    """Return the frame as a record of the stream with that row id."""
    reason = frame.reason.encode("utf-8", "replace")[:_MAX_REASON_BYTES] if frame.reason else b""
    head = _HEAD.pack(
        len(frame.body), frame.kind, len(frame.late), len(reason), stream, frame.readings, frame.seq, frame.received_ns,
        min(frame.rejected_count, INT_MAX), min(frame.dropped, INT_MAX), frame.chain,
    )  # fmt: skip
    if frame.late:
        reason += b"".join([_LATE.pack(*late) for late in frame.late])
    return head + reason + frame.body if reason else head + frame.body


def records(row: bytes) -> Iterator[Record]:
    """Yield the heads of all records of a row, in order; bodies are not touched.

    Raises:
        JournalError: the row does not end where its last record does.
    """
    at, size = 0, len(row)
    while at < size:
        try:
            body, kind, late, reason, stream, readings, seq, received_ns, rejected, dropped, chain = _HEAD.unpack_from(
                row, at
            )
        except struct.error as error:
            raise JournalError(f"a journal row ends inside a record at byte {at} of {size}: {error}") from error
        reason_at = at + HEAD_BYTES
        late_at = reason_at + reason
        body_at = late_at + late * _LATE.size
        at = body_at + body
        if at > size:
            raise JournalError(f"a journal row of {size} bytes ends inside a record of {at - reason_at} bytes")
        yield Record(
            kind, stream, readings, seq, received_ns, rejected, dropped, chain, reason_at, late_at, body_at, at
        )


def decode(record: Record, row: bytes, offset: int, key: StreamKey, find_series: FindSeries) -> Frame:
    """Return the record's frame with its columns; ``key`` is that of ``record.stream``.

    Raises:
        JournalError: the body is no batch, or names a series that is not known (both mean a damaged file).
    """
    frame = Frame(
        key, record.seq, Kind(record.kind), record.received_ns, row[record.body_at : record.end], record.chain,
        readings=record.readings, rejected_count=record.rejected, dropped=record.dropped,
        reason=row[record.reason_at : record.late_at].decode("utf-8", "replace"), offset=offset,
    )  # fmt: skip
    if record.body_at > record.late_at:
        frame.late = tuple(_LATE.iter_unpack(row[record.late_at : record.body_at]))
    if frame.kind is Kind.BATCH and frame.readings:
        _fill_columns(frame, find_series)
    return frame


def _fill_columns(frame: Frame, find_series: FindSeries) -> None:
    try:
        batch = decode_batch(frame.body)
    except ProtocolError as error:
        raise JournalError(f"offset {frame.offset}: the body is damaged: {error}") from error
    namespace, device, _ = frame.key
    columns = []
    for column in batch.columns:
        series = find_series(SeriesKey(namespace, device, column.channel))
        if series is None:
            raise JournalError(f"offset {frame.offset}: no series for {device}/{column.channel}")
        columns.append(SeriesColumn(series, column))
    frame.t0, frame.tick, frame.columns = batch.t0, batch.tick, tuple(columns)
