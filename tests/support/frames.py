"""Frames for tests of journal and store: series, batches with right bodies and chains, gaps, quarantine.

Owns: `FrameMaker`, which numbers frames and chains them as devices do.
"""

import json
import random
from collections.abc import Sequence

from device_sdk.columns import decode_batch, encode_batch, to_columns
from device_sdk.reading import Reading, Value, type_of
from device_sdk.wire import CHAIN_START, Rejection, next_chain
from hub.model import Frame, Kind, Series, SeriesColumn, SeriesKey, StreamKey

T0 = 1_795_376_000_000_000_000
STREAM = "9f3a000000000001"


class FrameMaker:
    """Makes the frames of any number of streams; ``series`` holds every series used so far."""

    def __init__(self, namespace: str = "default") -> None:
        self.namespace = namespace
        self.series: dict[SeriesKey, Series] = {}
        self._seqs: dict[StreamKey, int] = {}
        self._chains: dict[StreamKey, bytes] = {}

    def batch(
        self,
        device: str,
        readings: Sequence[tuple[str, int, Value]],
        *,
        stream: str = STREAM,
        rejected: tuple[Rejection, ...] = (),
        rejected_count: int | None = None,
        received_ns: int = T0,
    ) -> Frame:
        """Return the stream's next batch; readings are (channel, time_ns, value)."""
        key = StreamKey(self.namespace, device, stream)
        seq = self._seqs.get(key, 0) + 1
        body = encode_batch(to_columns(seq, [Reading(*reading) for reading in readings]))
        # As the hub has it: decoded from the bytes, so a fixed rate is a range.
        batch = decode_batch(body)
        columns = tuple(SeriesColumn(self.find(device, c.channel, c.values[0]), c) for c in batch.columns)
        frame = self._frame(key, seq, Kind.BATCH, body, received_ns)
        frame.t0, frame.tick, frame.columns, frame.readings = batch.t0, batch.tick, columns, batch.count
        frame.rejected = rejected
        frame.rejected_count = len(rejected) if rejected_count is None else rejected_count
        return frame

    def one(self, device: str, value: Value, time_ns: int = T0, channel: str = "t", *, stream: str = STREAM) -> Frame:
        """Return the stream's next batch with one reading."""
        return self.batch(device, [(channel, time_ns, value)], stream=stream)

    def gap(self, device: str, count: int | None, reason: str = "spool_full", *, stream: str = STREAM) -> Frame:
        """Return a declared loss as the stream's next frame."""
        key = StreamKey(self.namespace, device, stream)
        seq = self._seqs.get(key, 0) + 1
        obj = {"op": "gap", "seq": seq, "count": count, "reason": reason, "ranges": {"t": [str(T0), str(T0 + 1)]}}
        frame = self._frame(key, seq, Kind.GAP, json.dumps(obj).encode(), T0)
        frame.dropped, frame.reason = count or 0, reason
        return frame

    def quarantined(self, device: str, raw: bytes, count: int = 1, *, stream: str = STREAM) -> Frame:
        """Return a malformed frame as the stream's next frame."""
        key = StreamKey(self.namespace, device, stream)
        frame = self._frame(key, self._seqs.get(key, 0) + 1, Kind.QUARANTINE, raw, T0)
        frame.rejected_count, frame.reason = count, "malformed: no columns"
        return frame

    def many(self, devices: int, frames: int, readings: int, *, seed: int = 1) -> list[Frame]:
        """Return ``frames`` frames of each device in turns, every reading at an instant of its own."""
        source = random.Random(seed)
        return [
            self.batch(
                f"device-{d}",
                [("t", T0 + (f * readings + r) * 1_000_000, source.uniform(-40, 85)) for r in range(readings)],
            )
            for f in range(frames)
            for d in range(devices)
        ]

    def find(self, device: str, channel: str, value: Value = 0.0) -> Series:
        """Return the series, made on first use with the value's type."""
        key = SeriesKey(self.namespace, device, channel)
        series = self.series.get(key)
        if series is None:
            series = self.series[key] = Series(len(self.series) + 1, self.namespace, device, channel, type_of(value))
        return series

    def all_series(self) -> list[Series]:
        """Return every series made so far."""
        return list(self.series.values())

    def _frame(self, key: StreamKey, seq: int, kind: Kind, body: bytes, received_ns: int) -> Frame:
        chain = next_chain(self._chains.get(key, CHAIN_START), body)
        self._seqs[key], self._chains[key] = seq, chain
        return Frame(key, seq, kind, received_ns, body, chain)


def numbered(frames: Sequence[Frame], first_offset: int = 1) -> list[Frame]:
    """Give frames offsets as a journal's commit does; for tests of a store alone."""
    for offset, frame in enumerate(frames, first_offset):
        frame.offset = offset
    return list(frames)
