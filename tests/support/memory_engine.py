"""A server of line protocol in memory, with the faults that a real one has at moments that cannot be chosen.

Owns: `MemoryEngine`. It understands what `hub.store.line_protocol` writes; tests with real servers prove that right.
"""

import re
from collections.abc import Sequence

from device_sdk.reading import Value
from hub.errors import StoreError
from hub.store.line_protocol import SeriesName
from hub.store.remote import RefusedLinesError, Rows

_LINE = re.compile(r"reading,channel=(\S+),device=(\S+),namespace=(\S+) kind=(\d)i,\w+=(.*) (-?\d+)", re.DOTALL)


class MemoryEngine:
    """Keeps rows by series.

    ``poison``: values it refuses; ``tells_dropped``: and says how many; ``is_down``: nothing is taken; ``dies_after``:
    a write is, and its answer is lost; ``loses_writes``, ``loses_deletes``: such a one never arrives.
    """

    def __init__(self) -> None:
        self.rows: dict[SeriesName, dict[int, Value]] = {}
        self.poison: set[Value] = set()
        self.tells_dropped = False
        self.is_down = self.dies_after = self.loses_writes = self.loses_deletes = False
        self.writes = 0

    def write(self, lines: bytes) -> None:
        """Take all lines or none."""
        self._check()
        if self.loses_writes:
            raise StoreError("connection reset")
        self.writes += 1
        found = [_parsed(line) for line in re.split(r"\n(?=reading,)", lines.decode())]
        if refused := [value for *_, value in found if value in self.poison]:
            raise RefusedLinesError(f"400: cannot take {refused[0]!r}", len(refused) if self.tells_dropped else None)
        for name, time_ns, value in found:
            self.rows.setdefault(name, {})[time_ns] = value
        if self.dies_after:
            self.is_down = True
            self._check()

    def read(
        self, names: Sequence[SeriesName], start_ns: int, end_ns: int, limit: int, *, descending: bool = False
    ) -> list[Rows]:
        """Return rows in order."""
        self._check()
        return [
            sorted(((t, v) for t, v in self.rows.get(name, {}).items() if start_ns <= t < end_ns), reverse=descending)[
                :limit
            ]
            for name in names
        ]

    def buckets(self, *_: object) -> list[list[tuple[int, tuple[float | int, ...]]]]:
        """Not needed: what a server computes is compared with real ones."""
        raise NotImplementedError

    def count(self, names: Sequence[SeriesName]) -> list[int]:
        """Return how many rows there are."""
        self._check()
        return [len(self.rows.get(name, {})) for name in names]

    def delete(self, name: SeriesName) -> None:
        """Delete a series."""
        if self.loses_deletes:
            raise StoreError("connection reset")
        self._check()
        self.rows.pop(name, None)

    def durable(self, offset: int) -> int:
        """All of it."""
        return offset

    def close(self) -> None:
        """Nothing to let go."""

    def _check(self) -> None:
        if self.is_down:
            raise StoreError("connection refused")


def _parsed(line: str) -> tuple[SeriesName, int, Value]:
    found = _LINE.fullmatch(line)
    assert found is not None, line
    channel, device, namespace, kind, value, time_ns = found.groups()
    text = value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    values: dict[str, Value] = {"1": 0.0, "4": text, "3": value == "t"}
    if kind == "1":
        values["1"] = float(value)
    if kind == "2":
        values["2"] = int(value[:-1])
    return SeriesName(namespace, device, channel), int(time_ns), values[kind]
