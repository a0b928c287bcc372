"""Following the hub live: two ways to show readings as they arrive.

Owns: lines for pipes, a table for terminals. Place: after `output`, before
`live`. The SDK's client follows: each reading once, over any number of
connections.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from device_sdk import Client, ResetError, WatchedReading
from hub.cli.output import show_time, show_value, tell
from hub.unit import unit_shown

if TYPE_CHECKING:
    from rich.table import Table


def run(client: Client, patterns: list[str], since: str | None, count: int | None, *, as_json: bool) -> None:
    """Show readings until ``count`` of them, or Ctrl-C.

    Raises:
        ConnectionLostError: the first connection could not be made; later ones are tried again.
        AuthenticationError: the credential may not see this.
    """
    is_table = sys.stdout.isatty() and not as_json
    show = _on_terminal() if is_table else _as_lines(as_json=as_json)
    watch = client.watch(*patterns, since=since, on_reset=_tell_reset)
    watch.wait = _tell_and_wait
    with show as take:
        for number, reading in enumerate(watch, 1):
            take(reading)
            if number == count:
                return


def _tell_reset(reset: ResetError) -> None:
    tell(f"the hub cannot go on from there ({reset}); what was missed is in `hub query`")


async def _tell_and_wait(wait_s: float) -> None:
    tell(f"connection lost; trying again in {wait_s:.1f} s")
    await asyncio.sleep(wait_s)


def line_of(reading: WatchedReading) -> str:
    """Return a reading as a line for people; one that came behind a newer one says so."""
    where = f"{reading.device}/{reading.channel}"
    text = f"{show_time(reading.time_ns)} {where} {show_value(reading.value)} {unit_shown(reading.unit) or ''}".rstrip()
    return f"{text}  (late)" if reading.late else text


@contextmanager
def _as_lines(*, as_json: bool) -> Iterator[Callable[[WatchedReading], None]]:
    def take(reading: WatchedReading) -> None:
        if as_json:
            told = {**asdict(reading), "time_ns": str(reading.time_ns)}
            # Marks of another mode than this command's.
            del told["least"], told["greatest"]
            text = json.dumps(told, ensure_ascii=False)
        else:
            text = line_of(reading)
        sys.stdout.write(text + "\n")
        # Whoever reads the pipe wants it now; a line costs a write, as with any `tail -f`.
        sys.stdout.flush()

    yield take


def _on_terminal() -> AbstractContextManager[Callable[[WatchedReading], None]]:
    from rich.console import Console
    from rich.live import Live

    newest: dict[tuple[str, str], WatchedReading] = {}
    console = Console()

    @contextmanager
    def live() -> Iterator[Callable[[WatchedReading], None]]:
        def draw() -> "Table":
            return table_of(dict(newest), console.height - 2)

        with Live(console=console, get_renderable=draw, refresh_per_second=4):
            yield lambda reading: newest.__setitem__((reading.device, reading.channel), reading)

    return live()


def table_of(newest: dict[tuple[str, str], WatchedReading], max_rows: int) -> "Table":
    """Return the newest value of each channel, as many as fit."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("device", "channel", "value", "unit", "time"):
        table.add_column(column, justify="right" if column == "value" else "left")
    shown = sorted(newest)[: max(1, max_rows - 2)]
    for key in shown:
        reading = newest[key]
        cells = (*key, show_value(reading.value), unit_shown(reading.unit) or "", show_time(reading.time_ns))
        table.add_row(*map(Text, cells))
    if len(newest) > len(shown):
        table.add_row(Text(f"… {len(newest) - len(shown)} more"))
    return table
