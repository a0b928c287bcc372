"""The proxy on real sockets: what the plan says happens to the bytes, on time, and nothing else does."""

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from simulators.faults import Effect, Fault, Way
from simulators.proxy import CHUNK_BYTES, LOG_STRIKES, QUEUE_CHUNKS, Delay, FaultProxy, Incident

pytestmark = pytest.mark.asyncio
LIMIT_S = 10.0
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Far:
    """The server behind the proxy: each connection in the order it came."""

    def __init__(self) -> None:
        self.connections: asyncio.Queue[Streams] = asyncio.Queue()
        self.target = ("127.0.0.1", 0)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Keep a connection for the test."""
        await self.connections.put((reader, writer))


@asynccontextmanager
async def far_end() -> AsyncIterator[Far]:
    """A server on a free port; all its connections are dropped at the end."""
    far = Far()
    server = await asyncio.start_server(far.take, "127.0.0.1", 0)
    far.target = server.sockets[0].getsockname()
    try:
        async with asyncio.timeout(LIMIT_S):
            yield far
    finally:
        server.close()
        while not far.connections.empty():
            far.connections.get_nowait()[1].transport.abort()


@asynccontextmanager
async def connected(proxy: FaultProxy, far: Far) -> AsyncIterator[tuple[Streams, Streams]]:
    """A connection through the proxy: (device's end, hub's end)."""
    near = await asyncio.open_connection("127.0.0.1", proxy.port)
    other = await far.connections.get()
    try:
        yield near, other
    finally:
        near[1].transport.abort()
        other[1].transport.abort()


async def read_all(reader: asyncio.StreamReader) -> tuple[bytes, str]:
    """Return what came and how it ended: ``fin`` or ``rst``."""
    data = b""
    while True:
        try:
            chunk = await reader.read(CHUNK_BYTES)
        except ConnectionResetError:
            return data, "rst"
        if not chunk:
            return data, "fin"
        data += chunk


async def test_bytes_pass_both_ways_unchanged_and_ends_are_passed_on() -> None:
    """Without faults it is a wire: the end of one way leaves the other open."""
    async with far_end() as far, FaultProxy(far.target) as proxy, connected(proxy, far) as (near, other):
        near[1].write(b"up" * 100_000)
        near[1].write_eof()
        assert await read_all(other[0]) == (b"up" * 100_000, "fin")
        other[1].write(b"down")
        other[1].write_eof()
        assert await read_all(near[0]) == (b"down", "fin")

        told = proxy.statistics()
    assert (told.connections, told.bytes_up, told.bytes_down, told.faults) == (1, 200_000, 4, {})
    assert proxy.statistics().open == 0


@pytest.mark.parametrize(
    ("effect", "end"), [pytest.param(Effect.CUT, "fin", id="cut"), pytest.param(Effect.RESET, "rst", id="reset")]
)
@pytest.mark.parametrize("after", [0, 1, 999])
async def test_connection_is_cut_after_exactly_so_many_bytes(effect: Effect, end: str, after: int) -> None:
    """The far end reads those bytes and then the end, of the kind the effect promises; it is logged."""
    fault = Fault(effect, Way.UP, after)
    struck: list[Incident] = []
    async with (
        far_end() as far,
        FaultProxy(far.target, [fault], on_strike=struck.append) as proxy,
        connected(proxy, far) as (near, other),
    ):
        near[1].write(b"x" * 1000)
        assert await read_all(other[0]) == (b"x" * after, end)
        assert (await read_all(near[0]))[0] == b""

    assert proxy.log() == struck
    assert [(i.connection, i.fault, i.bytes_up, i.bytes_down) for i in struck] == [(1, fault, after, 0)]
    assert proxy.statistics().faults == {effect: 1}


async def test_next_connection_has_the_next_fault() -> None:
    """Each of three connections ends at its own byte; the fourth does not."""
    async with far_end() as far, FaultProxy(far.target, [Fault(Effect.CUT, after_bytes=n) for n in (3, 1, 2)]) as proxy:
        got = []
        for _ in range(3):
            async with connected(proxy, far) as (near, other):
                near[1].write(b"abcd")
                got.append((await read_all(other[0]))[0])
        async with connected(proxy, far) as (near, other):
            near[1].write(b"abcd")
            near[1].write_eof()
            got.append((await read_all(other[0]))[0])

    assert got == [b"abc", b"a", b"ab", b"abcd"]


async def test_half_close_ends_one_way() -> None:
    """The hub reads the end while what it says still arrives."""
    fault = Fault(Effect.HALF_CLOSE, Way.UP, 2)
    async with far_end() as far, FaultProxy(far.target, [fault]) as proxy, connected(proxy, far) as (near, other):
        near[1].write(b"abcd")
        assert await read_all(other[0]) == (b"ab", "fin")
        other[1].write(b"still here")
        other[1].write_eof()
        assert await read_all(near[0]) == (b"still here", "fin")


async def test_stalled_bytes_come_late_and_whole() -> None:
    """What is held goes on after the hold, and the other way never waited."""
    fault = Fault(Effect.STALL, Way.UP, 2, hold_s=0.05)
    async with far_end() as far, FaultProxy(far.target, [fault]) as proxy, connected(proxy, far) as (near, other):
        begun = asyncio.get_running_loop().time()
        near[1].write(b"abcd")
        assert await other[0].readexactly(2) == b"ab"
        other[1].write(b"down")
        assert await near[0].readexactly(4) == b"down"
        assert await other[0].readexactly(2) == b"cd"
        assert asyncio.get_running_loop().time() - begun >= 0.05


async def test_stall_pushes_back_instead_of_filling_memory() -> None:
    """While bytes are held the proxy takes a bounded amount, and the sender's own network feels full."""
    fault = Fault(Effect.STALL, Way.UP, 0)
    async with far_end() as far, FaultProxy(far.target, [fault]) as proxy, connected(proxy, far) as (near, other):
        near[1].transport.set_write_buffer_limits(high=0)
        # Twice what it may hold, the kernel's buffers on the way aside: those take a few MB on loopback.
        total = 16 * QUEUE_CHUNKS * CHUNK_BYTES
        near[1].write(b"x" * total)
        sending = asyncio.create_task(near[1].drain())
        done, _ = await asyncio.wait([sending], timeout=0.2)
        assert not done

        proxy.calm()
        assert len(await other[0].readexactly(total)) == total
        await sending


async def test_swallowed_bytes_never_come_and_the_connection_is_reset() -> None:
    """A dead link: nothing arrives, nothing is said, until both ends are reset."""
    fault = Fault(Effect.SWALLOW, Way.UP, 2, hold_s=0.05)
    async with far_end() as far, FaultProxy(far.target, [fault]) as proxy, connected(proxy, far) as (near, other):
        near[1].write(b"abcd")
        assert await read_all(other[0]) == (b"ab", "rst")
        assert await read_all(near[0]) == (b"", "rst")


async def test_calm_resets_what_lacks_bytes_and_leaves_the_rest() -> None:
    """After it no fault strikes; a connection whose stream has a hole cannot go on."""
    struck = asyncio.Event()
    async with (
        far_end() as far,
        FaultProxy(far.target, [Fault(Effect.SWALLOW)] * 3, on_strike=lambda _: struck.set()) as proxy,
        connected(proxy, far) as (near, other),
        connected(proxy, far) as (near_whole, other_whole),
    ):
        near[1].write(b"gone")
        await struck.wait()
        proxy.calm()
        assert await read_all(other[0]) == (b"", "rst")
        near_whole[1].write(b"passes")
        assert await other_whole[0].readexactly(6) == b"passes"


async def test_latency_and_jitter_delay_each_way_by_its_own() -> None:
    """Bytes arrive no sooner than the latency, in order, also across the jitter."""
    async with (
        far_end() as far,
        FaultProxy(far.target, up=Delay(0.03, 0.02)) as proxy,
        connected(proxy, far) as (near, other),
    ):
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for n in range(20):
            near[1].write(b"%02d" % n)
            await asyncio.sleep(0)
        assert await other[0].readexactly(40) == b"".join(b"%02d" % n for n in range(20))
        assert loop.time() - begun >= 0.03


async def test_slow_line_takes_so_many_bytes_a_second() -> None:
    """20 KB at 200 KB/s are a tenth of a second on their way, in order."""
    data = bytes(range(200)) * 100
    async with (
        far_end() as far,
        FaultProxy(far.target, up=Delay(bytes_per_s=200_000)) as proxy,
        connected(proxy, far) as (near, other),
    ):
        loop = asyncio.get_running_loop()
        begun = loop.time()
        near[1].write(data)
        assert await other[0].readexactly(len(data)) == data
        assert loop.time() - begun >= len(data) / 200_000


async def test_hub_that_is_away_is_a_reset_and_counted() -> None:
    """A connection that leads nowhere ends at once."""
    async with far_end() as far:
        target = far.target
    async with asyncio.timeout(LIMIT_S), FaultProxy(target) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await read_all(reader) == (b"", "rst")
        writer.close()

    assert proxy.statistics().refused == 1


async def test_reset_by_one_end_reaches_the_other() -> None:
    """A killed hub is a killed hub for the device, too."""
    async with far_end() as far, FaultProxy(far.target) as proxy, connected(proxy, far) as (near, other):
        end = other[1].get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        other[1].transport.abort()
        assert await read_all(near[0]) == (b"", "rst")


async def test_chaos_strikes_while_it_lasts_and_then_is_calm() -> None:
    """Faults of the seed strike whoever is connected; after the block a connection lives."""
    async with far_end() as far, FaultProxy(far.target) as proxy:
        async with proxy.chaos(seed=7, every_s=0.01):
            while proxy.statistics().struck < 10:
                async with connected(proxy, far) as (near, other):
                    reading = asyncio.create_task(read_all(other[0]))
                    while not reading.done() and not near[1].is_closing():
                        near[1].write(b"x" * 100)
                        other[1].write(b"y" * 100)
                        await asyncio.wait([reading], timeout=0.001)
                        if proxy.statistics().open == 0:
                            break
                    reading.cancel()
        struck = proxy.statistics().struck
        async with connected(proxy, far) as (near, other):
            near[1].write(b"z" * 10_000)
            assert await other[0].readexactly(10_000) == b"z" * 10_000

    assert struck >= 10
    assert proxy.statistics().struck == struck
    assert len(proxy.log()) == min(struck, LOG_STRIKES)


async def test_log_is_bounded() -> None:
    """The newest strikes are kept; the counts know all."""
    async with far_end() as far, FaultProxy(far.target) as proxy, connected(proxy, far) as (near, other):
        for _ in range(LOG_STRIKES + 5):
            proxy.arm(Fault(Effect.STALL, hold_s=1e-6))
            near[1].write(b"x")
            await other[0].readexactly(1)

    assert proxy.statistics().faults == {"stall": LOG_STRIKES + 5}
    assert len(proxy.log()) == LOG_STRIKES
    assert str(proxy.log()[-1]).endswith(
        "connection 1: stall up for 0.00 s after 0 bytes up (at 1004 bytes up, 0 down)"
    )


async def test_bytes_that_passed_are_told() -> None:
    """A trace of one connection holds each byte once, by way."""
    told: list[tuple[int, Way, bytes]] = []
    async with (
        far_end() as far,
        FaultProxy(far.target, on_bytes=lambda *seen: told.append(seen)) as proxy,
        connected(proxy, far) as (near, other),
    ):
        near[1].write(b"up")
        await other[0].readexactly(2)
        other[1].write(b"down")
        await near[0].readexactly(4)

    assert told == [(1, Way.UP, b"up"), (1, Way.DOWN, b"down")]


async def test_proxy_runs_on_a_thread_of_its_own_for_synchronous_programs() -> None:
    """`with` does the same as `async with`; its methods are for any thread, its counts also after the end."""
    async with far_end() as far:
        with FaultProxy(far.target) as proxy:
            assert any(thread.name == "fault proxy" for thread in threading.enumerate())
            async with connected(proxy, far) as (near, other):
                near[1].write(b"abc")
                assert await other[0].readexactly(3) == b"abc"
                proxy.arm(Fault(Effect.RESET, Way.UP, 1))
                near[1].write(b"de")
                assert await read_all(other[0]) == (b"d", "rst")
            async with connected(proxy, far) as (near, _):
                proxy.abort()
                assert await read_all(near[0]) == (b"", "rst")

    assert not any(thread.name == "fault proxy" for thread in threading.enumerate())
    assert (proxy.statistics().connections, proxy.statistics().faults) == (2, {"reset": 1})


async def test_port_in_use_is_an_error_and_leaves_no_thread() -> None:
    """What cannot listen says so when entered."""
    async with far_end() as far:
        with pytest.raises(OSError, match=r"address|Address"), FaultProxy(far.target, port=far.target[1]):
            raise AssertionError("it listens twice")

    assert not any(thread.name == "fault proxy" for thread in threading.enumerate())


# At 2 turns the loop itself loses the connection: https://github.com/python/cpython/issues/109564.
@pytest.mark.parametrize("turns", [0, 1, 3, 4, 5, 6, 7])
async def test_connection_that_comes_while_the_proxy_closes_is_dropped(turns: int) -> None:
    """Wherever on its way to being served it is: its client does not wait for ever."""
    with socket.create_server(("127.0.0.1", 0)) as far:
        async with FaultProxy(far.getsockname()) as proxy:
            near = socket.create_connection(("127.0.0.1", proxy.port))
            near.setblocking(False)
            for _ in range(turns):
                await asyncio.sleep(0)
        try:
            async with asyncio.timeout(LIMIT_S):
                end = await asyncio.get_running_loop().sock_recv(near, 1)
        except ConnectionResetError:
            end = b""
        finally:
            near.close()

        assert end == b""
