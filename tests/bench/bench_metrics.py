"""What a scrape of ``/metrics`` costs: 1,000 devices with three channels each, and 0 to 10,000 watchers.

``python -m tests.bench.bench_metrics`` prints a Markdown table: CPU of gathering and of making text, the longest time
that the event loop was held, bytes and series of the answer; the least of five turns each. A hub gathers once a second
at most.
"""

import asyncio
import tempfile
import time
from pathlib import Path

from device_sdk.reading import Channel
from hub.gateway.metrics import as_text, gather
from hub.gateway.watch_socket import WatchSocket
from hub.roles import Identity, Role, scopes_of
from tests.support.fake_connection import FakeConnection
from tests.support.hub_parts import HubParts, hub_parts

DEVICES = 1_000
WATCHERS = (0, 1_000, 10_000)
TURNS = 5


def main() -> None:
    """Measure all and print the table."""
    asyncio.run(_measure())


async def _measure() -> None:
    print("| devices | watchers | gathering, CPU ms | text, CPU ms | loop held ms | bytes | series |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder, hub_parts(Path(folder)) as hub:
        for number in range(DEVICES):
            hub.feed(hub.connect(f"device-{number}", stream=f"{number:016x}"), channels=(Channel("a"), Channel("b")))
        sockets = 0
        for count in WATCHERS:
            for _ in range(sockets, count):
                _watch(hub)
            sockets = count
            as_text(await gather(hub))
            rows = [await _once(hub) for _ in range(TURNS)]
            gathering, text, held, size, series = map(min, zip(*rows, strict=True))
            print(f"| {DEVICES} | {count} | {gathering:.1f} | {text:.1f} | {held:.1f} | {size} | {series} |")


async def _once(hub: HubParts) -> tuple[float, float, float, int, int]:
    held = 0.0

    async def look() -> None:
        nonlocal held
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0)
            held = max(held, time.perf_counter() - before)

    begun = time.process_time()
    figures = await gather(hub)
    gathered = time.process_time()
    text = as_text(figures)
    made = time.process_time()
    looking = asyncio.create_task(look())
    await gather(hub)
    looking.cancel()
    series = sum(1 for line in text.splitlines() if not line.startswith(b"#"))
    return (gathered - begun) * 1e3, (made - gathered) * 1e3, held * 1e3, len(text), series


def _watch(hub: HubParts) -> None:
    """Connect a watcher of everything that reads what it is sent."""
    socket = WatchSocket(
        hub.live, hub.store, hub.consumer, Identity("t-1", "x", Role.WATCHER, scopes=scopes_of(Role.WATCHER))
    )
    socket.opened(FakeConnection())
    socket.message(b'{"op":"sub","sub":"s","match":["**"]}', True)


if __name__ == "__main__":
    main()
