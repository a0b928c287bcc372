"""Hooks of the benchmark `bench_hooks`: those that do nothing, so that what is measured is the way to them and back."""

import asyncio

from hub.hooks import Columns, Context


def ingest(context: Context, columns: Columns) -> None:
    """Accept."""


def authorize(context: Context, action: str, pattern: str) -> bool:
    """Allow."""
    return True


class Change:
    """Every value made anew, as a calibration does."""

    def ingest(self, context: Context, columns: Columns) -> object:
        """Change."""
        return {name: [value * 1.01 for value in column.values] for name, column in columns.items()}  # type: ignore[operator]


class Later:
    """The same as coroutines."""

    async def ingest(self, context: Context, columns: Columns) -> None:
        """Accept."""

    async def authorize(self, context: Context, action: str, pattern: str) -> bool:
        """Allow."""
        return True


class LookUp(Later):
    """A lookup elsewhere that takes a millisecond."""

    async def ingest(self, context: Context, columns: Columns) -> None:
        """Accept, in a while."""
        await asyncio.sleep(0.001)


later, look_up = Later(), LookUp()
