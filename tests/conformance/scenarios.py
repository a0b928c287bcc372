"""What is done to a server while watchers watch it, and what must hold then.

Owns: the scenarios, each a coroutine over all transports at once, and what each requires. Place: after `reader` and
`target`. Every choice is drawn from a seed by name, so adding a scenario or a transport changes no other one's.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

from simulators.faults import Effect, Fault, Way
from simulators.proxy import FaultProxy
from tests.conformance.adapter import Adapter, Place, Wish
from tests.conformance.reader import Reader
from tests.conformance.target import CHANNEL, EXPIRE, LATEST, RESTART, RESTORE, Target
from tests.conformance.watch_v1 import START_NS

# More than the small ring of `target.OwnHub` holds: what comes behind it is read from the journal.
BEYOND_RING = 4_000
# Readings of each series at once, and the pause behind: connections live for some of them, not for one large page.
CHUNK, PAUSE_S = 100, 0.03
_LOOK_S = 0.05
ANSWERS_BETWEEN_CUTS, _HARMLESS_S = 2, 0.001
# Of 100 outages so many last until `BEYOND_RING` readings have come.
LONG_OUTAGES_PERCENT = 10
# A request is longer, so a cut behind so many bytes upwards strikes while it is being sent.
MAX_UP_BYTES = 150
# Of an answer's head and the names of the series.
MAX_HEAD_BYTES = 700
# Readings and the text beside each: together more than sockets and hub hold for one who does not read.
HEAVY, PADDING = 6_000, 400
STALL_BUFFER_BYTES = 4096
STALL_HEALTHY_S = 10.0
# A credential lives so long; a replay that waits so much after each message does not end before.
TTL_S, PACE_S = 2.0, 0.2
CONFLATE_HZ, CONFLATE_S, CONFLATE_SLACK_S = 10.0, 2.0, 0.5
# Two dozen messages with the newest value of each series.
CONFLATE_CUT_BYTES = 3 * 1024


@dataclass(frozen=True, slots=True)
class Job:
    """How much is done: ``aborts`` for each transport, ``readings`` at least in all, ``kills`` in `restart`."""

    aborts: int
    readings: int
    kills: int
    seed: int

    def random(self, *what: str) -> Random:
        """Return the choices of one thing by its name."""
        return Random(" ".join((str(self.seed), *what)))


@dataclass(slots=True)
class Row:
    """What a scenario came to on one transport. ``faults``: what broke the promise; ``gaps`` None: none can be told."""

    scenario: str
    transport: str
    readings: int
    aborts: int
    gaps: int | None
    duplicates: int
    disordered: int
    resumed: int
    resets: int
    faults: list[str] = field(default_factory=list)


Scenario = Callable[[Target, Sequence[Adapter], Job], Awaitable[list[Row]]]


async def abort(target: Target, adapters: Sequence[Adapter], job: Job) -> list[Row]:
    """Cut connections at random bytes, while readings come: each once, in order."""
    async with AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(
                FaultProxy(_address(target), _cuts(job.random("cuts", a.name), job.aborts, a, a.cut_within))
            )
            for a in adapters
        ]
        readers, is_over = [], asyncio.Event()
        for adapter, proxy in zip(adapters, proxies, strict=True):
            # The first connection is direct: before the first cursor a client was promised nothing.
            reader = await _connected(stack, target, adapter)
            await _warm(target, [reader])
            reader.place = _through(target, proxy)
            reader.outage = partial(_outage, target, job.random("outages", adapter.name), is_over)
            reader.abort()
            readers.append(reader)
        limit = time.monotonic() + target.arrive_s + job.aborts
        while any(_struck(p) < job.aborts for p in proxies) or _due(target, readers[0]) < job.readings:
            await target.produce(CHUNK)
            await _keep_pace(target, readers)
            if time.monotonic() > limit:
                break
        is_over.set()
        for proxy in proxies:
            proxy.calm()
        rows = [await _row("abort", target, reader) for reader in readers]
        for row, proxy in zip(rows, proxies, strict=True):
            _note_aborts(row, proxy, job.aborts)
        return rows


async def resume(target: Target, adapters: Sequence[Adapter], job: Job) -> list[Row]:
    """Stay away for short and for longer than the ring; a cursor used twice gives the same twice."""
    random = job.random("resume")
    async with AsyncExitStack() as stack:
        readers = [await _connected(stack, target, adapter) for adapter in adapters]
        kept: list[tuple[int, str | None]] = []
        for turn in range(6):
            await _warm(target, readers)
            gates = [_gate(reader) for reader in readers]
            for reader in readers:
                reader.abort()
            await target.produce(random.randrange(1, 50) if turn % 2 else BEYOND_RING + random.randrange(100))
            for gate in gates:
                gate.set()
            for reader in readers:
                await _all_seen(target, reader)
            if turn == 1:
                kept = [(target.produced, reader.cursor) for reader in readers]
        rows = [await _row("resume", target, reader) for reader in readers]
        for row, reader, (first, cursor) in zip(rows, readers, kept, strict=True):
            row.faults += await _replayed(target, reader, cursor, first)
        return rows


async def restart(target: Target, adapters: Sequence[Adapter], job: Job) -> list[Row]:
    """Kill the server (SIGKILL) in the middle, several times: cursors hold over its starts."""
    random = job.random("restart")
    async with AsyncExitStack() as stack:
        readers = [await _connected(stack, target, adapter) for adapter in adapters]
        for _ in range(job.kills):
            producing = asyncio.create_task(target.produce(CHUNK * random.randrange(5, 20)), name="produce")
            await asyncio.sleep(random.uniform(0, 0.2))
            await target.kill()
            await target.start()
            await producing
            if random.randrange(2):
                # Half of the kills meet who is live, the others who catches up.
                for reader in readers:
                    await _all_seen(target, reader)
        rows = [await _row("restart", target, reader) for reader in readers]
        for row in rows:
            row.aborts = job.kills
        return rows


async def restore(target: Target, adapters: Sequence[Adapter], job: Job) -> list[Row]:
    """Put the server back to a backup: a cursor from before it holds, one from behind it must be told `reset`.

    The devices send the readings of the lost time again; in the end everybody has everything.
    """
    async with AsyncExitStack() as stack:
        readers = [await _connected(stack, target, adapter, restart_since=str(START_NS)) for adapter in adapters]
        await target.produce(CHUNK)
        for reader in readers:
            await _all_seen(target, reader)
        before = [reader.cursor for reader in readers]
        await target.back_up()
        behind = target.produced
        await target.produce(CHUNK)
        for reader in readers:
            await _all_seen(target, reader)
        gates = [_gate(reader) for reader in readers]
        for reader in readers:
            reader.abort()
        await target.restore()
        # Offsets beyond that of the lost cursors: who compares numbers alone would resume now.
        await target.produce(3 * CHUNK)
        for gate in gates:
            gate.set()
        rows = [await _row("restore", target, reader, resets=1) for reader in readers]
        for row, reader, cursor in zip(rows, readers, before, strict=True):
            row.faults += await _replayed(target, reader, cursor, behind)
        return rows


async def expire(target: Target, adapters: Sequence[Adapter], job: Job) -> list[Row]:
    """Let the credential end in the middle of a replay: it stops, the old one is refused, a new one goes on exactly."""
    first, cursors = target.produced, []
    for adapter in adapters:
        async with AsyncExitStack() as stack:
            cursors.append((await _connected(stack, target, adapter)).cursor)
    await target.produce(HEAVY, PADDING)
    begun = zip(adapters, cursors, strict=True)
    return list(await asyncio.gather(*(_expire(target, adapter, cursor, first) for adapter, cursor in begun)))


async def _expire(target: Target, adapter: Adapter, cursor: str | None, first: int) -> Row:
    place = replace(target.place, token=target.token(TTL_S), receive_buffer=STALL_BUFFER_BYTES)
    wish = Wish((f"{target.device}/*",))
    reader = Reader(adapter, place, wish, cursor=cursor, first=first)
    reader.pace_s = PACE_S
    async with reader:
        ended = await reader.until(lambda: reader.refused is not None, target.arrive_s)
    seen, due = reader.witness.seen, _due(target, reader)
    faults = [] if ended else ["the credential ended, the replay did not"]
    if not 0 < seen < due:
        faults.append(f"{seen} of {due} readings before the end: this run shows nothing")
    again = Reader(adapter, place, wish, cursor=reader.cursor)
    async with again:
        if not await again.until(lambda: again.refused is not None, target.arrive_s):
            faults.append("the ended credential was taken again")
    if again.witness.seen:
        faults.append(f"{again.witness.seen} readings with an ended credential")
    reader.place, reader.refused, reader.pace_s = target.place, None, 0.0
    async with reader:
        row = await _row("expire", target, reader)
    row.faults += faults
    return row


async def stall(target: Target, adapters: Sequence[Adapter], job: Job) -> list[Row]:
    """Stop reading while much comes: others do not notice, and who reads again gets everything once, in order."""
    async with AsyncExitStack() as stack:
        place = replace(target.place, receive_buffer=STALL_BUFFER_BYTES)
        wish = Wish((f"{target.device}/*",))
        stalled = [await _connected(stack, target, adapter, place=place, wish=wish) for adapter in adapters]
        healthy = [await _connected(stack, target, adapter) for adapter in adapters]
        for reader in stalled:
            reader.pause()
        for _ in range(4):
            await target.produce(HEAVY // 4, PADDING)
        faults: dict[str, list[str]] = {adapter.name: [] for adapter in adapters}
        for reader in healthy:
            if not await _all_seen(target, reader, limit_s=min(STALL_HEALTHY_S, target.arrive_s)):
                faults[reader.adapter.name].append("a healthy watcher had to wait for the stalled ones")
        for reader in stalled:
            if reader.witness.seen >= _due(target, reader):
                faults[reader.adapter.name].append("it never stalled: this run shows nothing")
            reader.go_on()
        rows = [await _row("stall", target, reader) for reader in stalled]
        for row in rows:
            row.faults += faults[row.transport]
        return rows


async def conflate(target: Target, adapters: Sequence[Adapter], job: Job) -> list[Row]:
    """Take only the newest, a few times a second, cut off now and then: never backwards, and the last one is true."""
    cuts = max(3, job.aborts // 10)
    async with AsyncExitStack() as stack:
        wish = Wish((f"{target.device}/{CHANNEL}",), max_hz=CONFLATE_HZ)
        readers, proxies = [], []
        for adapter in adapters:
            within = adapter.answer_bytes or CONFLATE_CUT_BYTES
            faults = _cuts(job.random("conflate", adapter.name), cuts, adapter, within)
            proxy = await stack.enter_async_context(FaultProxy(_address(target), faults))
            reader = await _connected(stack, target, adapter, wish=wish)
            reader.place = _through(target, proxy)
            reader.abort()
            readers.append(reader)
            proxies.append(proxy)
        begun = time.monotonic()
        while (lasted := time.monotonic() - begun) < target.arrive_s + cuts:
            if lasted > CONFLATE_S and all(_struck(p) >= cuts for p in proxies):
                break
            await target.produce(5)
            await asyncio.sleep(0.005)
        for proxy in proxies:
            proxy.calm()
        # The first of it is told at once; the last falls into the pause behind.
        await target.produce(1)
        await target.produce(CHUNK)
        rows = []
        for reader, proxy in zip(readers, proxies, strict=True):
            await reader.until(partial(_is_last, target, reader), target.arrive_s)
            lasted = time.monotonic() - begun
            row = _counted("conflate", reader)
            row.gaps = None
            _note_aborts(row, proxy, cuts)
            # The newest may come twice: with the answer to a cursor, and with the next tick. Backwards it may not go.
            row.duplicates, row.disordered = 0, reader.witness.went_back
            if row.disordered:
                row.faults.append(f"{row.disordered} older than what came before")
            if row.resets:
                row.faults.append(f"{row.resets} resets, expected 0")
            allowed = (lasted + CONFLATE_SLACK_S) * CONFLATE_HZ + 2 * (reader.lost + 1)
            if reader.messages > allowed:
                row.faults.append(f"{reader.messages} messages in {lasted:.1f} s, allowed {allowed:.0f}")
            if not _is_last(target, reader):
                row.faults.append(
                    f"ends with {[reader.witness.last(s) for s in target.series]}, not {target.produced - 1}"
                )
            rows.append(row)
        return rows


SCENARIOS: dict[str, tuple[Scenario, frozenset[str]]] = {
    "abort": (abort, frozenset()),
    "resume": (resume, frozenset()),
    "restart": (restart, frozenset({RESTART})),
    "restore": (restore, frozenset({RESTORE})),
    "expire": (expire, frozenset({EXPIRE})),
    "stall": (stall, frozenset()),
    "conflate": (conflate, frozenset({LATEST})),
}


# --- inside -------------------------------------------------------------------------------------


def _cuts(random: Random, count: int, adapter: Adapter, within: int) -> list[Fault]:
    """Draw connections' ends: in the request, in the answer's first bytes, and (most) anywhere among readings."""
    cuts = []
    head = min(MAX_HEAD_BYTES, within)
    for _ in range(count):
        effect, place = random.choice((Effect.CUT, Effect.RESET)), random.randrange(8)
        if place == 0:
            cuts.append(Fault(effect, Way.UP, random.randrange(MAX_UP_BYTES)))
        elif place < 3:
            cuts.append(Fault(effect, Way.DOWN, random.randrange(head)))
        else:
            # Small places as often as large ones.
            cuts.append(Fault(effect, Way.DOWN, round(head * (within / head) ** random.random())))
        if adapter.answer_bytes is not None:
            # Where each answer is a connection, some must pass between two cuts, or nothing ever would.
            cuts += [Fault(Effect.STALL, Way.DOWN, hold_s=_HARMLESS_S)] * ANSWERS_BETWEEN_CUTS
    return cuts


def _struck(proxy: FaultProxy) -> int:
    """Return how many connections were cut."""
    faults = proxy.statistics().faults
    return faults.get(Effect.CUT, 0) + faults.get(Effect.RESET, 0)


def _note_aborts(row: Row, proxy: FaultProxy, wanted: int) -> None:
    row.aborts = _struck(proxy)
    if row.aborts < wanted:
        row.faults.append(f"only {row.aborts} of {wanted} aborts in time")


async def _outage(target: Target, random: Random, is_over: asyncio.Event) -> None:
    """Come back at once, or seldom when more has come than the ring holds."""
    if random.randrange(100) < LONG_OUTAGES_PERCENT:
        until = target.produced + BEYOND_RING // len(target.series)
        while target.produced < until and not is_over.is_set():  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)


def _gate(reader: Reader) -> asyncio.Event:
    """Keep a reader away, from its next lost connection until the event is set."""
    gate = asyncio.Event()

    async def outage() -> None:
        await gate.wait()

    reader.outage = outage
    return gate


async def _connected(
    stack: AsyncExitStack,
    target: Target,
    adapter: Adapter,
    *,
    place: Place | None = None,
    wish: Wish | None = None,
    restart_since: str | None = None,
) -> Reader:
    """Return a reader that is live and has its first cursor."""
    wish = wish or Wish((f"{target.device}/{CHANNEL}",))
    reader = Reader(adapter, place or target.place, wish, first=target.produced, restart_since=restart_since)
    await stack.enter_async_context(reader)
    assert await reader.until(lambda: reader.cursor is not None, target.arrive_s), f"{adapter.name}: no cursor"
    return reader


async def _replayed(target: Target, reader: Reader, cursor: str | None, first: int) -> list[str]:
    """Begin at a cursor that is kept from before number ``first``; return what is wrong with what follows."""
    again = Reader(reader.adapter, target.place, Wish((f"{target.device}/{CHANNEL}",)), cursor=cursor, first=first)
    async with again:
        row = await _row("", target, again)
    return [f"an older cursor used again: {fault}" for fault in row.faults]


async def _keep_pace(target: Target, readers: Sequence[Reader]) -> None:
    """Let readers work; wait while all are far behind, so that cuts strike among fresh readings too."""
    await asyncio.sleep(PAUSE_S)
    for _ in range(20):
        if any(reader.witness.seen + 2 * BEYOND_RING >= _due(target, reader) for reader in readers):
            return
        await asyncio.sleep(0.01)


async def _warm(target: Target, readers: Sequence[Reader]) -> None:
    """Let everybody have some readings: servers whose cursor comes with the first of them are not asked for more."""
    await target.produce(CHUNK)
    for reader in readers:
        await _all_seen(target, reader)


async def _all_seen(target: Target, reader: Reader, limit_s: float | None = None) -> bool:
    # What did not come in time once never comes: the rest of the scenario need not wait for it again.
    limit_s = 0.0 if reader.is_given_up else limit_s or target.arrive_s
    reader.is_given_up = not await reader.until(lambda: reader.witness.seen >= _due(target, reader), limit_s)
    return not reader.is_given_up


async def _row(scenario: str, target: Target, reader: Reader, resets: int = 0) -> Row:
    """Wait until the reader has everything, then count."""
    await _all_seen(target, reader)
    # Who has everything is told so, unless something was wrong before.
    is_live = await reader.until(lambda: reader.is_live, 0.0 if reader.is_given_up else target.arrive_s)
    row = _counted(scenario, reader)
    if not (is_live or reader.is_given_up):
        row.faults.append("never told that it is live")
    row.gaps = reader.witness.gaps(target.series, target.produced, reader.first)
    counts = {"gaps": row.gaps, "duplicates": row.duplicates, "out of order": row.disordered}
    row.faults += [f"{count} {what}" for what, count in counts.items() if count]
    if row.resets != resets:
        row.faults.append(f"{row.resets} resets, expected {resets}")
    return row


def _counted(scenario: str, reader: Reader) -> Row:
    seen = reader.witness
    row = Row(
        scenario, reader.adapter.name, seen.seen, reader.lost, None, seen.duplicates, seen.disordered, reader.resumed,
        reader.resets,
    )  # fmt: skip
    if reader.refused is not None:
        row.faults.append(f"refused: {reader.refused}")
    row.faults += sorted(reader.untruths)
    return row


def _is_last(target: Target, reader: Reader) -> bool:
    return all(reader.witness.last(series) == target.produced - 1 for series in target.series)


def _due(target: Target, reader: Reader) -> int:
    """Return how many readings a watcher must have seen by now."""
    return (target.produced - reader.first) * len(target.series)


def _address(target: Target) -> tuple[str, int]:
    return target.place.host, target.place.port


def _through(target: Target, proxy: FaultProxy) -> Place:
    return replace(target.place, host="127.0.0.1", port=proxy.port)
