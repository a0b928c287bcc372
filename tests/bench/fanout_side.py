"""The servers of `bench_fanout`: where each comes from, how it is started, on the one core that all servers get.

Ours is a real ``hub serve`` with all its defaults: journal with an fsync before each ack, store, audit. Node's
packages are installed by npm, nats-server is taken out of Debian's package, both into a cache folder; nothing is
installed on the machine. What is not to be had is left out with a reason.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from hub.auth import Identities
from hub.roles import Role
from tests.bench.bench_frames import process
from tests.bench.fanout_dialect import DEVICE, Bare, Dialect, Mqtt, Nats, Ours, SocketIo, WebSocket
from tests.support import mosquitto, node
from tests.support.hub_process import HubProcess, free_port
from tests.support.mosquitto import Mosquitto

HERE = Path(__file__).parent
SERVER_CORE, GENERATOR_CORE = 0, 1
ON_SERVER_CORE = ("taskset", "-c", str(SERVER_CORE))
NODE_PACKAGES = ("socket.io@4", "ws@8")
START_LIMIT_S = 10.0
INSTALL_LIMIT_S = 120.0


class MissingError(Exception):
    """This server cannot be had here."""


@dataclass(frozen=True, slots=True)
class Side:
    """A server that runs."""

    dialect: Dialect
    port: int
    pid: int


@dataclass(frozen=True, slots=True)
class Server:
    """A server that can be started: ``running(folder, cache)``; ``about(cache)`` says its version."""

    name: str
    running: Callable[[Path, Path], AbstractContextManager[Side]]
    about: Callable[[Path], str]


@contextmanager
def ours(folder: Path, _cache: Path, *, has_own_patterns: bool = False) -> Iterator[Side]:
    """The hub; ``folder`` holds its data."""
    data = folder / "hub"
    data.mkdir(exist_ok=True)
    identities = Identities(data / "identities.sqlite3")
    device, watcher = str(identities.add_device(DEVICE)), identities.add_token(Role.WATCHER)[1]
    identities.close()
    with HubProcess(data, runner=ON_SERVER_CORE) as hub:
        yield Side(Ours(device, watcher, has_own_patterns=has_own_patterns), hub.port, hub.pid)


@contextmanager
def of_node(kind: str, dialect: Dialect, cache: Path) -> Iterator[Side]:
    """A server of `fanout_server.cjs`."""
    environment = {**os.environ, "NODE_PATH": str(_node_modules(cache))}
    command = [*ON_SERVER_CORE, node.find("node") or "node", str(HERE / "fanout_server.cjs"), kind]
    with process(command, environment) as (port, pid):
        yield Side(dialect, port, pid)


@contextmanager
def of_python(kind: str, dialect: Dialect) -> Iterator[Side]:
    """A server of `fanout_server`."""
    with process([*ON_SERVER_CORE, sys.executable, "-m", "tests.bench.fanout_server", kind]) as (port, pid):
        yield Side(dialect, port, pid)


@contextmanager
def of_mosquitto(folder: Path, _cache: Path) -> Iterator[Side]:
    """mosquitto with a listener for WebSockets."""
    if mosquitto.PROGRAM is None:
        raise MissingError("there is no mosquitto on this machine")
    port = free_port()
    with Mosquitto(folder, free_port(), f"listener {port} 127.0.0.1", "protocol websockets") as broker:
        os.sched_setaffinity(broker.pid, {SERVER_CORE})
        # Its listeners come one after the other.
        _wait_for(port)
        yield Side(Mqtt(), port, broker.pid)


@contextmanager
def of_nats(_folder: Path, cache: Path) -> Iterator[Side]:
    """nats-server over TCP."""
    program, port = _nats(cache), free_port()
    command = [*ON_SERVER_CORE, program, "-a", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield Side(Nats(), port, server.pid)
    finally:
        server.kill()
        server.wait()


def _wait_for(port: int) -> None:
    end = time.monotonic() + START_LIMIT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > end:
                raise MissingError("it did not start") from None
            time.sleep(0.02)
        else:
            return


def _node_modules(cache: Path) -> Path:
    folder = cache / "-".join(("node", *NODE_PACKAGES))
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        if node.install(folder, *NODE_PACKAGES) is None:
            raise MissingError("npm could not install it")
        (folder / "installed").touch()
    return folder / "node_modules"


def _nats(cache: Path) -> str:
    """Return the program: the machine's, or what Debian's package holds."""
    found = shutil.which("nats-server")
    if found is not None:
        return found
    folder = cache / "nats-server"
    program = folder / "usr" / "sbin" / "nats-server"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _run(["apt-get", "download", "nats-server"], folder)
            _run(["dpkg-deb", "-x", *map(str, folder.glob("*.deb")), str(folder)], folder)
        except (OSError, subprocess.SubprocessError) as error:
            raise MissingError(f"Debian's package could not be had: {error}") from error
    return str(program)


def _run(command: Sequence[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=INSTALL_LIMIT_S)


# --- versions --------------------------------------------------------------------------------------------------


def _of_package(name: str) -> Callable[[Path], str]:
    def about(cache: Path) -> str:
        text = (_node_modules(cache) / name / "package.json").read_text(encoding="utf-8")
        return _first_number(text.partition('"version"')[2])

    return about


def _of_program(find: Callable[[Path], str], option: str) -> Callable[[Path], str]:
    def about(cache: Path) -> str:
        done = subprocess.run([find(cache), option], capture_output=True, text=True, check=False)
        return _first_number(done.stdout + done.stderr)

    return about


def _first_number(text: str) -> str:
    found = re.search(r"\d+\.\d+[.\d]*", text)
    return found[0] if found else "?"


SERVERS = {
    "ours": Server("**ours, durable**", ours, lambda _: "journal and store on"),
    "socketio": Server(
        "Node socket.io", lambda _, cache: of_node("socketio", SocketIo(), cache), _of_package("socket.io")
    ),
    "ws": Server("Node ws", lambda _, cache: of_node("ws", WebSocket(), cache), _of_package("ws")),
    "python-socketio": Server(
        "python-socketio", lambda _, __: of_python("socketio", SocketIo()), lambda _: version("python-socketio")
    ),
    "websockets": Server(
        "websockets.broadcast", lambda _, __: of_python("websockets", WebSocket()), lambda _: version("websockets")
    ),
    "mosquitto": Server(
        "mosquitto, WebSocket", of_mosquitto, _of_program(lambda _: mosquitto.PROGRAM or "mosquitto", "-h")
    ),
    "nats": Server("nats-server, TCP", of_nats, _of_program(_nats, "-v")),
    "bare": Server("only writes (the ceiling)", lambda _, __: of_python("bare", Bare()), lambda _: ""),
}
