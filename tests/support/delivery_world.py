"""Devices, one hub and everything that can go wrong between them: the real pure parts, in virtual time.

Owns: real spools in files, real sessions of both sides, a journal that is a list. Used by
`tests/model`. Nothing here waits, and the same calls give the same history.

A power cut leaves what the last durable step left: a copy of the spool's folder is made after
each. A restored hub is an earlier length of the journal, with the runs of that time.
"""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from device_sdk.conversation import Closing, State
from device_sdk.reading import Channel
from device_sdk.session import Session
from device_sdk.spool import FileSpool
from hub.devices import Registry
from hub.journal.base import Run
from hub.model import Frame, Kind, Mark, StreamKey
from hub.session import DeviceSession
from hub.streams import Streams
from tests.support.marks import marks_of

T0_NS = 1_795_376_000_000_000_000
CHANNEL = "t"


@dataclass
class HubCopy:
    """What a backup of the hub holds."""

    frames: list[Frame]
    runs: list[Run]


class WorldHub:
    """The hub's real session and streams over a journal that is a list."""

    def __init__(self) -> None:
        self.journal: list[Frame] = []
        self.runs: list[Run] = []
        self.waiting: list[Frame] = []
        self.lives = 0
        self.start()

    def start(self) -> None:
        """Begin a run: what was not committed is gone."""
        self.lives += 1
        self.runs.append(Run(f"{self.lives:08x}", len(self.journal) + 1))
        self.waiting = []
        marks: dict[StreamKey, Mark] = {}
        for frame in self.journal:
            marks.setdefault(frame.key, Mark(frame.key)).advance(frame)
        self.streams = Streams(self.runs, len(self.journal), marks_of(marks))
        self.registry = Registry(())

    def commit(self) -> None:
        """Make durable what waits; sessions ack."""
        frames, self.waiting = self.waiting, []
        for offset, frame in enumerate(frames, len(self.journal) + 1):
            frame.offset = offset
        self.journal += frames
        self.streams.committed(frames)

    def backup(self) -> HubCopy:
        """Copy what is durable."""
        return HubCopy(list(self.journal), list(self.runs))

    def restore(self, backup: HubCopy) -> None:
        """Become an older copy."""
        self.journal, self.runs = list(backup.frames), list(backup.runs)
        self.start()

    def stored(self) -> Counter[int]:
        """Return how often each reading (its value is its number) is in the journal."""
        return Counter(int(value) for frame in self.journal for _, _, value in frame.rows())

    def gaps(self) -> Counter[str]:
        """Return how often each reason was declared."""
        return Counter(frame.reason for frame in self.journal if frame.kind is Kind.GAP)


@dataclass
class Image:
    """A copy of a spool's folder, and the readings that were ever recorded in it."""

    device: str
    path: Path
    readings: frozenset[int]


@dataclass
class WorldDevice:
    """One machine with a spool; ``device`` is its name at the hub, which a clone shares."""

    device: str
    home: Path
    produced: list[int] = field(default_factory=list)
    # Recorded in this card, by whichever machine.
    on_card: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)
    boot: int = 1
    is_up: bool = False
    durable: Image | None = None
    # What is on the card now would survive a power cut.
    is_durable: bool = False
    spool: FileSpool | None = None
    session: Session | None = None
    hub_side: DeviceSession | None = None


class World:
    """All of it. Every rule is one method; a model calls them in any order, then `settle`."""

    def __init__(self, home: Path, *, retain_bytes: int) -> None:
        self.home = home
        self.retain_bytes = retain_bytes
        self.hub = WorldHub()
        self.devices: list[WorldDevice] = []
        self.now = 100.0
        self.numbers = 0
        self.folders = 0
        self.events: Counter[str] = Counter()

    # --- devices -------------------------------------------------------------------------------

    def add_device(self, image: Image | None = None) -> WorldDevice:
        """Switch on a new machine, or one with a copied card."""
        name = f"d{len(self.devices)}" if image is None else image.device
        made = WorldDevice(name, self._folder())
        made.boot = 1000 * (len(self.devices) + 1)
        if image is not None:
            shutil.copytree(image.path, made.home)
            made.on_card = set(image.readings)
        self.devices.append(made)
        self.start(made)
        return made

    def start(self, device: WorldDevice) -> None:
        """Start the program on a machine."""
        if device.is_up:
            return
        device.spool = FileSpool(
            device.home, boot=f"boot-{device.boot}", retain_bytes=self.retain_bytes, sync_file=_nothing,
            random_bytes=self._random(device),
        )  # fmt: skip
        device.spool.declare(Channel(CHANNEL))
        device.session = Session(device.spool, device=device.device, boot=f"boot-{device.boot}", run="r", sdk="model")
        device.is_up = True
        self._durable(device)

    def record(self, device: WorldDevice) -> None:
        """Record one reading."""
        if device.is_up and device.spool is not None:
            self._keep_durable(device)
            self.numbers += 1
            self.now += 0.25
            device.produced.append(self.numbers)
            device.on_card.add(self.numbers)
            device.spool.record(((CHANNEL, self.numbers),), None, T0_NS + int(self.now * 1e9))

    def sync(self, device: WorldDevice) -> None:
        """Let the second pass after which what was recorded survives a power cut."""
        if device.is_up and device.spool is not None:
            device.spool.sync()
            self._durable(device)

    def kill(self, device: WorldDevice) -> None:
        """End the program at once; the machine stays on."""
        if device.is_up:
            self._end(device)
            self.start(device)

    def shut_down(self, device: WorldDevice) -> None:
        """End the program and the machine as one should."""
        if device.is_up and device.spool is not None:
            self._hang_up(device)
            device.spool.close()
            device.spool = device.session = None
            device.is_up = False
            device.boot += 1
            device.is_durable = True
            self._keep_durable(device)

    def cut_power(self, device: WorldDevice) -> None:
        """Lose what was recorded since the last durable step."""
        if device.is_up:
            self._keep_durable(device)
            assert device.durable is not None, "just kept"
            self.events["power_cut"] += 1
            self._end(device)
            self._write_card(device, device.durable)

    def image(self, device: WorldDevice) -> Image:
        """Copy the card of a machine, as of its last durable step."""
        self._keep_durable(device)
        assert device.durable is not None, "just kept"
        kept = self._folder()
        shutil.copytree(device.durable.path, kept)
        return Image(device.device, kept, device.durable.readings)

    def write_back(self, image: Image) -> None:
        """Write an older copy onto the card of the machine it came from."""
        device = next(d for d in self.devices if d.device == image.device)
        self.events["write_back"] += 1
        if device.is_up:
            self._end(device)
        self._write_card(device, image)

    # --- hub -----------------------------------------------------------------------------------

    def kill_hub(self) -> None:
        """End the hub before what it accepted is committed."""
        self.hub.start()
        self._drop_lines()

    def restore_hub(self, backup: HubCopy) -> None:
        """Put the hub back to an older copy."""
        self.events["restore"] += 1
        self.hub.restore(backup)
        self._drop_lines()

    # --- the line ------------------------------------------------------------------------------

    def exchange(self, device: WorldDevice, messages: int = 10**9, *, commits: bool = True) -> None:
        """Let time pass and messages flow, ``messages`` of them, then the line breaks."""
        if not device.is_up or device.session is None or device.spool is None:
            return
        self.now += 1.0
        session = device.session
        if session.state in (State.OFFLINE, State.ENDING):
            self._hang_up(device)
            device.hub_side = DeviceSession("default", device.device, self.hub.streams, self.hub.registry)
            messages = self._to_hub(device, session.connected(self.now), messages)
        session.tick(self.now)
        while session.cut_is_due(self.now) and session.cut(self.now):
            pass
        self._durable(device)
        for item in session.frames_to_send(self.now):
            messages = self._to_hub(device, item.data, messages)
        if commits:
            self.hub.commit()
        for other in self.devices:
            messages = self._answers(other, messages)
        session.frames_to_send(self.now)  # an ack may have ended the line
        if any(isinstance(e, Closing) for e in session.events()) or messages <= 0:
            self._hang_up(device)
        self._durable(device)

    def settle(self, rounds: int = 400) -> None:
        """Stop all faults and go on until nothing is owed any more."""
        for device in self.devices:
            self.start(device)
        self._drop_lines()
        # Twins of one stream that owe nothing take it over from each other for ever, minutes apart.
        online: set[int] = set()
        for _ in range(rounds):
            for number, device in enumerate(self.devices):
                self.exchange(device)
                if device.session is not None and device.session.is_online:
                    online.add(number)
            if len(online) == len(self.devices) and all(self._is_settled(device) for device in self.devices):
                return
        raise AssertionError(f"wedged: {[d.spool.statistics() for d in self.devices if d.spool is not None]}")

    def close(self) -> None:
        """End all programs."""
        for device in self.devices:
            if device.is_up:
                self._end(device)

    # --- details -------------------------------------------------------------------------------

    def _is_settled(self, device: WorldDevice) -> bool:
        spool, session = device.spool, device.session
        assert spool is not None, "all programs run"
        assert session is not None, "all programs run"
        return not spool.pending and not session.has_unacked and not spool.has_uncut

    def _to_hub(self, device: WorldDevice, data: bytes, messages: int) -> int:
        side = device.hub_side
        if messages <= 0 or side is None:
            return 0
        side.receive(data, data[:1] == b"{", T0_NS + int(self.now * 1e9))
        self.hub.waiting += side.frames
        side.frames = []
        return self._answers(device, messages - 1)

    def _answers(self, device: WorldDevice, messages: int) -> int:
        side, session = device.hub_side, device.session
        if side is None or session is None or not device.is_up:
            return messages
        for answer in side.take_output():
            if messages <= 0 or session.state is State.OFFLINE:
                break
            session.receive(answer, self.now)
            messages -= 1
        if side.closing is not None:
            self._hang_up(device)
        return messages

    def _hang_up(self, device: WorldDevice) -> None:
        if device.hub_side is not None:
            device.hub_side.closed()
        device.hub_side = None
        if device.session is not None:
            device.session.events()
            device.session.disconnected()

    def _drop_lines(self) -> None:
        for device in self.devices:
            device.hub_side = None
            if device.session is not None:
                device.session.events()
                device.session.disconnected()

    def _end(self, device: WorldDevice) -> None:
        """Leave the files as they are: a killed program closes nothing."""
        self._hang_up(device)
        assert device.spool is not None, "it runs"
        left = device.home
        device.home = self._folder()
        shutil.copytree(left, device.home)
        device.spool.close()
        device.spool = device.session = None
        device.is_up = False

    def _write_card(self, device: WorldDevice, image: Image) -> None:
        device.lost |= device.on_card - image.readings
        device.on_card = set(image.readings)
        device.boot += 1
        device.home = self._folder()
        shutil.copytree(image.path, device.home)
        device.durable = Image(device.device, self._folder(), image.readings)
        shutil.copytree(image.path, device.durable.path)
        device.is_durable = False

    def _durable(self, device: WorldDevice) -> None:
        """Note that all of it would survive a power cut now (that it may lose less is a cut that came later)."""
        device.is_durable = True

    def _keep_durable(self, device: WorldDevice) -> None:
        """Copy what a power cut leaves, before something comes that it would take."""
        if not device.is_durable:
            return
        device.is_durable = False
        path = self._folder()
        shutil.copytree(device.home, path)
        if device.durable is not None:
            shutil.rmtree(device.durable.path)
        device.durable = Image(device.device, path, frozenset(device.on_card))

    def _random(self, device: WorldDevice) -> Callable[[int], bytes]:
        def random_bytes(count: int) -> bytes:
            self.folders += 1
            return self.folders.to_bytes(count, "big")

        return random_bytes

    def _folder(self) -> Path:
        self.folders += 1
        return self.home / str(self.folders)


def _nothing(fd: int) -> None:
    """The fsync of a spool whose power cuts are played."""
