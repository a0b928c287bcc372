"""Following the hub's event stream: parse, keep the cursor, come back after a drop, show.

Owns: the reader of server-sent events and the two ways to show readings.
Place: after `rest`, before `live`. A reading is shown once: the cursor moves
only after an event was applied, and a new connection begins there.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, NamedTuple

from hub.cli.exit_code import UnreachableError
from hub.cli.output import show_time, show_value, tell
from hub.cli.rest import RestClient
from hub.errors import UnavailableError

if TYPE_CHECKING:
    from rich.table import Table

FIRST_WAIT_S, MAX_WAIT_S = 0.5, 10.0


class Event(NamedTuple):
    """One server-sent event; ``id`` is the cursor behind it, where it has one."""

    name: str
    data: dict[str, Any]
    id: str | None


class WatchedReading(NamedTuple):
    """One reading as shown."""

    time_ns: int
    device: str
    channel: str
    value: float | int | bool | str
    unit: str | None


class Feed:
    """Turns events into readings; ``cursor`` is where to go on after a drop. Does no input or output."""

    def __init__(self, cursor: str | None = None) -> None:
        self.cursor = cursor
        self._series: dict[int, dict[str, Any]] = {}

    def take(self, event: Event) -> list[WatchedReading]:
        """Return the readings of one event, oldest first as sent; move the cursor behind it."""
        readings: list[WatchedReading] = []
        if event.name == "series":
            self._series |= {int(number): series for number, series in event.data["s"].items()}
        elif event.name == "data":
            t0, tick = int(event.data["t0"]), int(event.data["tick"])
            readings = [self._reading(number, t0 + int(dt) * tick, value) for number, dt, value in event.data["u"]]
        self.cursor = event.id or self.cursor
        return readings

    def _reading(self, number: int, time_ns: int, value: Any) -> WatchedReading:
        series = self._series[number]
        if series.get("type") == "int" and isinstance(value, str):
            value = int(value)
        return WatchedReading(time_ns, series["device"], series["channel"], value, series.get("unit"))


def read_events(lines: Iterable[bytes]) -> Iterator[Event]:
    """Yield the events of a ``text/event-stream``; comments and an event cut off at the end are left out."""
    name, data, id_ = "message", "", None
    for raw in lines:
        line = raw.decode().rstrip("\r\n")
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield Event(name, json.loads(data), id_)
            name, data, id_ = "message", "", None
        elif key == "event":
            name = value
        elif key == "data":
            data += value
        elif key == "id":
            id_ = value


def follow(
    client: RestClient, patterns: list[str], since: str | None, *, wait: Callable[[float], None] = time.sleep
) -> Iterator[WatchedReading]:
    """Yield readings as they arrive, for ever; connections that drop are resumed at the cursor.

    Raises:
        UnreachableError: the first connection could not be made; later ones are tried again.
    """
    feed, pause_s, was_connected = Feed(since), FIRST_WAIT_S, False
    while True:
        try:
            with client.stream("/v1/watch", {"match": patterns, "since": feed.cursor}) as lines:
                was_connected, pause_s = True, FIRST_WAIT_S
                for event in read_events(lines):
                    yield from feed.take(event)
                    _tell_news(event)
                    if event.name == "reset":
                        feed.cursor = None
        except (UnreachableError, UnavailableError, OSError, HTTPException) as error:
            if not was_connected:
                raise
            tell(f"connection lost ({error}); trying again")
        wait(pause_s)
        pause_s = min(2 * pause_s, MAX_WAIT_S)


def run(client: RestClient, patterns: list[str], since: str | None, count: int | None, *, as_json: bool) -> None:
    """Show readings until ``count`` of them, or Ctrl-C."""
    is_table = sys.stdout.isatty() and not as_json
    show = _on_terminal() if is_table else _as_lines(as_json=as_json)
    with show as take:
        for number, reading in enumerate(follow(client, patterns, since), 1):
            take(reading)
            if number == count:
                return


def _tell_news(event: Event) -> None:
    if event.name == "reset":
        tell(f"the hub cannot go on from there ({event.data.get('why')}): readings in between are in `hub query`")
    elif event.name == "lag":
        tell(f"behind by {event.data.get('behind')} frames")


@contextmanager
def _as_lines(*, as_json: bool) -> Iterator[Callable[[WatchedReading], None]]:
    def take(reading: WatchedReading) -> None:
        if as_json:
            text = json.dumps({**reading._asdict(), "time_ns": str(reading.time_ns)}, ensure_ascii=False)
        else:
            where = f"{reading.device}/{reading.channel}"
            text = f"{show_time(reading.time_ns)} {where} {show_value(reading.value)} {reading.unit or ''}".rstrip()
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
        cells = (*key, show_value(reading.value), reading.unit or "", show_time(reading.time_ns))
        table.add_row(*map(Text, cells))
    if len(newest) > len(shown):
        table.add_row(Text(f"… {len(newest) - len(shown)} more"))
    return table
