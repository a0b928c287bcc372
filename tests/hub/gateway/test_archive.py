"""The copy that is sent does not outlive its answer."""

import asyncio
import io
import threading
from pathlib import Path

import pytest
from starlette.types import Message, Scope

from hub.backup import SENDING, make_sendable, receive
from hub.errors import ConflictError
from hub.gateway.archive import BackupResponse, make_archive
from tests.support.hub_parts import hub_parts

SCOPE: Scope = {"type": "http", "method": "GET", "path": "/v1/backup", "headers": [], "asgi": {"spec_version": "2.4"}}


async def never() -> Message:
    """The client says nothing more."""
    raise AssertionError("an answer of spec 2.4 does not ask for the end of its client")


@pytest.mark.asyncio
async def test_whole_archive_arrives_and_the_copy_is_removed(tmp_path: Path) -> None:
    """What the client got is a backup; the hub's folder is as before."""
    got = bytearray()

    async def take(message: Message) -> None:
        got.extend(message.get("body", b""))

    with hub_parts(tmp_path):
        make_sendable(tmp_path)
        await BackupResponse(tmp_path)(SCOPE, never, take)

        assert receive(io.BytesIO(bytes(got)), tmp_path / "copy").head == 0
        assert not list(tmp_path.glob("*.part"))


@pytest.mark.asyncio
@pytest.mark.parametrize("taken", [0, 2])
async def test_client_that_goes_away_leaves_room_for_the_next(tmp_path: Path, taken: int) -> None:
    """A connection lost at the first byte or in the middle: the copy is removed, another can be made."""
    messages = 0

    async def break_off(message: Message) -> None:
        nonlocal messages
        messages += 1
        if messages > taken:
            raise OSError("connection lost")

    with hub_parts(tmp_path):
        make_sendable(tmp_path)
        with pytest.raises(Exception, match=r"^$|connection lost"):
            await BackupResponse(tmp_path)(SCOPE, never, break_off)

        assert not list(tmp_path.glob("*.part"))


@pytest.mark.asyncio
async def test_request_that_is_cancelled_while_the_copy_is_made_leaves_room_for_the_next(tmp_path: Path) -> None:
    """The thread goes on to its end, then the copy is removed; meanwhile another request is told to wait."""
    go_on, is_copying = threading.Event(), threading.Event()

    def wait(seconds: float) -> None:
        is_copying.set()
        go_on.wait(10)

    with hub_parts(tmp_path):
        request = asyncio.create_task(make_archive(tmp_path, wait))
        await asyncio.to_thread(is_copying.wait, 10)
        with pytest.raises(ConflictError, match="under way"):
            await make_archive(tmp_path, wait)
        (thread,) = [task for task in asyncio.all_tasks() if task.get_name() == "hub backup"]
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert (tmp_path / SENDING).is_dir(), "still being made"
        go_on.set()
        await thread

        assert not (tmp_path / SENDING).exists()
        assert isinstance(await make_archive(tmp_path, wait), BackupResponse)
