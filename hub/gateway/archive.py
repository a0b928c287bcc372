"""A backup as an answer: an archive that is sent once and then removed.

Owns: the copy that `hub.backup.make_sendable` makes, from its begin to its end. Place: below `endpoints`.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from hub.backup import SENDING, make_sendable, remove_unsent, send


async def make_archive(data: Path, sleep: Callable[[float], None]) -> "BackupResponse":
    """Copy the hub's data in a thread and return the answer that sends it; raises as `make_sendable`.

    May be cancelled: a thread cannot, so the copy is removed when it is made.
    """
    making = asyncio.create_task(asyncio.to_thread(make_sendable, data, sleep=sleep), name="hub backup")

    def remove(made: asyncio.Task[Path]) -> None:
        if not made.cancelled() and made.exception() is None:
            remove_unsent(data)

    try:
        await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(remove)
        raise
    return BackupResponse(data)


class BackupResponse(StreamingResponse):
    """Streams the copy that waits in ``data``; removes it in the end, also when the client went away."""

    def __init__(self, data: Path) -> None:
        super().__init__(
            send(data / SENDING),
            media_type="application/x-tar",
            headers={"Content-Disposition": 'attachment; filename="hub-backup.tar"'},
        )
        self._data = data

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await asyncio.to_thread(remove_unsent, self._data)
