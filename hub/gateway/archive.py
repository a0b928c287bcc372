"""A backup as an answer: an archive that is sent once and then removed.

Owns: the end of the copy that `hub.backup.make_sendable` made. Place: below `endpoints`.
"""

import asyncio
from pathlib import Path

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from hub.backup import SENDING, remove_unsent, send


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
