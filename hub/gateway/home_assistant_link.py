"""Our devices on the broker of a Home Assistant: the connection that publishes what `hub.home_assistant` says.

Owns: one connection by aiomqtt, opened again when it is lost. Place: gateway, after `mqtt_bridge`; `hub.server` runs
it. Must not: hold up anything of the hub, or be needed by it: what the broker does not take now is said again later.
"""

import asyncio
import contextlib
import hashlib
import logging
import random
import time
from typing import TYPE_CHECKING

from hub.gateway.access import Parts
from hub.gateway.endpoint import version
from hub.gateway.mqtt_bridge import BRIDGE, CONNECT_S, KEEP_ALIVE_S, LEAVE_S, PAUSE_FIRST_S, PAUSE_LAST_S, STEADY_S
from hub.gateway.mqtt_broker import Settings, tls_context
from hub.home_assistant import HomeAssistant, Message
from hub.home_assistant_entity import Place
from hub.roles import DEFAULT_NAMESPACE

if TYPE_CHECKING:
    import aiomqtt

_log = logging.getLogger("hub.home_assistant")

# A person does not see a quarter of a second; a tick takes 8 ms at most, however many series the hub has.
TICK_S = 0.25


def make_home_assistant(hub: Parts, settings: Settings) -> HomeAssistant:
    """Return what is said of a hub: of devices of the default namespace that did not come through a broker already."""

    def is_wanted(device: str) -> bool:
        return not hub.children.is_accepted(DEFAULT_NAMESPACE, BRIDGE.name, device)

    def label(device: str) -> str | None:
        return hub.metadata.device(DEFAULT_NAMESPACE, device).label

    name = f"hub-{hashlib.sha256(settings.hub_id.encode()).hexdigest()[:8]}"
    return HomeAssistant(hub.registry, Place(name, version=version()), is_wanted=is_wanted, label=label)


class HomeAssistantLink:
    """Keeps what is said on the broker true; `run` until it is cancelled.

    Raises:
        ConfigError: the file of the authority cannot be read.
    """

    def __init__(self, settings: Settings, assistant: HomeAssistant) -> None:
        self._settings = settings
        self._assistant = assistant
        self._tls = tls_context(settings)

    async def run(self) -> None:
        """Connect, say, connect again; on cancellation the broker is told that the hub is gone."""
        import aiomqtt

        failures, level = 0, logging.WARNING
        while True:
            begun, why = time.monotonic(), "it ended"
            try:
                await self._carry()
            except (aiomqtt.MqttError, OSError, TimeoutError) as error:
                why = str(error) or "no answer"
            except Exception:  # the outer edge of this task: one series that cannot be said must not silence the others
                _log.exception("home assistant failed; trying again")
                why = "a fault of the hub"
            if time.monotonic() - begun > STEADY_S:
                failures, level = 0, logging.WARNING
            pause_s = random.random() * min(PAUSE_LAST_S, PAUSE_FIRST_S * 2.0 ** min(failures, 20))
            failures += 1
            _log.log(level, "broker lost broker=%s retry_s=%.1f reason=%s", self._settings.broker.name, pause_s, why)
            level = logging.DEBUG
            await asyncio.sleep(pause_s)

    async def _carry(self) -> None:
        """Use one connection until it is lost, which raises."""
        broker, will = self._settings.broker, self._assistant.will
        async with self._client() as client:
            try:
                await client.subscribe([(name, 1) for name in self._assistant.filters])
                _log.info("home assistant's broker connected broker=%s", broker.name)
                await _say(client, self._assistant.connected())
                await self._go_on(client)
            finally:
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(LEAVE_S):
                        await _say(client, will)

    async def _go_on(self, client: "aiomqtt.Client") -> None:
        hearing = asyncio.ensure_future(self._hear(client))
        try:
            while not hearing.done():
                for message in self._assistant.tick(time.time_ns()):
                    await _say(client, message)
                await asyncio.wait((hearing,), timeout=TICK_S)
            await hearing
        finally:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)

    async def _hear(self, client: "aiomqtt.Client") -> None:
        async for message in client.messages:
            payload = message.payload
            self._assistant.saw(message.topic.value, payload if isinstance(payload, bytes) else b"")

    def _client(self) -> "aiomqtt.Client":
        import aiomqtt

        broker, will = self._settings.broker, self._assistant.will
        return aiomqtt.Client(
            broker.host, broker.port, username=broker.username, password=broker.password,
            identifier=f"{self._settings.session()}-ha", keepalive=KEEP_ALIVE_S, timeout=CONNECT_S,
            tls_context=self._tls, will=aiomqtt.Will(will.topic, will.payload, will.qos, will.is_retained),
        )  # fmt: skip


async def _say(client: "aiomqtt.Client", message: Message) -> None:
    await client.publish(message.topic, message.payload, message.qos, message.is_retained)
