"""An MQTT endpoint on ports of the loopback, in the test's own loop: TCP, TLS and WebSocket."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from hub.errors import NotFoundError
from hub.gateway.mqtt_socket import MqttEndpoint, MqttPeer
from hub.gateway.websocket import Accept, Refuse, UpgradeRequest, make_protocol
from hub.mqtt.handler import Refused
from tests.support.gateway import serving
from tests.support.mqtt_handler import RecordingHandler


class ServedEndpoint:
    """``port``: of TCP, ``tls_port``, ``ws_port``; a handler of ``handlers`` for each connection there was.

    ``refusal``: what the next clients are told.
    """

    def __init__(self) -> None:
        self.refusal: Refused | None = None
        self.handlers: list[RecordingHandler] = []
        self.peers: list[MqttPeer] = []
        self.endpoint = MqttEndpoint(self._make)
        self.port = self.tls_port = self.ws_port = 0

    def upgrade(self, request: UpgradeRequest) -> Accept | Refuse:
        """Answer on the path of MQTT."""
        if request.path != "/mqtt":
            raise NotFoundError("only /mqtt")
        return self.endpoint.web_socket(request)

    def _make(self, peer: MqttPeer) -> RecordingHandler:
        self.peers.append(peer)
        self.handlers.append(RecordingHandler())
        self.handlers[-1].refusal = self.refusal
        return self.handlers[-1]


@asynccontextmanager
async def serving_mqtt(tls: ssl.SSLContext | None = None) -> AsyncIterator[ServedEndpoint]:
    """Serve until the block ends; with TLS where a context is given."""
    served = ServedEndpoint()
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(await loop.create_server(served.endpoint.tcp, "127.0.0.1", 0))
        served.port = server.sockets[0].getsockname()[1]
        if tls is not None:
            secure = await loop.create_server(served.endpoint.tcp, "127.0.0.1", 0, ssl=tls)
            served.tls_port = (await stack.enter_async_context(secure)).sockets[0].getsockname()[1]
        served.ws_port = await stack.enter_async_context(serving(ws=make_protocol(served.upgrade)))
        try:
            yield served
        finally:
            served.endpoint.stop()
            async with asyncio.timeout(10):
                while len(served.endpoint):  # noqa: ASYNC110 (a connection's end has no event)
                    await asyncio.sleep(0.005)
