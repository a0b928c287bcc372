"""Peers of `bench_fanout` in Python, and the server that only writes.

``python -m tests.bench.fanout_server socketio|websockets|bare`` prints its port and serves until stdin closes. Both
libraries run on uvloop, without compression, and without pings, which would come between what is counted.
"""

import asyncio
import select
import socket
import sys

import socketio
import uvicorn
import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

BACKLOG = 4096
# As long as a reading of the peers over a WebSocket; one brace, as theirs.
WRITTEN = b"\x81\x3f" + b'{"d":"greenhouse-1","c":"temperature","t":1795376000950,"v":21.55}'[:63]


async def serve_socketio() -> None:
    """python-socketio on uvicorn; watchers are in a room."""
    server = socketio.AsyncServer(async_mode="asgi", transports=["websocket"], ping_interval=120, ping_timeout=120)

    async def join(sid: str, room: str) -> None:
        await server.enter_room(sid, room)
        await server.emit("ready", to=sid)

    async def publish(_sid: str, reading: object) -> None:
        await server.emit("r", reading, room="all")

    server.on("sub", join)
    server.on("r", publish)
    config = uvicorn.Config(
        socketio.ASGIApp(server), host="127.0.0.1", port=0, lifespan="off", log_config=None, access_log=False,
        ws_per_message_deflate=False, ws_ping_interval=None, backlog=BACKLOG, timeout_graceful_shutdown=1,
    )  # fmt: skip
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve(), name="uvicorn")
    while not running.started:  # noqa: ASYNC110 (uvicorn has no event for it)
        await asyncio.sleep(0.01)
    print(running.servers[0].sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    running.should_exit = True
    await task


async def serve_websockets() -> None:
    """The library's ``broadcast``."""
    watchers: set[ServerConnection] = set()

    async def handle(connection: ServerConnection) -> None:
        assert connection.request is not None, "the handshake is done"
        if connection.request.path != "/publish":
            watchers.add(connection)
            await connection.send("ready")
            await connection.wait_closed()
            watchers.discard(connection)
            return
        await connection.send("ready")
        try:
            async for message in connection:
                broadcast(watchers, message)
        except ConnectionClosed:
            return

    async with serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=BACKLOG) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


def serve_bare() -> None:
    """One write of prebuilt bytes for each watcher and each read from the publisher; nothing else."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    print(listener.getsockname()[1], flush=True)
    poll, watchers = select.epoll(), list[socket.socket]()
    publisher: socket.socket | None = None
    poll.register(listener, select.EPOLLIN)
    poll.register(sys.stdin, select.EPOLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == sys.stdin.fileno():
                return
            if fd == listener.fileno():
                connection, _ = listener.accept()
                if connection.recv(1) == b"P":
                    publisher = connection
                    poll.register(connection, select.EPOLLIN)
                else:
                    watchers.append(connection)
                connection.sendall(b"ready")
                continue
            assert publisher is not None, "it is its turn"
            try:
                asked = publisher.recv(65536)
            except ConnectionResetError:
                return
            data = WRITTEN * len(asked)
            for watcher in watchers:
                watcher.sendall(data)


if __name__ == "__main__":
    if sys.argv[1] == "bare":
        serve_bare()
    else:
        uvloop.run({"socketio": serve_socketio, "websockets": serve_websockets}[sys.argv[1]]())
