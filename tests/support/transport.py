"""A transport that keeps what is written; its buffer drains when the test says so."""

import asyncio
from typing import Any


class FakeTransport(asyncio.Transport):
    """Behaves like asyncio's socket transport towards its protocol, without a socket."""

    def __init__(self, *, peername: tuple[str, int] = ("127.0.0.1", 50000), can_half_close: bool = True) -> None:
        super().__init__({"peername": peername})
        self.writes: list[bytes] = []
        self.has_written_end = False
        self.is_closed = False
        self.is_aborted = False
        self.is_reading_paused = False
        self.buffered = 0
        self.limits: tuple[int | None, int | None] = (None, None)
        self._can_half_close = can_half_close

    @property
    def written(self) -> bytes:
        """Everything written so far."""
        return b"".join(self.writes)

    def take(self) -> bytes:
        """Return what was written since the last call."""
        data, self.writes = self.written, []
        return data

    def write(self, data: Any) -> None:
        """Keep ``data``; nothing is refused after the end, so that tests see it."""
        self.writes.append(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Kept; the test sets ``buffered`` and calls the protocol itself."""
        self.limits = (high, low)

    def get_write_buffer_size(self) -> int:
        """Return what the test set."""
        return self.buffered

    def can_write_eof(self) -> bool:
        """Return False for a transport that behaves like TLS."""
        return self._can_half_close

    def write_eof(self) -> None:
        """Note the half-close."""
        self.has_written_end = True

    def is_closing(self) -> bool:
        """Return whether it was closed or aborted."""
        return self.is_closed

    def close(self) -> None:
        """Note the close; the test calls `connection_lost`."""
        self.is_closed = True

    def abort(self) -> None:
        """Note the abort; the test calls `connection_lost`."""
        self.is_closed = self.is_aborted = True

    def pause_reading(self) -> None:
        """Note it."""
        self.is_reading_paused = True

    def resume_reading(self) -> None:
        """Note it."""
        self.is_reading_paused = False
