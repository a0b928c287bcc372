"""How far long work is: a bar on a terminal, a plain line now and then elsewhere.

Owns: the one way simulators speak while they work. Place: before `fleet` and
`replay`. Writes to stderr, so stdout stays the result.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

# In a log file a line each five seconds tells as much as a bar and stays readable.
PLAIN_EVERY_S = 5.0


class Progress(Protocol):
    """What long work calls; both calls are cheap enough for each row."""

    def update(self, done: float, note: str = "") -> None:
        """Say how much of the total is done, and something about it."""


class NoProgress:
    """Says nothing."""

    def update(self, done: float, note: str = "") -> None:
        """Do nothing."""


class PlainProgress:
    """A line on stderr each ``every_s``."""

    def __init__(self, title: str, total: float, every_s: float = PLAIN_EVERY_S) -> None:
        self._title, self._total, self._every_s = title, total, every_s
        self._next = time.monotonic() + every_s

    def update(self, done: float, note: str = "") -> None:
        """Write a line when one is due."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._every_s
            percent = 100 * done / self._total if self._total else 100
            sys.stderr.write(f"{self._title}: {percent:.0f} % {note}\n")
            sys.stderr.flush()


class TerminalProgress:
    """A bar with the time left, drawn by Rich on stderr."""

    def __init__(self, title: str, total: float) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
        )  # fmt: skip
        self._bar = RichProgress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(title, total=total, note="")

    def update(self, done: float, note: str = "") -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=done, note=note)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


@contextmanager
def show_progress(title: str, total: float) -> Iterator[Progress]:
    """Give the progress that fits stderr: ``with show_progress("replay", rows) as progress``."""
    if sys.stderr.isatty():
        with TerminalProgress(title, total) as bar:
            yield bar
    else:
        yield PlainProgress(title, total)
