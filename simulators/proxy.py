"""A TCP proxy between devices and a hub that does what `faults` decides: delays, cuts, stalls, half-closes.

Owns: sockets and time. Place: after `faults`; in front of any hub, TLS or not (bytes are never changed). A thin
shell: which fault strikes at which byte is decided by a `Line` for each connection.

Bounded: each way of a connection holds at most `QUEUE_CHUNKS` × `CHUNK_BYTES` that wait for their delay; beyond
that it stops reading, and the sender feels it as a slow network.
"""

import asyncio
import contextlib
import os
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from simulators.faults import Effect, Fault, Line, Plan, Strike, Way, draw_strikes

CHUNK_BYTES = 64 * 1024
QUEUE_CHUNKS = 16
# Strikes remembered, to explain a run: a thousand lines are an hour of rough weather.
LOG_STRIKES = 1_000
# A fleet connects at once; the kernel's default of 100 would let most of it wait a second for the next try.
_BACKLOG = 1_024
# How long a call from another thread waits for the proxy's own; it does nothing that takes time.
_ANSWER_S = 10.0

# Lingering for no time makes close() send RST. Source: socket(7), SO_LINGER; Windows has shorts there.
_LINGER = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Delay:
    """How late bytes of one way arrive: ``latency_s`` and up to ``jitter_s`` more; order is kept.

    ``bytes_per_s``: how fast each connection takes them; None: as they come.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float | None = None


class Incident(NamedTuple):
    """A fault that struck: seconds since the proxy opened, on which connection, after how many bytes each way."""

    at_s: float
    connection: int
    fault: Fault
    bytes_up: int
    bytes_down: int

    def __str__(self) -> str:
        return (
            f"{self.at_s:8.3f} s  connection {self.connection}: {self.fault} "
            f"(at {self.bytes_up} bytes up, {self.bytes_down} down)"
        )


class ProxyStatistics(NamedTuple):
    """What passed so far. ``faults``: struck, by effect; ``refused``: connections for which the hub was not there."""

    connections: int
    open: int
    refused: int
    bytes_up: int
    bytes_down: int
    faults: Mapping[str, int]

    @property
    def struck(self) -> int:
        """Return how many faults struck."""
        return sum(self.faults.values())


class FaultProxy:
    """Carries connections to ``target``, and does faults to them.

    ``async with`` runs it on the caller's loop, ``with`` on a thread of its own; its methods are then for any thread.

    Args:
        target: (host, port) of the hub.
        faults: each new connection takes the next one; see `Plan`.
        up, down: delays by direction.
        seed: of the jitter.
        host, port: where it listens; port 0 takes a free one.
        on_strike: called with each `Incident`, on the proxy's loop.
        on_bytes: called with (connection, way, bytes) passed on, on the proxy's loop.

    Example:
        >>> with FaultProxy(("127.0.0.1", 8000), [Fault(Effect.CUT, Way.UP, 1_000)]) as proxy:
        ...     ...  # connect to 127.0.0.1:proxy.port; the first connection ends after 1,000 bytes
    """

    def __init__(
        self,
        target: tuple[str, int],
        faults: Iterable[Fault] = (),
        *,
        up: Delay | None = None,
        down: Delay | None = None,
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
        on_strike: Callable[[Incident], None] | None = None,
        on_bytes: Callable[[int, Way, bytes], None] | None = None,
    ) -> None:
        self.target, self.host, self.port = target, host, port
        self.delays = {Way.UP: up or Delay(), Way.DOWN: down or Delay()}
        self.seed = seed
        self.passed = dict.fromkeys(Way, 0)
        self.on_bytes = on_bytes
        self._on_strike = on_strike
        self._plan = Plan(faults)
        self._connections: dict[int, _Connection] = {}
        self._serving: set[asyncio.Task[None]] = set()
        self._count = self._refused = 0
        self._struck: Counter[str] = Counter()
        self._log: deque[Incident] = deque(maxlen=LOG_STRIKES)
        self._opened_at = 0.0
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def arm(self, fault: Fault) -> None:
        """Let a fault strike each connection that is open now."""
        self._do(lambda: [connection.line.arm(fault) for connection in self._connections.values()])

    def abort(self) -> None:
        """Reset every connection now."""
        self._do(self._abort)

    def calm(self) -> None:
        """End all faults: what waits is forgotten, what is held goes on, connections that lack bytes are reset."""
        self._do(self._calm)

    def statistics(self) -> ProxyStatistics:
        """Return the counts so far; also after the end."""
        return self._do(
            lambda: ProxyStatistics(
                self._count, len(self._connections), self._refused, self.passed[Way.UP], self.passed[Way.DOWN],
                dict(sorted(self._struck.items())),
            )
        )  # fmt: skip

    def log(self) -> list[Incident]:
        """Return the last `LOG_STRIKES` strikes, oldest first."""
        return self._do(lambda: list(self._log))

    @asynccontextmanager
    async def chaos(self, seed: int, every_s: float) -> AsyncIterator[None]:
        """Do random faults while in the block, then `calm`.

        Args:
            seed: the same seed draws the same faults in the same order.
            every_s: mean seconds until the next fault is armed on an open connection; it strikes within
                `STRIKE_BYTES_UP` or `STRIKE_BYTES_DOWN` bytes.
        """
        task = asyncio.create_task(self._strike_at_random(seed, every_s), name="chaos")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))
            self._calm()

    # --- opening and closing -------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._opened_at = time.monotonic()
        self._server = await asyncio.start_server(self._accept, self.host, self.port, backlog=_BACKLOG)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None, "it was entered"
        self._server.close()
        self._abort()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def __enter__(self) -> Self:
        loop = self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=loop.run_forever, name="fault proxy", daemon=True)
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self.__aenter__(), loop).result(_ANSWER_S)
        except BaseException:
            self._end_thread()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None, "it was entered"
        try:
            asyncio.run_coroutine_threadsafe(self.__aexit__(kind, error, trace), self._loop).result(_ANSWER_S)
        finally:
            self._end_thread()

    def _end_thread(self) -> None:
        loop, thread = self._loop, self._thread
        assert loop is not None, "the thread has a loop"
        assert thread is not None, "it runs"
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_ANSWER_S)
        self._thread = None
        loop.close()

    def _do(self, act: Callable[[], T]) -> T:
        """Call on the proxy's own thread, and wait for the answer."""
        if self._thread is None or self._thread is threading.current_thread():
            return act()
        assert self._loop is not None, "the thread has a loop"

        async def call() -> T:
            return act()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(_ANSWER_S)

    # --- on the proxy's loop -------------------------------------------------------------------

    def _abort(self) -> None:
        for connection in [*self._connections.values()]:
            connection.close(is_reset=True)
        for task in self._serving:  # also those on their way to the hub
            task.cancel()

    def _calm(self) -> None:
        self._plan.clear()
        for connection in [*self._connections.values()]:
            connection.calm()

    async def _strike_at_random(self, seed: int, every_s: float) -> None:
        for strike in draw_strikes(seed):
            await asyncio.sleep(strike.wait * every_s / max(1, len(self._connections)))
            self._strike(strike)

    def _strike(self, strike: Strike) -> None:
        """Arm the fault on one open connection; with none open it falls on nobody."""
        numbers = sorted(self._connections)
        if numbers:
            self._connections[numbers[int(strike.pick * len(numbers))]].line.arm(strike.fault)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._loop is not None, "it was entered"
        if self._server is not None and not self._server.is_serving():
            # It came while the door was being closed.
            _drop(writer, is_reset=True)
            return
        task = self._loop.create_task(self._serve(reader, writer), name="fault proxy")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        # A task that is cancelled before it begins runs nothing of its own.
        task.add_done_callback(lambda _: _drop(writer, is_reset=True))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count += 1
        number = self._count
        try:
            up_reader, up_writer = await asyncio.open_connection(*self.target)
        except OSError:
            self._refused += 1
            _drop(writer, is_reset=True)
            return
        except asyncio.CancelledError:
            _drop(writer, is_reset=True)
            raise
        line = self._plan.begin()
        planned = line.armed
        connection = self._connections[number] = _Connection(self, number, line)
        try:
            await connection.carry({Way.UP: reader, Way.DOWN: up_reader}, {Way.UP: up_writer, Way.DOWN: writer})
        finally:
            del self._connections[number]
            self._plan.end([fault for fault in planned if fault in line.armed])

    def note(self, connection: int, fault: Fault, passed: Mapping[Way, int]) -> None:
        """Remember that a fault strikes; its connection calls it."""
        at_s = time.monotonic() - self._opened_at
        incident = Incident(at_s, connection, fault, passed[Way.UP], passed[Way.DOWN])
        self._struck[fault.effect] += 1
        self._log.append(incident)
        if self._on_strike is not None:
            self._on_strike(incident)


class _Connection:
    """One proxied connection: for each way a task that reads and one that passes on."""

    def __init__(self, proxy: FaultProxy, number: int, line: Line) -> None:
        self.line = line
        self._proxy, self._number = proxy, number
        self._loop = asyncio.get_running_loop()
        self._writers: dict[Way, asyncio.StreamWriter] = {}
        self._gates = {way: asyncio.Event() for way in Way}
        self._tasks: list[asyncio.Task[None]] = []
        self._timers: list[asyncio.TimerHandle] = []
        self._ended: set[Way] = set()
        self._passed = dict.fromkeys(Way, 0)

    async def carry(
        self, readers: Mapping[Way, asyncio.StreamReader], writers: dict[Way, asyncio.StreamWriter]
    ) -> None:
        """Carry both ways until both have ended or a fault ends them."""
        self._writers = writers
        for way in Way:
            self._gates[way].set()
            # A drain then returns when the kernel has every byte, so that a cut comes after exactly those.
            writers[way].transport.set_write_buffer_limits(high=0)
            queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUE_CHUNKS)
            for work in (self._read(way, readers[way], queue), self._forward(way, queue)):
                self._tasks.append(asyncio.create_task(work, name=f"connection {self._number} {way}"))
        try:
            for result in await asyncio.gather(*self._tasks, return_exceptions=True):
                if isinstance(result, Exception):
                    raise result
        finally:
            self.close(is_reset=False)

    def close(self, *, is_reset: bool) -> None:
        """End both sides now; `carry` returns soon after."""
        for timer in self._timers:
            timer.cancel()
        for writer in self._writers.values():
            _drop(writer, is_reset=is_reset)
        for task in self._tasks:
            task.cancel()

    def calm(self) -> None:
        """Let go what is held; a connection that lacks bytes can only be ended."""
        if self.line.disarm():
            self.close(is_reset=True)
        for gate in self._gates.values():
            gate.set()

    async def _read(self, way: Way, reader: asyncio.StreamReader, queue: "asyncio.Queue[tuple[float, bytes]]") -> None:
        delay, random, due = self._proxy.delays[way], Random(f"{self._proxy.seed} {self._number} {way}"), 0.0
        data = b"begin"
        while data:
            try:
                data = await reader.read(CHUNK_BYTES)
            except OSError:
                self.close(is_reset=True)
                return
            due = max(due, self._loop.time() + delay.latency_s + random.uniform(0.0, delay.jitter_s))
            if delay.bytes_per_s is not None:
                due += len(data) / delay.bytes_per_s
            await queue.put((due, data))

    async def _forward(self, way: Way, queue: "asyncio.Queue[tuple[float, bytes]]") -> None:
        data = b"begin"
        while data:
            due, data = await queue.get()
            late_s = due - self._loop.time()
            if late_s > 0:
                await asyncio.sleep(late_s)
            for step in self.line.take(way, data) if data else self.line.end(way):
                if isinstance(step, Fault):
                    self._strike(step)
                else:
                    await self._pass(way, step)
        await self._gates[way].wait()
        if not self.line.is_dead(way):
            self._finish(way)

    async def _pass(self, way: Way, data: bytes) -> None:
        await self._gates[way].wait()
        writer, proxy = self._writers[way], self._proxy
        self._passed[way] += len(data)
        proxy.passed[way] += len(data)
        if proxy.on_bytes is not None:
            proxy.on_bytes(self._number, way, data)
        try:
            writer.write(data)
            await writer.drain()
        except OSError:
            self.close(is_reset=True)

    def _strike(self, fault: Fault) -> None:
        self._proxy.note(self._number, fault, self._passed)
        match fault.effect:
            case Effect.CUT | Effect.RESET:
                self.close(is_reset=fault.effect is Effect.RESET)
            case Effect.STALL:
                self._gates[fault.way].clear()
                self._later(fault.hold_s, self._gates[fault.way].set)
            case Effect.SWALLOW:
                self._later(fault.hold_s, lambda: self.close(is_reset=True))
            case Effect.HALF_CLOSE:
                self._finish(fault.way)

    def _later(self, hold_s: float, act: Callable[[], None]) -> None:
        if hold_s:
            now = self._loop.time()
            self._timers = [timer for timer in self._timers if timer.when() > now]
            self._timers.append(self._loop.call_later(hold_s, act))

    def _finish(self, way: Way) -> None:
        """Pass the end of a way on."""
        if way not in self._ended:
            self._ended.add(way)
            with contextlib.suppress(OSError):
                self._writers[way].write_eof()


def _drop(writer: asyncio.StreamWriter, *, is_reset: bool) -> None:
    """Close a socket without waiting; by RST when asked."""
    if is_reset and not writer.transport.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    writer.transport.abort()
