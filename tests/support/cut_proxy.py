"""A TCP proxy that can cut, and that can swallow bytes up (to the hub) or down (to the device)."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any


class CutProxy:
    """Runs on its own thread, so that synchronous and asynchronous tests use it alike.

    ``swallow_up`` / ``swallow_down``: while True, bytes of that direction vanish, as on a dead link.
    `cut` aborts every connection; `cuts_after` aborts each new connection after so many bytes upward.
    ``bytes_per_s``: how fast bytes go up, None: as they come.
    """

    def __init__(self, target_port: int, port: int = 0) -> None:
        self.target_port = target_port
        self.port = port
        self.swallow_up = False
        self.swallow_down = False
        self.bytes_per_s: float | None = None
        self.cuts_after: list[int] = []
        self.connections = 0
        self.cuts = 0
        self.bytes_up = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cut proxy", daemon=True)

    def __enter__(self) -> "CutProxy":
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def cut(self) -> None:
        """Abort every connection now, both ways, without a goodbye."""
        self._run(self._abort_all())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        await self._abort_all()
        tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _abort_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, down_reader: asyncio.StreamReader, down_writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(down_writer)
        up_writer: asyncio.StreamWriter | None = None
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
            self._writers.add(up_writer)
            budget = self.cuts_after.pop(0) if self.cuts_after else None
            cuts = self.cuts
            ways = [
                asyncio.create_task(self._pump(down_reader, up_writer, "swallow_up", budget)),
                asyncio.create_task(self._pump(up_reader, down_writer, "swallow_down", None)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            if budget is not None and self.cuts == cuts:
                self.cuts_after.append(budget)  # it ended for another reason: the next connection is cut instead
        except OSError:
            pass
        finally:
            for writer in (down_writer, up_writer):
                if writer is not None:
                    self._writers.discard(writer)
                    writer.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, swallow: str, budget: int | None
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if swallow == "swallow_up":
                    self.bytes_up += len(data)
                if budget is not None:
                    if len(data) >= budget:
                        writer.write(data[:budget])
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(writer.drain(), 1)
                        self.cuts += 1
                        return
                    budget -= len(data)
                if swallow == "swallow_up" and self.bytes_per_s is not None:
                    await asyncio.sleep(len(data) / self.bytes_per_s)
                if not getattr(self, swallow):
                    writer.write(data)
                    await writer.drain()
