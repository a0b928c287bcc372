"""Plays hostile connections against a real hub beside healthy devices, and says what it cost them and the hub.

Owns: the pace, the watching over the hub's log, the figures. A fixed rate of hostile frames is offered: the
generator shares two cores with the hub and the healthy devices, and must not be what slows them down.
"""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

from hub.cli.enrol import enrol_in_folder
from simulators.verdict import Verdict
from tests.fuzz import message
from tests.fuzz.script import Script, make_script
from tests.support.bystander import Bystander, Measured, Samples
from tests.support.hub_process import HubProcess
from tests.support.raw_socket import RawDevice

RATE_HZ = 1000
# Hostile and calm seconds take turns, so that what else this machine does slows both down.
ATTACK_S, CALM_S = 4.0, 1.5
MAX_TURNS = 50
MAX_GROWTH_MIB = 20.0
MAX_SLOWDOWN = 2.0
# Below this the disk's own fsyncs decide, and what else a machine with two cores does; a hub that is held up by hostile
# bytes shows hundreds.
FLOOR_MS = 25.0
DEVICES = 8
# The hub's log is read for tracebacks after so many connections: a failure is narrowed down to these.
WATCHED = 10
# About 2 KiB on disk and 6 KiB in memory each.
_FILLING_FRAMES, _FILLING_WINDOW = 10_000, 100
_ANSWER_S = 5.0
_MAX_ANSWER_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """What a run showed. ``answers``: HTTP statuses, ops and close codes of the hub; ``bugs``: with how to replay."""

    seed: int
    connections: int
    frames: int
    seconds: float
    answers: Mapping[str, int]
    bugs: tuple[str, ...]
    streams: int
    growth_mib: float
    calm: Measured
    fuzzed: Measured
    verdict: Verdict

    @property
    def faults(self) -> list[str]:
        """Return what broke the promise."""
        found = list(self.bugs)
        if self.growth_mib > MAX_GROWTH_MIB:
            found.append(f"seed {self.seed}: the hub grew by {self.growth_mib:.1f} MiB; limit {MAX_GROWTH_MIB:g}")
        limit_ms = MAX_SLOWDOWN * max(self.calm.ack.p99, FLOOR_MS)
        if self.fuzzed.ack.p99 > limit_ms:
            found.append(f"seed {self.seed}: acks {self.fuzzed.ack}, undisturbed {self.calm.ack}")
        if not self.verdict.is_balanced or not self.fuzzed.ack.count:
            found.append(f"seed {self.seed}: the healthy devices' ledger does not balance: {self.verdict.findings}")
        return found

    def __str__(self) -> str:
        return (
            f"fuzz: seed {self.seed}, {self.connections} connections, {self.frames} frames in {self.seconds:.0f} s, "
            f"{len(self.bugs)} crashes or tracebacks; hub +{self.growth_mib:.1f} MiB, {self.streams} streams; "
            f"healthy devices' acks {self.fuzzed.ack}, undisturbed {self.calm.ack}, "
            f"balanced {self.verdict.is_balanced}; answers {dict(sorted(self.answers.items()))}"
        )


def run_fuzz(folder: Path, frames: int, seed: int, *, first: int = 0, rate_hz: float = RATE_HZ) -> Fuzzed:
    """Send at least ``frames`` hostile frames, beginning with connection ``first`` of the seed."""
    with HubProcess(folder / "data") as hub, Bystander(hub, folder / "ledger") as bystander:
        tokens = enrol_in_folder(hub.data, [f"fuzz-{n}" for n in range(DEVICES)])
        filler = enrol_in_folder(hub.data, ["filler"])["filler"]
        with RawDevice(hub, "filler", filler) as device:
            fill_caches(device)
        calm, fuzzed, seconds = bystander.measure(CALM_S), Samples(), 0.0
        rss = hub.rss_bytes
        attack = _Attack(hub, seed, tokens, rate_hz, first)
        turn = max(int(rate_hz * ATTACK_S), frames // MAX_TURNS)
        while attack.sent < frames and hub.exit_code is None:
            bystander.reset()
            begun = time.monotonic()
            asyncio.run(attack.run(min(frames, attack.sent + turn)))
            seconds += time.monotonic() - begun
            fuzzed += bystander.taken()
            calm += bystander.measure(CALM_S)
        growth, streams = (hub.rss_bytes - rss) / 2**20 if hub.exit_code is None else 0.0, 0
        verdict = Verdict(())
        if hub.exit_code is None:
            verdict = bystander.finish()
            streams = sum(s["device"] in tokens for s in hub.get("/v1/audit")["streams"])
    return Fuzzed(
        seed, attack.number - first, attack.sent, seconds, attack.answers, tuple(attack.bugs), streams, growth,
        calm.measured, fuzzed.measured, verdict,
    )  # fmt: skip


def fill_caches(device: RawDevice) -> None:
    """Send ordinary batches until the hub's ring and its databases' caches (16 MiB each) are full.

    What the hub grows by afterwards is something else. The batches are of the same kind as the hostile ones, since
    memory given back by objects of one size does not serve another.
    """
    random = Random(0)
    device.send(message.schema())
    for device.seq in range(1, _FILLING_FRAMES + 1):
        device.send(message.valid_batch(random, device.seq))
        if device.seq % _FILLING_WINDOW == 0:
            device.acked(device.seq)


class _Attack:
    """Scripts one after the other, at a steady rate of frames, until there were enough or the hub is broken."""

    def __init__(self, hub: HubProcess, seed: int, tokens: Mapping[str, str], rate_hz: float, first: int) -> None:
        self.answers: Counter[str] = Counter()
        self.bugs: list[str] = []
        self.sent, self.number = 0, first
        self._hub, self._seed, self._tokens, self._rate_hz = hub, seed, tokens, rate_hz
        self._log_read = hub.log.stat().st_size

    async def run(self, frames: int) -> None:
        """Go on until ``frames`` were sent in all."""
        begun, before = time.monotonic(), self.sent
        while self.sent < frames and self._hub.exit_code is None:
            script = make_script(self._seed, self.number, self._tokens)
            await self._play(script)
            self.number += 1
            self.sent += script.size
            if self.number % WATCHED == 0:
                self._look_at_log()
            await asyncio.sleep(max(0.0, begun + (self.sent - before) / self._rate_hz - time.monotonic()))
        self._look_at_log()
        if self._hub.exit_code is not None:
            self._note(f"the hub ended with {self._hub.exit_code}")

    async def _play(self, script: Script) -> None:
        """Send the opening, then all frames at once, whatever is answered; read until the hub ends the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._hub.port)
        writer.write(script.opening)
        answer = bytearray()
        try:
            async with asyncio.timeout(_ANSWER_S):
                if script.frames:
                    answer += await reader.readuntil(b"\r\n\r\n")
                    writer.write(b"".join(script.frames))
                writer.write_eof()
                while (data := await reader.read(65536)) and len(answer) < _MAX_ANSWER_BYTES:
                    answer += data
        except TimeoutError:
            self._note(f"connection {script.number} was not ended in {_ANSWER_S:g} s")
        except (OSError, asyncio.IncompleteReadError):
            pass  # a reset, because the hub closed with bytes of ours unread
        self.answers.update(_kinds(bytes(answer)))
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def _look_at_log(self) -> None:
        with self._hub.log.open("rb") as log:
            log.seek(self._log_read)
            new = log.read()
        self._log_read += len(new)
        if b"Traceback" in new or b" ERROR " in new:
            at = max(new.find(b"Traceback"), 0)
            self._note(f"the hub's log: …{new[max(0, at - 300) : at + 2000].decode(errors='replace')}")

    def _note(self, what: str) -> None:
        first = max(0, self.number - WATCHED)
        self.bugs.append(
            f"seed {self._seed}, around frame {self.sent}, connections {first} to {self.number}; again with "
            f"python -m tests.fuzz --seed {self._seed} --first {first} --n 200: {what}"
        )


def _kinds(answer: bytes) -> list[str]:
    """Return what a hub's bytes are: the HTTP status, then each message's op and the close code."""
    if not answer:
        return ["nothing"]
    status = answer[9:12].decode(errors="replace")
    found = [f"HTTP {status}"]
    at = answer.find(b"\r\n\r\n") + 4
    while status == "101" and at + 2 <= len(answer):
        size, begin = answer[at + 1] & 0x7F, at + 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size, begin = int.from_bytes(answer[begin : begin + width]), begin + width
        payload = answer[begin : begin + size]
        match answer[at] & 0x0F:
            case 0x8:
                found.append(f"close {int.from_bytes(payload[:2])}")
            case 0x1 if begin + size <= len(answer):
                found.append(f"{json.loads(payload)['op']}")
        at = begin + size
    return found
