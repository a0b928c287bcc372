"""`hub.gateway.rest.quarantine`: what could not be taken apart is not lost."""

from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from device_sdk import wire
from device_sdk.columns import encode_batch, to_columns
from device_sdk.reading import Channel, Reading, ValueType
from hub.gateway.rest.quarantine import ReplayAnswer
from hub.model import SeriesKey, StreamKey
from hub.store.remote import RemoteStore
from hub.store.sidecar import Sidecar
from tests.hub.gateway.conftest import T0, get
from tests.support.frames import FrameMaker, numbered
from tests.support.hub_parts import HubParts
from tests.support.memory_engine import MemoryEngine


@pytest.mark.asyncio
async def test_quarantine_is_listed_shown_replayed_and_deleted(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """A malformed frame can be looked at; as long as it is malformed it stays and the answer says why."""
    hub.send(hub.connect("pump-3", stream="d" * 16), b'{"op":"batch","seq":1,"count":9,"t0":"soon","c":{}}')

    (listed,) = (await get(admin, "/v1/quarantine", device="pump-3"))["frames"]
    shown = (await admin.get(f"/v1/quarantine/{listed['id']}", params={"bytes": 5})).json()
    replayed = (await admin.post(f"/v1/quarantine/{listed['id']}/replay")).json()
    deleted = await admin.delete(f"/v1/quarantine/{listed['id']}")

    assert (listed["count"], listed["size"], listed["replayed_ns"]) == (9, 51, None)
    assert (shown["text"], shown["hex"], shown["truncated"]) == ('{"op"', None, True)
    assert (replayed["outcome"], replayed["accepted"]) == ("malformed", 0)
    assert "batch" in replayed["why"]
    assert deleted.status_code == 204
    assert (await get(admin, "/v1/quarantine"))["frames"] == []
    (stream,) = (await get(admin, "/v1/audit", device="pump-3"))["streams"]
    assert (stream["rejected"], stream["quarantined"], stream["complete"]) == (9, 1, False)


@pytest.mark.asyncio
async def test_audit_balances_after_a_replay(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """accepted + rejected − replayed over all streams is what the device produced, and its stream is complete again."""
    frame = FrameMaker().quarantined("pump-2", encode_batch(to_columns(1, [Reading("temperature", T0 + 7, 9.5)])), 1)
    hub.journal.append([replace(frame, key=StreamKey("default", "pump-2", "e" * 16))], [])
    hub.streams.committed(hub.journal.read(hub.journal.head - 1, 1000))

    answer = (await admin.post(f"/v1/quarantine/{hub.journal.head}/replay")).json()
    again = (await admin.post(f"/v1/quarantine/{answer['id']}/replay")).json()

    ReplayAnswer.model_validate(answer)
    assert [(a["outcome"], a["accepted"]) for a in (answer, again)] == [("replayed", 1), ("already", 0)]
    streams = {s["stream"]: s for s in (await get(admin, "/v1/audit", device="pump-2"))["streams"]}
    device, own = streams["e" * 16], streams[wire.HUB_STREAM]
    assert (device["rejected"], device["replayed"], device["complete"]) == (1, 1, True)
    assert (own["accepted"], own["rejected"], own["replayed"], own["complete"]) == (1, 0, 0, True)


@pytest.mark.asyncio
async def test_readings_that_a_server_refused_are_listed(
    hub: HubParts, admin: httpx.AsyncClient, tmp_path: Path
) -> None:
    """Each with the server's words, of the device asked for; a store of the hub's own refuses none."""
    assert await get(admin, "/v1/refused") == {"readings": []}
    engine, maker = MemoryEngine(), FrameMaker()
    engine.poison = {13.0}
    hub.registry.declare("default", "pump", [Channel("t", type=ValueType.FLOAT)])
    (series,) = hub.registry.device("default", "pump").channels.values()
    hub.store = RemoteStore(engine, Sidecar(tmp_path / "remote.sqlite3"))  # type: ignore[assignment]
    maker.series[SeriesKey("default", "pump", "t")] = series
    hub.store.write(numbered([maker.batch("pump", [("t", T0, 1.0), ("t", T0 + 1, 13.0)])]))

    (refused,) = (await get(admin, "/v1/refused", device="pump"))["readings"]

    assert (refused["device"], refused["channel"], refused["time_ns"]) == ("pump", "t", str(T0 + 1))
    assert (refused["value"], refused["reason"]) == (13.0, "400: cannot take 13.0")
    assert (await get(admin, "/v1/refused", device="door"))["readings"] == []
    hub.store.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("id_", ["0", "99", "x", "-1", "9" * 40])
async def test_unknown_quarantine_id_is_not_found(admin: httpx.AsyncClient, id_: str) -> None:
    """Whatever stands in the place of an id, the answer is 404 with words."""
    answers = [
        await admin.get(f"/v1/quarantine/{id_}"),
        await admin.post(f"/v1/quarantine/{id_}/replay"),
        await admin.delete(f"/v1/quarantine/{id_}"),
    ]

    assert [a.status_code for a in answers] == [404, 404, 404]
    assert all("no quarantined frame" in a.json()["error"]["message"] for a in answers)
