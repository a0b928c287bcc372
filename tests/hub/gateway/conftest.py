"""A hub with some readings, an admin's client, and a question whose answer is checked against its model."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from device_sdk.reading import Channel, ValueType
from hub.gateway.http import make_app
from hub.gateway.rest import ENDPOINTS
from hub.roles import Role
from tests.support.hub_parts import HubParts, http_client, hub_parts

S = 10**9
T0 = 1_795_376_000 * S
TEMPERATURE = Channel("temperature", "Cel", ValueType.FLOAT, 1.0, 0.0, 30.0, "Temperature")
COUNTER = Channel("counter")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubParts]:
    """A hub with two devices: pump-2 has two channels, pump-10 one."""
    with hub_parts(tmp_path) as parts:
        pump2 = parts.connect("pump-2")
        parts.feed(
            pump2,
            ("temperature", T0, 20.5), ("temperature", T0 + S, 31.5), ("temperature", T0 + 61 * S, 22.5),
            ("counter", T0 + 1, 2**60),
            channels=(TEMPERATURE, COUNTER),
        )  # fmt: skip
        parts.feed(parts.connect("pump-10", stream="b" * 16), ("door", T0 + 2 * S, True), channels=(Channel("door"),))
        yield parts


@pytest_asyncio.fixture
async def admin(hub: HubParts) -> AsyncIterator[httpx.AsyncClient]:
    """A client with an admin's token."""
    _, token = hub.identities.add_token(Role.ADMIN)
    async with http_client(make_app(hub), token=token) as client:
        yield client


async def get(client: httpx.AsyncClient, path: str, **query: Any) -> dict[str, Any]:
    """Ask, and check status and model of the answer."""
    response = await client.get(path, params=query)
    assert response.status_code == 200, response.text
    (endpoint,) = [e for e in ENDPOINTS if e.path == path and e.method == "GET"]
    assert endpoint.gives is not None
    endpoint.gives.model_validate(response.json())
    answer: dict[str, Any] = response.json()
    return answer
