"""The write routes of InfluxDB, with its own client over a real port, and what Telegraf asks beside."""

import base64
import gzip
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write import point
from influxdb_client.client.write_api import SYNCHRONOUS, WriteOptions
from influxdb_client.rest import ApiException

from device_sdk.reading import Value
from hub.auth import Identities
from hub.gateway.http import make_app
from hub.gateway.influx import HEALTH, PING, QUERY, WRITE_V1, WRITE_V2
from hub.roles import SENDERS, Role
from tests.support.hub_parts import HubParts, http_client, hub_parts
from tests.support.hub_process import HubProcess

# Without annotations.
Point: Any = point.Point
T0 = 1_700_000_000 * 10**9


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubParts]:
    """Return an empty hub."""
    with hub_parts(tmp_path) as parts:
        yield parts


@pytest_asyncio.fixture
async def client(hub: HubParts) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a credential."""
    async with http_client(make_app(hub)) as client:
        yield client


def stored(hub: HubParts) -> dict[str, list[Value]]:
    """Return every value by device and channel."""
    return {
        f"{series.device}/{series.channel}": [row.value for row in hub.store.read([series.id], 0, 2**62, 1000)]
        for series in hub.registry.by_id.values()
    }


def basic(token: str) -> str:
    """Return a Basic credential with a token as password."""
    return f"Basic {base64.b64encode(f'telegraf:{token}'.encode()).decode()}"


@pytest.mark.asyncio
@pytest.mark.parametrize("path", [WRITE_V1, WRITE_V2])
async def test_token_is_taken_where_clients_put_it(hub: HubParts, client: httpx.AsyncClient, path: str) -> None:
    """Bearer, Token, Token with a user, Basic, and for InfluxDB 1 in the query; a wrong one is 401 and noted."""
    token = hub.identities.add_device("pi")
    said = [f"Bearer {token}", f"Token {token}", f"Token telegraf:{token}", basic(token)]
    answers = [await client.post(path, content="m f=1", headers={"Authorization": text}) for text in said]
    by_query = await client.post(path, content="m f=1", params={"u": "telegraf", "p": token, "db": "x"})
    refused = [
        await client.post(path, content="m f=1", headers=headers)
        for headers in ({}, {"Authorization": "Token x"}, {"Authorization": "Basic x"}, {"Authorization": basic("x")})
    ]

    assert [answer.status_code for answer in answers] == [204] * 4
    assert by_query.status_code == (204 if path == WRITE_V1 else 401)
    assert [answer.status_code for answer in refused] == [401] * 4
    assert ("error" if path == WRITE_V1 else "code") in refused[0].json()


@pytest.mark.asyncio
@pytest.mark.parametrize("path", [WRITE_V1, WRITE_V2])
async def test_only_senders_may_write(hub: HubParts, client: httpx.AsyncClient, path: str) -> None:
    """Whoever reads or manages sends nothing; nobody on this machine either, who may read without a login."""
    for role in set(Role) - set(SENDERS):
        _, token = hub.identities.add_token(role)
        answer = await client.post(path, content="m f=1", headers={"Authorization": f"Token {token}"})
        assert answer.status_code == 403, role
    assert (await client.post(path, content="m f=1")).status_code == 401
    assert hub.journal.head == 0


@pytest.mark.asyncio
async def test_partial_write_names_lines_and_keeps_the_others(hub: HubParts, client: httpx.AsyncClient) -> None:
    """As InfluxDB says it, so that Telegraf drops these lines and goes on."""
    auth = {"Authorization": f"Token {hub.identities.add_device('pi')}"}
    data = b'm f=1 1700000000\nrubbish\nm f="x" 1700000001\nm f=3 1700000002\n'
    packed = {**auth, "Content-Encoding": "gzip"}
    new = await client.post(WRITE_V2, content=gzip.compress(data), headers=packed, params={"precision": "s"})
    old = await client.post(WRITE_V1, content=data, headers=auth, params={"precision": "s"})

    assert (new.status_code, old.status_code) == (400, 400)
    assert new.json()["code"] == "invalid"
    assert new.json()["message"] == old.json()["error"]
    assert new.json()["message"].startswith("partial write: line 2: fields missing")
    assert "line 3: pi/m.f: the channel has values of another type; dropped=2" in new.json()["message"]
    assert new.headers["X-Influxdb-Error"].startswith("partial write")
    assert stored(hub) == {"pi/m.f": [1.0, 3.0]}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("path", "precision", "status"),
    [(WRITE_V2, "ms", 204), (WRITE_V2, "h", 400), (WRITE_V1, "n", 204), (WRITE_V1, "u", 204), (WRITE_V1, "d", 400)],
)
async def test_precisions(hub: HubParts, client: httpx.AsyncClient, path: str, precision: str, status: int) -> None:
    """Those that each version of InfluxDB has."""
    auth = {"Authorization": f"Token {hub.identities.add_device('pi')}"}
    time = {"ms": T0 // 10**6, "n": T0, "u": T0 // 1000}.get(precision, 1)

    answer = await client.post(path, content=f"m f=1 {time}", headers=auth, params={"precision": precision})

    assert answer.status_code == status


@pytest.mark.asyncio
async def test_children_that_wait_are_sent_again_when_nothing_is_stored(
    hub: HubParts, client: httpx.AsyncClient
) -> None:
    """Beside what is stored they are dropped lines: Telegraf would send the batch again for ever."""
    _, token = hub.identities.add_token(Role.GATEWAY, ["pi-*"], "site")
    hub.children.set_rules("site")
    hub.children.accept("site", "pi-1")
    auth = {"Authorization": f"Token {token}"}
    waiting = await client.post(WRITE_V2, content="m,host=pi-2 f=1", headers=auth)
    mixed = await client.post(WRITE_V2, content="m,host=pi-1 f=1\nm,host=pi-2 f=1", headers=auth)

    assert (waiting.status_code, waiting.headers["Retry-After"], waiting.json()["code"]) == (403, "5", "forbidden")
    assert (mixed.status_code, "Retry-After" in mixed.headers) == (400, False)
    assert stored(hub) == {"pi-1/m.f": [1.0]}


@pytest.mark.asyncio
async def test_named_request_is_stored_once(hub: HubParts, client: httpx.AsyncClient) -> None:
    """By its key, as at `/v1/batches`."""
    headers = {"Authorization": f"Token {hub.identities.add_device('pi')}", "Idempotency-Key": "k"}
    answers = [await client.post(WRITE_V2, content="m f=1", headers=headers) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [204, 204]
    assert hub.journal.head == 1


@pytest.mark.asyncio
async def test_full_journal_is_a_reason_to_come_again(hub: HubParts, client: httpx.AsyncClient) -> None:
    """In the words of each version."""
    hub.has_room = False
    auth = {"Authorization": f"Token {hub.identities.add_device('pi')}"}
    new = await client.post(WRITE_V2, content="m f=1", headers=auth)
    old = await client.post(WRITE_V1, content="m f=1", headers=auth)

    assert (new.status_code, new.headers["Retry-After"], new.json()["code"]) == (503, "1", "unavailable")
    assert "disk" in old.json()["error"]


@pytest.mark.asyncio
async def test_what_such_clients_ask_beside(hub: HubParts, client: httpx.AsyncClient) -> None:
    """Whether somebody is there, how he is, and that a database is made; no data leaves by these routes."""
    ping, head = await client.get(PING), await client.head(PING)
    verbose = await client.get(PING, params={"verbose": "true"})
    created = await client.post(QUERY, data={"q": 'CREATE DATABASE "telegraf"'})
    asked = await client.get(QUERY, params={"q": "SELECT * FROM m"})

    assert (ping.status_code, head.status_code) == (204, 204)
    assert ping.headers["X-Influxdb-Version"] == verbose.json()["version"]
    assert created.json() == {"results": [{"statement_id": 0}]}
    assert asked.status_code == 404
    assert (await client.get(HEALTH)).json()["status"] == "pass"
    hub.failed = RuntimeError("disk")
    failed = await client.get(HEALTH)
    assert (failed.status_code, failed.json()["status"]) == (503, "fail")


@pytest.mark.slow
def test_client_of_influxdb_writes_to_a_hub(tmp_path: Path) -> None:
    """Its `WriteApi` as it is, synchronous and in batches, points and lines; a bad one raises and is named.

    Slow: a hub as a process of its own.
    """
    with HubProcess(tmp_path / "data") as process:
        identities = Identities(tmp_path / "data" / "identities.sqlite3")
        token = identities.add_token(Role.GATEWAY, ["pi-*"], "site")[1]
        admin = identities.add_token(Role.ADMIN)[1]
        identities.close()
        waiting, _ = process.request("POST", "/v1/batches?device=pi-1", {"x": 1}, token)
        status, _ = process.request("PATCH", "/v1/gateways/site", {"auto_accept": ["pi-*"]}, admin)
        assert (waiting, status) == (403, 200)
        with InfluxDBClient(process.url, token, org="any", enable_gzip=True) as client:
            assert client.ping()
            assert client.version().startswith("telemetry-hub-")
            with client.write_api(write_options=SYNCHRONOUS) as writer:
                points = [Point("m").tag("host", "pi-1").field("f", float(i)).time(T0 + i) for i in range(10)]
                writer.write("any", record=points)
                with pytest.raises(ApiException) as caught:
                    writer.write("any", record=["m,host=pi-1 g=1", 'm,host=pi-1 g="x"'])
            assert "line 2: pi-1/m.g" in caught.value.message
            errors: list[Exception] = []
            options = WriteOptions(batch_size=500, flush_interval=200)
            with client.write_api(
                write_options=options, error_callback=lambda key, data, error: errors.append(error)
            ) as writer:
                for i in range(2000):
                    writer.write("any", record=f"b,host=pi-1 f={i}i {T0 + i}")
        rows = process.get("/v1/readings?match=pi-1/b.f&from=0&limit=5000", admin)["rows"]
        few = process.get("/v1/readings?match=pi-1/m.f&from=0", admin)["rows"]

    assert errors == []
    assert [row[2] for row in rows] == list(range(2000))
    assert [row[2] for row in few] == [float(i) for i in range(10)]
