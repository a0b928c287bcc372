"""A hub on a port: uvicorn around `hub.app.Hub`, what is printed, and the way it ends.

Owns: the listening socket, the signals, the greeting. Place: above `app`,
below the command line. Ctrl-C or SIGTERM ends it in at most 2 s: connections
are told to come back, the journal's queue is drained.
"""

import asyncio
import contextlib
import importlib.util
import logging
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from hub.allocator import keep_little
from hub.announcement import announce, check_announceable
from hub.app import Hub
from hub.config import Config
from hub.errors import ConfigError, DiskFailedError, JournalError, StoreError
from hub.gateway.access import LoginLinks
from hub.gateway.handshake import GuardedHttp, make_http_protocol
from hub.gateway.home_assistant_link import HomeAssistantLink, make_home_assistant
from hub.gateway.http import make_app
from hub.gateway.mqtt_bridge import BRIDGE, MqttBridge
from hub.gateway.mqtt_broker import bridge_settings, home_assistant_settings
from hub.gateway.mqtt_door import MQTT_PORT, MQTT_TLS_PORT
from hub.gateway.websocket import Upgrade, make_protocol

if TYPE_CHECKING:
    from hub.gateway.socket_io import SocketIo

_log = logging.getLogger("hub")

BACKLOG = 2048
# What the kernel may hold unsent for one connection. Without it a peer that does not read gets 4 MiB: 1,000 watchers
# that stalled held 1.6 GB of the kernel's memory, and filling that slowed everybody else down four times.
UNSENT_BYTES = 64 * 1024
# How long uvicorn waits for requests under way; with the writer's drain it stays below 2 s.
GRACEFUL_S = 1
# A hub that ran for so long was well; one that fails sooner waits before it starts again, at most for the second.
_STEADY_S, _PAUSE_LAST_S = 60.0, 60.0

Started = Callable[[Hub, str], "Callable[[], None]"]


def serve(config: Config, *, started: Started | None = None) -> int:
    """Run a hub until a signal; return the exit code (1 when it failed by a fault that starting again does not mend).

    When the disk fails a write, an fsync or the read of a mark, the hub stops and is started again here, on the same
    port and on a fresh copy of the file; as long as that fails too, it is tried again. The same process, because the
    listening address, the log and whoever supervises it stay; nothing of the failed hub is used again.

    Args:
        started: called with each hub and its URL once it listens; returns what to call before it stops.

    Raises:
        ConfigError: the port cannot be bound.
        JournalError, StoreError: the data directory cannot be used.
    """
    keep_little()
    logging.basicConfig(
        level=config.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # the greeting says that it started, and where
    _check_client_ca(config)
    if config.announce:
        check_announceable(config)
    if config.socketio:
        _check_socket_io()
    bridge_settings(config)
    home_assistant_settings(config)
    restarts = 0
    while True:
        begun = time.monotonic()
        try:
            with ExitStack() as listeners:
                listener = listeners.enter_context(_bind(config))
                mqtt = _bind_mqtt(config)
                if mqtt is not None:
                    listeners.enter_context(mqtt)
                runner = listeners.enter_context(asyncio.Runner(loop_factory=_loop_factory()))
                config = config.model_copy(update={"port": _port_of(listener), "mqtt_port": _port_of(mqtt) or "off"})
                failed = runner.run(_serve(config, listener, mqtt, started))
        except (JournalError, StoreError) as error:
            # A start after a failure; the first one has somebody who reads what it says.
            if not restarts:
                raise
            failed = error
        if time.monotonic() - begun > _STEADY_S:
            restarts = 0
        if failed is None:
            return 0
        if not restarts and not isinstance(failed, DiskFailedError):
            return 1
        pause_s = min(2.0**restarts, _PAUSE_LAST_S) if restarts else 0.0
        _log.warning("hub starts again in_s=%g reason=%s", pause_s, failed)
        time.sleep(pause_s)
        restarts += 1


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: ours also stops what it does not know."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(
    config: Config, listener: socket.socket, mqtt: socket.socket | None, started: Started | None
) -> Exception | None:
    """Run one hub to its end; return why it failed, None when it was asked to end."""
    async with Hub(config) as hub:
        links = LoginLinks(time.monotonic)
        socket_io = _socket_io(config, hub)
        server = _Server(_uvicorn_config(config, hub, links, socket_io))
        loop = asyncio.get_running_loop()

        is_asked = False

        def stop() -> None:
            # The door before everything: who is told to come back must not come back to this hub.
            for door in server.servers if server.started else ():
                door.close()
            hub.mqtt.stop()
            # Then watchers: an open event stream would hold uvicorn until its time is up.
            hub.live.stop()
            if socket_io is not None:
                socket_io.stop()
            _keep_no_connection(server)
            server.should_exit = True

        def end() -> None:
            nonlocal is_asked
            is_asked = True
            stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):  # Windows
                loop.add_signal_handler(number, end)
        hub.on_failed = stop
        server.config.load()
        if mqtt is not None:
            await hub.mqtt.listen(mqtt, server.config.ssl, BACKLOG)
        greeting = asyncio.create_task(_greet(hub, server, listener, links, started), name="hub greeting")
        announcing = asyncio.create_task(announce(config), name="hub announcement") if config.announce else None
        bridging, announced = _start_broker_clients(config, hub)
        try:
            await server.serve(sockets=[listener])
        finally:
            greeting.cancel()
            if announcing is not None:
                announcing.cancel()
                await asyncio.gather(announcing, return_exceptions=True)
            await _end_broker_clients(bridging, announced)
            (stopped,) = await asyncio.gather(greeting, return_exceptions=True)
            if callable(stopped):
                stopped()
        return None if is_asked else hub.failed


async def _end_broker_clients(bridging: "asyncio.Task[None] | None", announced: "asyncio.Task[None] | None") -> None:
    if announced is not None:
        announced.cancel()
        await asyncio.wait((announced,), timeout=GRACEFUL_S)
    if bridging is not None:
        await asyncio.wait((bridging,), timeout=GRACEFUL_S)  # it leaves by itself: what it took is stored first
        bridging.cancel()


def _start_broker_clients(config: Config, hub: Hub) -> tuple["asyncio.Task[None] | None", "asyncio.Task[None] | None"]:
    """Start what takes messages from a broker, and what tells Home Assistant's of our devices."""
    bridging = announcing = None
    hub_id = hub.journal.runs()[0].id  # of its first start: data that move, or come from a copy, stay the same hub
    settings, told = bridge_settings(config, hub_id), home_assistant_settings(config, hub_id)
    assistant = None if told is None else make_home_assistant(hub, told)
    if settings is not None:
        bridge = MqttBridge(settings, hub.mqtt.clients, hub.identities, hub.gateways, config.mqtt_prefix)
        if assistant is not None:
            bridge.is_own = assistant.is_ours
        bridging = asyncio.create_task(bridge.run(), name="hub MQTT bridge")
    if told is not None and assistant is not None:
        announcing = asyncio.create_task(HomeAssistantLink(told, assistant).run(), name="hub Home Assistant")
    return bridging, announcing


def _keep_no_connection(server: uvicorn.Server) -> None:
    """Make each answer the last of its connection: by one that is kept nobody must come back to this hub either."""
    for connection in list(server.server_state.connections):
        if isinstance(connection, GuardedHttp):
            connection.shutdown()


async def _greet(
    hub: Hub, server: uvicorn.Server, listener: socket.socket, links: LoginLinks, started: Started | None
) -> "Callable[[], None] | None":
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.005)
    config = hub.config
    url = base_url(config, listener.getsockname()[1])
    page = f"{url}/" if config.is_loopback and not config.is_tls else f"{url}/login?code={links.issue()}"
    _say(f"● hub {url}   store {Path(config.data)}")
    _say(f"  page     {page}" + ("" if page.endswith("/") else "   (one-time link)"))
    _say(f"  devices  {url.replace('http', 'ws', 1)}   next: hub devices add NAME --data {config.data}")
    if isinstance(config.mqtt_port, int):
        scheme, address = ("mqtts", "mqtt")[not config.is_tls], url.split("://", 1)[1].rpartition(":")[0]
        _say(f"  mqtt     {scheme}://{address}:{config.mqtt_port}   user: a device's name, password: its token")
    broker = bridge_settings(config)
    if broker is not None:
        _say(f"  broker   {broker.broker.name}   next: hub children list --gateway {BRIDGE.name}")
    told = home_assistant_settings(config)
    if told is not None:
        _say(f"  home assistant   {told.broker.name}")
    if config.insecure_lan and not config.is_tls:
        _say("  ▲ without TLS: tokens and readings travel readable on this network (--insecure-lan)")
    return started(hub, url) if started is not None else None


def _socket_io(config: Config, hub: Hub) -> "SocketIo | None":
    if not config.socketio:
        return None
    from hub.gateway.socket_io import SocketIo

    return SocketIo(hub)


def _uvicorn_config(config: Config, hub: Hub, links: LoginLinks, socket_io: "SocketIo | None") -> uvicorn.Config:
    upgrade: Upgrade = hub.upgrade if socket_io is None else socket_io.over(hub.upgrade)
    return uvicorn.Config(
        make_app(hub, links=links, socket_io=socket_io),
        ws=make_protocol(upgrade, goodbye=hub.goodbye),
        http=make_http_protocol(),
        proxy_headers=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACEFUL_S,
        ssl_certfile=config.tls_cert,
        ssl_keyfile=config.tls_key,
        ssl_ca_certs=config.tls_client_ca,
        # Who shows none goes on with a token, or is a browser; one that is shown must be good.
        ssl_cert_reqs=ssl.CERT_NONE if config.tls_client_ca is None else ssl.CERT_OPTIONAL,
    )


def base_url(config: Config, port: int) -> str:
    """Return the URL that a person on this machine (or, beyond loopback, its name) uses."""
    host = config.host
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = socket.gethostname()
    if ":" in host:
        host = f"[{host}]"
    return f"{'https' if config.is_tls else 'http'}://{host}:{port}"


def _check_client_ca(config: Config) -> None:
    """Raise `ConfigError` with the file's name, where OpenSSL would only say that there is no certificate."""
    path = config.tls_client_ca
    if path is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except OSError as error:  # also of OpenSSL
        raise ConfigError(
            f"--tls-client-ca {path}: {error}; it takes certificates in PEM, such as ca.pem of `hub tls init`"
        ) from error


def _check_socket_io() -> None:
    """Raise `ConfigError` when the extra is not installed; says what to do."""
    if importlib.util.find_spec("socketio") is None:
        raise ConfigError("--socketio needs python-socketio: pip install 'telemetry-hub[socketio]'")


def _bind(config: Config) -> socket.socket:
    try:
        return _bound(config.host, config.port)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {config.host}:{config.port}: {error.strerror}; is another hub running? "
            "Use --port N for another port"
        ) from error


def _bind_mqtt(config: Config) -> socket.socket | None:
    """Return the socket for MQTT, None where there is none: nobody asked for it, and its port is not free."""
    port = config.mqtt_port
    if port is None and config.is_loopback and config.port:
        # A hub on a port that is chosen for it is one of many on its machine, as in tests: it takes no fixed one.
        port = MQTT_TLS_PORT if config.is_tls else MQTT_PORT
    if port is None or port == "off":
        return None
    try:
        # Only who listens has the port: two hubs that start at once may both be bound to it.
        return _bound(config.host, port, is_listening=True)
    except OSError as error:
        if config.mqtt_port is None:
            _log.info("no MQTT: port %d is taken, by a broker or another hub; --mqtt-port N takes another", port)
            return None
        raise ConfigError(
            f"cannot listen on {config.host}:{port} for MQTT: {error.strerror}; is there a broker, or another hub? "
            "Use --mqtt-port N for another port, or --mqtt-port off"
        ) from error


def _bound(host: str, port: int, *, is_listening: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # not on Windows; accepted connections inherit it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    try:
        listener.bind((host, port))
        if is_listening:
            listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _port_of(listener: socket.socket | None) -> int:
    return 0 if listener is None else listener.getsockname()[1]


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows: asyncio's own loop
        return None
    return uvloop.new_event_loop


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the greeting is what a person sees
