"""Half handshakes and connections that say nothing: gone in seconds, with their memory and their file handles.

``python -m tests.chaos.silent``. Four kinds of peers, a quarter of the connections each: one that never sends a byte,
one whose request's head stops in the middle, one whose head drips in byte by byte (slowloris), and a device with a
good token that is upgraded and never says hello.
"""

import argparse
import itertools
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from device_sdk.wire import DEVICE_PATH, DEVICE_SUBPROTOCOL
from hub.cli.enrol import enrol_in_folder
from simulators.verdict import Verdict
from tests.chaos.limits import raise_handle_limit
from tests.support.bystander import Bystander, Measured
from tests.support.hub_process import HubProcess
from tests.support.raw_socket import connected, upgrade

CONNECTIONS = 1000
GONE_LIMIT_S = 15.0
MAX_GROWTH_MIB = 20.0
# Handles that come and go in a busy hub: a query's connection to its database, the bystander's.
SPARE_HANDLES = 5
_DRIP_S = 0.25


@dataclass(frozen=True, slots=True)
class Silence:
    """What became of the connections. ``gone_s``: until the last was ended; ``left``: not ended within the limit."""

    connections: int
    gone_s: float
    left: int
    growth_mib: float
    handles_before: int
    handles_at_most: int
    handles_after: int
    bystander: Measured
    verdict: Verdict

    @property
    def faults(self) -> list[str]:
        """Return what broke the promise."""
        found = []
        if self.left or self.gone_s > GONE_LIMIT_S:
            found.append(f"{self.left} connections were left after {self.gone_s:.1f} s; the limit is {GONE_LIMIT_S:g}")
        if self.handles_at_most < self.handles_before + self.connections * 0.9:
            found.append("the hub never held all connections: this run shows nothing")
        if self.handles_after > self.handles_before + SPARE_HANDLES:
            found.append(f"{self.handles_after} file handles, {self.handles_before} before")
        if self.growth_mib > MAX_GROWTH_MIB:
            found.append(f"the hub grew by {self.growth_mib:.1f} MiB; the limit is {MAX_GROWTH_MIB:g}")
        if not self.verdict.is_balanced or not self.bystander.ack.count:
            found.append(f"the healthy devices suffered: {self.bystander.ack}, {self.verdict.findings}")
        return found

    def __str__(self) -> str:
        return (
            f"silent: {self.connections} half handshakes and silent connections, {self.left} left after "
            f"{self.gone_s:.1f} s; hub at most +{self.growth_mib:.1f} MiB; handles {self.handles_before} → "
            f"{self.handles_at_most} → {self.handles_after}; healthy devices' acks {self.bystander.ack}, balanced "
            f"{self.verdict.is_balanced}; no randomness, no seed"
        )


def run_silent(folder: Path, connections: int) -> Silence:
    """Run the whole of it with everything below ``folder``."""
    raise_handle_limit(connections + 500)
    with HubProcess(folder / "data") as hub, Bystander(hub, folder / "ledger") as bystander:
        token = enrol_in_folder(hub.data, ["mute"])["mute"]
        bystander.measure(1.0)
        rss, handles = hub.rss_bytes, hub.handle_count
        bystander.reset()
        crowd = Crowd(hub.port, token, connections)
        most_rss, most_handles = rss, handles
        while crowd.peers and time.monotonic() - crowd.begun < GONE_LIMIT_S + 5:
            crowd.step(_DRIP_S)
            most_rss, most_handles = max(most_rss, hub.rss_bytes), max(most_handles, hub.handle_count)
        gone_s, left = crowd.last_gone - crowd.begun, len(crowd.peers)
        if left:
            gone_s = time.monotonic() - crowd.begun
        measured = bystander.taken().measured
        verdict = bystander.finish()
        after = hub.handle_count
        crowd.close()
    return Silence(
        connections, gone_s, left, (most_rss - rss) / 2**20, handles, most_handles, after, measured, verdict
    )  # fmt: skip


class Crowd:
    """The connections; `step` drips the next byte of those that drip, and notices who was ended."""

    def __init__(self, port: int, token: str, count: int) -> None:
        self.peers: set[socket.socket] = set()
        self._dripping: set[socket.socket] = set()
        self._selector = selectors.DefaultSelector()
        head = upgrade(DEVICE_PATH, DEVICE_SUBPROTOCOL, token=token)
        kinds: list[Callable[[socket.socket], None]] = [
            lambda peer: None,
            lambda peer: peer.sendall(head[: len(head) // 2]),
            lambda peer: self._dripping.add(peer),
            lambda peer: peer.sendall(head),
        ]
        self._head = itertools.chain(head[:-4], itertools.repeat(ord("x")))
        self.begun = self.last_gone = time.monotonic()
        for _, begin in zip(range(count), itertools.cycle(kinds), strict=False):
            peer = connected(port)
            peer.setblocking(False)
            self._selector.register(peer, selectors.EVENT_READ)
            self.peers.add(peer)
            begin(peer)

    def step(self, seconds: float) -> None:
        """Send the next byte of each dripping head; wait ``seconds`` for ends."""
        byte = bytes((next(self._head),))
        for peer in self._dripping & self.peers:
            try:
                peer.send(byte)
            except OSError:
                self._end(peer)
        ends = time.monotonic() + seconds
        while (left_s := ends - time.monotonic()) > 0:
            for key, _ in self._selector.select(left_s):
                assert isinstance(key.fileobj, socket.socket), "only sockets are registered"
                self._read(key.fileobj)

    def close(self) -> None:
        """Close what is left."""
        for peer in list(self.peers):
            self._end(peer)
        self._selector.close()

    def _read(self, peer: socket.socket) -> None:
        try:
            # Answers (101, a close frame) are read over; the end is what counts.
            if peer.recv(65536):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._end(peer)

    def _end(self, peer: socket.socket) -> None:
        self.peers.discard(peer)
        self._selector.unregister(peer)
        peer.close()
        self.last_gone = time.monotonic()


def main(arguments: list[str]) -> int:
    """Run from the command line and print one line."""
    parser = argparse.ArgumentParser(description="Half handshakes and silent connections.")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="telemetry-silent-") as folder:
        silence = run_silent(Path(folder), options.connections)
    print(silence)
    print("".join(f"{fault}\n" for fault in silence.faults), end="")
    return bool(silence.faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
