"""The generator of `bench_fanout`: the publisher and all watchers of one server, in one thread over epoll.

Every delivery is counted, by what arrived and not by what was asked for: `Dialect.count` looks at all bytes. Bytes
equal to those that the watcher before received hold as many readings, which saves most of the counting. Delays are from
just before the write of a reading to just after the read that brought it, for every delivery of a paced run.

Closed loop with N outstanding: a message is outstanding until every watcher has received it.
"""

import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import repeat

import psutil

from tests.bench.fanout_dialect import PING, PONG, Dialect, Step
from tests.bench.load import cpu_s

# Greetings that are under way at once: below every server's backlog.
HANDSHAKES = 200
RECEIVE_BYTES = 64 * 1024
# Of a stalled watcher: the kernel takes little in its place, at every server alike.
STALLED_BYTES = 4096
WAKE_BYTES = 4 * 1024 * 1024
LIMIT_S = 20.0
# Without any delivery for so long a closed loop is given up: the server has lost something.
STUCK_S = 4.0
WARM_S = 0.4
# More messages, and more deliveries, than any server makes in a second.
MOST_PER_S, MOST_DELIVERIES_PER_S = 40_000, 20_000_000
AT_ONCE = struct.pack("ii", 1, 0)


class StuckError(Exception):
    """What is due does not come."""


@dataclass(slots=True)
class Rate:
    """What a closed loop came to."""

    wall_s: float
    server_s: float
    own_s: float
    deliveries: int
    messages: int
    bytes: int

    @property
    def per_cpu_s(self) -> float:
        """Deliveries for each second of the server's CPU."""
        return self.deliveries / max(self.server_s, 0.001)

    @property
    def per_s(self) -> float:
        """Deliveries a second."""
        return self.deliveries / self.wall_s


@dataclass(slots=True)
class Delays:
    """Milliseconds of each delivery, and of each ack that the publisher heard."""

    deliveries_ms: list[float] = field(default_factory=list)
    acks_ms: list[float] = field(default_factory=list)


class Watcher:
    """One connection that receives."""

    __slots__ = ("recv", "rest", "slot", "socket")

    def __init__(self, connection: socket.socket, slot: int) -> None:
        self.socket, self.slot = connection, slot
        self.recv: Callable[[int], bytes] = connection.recv
        self.rest = b""


class Crowd:
    """Watchers of one server and its publisher; used in one thread.

    ``published``: readings so far; ``counts``: of each watcher; ``total``, ``bytes``: of all; ``closed``: watchers
    that the server has let go; ``lags``: of reads that held ours' ``lag``, counted while ``is_looking``.
    """

    def __init__(self, dialect: Dialect, port: int, pid: int) -> None:
        self.published = self.total = self.bytes = self.closed = self.pings = self.lags = 0
        self.counts: list[int] = []
        self.is_looking = False
        self._dialect, self._port = dialect, port
        self._server = psutil.Process(pid)
        self._by_fd: dict[int, Watcher] = {}
        self._poll = select.epoll()
        self._publisher: socket.socket | None = None
        self._publisher_fd = -1
        self._seq = self._acked = 0
        self._pending = b""
        self._readings = 1
        # Of a paced run: when each of its messages was written, and what came before it.
        self._sent: list[float] = []
        self._first_seq = self._first_reading = 0
        self._delays: Delays | None = None
        self._last, self._last_count = b"", 0

    # --- connections ---------------------------------------------------------------------------------------

    def connect(self, count: int, *, is_stalled: bool = False) -> None:
        """Add watchers; stalled ones are not read until `wake`."""
        first = len(self.counts)
        for begin in range(first, first + count, HANDSHAKES):
            numbers = range(begin, min(begin + HANDSHAKES, first + count))
            sockets = [self._open(STALLED_BYTES if is_stalled else None) for _ in numbers]
            _greet(sockets, [self._dialect.watcher(number) for number in numbers])
            for connection, number in zip(sockets, numbers, strict=True):
                self._by_fd[connection.fileno()] = Watcher(connection, number)
                self.counts.append(self.published)
                if not is_stalled:
                    self._poll.register(connection, select.EPOLLIN)
            # Those that wait for the others are pinged meanwhile.
            self.round(0.0)

    def connect_publisher(self) -> None:
        """Add the publisher."""
        self._publisher = self._open(None)
        _greet([self._publisher], [self._dialect.publisher()])
        self._publisher_fd = self._publisher.fileno()
        self._poll.register(self._publisher, select.EPOLLIN)

    def wake(self) -> None:
        """Read stalled watchers from now on."""
        for watcher in self._by_fd.values():
            watcher.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WAKE_BYTES)
            self._poll.register(watcher.socket, select.EPOLLIN)

    def close(self) -> None:
        """Cut all connections off, so that no port waits."""
        sockets = [watcher.socket for watcher in self._by_fd.values()]
        for connection in [*sockets, *([self._publisher] if self._publisher else [])]:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            connection.close()
        self._by_fd.clear()
        self._poll.close()

    # --- runs ------------------------------------------------------------------------------------------------

    def closed_loop(self, outstanding: int, seconds: float, readings: int = 1) -> Rate:
        """Keep so many messages outstanding for so long, and a moment before; all has arrived at the end."""
        self._expect(readings)
        limit = int((seconds + WARM_S) * min(MOST_PER_S, MOST_DELIVERIES_PER_S / len(self.counts)))
        # Those of a hundred readings are never a tenth as many.
        limit = limit // (1 if readings == 1 else 10) + outstanding
        messages = [self._dialect.message(self._seq + 1 + k, readings) for k in range(limit)]
        begin, before = time.perf_counter(), list[tuple[float, ...]]()

        def is_over() -> bool:
            passed = time.perf_counter() - begin
            if passed >= WARM_S and not before:
                before.append(self._figures())
            return passed >= WARM_S + seconds

        self._loop(messages, outstanding, is_over)
        if not before:
            raise StuckError(f"{limit} messages were too few")
        wall, server, own, *counted = (b - a for a, b in zip(before[0], self._figures(), strict=True))
        self.settle()
        return Rate(wall, server, own, *map(int, counted))

    def push(self, messages: int, outstanding: int, readings: int, look: Callable[[], object]) -> None:
        """Send so many messages; ``look`` is called often. At the end those who are read have all of it."""
        self._expect(readings)
        prepared = [self._dialect.message(self._seq + 1 + k, readings) for k in range(messages)]

        def looked() -> bool:
            look()
            return False

        self._loop(prepared, outstanding, looked)
        self.settle()

    def paced(self, messages: int, period_s: float, readings: int = 1) -> Delays:
        """Send a message each period and return every delay."""
        self.settle()
        self._expect(readings)
        prepared = [self._dialect.message(self._seq + 1 + k, readings) for k in range(messages)]
        self._sent, self._delays = [], Delays()
        self._first_seq, self._first_reading = self._seq + 1, self.published
        begin = time.perf_counter()
        for k, message in enumerate(prepared):
            while (left := begin + k * period_s - time.perf_counter()) > 0:
                self.round(left)
            self._sent.append(time.perf_counter())
            self._send(message, 1)
        self.settle()
        delays, self._delays = self._delays, None
        return delays

    def idle(self, seconds: float) -> float:
        """Only read (and answer pings) for so long; return the server's CPU seconds."""
        before, end = cpu_s(self._server), time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            self.round(left)
        return cpu_s(self._server) - before

    def settle(self, limit_s: float = STUCK_S) -> None:
        """Read until everybody has all of it.

        Raises:
            StuckError: nothing came for ``limit_s``, or more than was published.
        """
        progress, seen = time.perf_counter(), self.total
        while self._is_owed():
            self.round(0.05)
            if self.total != seen:
                progress, seen = time.perf_counter(), self.total
            elif time.perf_counter() - progress > limit_s:
                raise StuckError(self._missing())
        if self.counts and max(self.counts) > self.published:
            raise StuckError(f"{max(self.counts) - self.published} readings too many")

    def read_for(self, seconds: float, upto: int, readings: int) -> None:
        """Read until each has ``upto`` readings, at most so long; each message has so many ``readings``."""
        end = time.perf_counter() + seconds
        self._expect(readings)
        while min(self.counts) < upto and self.closed < len(self.counts) and time.perf_counter() < end:
            self.round(0.05)

    # --- inside -----------------------------------------------------------------------------------------------

    def _loop(self, messages: Sequence[bytes], outstanding: int, is_over: Callable[[], bool]) -> None:
        """Send with so many outstanding, until all are sent or it is over."""
        sent, base, watchers = 0, self.published, len(self.counts)
        readings, before = self._readings, self.total
        done = 0
        progress, seen = time.perf_counter(), self.total
        while sent < len(messages) and not is_over():
            # The least of all is only looked for when all together have enough for it to have moved.
            if self.total - before >= (done + 1) * watchers * readings:
                done = max(done, (min(self.counts) - base) // readings)
            stop = min(done + outstanding, len(messages))
            if stop > sent and not self._pending:
                self._send(b"".join(messages[sent:stop]), stop - sent)
                sent = stop
            self.round(0.001 if self._pending else 0.1)
            if self.total != seen:
                progress, seen = time.perf_counter(), self.total
            elif time.perf_counter() - progress > STUCK_S:
                raise StuckError(self._missing())

    def round(self, timeout_s: float) -> None:
        """Take what has arrived; wait for it at most so long."""
        if self._pending:
            self._send(b"", 0)
        by_fd, counts, count, readings = self._by_fd, self.counts, self._dialect.count, self._readings
        delays, last, last_count = self._delays, self._last, self._last_count
        for fd, _ in self._poll.poll(timeout_s):
            watcher = by_fd.get(fd)
            if watcher is None:
                self._hear()
                continue
            data = _received(watcher)
            if not data:
                self._lost(watcher)
                continue
            self.bytes += len(data)
            if data == last and not watcher.rest:
                found = last_count
            else:
                whole = watcher.rest + data
                found, pings, stop = count(whole, readings)
                watcher.rest = whole[stop:]
                if self.is_looking and b'"op":"lag"' in whole:
                    self.lags += 1
                if pings or len(data) != stop:
                    self._answer(watcher, pings)
                    last = b""
                else:
                    last, last_count = data, found
            if found:
                before = counts[watcher.slot]
                counts[watcher.slot] = before + found
                self.total += found
                if delays is not None:
                    self._note(delays, before, found)
        self._last, self._last_count = last, last_count

    def _expect(self, readings: int) -> None:
        self._readings = readings
        self._last = b""

    def _is_owed(self) -> bool:
        is_acked = self._acked >= self._seq or not self._dialect.tells_acks
        return not is_acked or bool(self.counts and min(self.counts) < self.published)

    def _note(self, delays: Delays, before: int, found: int) -> None:
        now = time.perf_counter()
        begin, sent, readings = before - self._first_reading, self._sent, self._readings
        if found == 1 == readings:
            delays.deliveries_ms.append((now - sent[begin]) * 1e3)
            return
        delays.deliveries_ms += [(now - sent[k // readings]) * 1e3 for k in range(begin, begin + found)]

    def _answer(self, watcher: Watcher, pings: int) -> None:
        self.pings += pings
        for _ in repeat(None, pings):
            watcher.socket.send(PONG)

    def _send(self, data: bytes, messages: int) -> None:
        assert self._publisher is not None, "connect_publisher comes first"
        self._seq += messages
        self.published += messages * self._readings
        data = self._pending + data
        try:
            taken = self._publisher.send(data)
        except BlockingIOError:
            taken = 0
        self._pending = data[taken:]

    def _hear(self) -> None:
        assert self._publisher is not None, "only it is left"
        data = self._publisher.recv(RECEIVE_BYTES)
        if not data:
            raise StuckError("the server has closed the publisher's connection")
        if PING in data:
            self._publisher.send(PONG)
        acked = self._dialect.acked(data)
        if self._delays is not None and acked > self._acked:
            now = time.perf_counter()
            first = max(self._acked + 1, self._first_seq)
            self._delays.acks_ms += [(now - self._sent[seq - self._first_seq]) * 1e3 for seq in range(first, acked + 1)]
        self._acked = max(self._acked, acked)

    def _lost(self, watcher: Watcher) -> None:
        self.closed += 1
        self._poll.unregister(watcher.socket)

    def _open(self, receive_bytes: int | None) -> socket.socket:
        connection = socket.socket()
        if receive_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.settimeout(LIMIT_S)
        connection.connect(("127.0.0.1", self._port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _figures(self) -> tuple[float, ...]:
        server_s = cpu_s(self._server)
        return time.perf_counter(), server_s, time.process_time(), self.total, self._seq, self.bytes

    def _missing(self) -> str:
        due = self.published * len(self.counts)
        return f"{due - sum(self.counts):,} of {due:,} deliveries did not come, {self.closed} connections closed"


def _received(watcher: Watcher) -> bytes:
    try:
        return watcher.recv(RECEIVE_BYTES)
    except OSError:
        return b""


def _greet(sockets: Sequence[socket.socket], greetings: Sequence[Sequence[Step]]) -> None:
    """Do all greetings, step by step; what is said is answered before the next step."""
    for steps in zip(*greetings, strict=True):
        for connection, step in zip(sockets, steps, strict=True):
            if step.send:
                connection.sendall(step.send)
        for connection, step in zip(sockets, steps, strict=True):
            heard = b""
            while step.expect not in heard or not heard.endswith(step.end):
                data = connection.recv(RECEIVE_BYTES)
                if not data:
                    raise StuckError(f"closed during the greeting, after {heard[:200]!r}")
                heard += data
    for connection in sockets:
        connection.setblocking(False)
