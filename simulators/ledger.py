"""The outside witness: what devices produced and which acks they saw, in files of its own.

Owns: the witness's files. Place: beside the simulators, outside the system
under test: it stands on the SDK's hooks alone. `verdict` compares it with a
dump of the hub.

One file per process, tab-separated, only ever appended to:
    B device channel time_ns value-as-JSON          before record() is called, where the spool outlives the process
    R device channel time_ns value-as-JSON          after record() returned
    F device stream seq blake2b-hex bytes           at a frame's first transmission
    A device stream stored                          an ack the device saw
Lines reach the kernel with each write (a killed simulator loses none that was
flushed) and the disk within `SYNC_S`. A kill between B and R leaves a reading that
may be in the spool or not: stored or not, it is no fault.
"""

import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from device_sdk.reading import Value

# fsync at most this often: the witness must outlive a power cut of the machine by a second, not slow the devices down.
SYNC_S = 0.5
_FLUSH_CHARS = 64 * 1024


class Ledger:
    """Writes what one process's devices did. Safe from any thread: the SDK may call its hooks from its own.

    Args:
        folder: made when absent; holds one file per process.
        name: tells the files of several processes apart.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name or 'devices'}-{os.getpid()}-{time.time_ns():x}.ledger"
        self._file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o644)
        self._lock = threading.Lock()
        self._lines: list[str] = []
        self._chars = 0
        self._synced = time.monotonic()

    def begun(self, device: str, channel: str, time_ns: int, value: Value) -> None:
        """Witness a reading whose `record()` is about to be called; `flush` before that call."""
        self._add(f"B\t{device}\t{channel}\t{time_ns}\t{json.dumps(value, ensure_ascii=False)}\n")

    def recorded(self, device: str, channel: str, time_ns: int, value: Value) -> None:
        """Witness a reading whose `record()` returned."""
        self._add(f"R\t{device}\t{channel}\t{time_ns}\t{json.dumps(value, ensure_ascii=False)}\n")

    def frame_hook(self, device: str) -> Callable[[int, bytes, str], None]:
        """Return the ``on_frame`` of a device."""

        def on_frame(seq: int, body: bytes, stream: str) -> None:
            self._add(f"F\t{device}\t{stream}\t{seq}\t{blake2b(body, digest_size=16).hexdigest()}\t{len(body)}\n")
            self.flush()

        return on_frame

    def ack_hook(self, device: str) -> Callable[[int, str], None]:
        """Return the ``on_ack`` of a device."""

        def on_ack(stored: int, stream: str) -> None:
            self._add(f"A\t{device}\t{stream}\t{stored}\n")
            self.flush()

        return on_ack

    def flush(self) -> None:
        """Hand all lines to the kernel, and to the disk when that is due."""
        with self._lock:
            self._write()
            now = time.monotonic()
            if now - self._synced >= SYNC_S:
                self._synced = now
                os.fsync(self._file)

    def close(self) -> None:
        """Write and sync what is left; call once."""
        self.flush()
        os.fsync(self._file)
        os.close(self._file)

    def _add(self, line: str) -> None:
        with self._lock:
            self._lines.append(line)
            self._chars += len(line)
            if self._chars >= _FLUSH_CHARS:
                self._write()

    def _write(self) -> None:
        data = "".join(self._lines).encode()
        self._lines, self._chars = [], 0
        while data:
            data = data[os.write(self._file, data) :]


@dataclass(slots=True)
class Witness:
    """What the ledger's files say of one device.

    ``readings``: channel → time_ns → the last value produced for that instant, in `canonical` form.
    ``begun``: (channel, time_ns) → the value of a `record()` that a kill did not let return.
    ``repeats``: how many earlier values an instant had (corrections).
    ``frames``: (stream, seq) → hash; ``reused`` counts numbers that were used for two different bodies.
    """

    readings: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    begun: dict[tuple[str, int], str] = field(default_factory=dict)
    repeats: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))
    frames: dict[tuple[str, int], str] = field(default_factory=dict)
    acked: dict[str, int] = field(default_factory=dict)
    produced: int = 0
    reused: int = 0


def load(folder: Path) -> dict[str, Witness]:
    """Return what all files of the folder say, by device; a torn last line is left out."""
    witnesses: dict[str, Witness] = defaultdict(Witness)
    for path in sorted(folder.glob("*.ledger")):
        begun: dict[tuple[str, str, int], str] = {}
        with path.open(encoding="utf-8", newline="\n") as lines:
            for line in lines:
                if line.endswith("\n"):
                    _take_line(witnesses, begun, line[:-1].split("\t"))
        for (device, channel, time_ns), value in begun.items():
            witnesses[device].begun[channel, time_ns] = value
    return dict(witnesses)


def write_baseline(folder: Path, devices: Iterable[str]) -> None:
    """Write which devices had readings in the hub before this ledger began; the first baseline stays."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "baseline.json"
    if not path.exists():
        path.write_text(json.dumps(sorted(devices)), encoding="utf-8")


def load_baseline(folder: Path) -> frozenset[str]:
    """Return the devices of `write_baseline`; empty when none was written."""
    path = folder / "baseline.json"
    return frozenset(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else frozenset()


def canonical(value: Value) -> str:
    """Return text that is equal exactly when the values are; an int and the float it widened to are equal."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return repr(value)


def _take_line(witnesses: dict[str, Witness], begun: dict[tuple[str, str, int], str], parts: list[str]) -> None:
    match parts:
        case ["R", device, channel, time_text, value]:
            witness, time_ns = witnesses[device], int(time_text)
            witness.produced += 1
            instants = witness.readings[channel]
            if time_ns in instants:
                witness.repeats[channel, time_ns] += 1
            instants[time_ns] = canonical(json.loads(value))
            begun.pop((device, channel, time_ns), None)
        case ["B", device, channel, time_text, value]:
            begun[device, channel, int(time_text)] = canonical(json.loads(value))
        case ["F", device, stream, seq, digest, _]:
            witness = witnesses[device]
            if witness.frames.setdefault((stream, int(seq)), digest) != digest:
                witness.reused += 1
        case ["A", device, stream, stored]:
            acked = witnesses[device].acked
            acked[stream] = max(acked.get(stream, 0), int(stored))
