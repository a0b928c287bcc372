"""Links: devices of a simulation over the real SDK against a small hub."""

import asyncio
from pathlib import Path

from simulators.ledger import Ledger, load
from simulators.link import Link, drain, open_devices, summarise
from tests.support.fake_hub import FakeHub

NAMES = ["a", "b"]
TOKENS = {"a": "x", "b": "x"}


def test_recorded_readings_are_drained_and_counted(tmp_path: Path) -> None:
    """After the drain everything is acked, and the witness holds what the hub holds."""
    ledger = Ledger(tmp_path)

    async def work(url: str) -> None:
        async with open_devices(Link(url, TOKENS), NAMES, ledger) as links:
            for n in range(100):
                links["a"].record({"t": float(n), "u": n})
            links["b"].record({"t": 1.0}, 1_795_376_000_000_000_000)
            await drain(list(links.values()), 10.0)
            summary = summarise(list(links.values()), 1.0)
        assert (summary.devices, summary.recorded, summary.acked, summary.pending) == (2, 201, 201, 0)
        assert summary.is_drained

    with FakeHub() as hub:
        asyncio.run(work(hub.url))
    ledger.close()

    witnesses = load(tmp_path)
    stored = {(r.channel, r.time_ns) for r in hub.model.readings}
    produced = {(channel, t) for w in witnesses.values() for channel, instants in w.readings.items() for t in instants}
    assert stored == produced
    assert sum(w.produced for w in witnesses.values()) == 201
    assert all(w.frames and w.acked for w in witnesses.values())


def test_reading_for_a_lasting_spool_is_witnessed_before_and_after(tmp_path: Path) -> None:
    """Its lines are in the file when `record` returns: a kill at any instant leaves no reading without a witness."""
    ledger = Ledger(tmp_path / "ledger")

    async def work() -> str:
        link = Link("ws://127.0.0.1:9", TOKENS, spool=tmp_path / "spool", close_timeout_s=0.1)
        async with open_devices(link, ["a"], ledger) as links:
            links["a"].record({"t": 1.0, "u": 2})
            return next((tmp_path / "ledger").glob("*.ledger")).read_text()

    text = asyncio.run(work())
    ledger.close()

    assert [line.split("\t")[0] + line.split("\t")[2] for line in text.splitlines()] == ["Bt", "Bu", "Rt", "Ru"]


def test_unreachable_hub_leaves_readings_pending() -> None:
    """A drain that ends in vain shows in the summary, with the reason."""

    async def work(url: str) -> None:
        async with open_devices(Link(url, TOKENS, close_timeout_s=0.1), ["a"]) as links:
            links["a"].record({"t": 1.0})
            await drain(list(links.values()), 0.3)
            summary = summarise(list(links.values()), 1.0)
        assert (summary.acked, summary.pending, summary.is_drained) == (0, 1, False)
        assert summary.last_errors

    with FakeHub() as hub:
        url = hub.url
    asyncio.run(work(url))


def test_wait_for_room_ends_at_once_when_there_is_room() -> None:
    """Flow control costs nothing while the hub keeps up."""

    async def work(url: str) -> None:
        async with open_devices(Link(url, TOKENS), ["a"]) as links:
            links["a"].record({"t": 1.0})
            await asyncio.wait_for(links["a"].wait_for_room(), 5.0)

    with FakeHub() as hub:
        asyncio.run(work(hub.url))
