"""Bad input gets a clear error or a rejection with its reason; the rest is stored, others are not touched."""

import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from device_sdk import wire
from device_sdk.reading import Channel, ValueType
from device_sdk.wire import CHAIN_START, MAX_FRAME_BYTES, Close
from tests.end_to_end.conftest import enrol
from tests.support.hub_process import HubProcess

T0 = 1_790_000_000_000_000_000
pytestmark = pytest.mark.asyncio
GOOD = {"dt": [0], "v": [1.5]}
# The promise is a second; the rest is for a machine that does other things as well.
REVOKED_S = 1.5


@asynccontextmanager
async def conversation(hub: HubProcess, device: str, token: str, stream: str) -> AsyncIterator[ClientConnection]:
    """A device's connection after hello and schema, spoken by hand."""
    headers = {"Authorization": f"Bearer {token}"}
    url, protocol = hub.ws_url + wire.DEVICE_PATH, Subprotocol(wire.DEVICE_SUBPROTOCOL)
    async with connect(url, subprotocols=[protocol], additional_headers=headers, compression=None) as socket:
        hello = wire.Hello(device, stream, "boot", "run", 0, 1, CHAIN_START.hex())
        await socket.send(wire.encode(hello).decode())
        assert json.loads(await socket.recv())["op"] == "welcome"
        channels = (Channel("x", "Cel", ValueType.FLOAT), Channel("door", None, ValueType.BOOL))
        await socket.send(wire.encode(wire.Schema(channels)).decode())
        yield socket


async def ask(socket: ClientConnection, message: str | bytes | dict[str, Any]) -> dict[str, Any]:
    """Send one message; return the answer."""
    await socket.send(json.dumps(message) if isinstance(message, dict) else message)
    answer: dict[str, Any] = json.loads(await socket.recv())
    return answer


def batch(seq: int, columns: dict[str, Any]) -> dict[str, Any]:
    """Return a batch by hand: one reading a column."""
    count = sum(len(c["v"]) for c in columns.values())
    return {"op": "batch", "seq": seq, "count": count, "t0": str(T0 + seq), "tick": 1, "c": columns}


@pytest.mark.parametrize(
    ("name", "bad", "reason"),
    [
        pytest.param("x", {"dt": [0], "v": ["text"]}, "type_conflict", id="wrong-type"),
        pytest.param("x", {"dt": [0], "v": [None]}, "not_finite", id="null"),
        pytest.param("door", {"dt": [0], "v": [1]}, "type_conflict", id="number-for-bool"),
        pytest.param("nobody", {"dt": [0], "v": [1.0]}, "unknown_channel", id="unknown-channel"),
        pytest.param("../etc/passwd", {"dt": [0], "v": [1.0]}, "bad_name", id="bad-name"),
        pytest.param("x", {"dt": [-T0], "v": [1.0]}, "time_out_of_range", id="1970"),
        pytest.param("x", {"dt": [wire.MAX_TIME_NS - T0], "v": [1.0]}, "time_out_of_range", id="2100"),
    ],
)
async def test_bad_reading_is_rejected_by_reason(hub: HubProcess, name: str, bad: dict[str, Any], reason: str) -> None:
    """The ack names the reading and why; the good readings before, beside and after it are stored."""
    token = enrol(hub, "d")["d"]
    async with conversation(hub, "d", token, "00000000000000d1") as socket:
        await ask(socket, batch(1, {"x": GOOD}))
        beside = {} if name == "x" else {"x": GOOD}
        ack = await ask(socket, batch(2, {name: bad, **beside}))
        await ask(socket, batch(3, {"x": GOOD}))

    assert (ack["stored"], ack["rejected_total"]) == (2, 1)
    assert ack["rejected"] == [{"seq": 2, "channel": name, "index": 0, "reason": reason}]
    rows = hub.get("/v1/readings?match=d/x&from=0")["rows"]
    assert len(rows) == 2 + bool(beside)
    assert [(r["reason"], r["count"]) for r in hub.get("/v1/audit?device=d")["rejections"]] == [(reason, 1)]


async def test_nan_is_rejected_and_its_neighbours_stored(hub: HubProcess) -> None:
    """NaN is not JSON, but devices write it: the reading is refused by reason, the frame is taken."""
    token = enrol(hub, "d")["d"]
    async with conversation(hub, "d", token, "00000000000000d2") as socket:
        text = '{"op":"batch","seq":1,"count":3,"t0":"T0","tick":1,"c":{"x":{"dt":[0,1,2],"v":[1.0,NaN,3.0]}}}'
        ack = await ask(socket, text.replace("T0", str(T0)))

    assert [(r["index"], r["reason"]) for r in ack["rejected"]] == [(1, "not_finite")]
    assert [row[2] for row in hub.get("/v1/readings?match=d/x&from=0")["rows"]] == [1.0, 3.0]


async def test_malformed_frame_is_quarantined_in_order(hub: HubProcess) -> None:
    """A frame whose columns lie is kept whole and acked; the next one is stored."""
    token = enrol(hub, "d")["d"]
    async with conversation(hub, "d", token, "00000000000000d3") as socket:
        ack = await ask(socket, {"op": "batch", "seq": 1, "count": 9, "t0": "soon", "c": {}})
        assert (ack["op"], ack["stored"], ack["rejected_total"]) == ("ack", 1, 9)
        assert (await ask(socket, batch(2, {"x": GOOD})))["stored"] == 2

    assert hub.get("/v1/audit?device=d")["streams"][0]["quarantined"] == 1


async def test_noise_is_answered_and_another_device_never_notices(hub: HubProcess) -> None:
    """Unreadable bytes get a reason, at the fourth the connection ends with 4400; the neighbour goes on."""
    tokens = enrol(hub, "bad", "good")
    async with conversation(hub, "good", tokens["good"], "00000000000000a1") as good:
        async with conversation(hub, "bad", tokens["bad"], "00000000000000b1") as bad:
            answers = [await ask(bad, b"\x00noise") for _ in range(4)]
            with pytest.raises(ConnectionClosed) as ended:
                await bad.recv()
        assert (await ask(good, batch(1, {"x": GOOD})))["stored"] == 1

    assert {a["reason"] for a in answers} == {"unreadable"}
    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code == Close.BAD_MESSAGE


async def test_oversize_frame_ends_only_its_own_connection(hub: HubProcess) -> None:
    """A frame over 256 KiB closes with the code for too large; what was acked before stays."""
    tokens = enrol(hub, "bad", "good")
    async with conversation(hub, "good", tokens["good"], "00000000000000a2") as good:
        async with conversation(hub, "bad", tokens["bad"], "00000000000000b2") as bad:
            assert (await ask(bad, batch(1, {"x": GOOD})))["stored"] == 1
            with pytest.raises(ConnectionClosed) as ended:
                await ask(bad, "x" * (MAX_FRAME_BYTES + 1))
        assert (await ask(good, batch(1, {"x": GOOD})))["stored"] == 1

    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code in (Close.TOO_LARGE, 1009)
    assert len(hub.get("/v1/readings?match=bad/x&from=0")["rows"]) == 1


@pytest.mark.parametrize("credential", ["", "nonsense", "d-unknown.AAAA"])
async def test_unknown_device_or_token_is_refused_in_the_handshake(hub: HubProcess, credential: str) -> None:
    """401 before any WebSocket exists, with words that say what to do."""
    headers = {"Authorization": f"Bearer {credential}"} if credential else {}
    protocol = Subprotocol(wire.DEVICE_SUBPROTOCOL)
    with pytest.raises(InvalidStatus) as refused:
        async with connect(hub.ws_url + wire.DEVICE_PATH, subprotocols=[protocol], additional_headers=headers):
            pass

    assert refused.value.response.status_code == 401
    assert b"token" in (refused.value.response.body or b"")


async def test_token_of_another_device_is_forbidden(hub: HubProcess) -> None:
    """A device cannot speak for another one: 4403, and nothing is stored."""
    token = enrol(hub, "a", "b")["a"]
    with pytest.raises(ConnectionClosed) as ended:
        async with conversation(hub, "b", token, "00000000000000c1"):
            pass

    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code == Close.FORBIDDEN


async def test_revoked_token_ends_within_a_second_and_its_open_batch_is_not_acked(hub: HubProcess) -> None:
    """While the disk is slow a token is ended beside the hub: 4401 in a second, no ack; the new token goes on.

    The journal is held for longer than that, so the batch is still on its way to the disk when the socket is closed.
    """
    from hub.auth import Identities

    token = enrol(hub, "d")["d"]
    async with conversation(hub, "d", token, "00000000000000e2") as socket:
        assert (await ask(socket, batch(1, {"x": GOOD})))["stored"] == 1
        with closing(sqlite3.connect(hub.data / "journal.sqlite3", isolation_level=None)) as journal:
            journal.execute("BEGIN IMMEDIATE")
            await socket.send(json.dumps(batch(2, {"x": GOOD})))
            with closing(Identities(hub.data / "identities.sqlite3")) as identities:
                new_token = identities.rotate_device("d", keep_s=0)
            revoked_s = time.monotonic()
            with pytest.raises(ConnectionClosed) as ended:
                await socket.recv()
            took_s = time.monotonic() - revoked_s
            journal.execute("ROLLBACK")

    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code == Close.UNAUTHENTICATED
    assert took_s < REVOKED_S
    async with conversation(hub, "d", new_token, "00000000000000e3") as socket:
        assert (await ask(socket, batch(1, {"x": GOOD})))["stored"] == 1


async def test_old_token_of_a_rotation_stays_connected_until_its_grace_ends(hub: HubProcess) -> None:
    """A rotation disconnects nobody; when the grace is over the open socket is closed with 4401."""
    from hub.auth import Identities

    token = enrol(hub, "d")["d"]
    async with conversation(hub, "d", token, "00000000000000e4") as socket:
        with closing(Identities(hub.data / "identities.sqlite3")) as identities:
            identities.rotate_device("d", keep_s=2)
        rotated_s = time.monotonic()
        assert (await ask(socket, batch(1, {"x": GOOD})))["stored"] == 1
        with pytest.raises(ConnectionClosed) as ended:
            await socket.recv()
        took_s = time.monotonic() - rotated_s

    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code == Close.UNAUTHENTICATED
    assert 1.9 < took_s < 2 + REVOKED_S


async def test_removed_device_is_disconnected_within_a_second(hub: HubProcess) -> None:
    """``hub devices rm`` beside the running hub ends the open connection with 4401."""
    from hub.auth import Identities

    token = enrol(hub, "d")["d"]
    async with conversation(hub, "d", token, "00000000000000e1") as socket:
        identities = Identities(hub.data / "identities.sqlite3")
        identities.remove_device("d")
        identities.close()
        with pytest.raises(ConnectionClosed) as ended:
            await socket.recv()

    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code == Close.UNAUTHENTICATED
