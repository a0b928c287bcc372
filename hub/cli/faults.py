"""``hub simulate proxy``, and the chaos between a simulated fleet and its hub.

Place: before `simulation`; see `hub.cli`. The work is done by `simulators.proxy`.
"""

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from hub.cli import options, output
from hub.cli.exit_code import CliError, ExitCode

if TYPE_CHECKING:
    from simulators.link import Link, Summary
    from simulators.proxy import FaultProxy, Incident

# Rough, and still slower than a device recovers: after a few losses in a row it waits some seconds to reconnect.
EVERY_S = 10.0
LOG_NAME = "faults.log"
_PORTS = {"ws": 80, "wss": 443, "mqtt": 1883, "mqtts": 8883}

Chaos = Annotated[int | None, typer.Option("--chaos", metavar="SEED", help="Random faults, the same for a seed.")]
Every = Annotated[
    float,
    typer.Option(
        "--chaos-every", min=0.01, help="Mean seconds until a connection's next fault is due; it strikes soon after."
    ),
]


def proxy(
    to: Annotated[str, typer.Option("--to", metavar="HOST:PORT", help="The hub.")],
    listen: Annotated[int, typer.Option("--listen", min=0, max=65535, help="Port on loopback; 0: a free one.")] = 0,
    chaos: Chaos = None,
    chaos_every: Every = EVERY_S,
    latency_ms: Annotated[float, typer.Option("--latency-ms", min=0, help="Added to each way.")] = 0.0,
    jitter_ms: Annotated[float, typer.Option("--jitter-ms", min=0, help="At most so much more, at random.")] = 0.0,
    duration: Annotated[float | None, typer.Option(min=0.001, help="Seconds; default: until Ctrl-C.")] = None,
    as_json: options.Json = False,
) -> None:
    """Stand between devices and a hub, delay what passes and do faults to it; say each one."""
    import asyncio

    from simulators.proxy import Delay, FaultProxy

    delay = Delay(latency_ms / 1000, jitter_ms / 1000)
    carrier = FaultProxy(
        _parse_address(to), up=delay, down=delay, seed=chaos or 0, port=listen, on_strike=_tell_strike
    )  # fmt: skip

    async def carry() -> None:
        async with carrier:
            output.tell(f"devices connect to {carrier.host}:{carrier.port}, the hub is at {to}; Ctrl-C ends it")
            try:
                async with nullcontext() if chaos is None else carrier.chaos(chaos, chaos_every):
                    await asyncio.sleep(duration if duration is not None else float("inf"))
            finally:
                show_faults(carrier, chaos, as_json)

    asyncio.run(carry())


async def run_through_chaos(
    link: "Link",
    play: "Callable[[Link, AbstractAsyncContextManager[None]], Coroutine[Any, Any, Summary]]",
    seed: int,
    every_s: float,
    folder: Path,
) -> "tuple[Summary, FaultProxy]":
    """Play a fleet through a proxy in front of the hub; return its summary and the proxy, whose counts stay.

    Args:
        link: leads to the hub; the certificate is checked against its host as ever.
        play: runs the fleet; it enters the faults while it records, and drains after leaving them.
        folder: gets `LOG_NAME`, one line for each fault that struck, to explain a run.
    """
    from simulators.proxy import FaultProxy

    parts = urlsplit(link.url)
    hub = (parts.hostname or "", parts.port or _PORTS[parts.scheme])
    async with FaultProxy(hub, seed=seed) as carrier:
        through = replace(link, connect_to=(carrier.host, carrier.port))
        try:
            summary = await play(through, carrier.chaos(seed, every_s))
        finally:
            lines = [f"{incident}\n" for incident in carrier.log()]
            (folder / LOG_NAME).write_text(f"chaos seed {seed}\n{''.join(lines)}", encoding="utf-8")
    return summary, carrier


def show_faults(carrier: "FaultProxy", seed: int | None, as_json: bool) -> None:
    """Show what struck."""
    counts = carrier.statistics()
    if as_json:
        output.show_json({"chaos_seed": seed, **counts._asdict()})
        return
    kinds = ", ".join(f"{count} {effect.replace('_', '-')}" for effect, count in counts.faults.items())
    who = "faults" if seed is None else f"chaos seed {seed}"
    typer.echo(f"{who}: {counts.struck} faults on {counts.connections} connections{f' ({kinds})' if kinds else ''}")


def _tell_strike(incident: "Incident") -> None:
    output.tell(str(incident))


def _parse_address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 2**16:
        raise CliError(f"--to {text!r}: say HOST:PORT, e.g. 127.0.0.1:8000", ExitCode.USAGE)
    return host.strip("[]"), int(port)
