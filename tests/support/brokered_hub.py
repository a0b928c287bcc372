"""A hub behind a broker that fits in a test: what devices say on ``up`` is answered on ``down``.

The hub's side is `HubModel`, one conversation for each device and number, as the real bridge has one session; or a
function that says what to answer. It shares nothing with the SDK but the envelope.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from device_sdk.envelope import unwrap, wrap
from device_sdk.wire import Bye, encode
from tests.support.hub_model import HubConversation, HubModel

LIMIT_S = 10.0
PREFIX = "hub/v1"
# What a broker keeps for a hub that is away, it keeps under its name.
CLIENT = "test-hub"

Answer = Callable[[str, bytes], list[bytes]]


def echo(device: str, message: bytes) -> list[bytes]:
    """Answer with what was said."""
    return [message]


class MqttHub:
    """Listens at a broker on loopback until it is left; ``async with``.

    Args:
        port: of the broker.
        model: what it has stored; give the same model to a second one to restart a hub.
        answer: instead of a model.
        is_lasting: the broker keeps what arrives while the hub is away.
        client: its name at the broker.
    """

    def __init__(
        self,
        port: int,
        model: HubModel | None = None,
        *,
        answer: Answer | None = None,
        is_lasting: bool = False,
        client: str = CLIENT,
    ) -> None:
        self.model = model or HubModel()
        self.seen: list[aiomqtt.Message] = []
        self._states: list[tuple[str, dict[str, Any]]] = []
        self.byes = 0
        self._answer = answer
        self._changed = asyncio.Condition()
        self._conversations: dict[str, tuple[int, HubConversation]] = {}
        connecting = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        connecting.SessionExpiryInterval = 3600 if is_lasting else 0
        self._client = aiomqtt.Client(
            "127.0.0.1", port, identifier=client, protocol=aiomqtt.ProtocolVersion.V5, clean_start=not is_lasting,
            properties=connecting,
        )  # fmt: skip
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        for topic in ("up", "state"):
            await self._client.subscribe(f"{PREFIX}/+/{topic}", qos=1)
        self._task = asyncio.get_running_loop().create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        # Once is not always enough: `asyncio.wait_for` swallows it when what it waits for comes at the same time.
        while self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=0.1)
        with suppress(aiomqtt.MqttError):
            await self._client.__aexit__(None, None, None)

    def states(self, device: str) -> list[dict[str, Any]]:
        """Return what was heard on a device's ``state``, also what the broker kept."""
        return [state for name, state in self._states if name == device]

    async def say(self, device: str, payload: bytes, *, retain: bool = False) -> None:
        """Say something to a device, as it is."""
        await self._client.publish(f"{PREFIX}/{device}/down", payload, qos=1, retain=retain)

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until what was heard makes ``condition`` true."""
        async with asyncio.timeout(LIMIT_S), self._changed:
            await self._changed.wait_for(condition)

    async def _listen(self) -> None:
        async for message in self._client.messages:
            device, tail = message.topic.value.split("/")[-2:]
            data = bytes(message.payload) if isinstance(message.payload, bytes) else b""
            if tail == "state":
                self._states.append((device, json.loads(data)))
            else:
                self.seen.append(message)
                for answer in self._answers(device, data):
                    await self.say(device, answer)
            async with self._changed:
                self._changed.notify_all()

    def _answers(self, device: str, data: bytes) -> list[bytes]:
        number, message = unwrap(data)
        if self._answer is not None:
            return [wrap(number, answer) for answer in self._answer(device, message)]
        known = self._conversations.get(device)
        if message.startswith(b'{"op":"hello"'):
            known = self._conversations[device] = (number, HubConversation(self.model))
        if known is None or known[0] != number:
            if known is None and not message.startswith(b'{"op":"bye"'):
                self.byes += 1
                return [wrap(number, encode(Bye(reason="going_away", message="say hello again")))]
            return []
        answers = known[1].receive(message) + known[1].commit()
        return [wrap(number, answer) for answer in answers]
