"""`hub.gateway.endpoints`: what each question answers, over real parts; every answer fits its declared model."""

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from device_sdk import wire
from device_sdk.columns import encode_batch, to_columns
from device_sdk.reading import Channel, Reading, ValueType
from hub.auth import Role
from hub.errors import JournalError
from hub.gateway.endpoints import ENDPOINTS
from hub.gateway.http import make_app
from hub.gateway.resources import ReplayAnswer
from hub.model import StreamKey
from tests.support.frames import FrameMaker
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


@pytest.mark.asyncio
async def test_health_names_run_head_and_store(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Whoever watches the hub sees that it takes readings and how far the store is."""
    answer = await get(admin, "/healthz")

    assert (answer["status"], answer["run"], answer["head"], answer["store_applied"]) == (
        "ok",
        hub.journal.run.id,
        2,
        2,
    )


@pytest.mark.asyncio
async def test_health_of_a_failed_hub_is_503(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """A hub whose journal failed says so with its status code."""
    hub.failed = JournalError("commit failed")

    response = await admin.get("/healthz")

    assert (response.status_code, response.json()["status"]) == (503, "failed")


@pytest.mark.asyncio
async def test_devices_come_in_natural_order_with_newest_values(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """State, alert, channels with limits and newest values; a device only enrolled is offline and empty."""
    hub.identities.add_device("pump-1")
    hub.feed(hub.connect("pump-2", stream="c" * 16), ("temperature", T0 + 62 * S, 33.0))

    answer = await get(admin, "/v1/devices")

    assert [d["device"] for d in answer["devices"]] == ["pump-1", "pump-2", "pump-10"]
    enrolled, pump2, _ = answer["devices"]
    assert (enrolled["state"], enrolled["channels"], enrolled["last_ns"]) == ("offline", [], None)
    assert (pump2["state"], pump2["connected"], pump2["alert"]) == ("online", True, True)
    assert pump2["channels"][1] == {
        "channel": "temperature", "label": "Temperature", "unit": "Cel", "type": "float", "every_s": 1.0,
        "range": [0.0, 30.0], "latest": {"time_ns": str(T0 + 62 * S), "value": 33.0},
    }  # fmt: skip
    assert answer["head"] == hub.streams.position()


@pytest.mark.asyncio
async def test_wrong_clocks_are_flagged(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Beyond 2 s a device's clock is said to be wrong, and by how much; a clock that said nothing is null."""
    hub.registry.device("default", "pump-2").skew_ns = -3_200_400_000

    pump2, pump10 = (await get(admin, "/v1/devices"))["devices"]

    assert (pump2["skew_s"], pump2["skewed"]) == (-3.2, True)
    assert (pump10["skew_s"], pump10["skewed"]) == (None, False)


@pytest.mark.asyncio
async def test_channels_and_latest_follow_the_pattern(admin: httpx.AsyncClient) -> None:
    """`match` selects; integers beyond 2**53 travel as text."""
    channels = await get(admin, "/v1/channels", match="pump-2")
    latest = await get(admin, "/v1/latest", match=["*/counter", "pump-10"])

    assert [c["channel"] for c in channels["channels"]] == ["counter", "temperature"]
    assert latest["readings"] == [
        {"device": "pump-2", "channel": "counter", "unit": None, "time_ns": str(T0 + 1),
         "time": "2026-11-22T19:33:20.000000001Z", "value": str(2**60)},
        {"device": "pump-10", "channel": "door", "unit": None, "time_ns": str(T0 + 2 * S),
         "time": "2026-11-22T19:33:22Z", "value": True},
    ]  # fmt: skip


@pytest.mark.asyncio
async def test_readings_are_paged_without_gap_or_double(admin: httpx.AsyncClient) -> None:
    """Following `next` gives every row once, in order."""
    answer = await get(admin, "/v1/readings", match="pump-2", limit=1)
    rows = answer["rows"]
    while answer["next"] is not None:
        answer = await get(admin, "/v1/readings", match="pump-2", limit=1, page=answer["next"])
        rows += answer["rows"]

    assert answer["columns"] == ["time_ns", "series", "value"]
    assert [s["channel"] for s in answer["series"]] == ["counter", "temperature"]
    assert rows == [
        [str(T0), 1, 20.5], [str(T0 + 1), 0, str(2**60)], [str(T0 + S), 1, 31.5], [str(T0 + 61 * S), 1, 22.5],
    ]  # fmt: skip


@pytest.mark.asyncio
async def test_readings_in_range_and_descending(admin: httpx.AsyncClient) -> None:
    """`from` is in, `to` is out; the newest come first when asked."""
    answer = await get(
        admin,
        "/v1/readings",
        match="pump-2/temperature",
        order="desc",
        **{"from": str(T0 + S), "to": "2026-11-22T19:34:21Z"},
    )

    assert answer["rows"] == [[str(T0 + S), 0, 31.5]]


@pytest.mark.asyncio
async def test_readings_say_when_they_were_received(admin: httpx.AsyncClient) -> None:
    """Asked for, each row ends with its receive time; of a bucket there is none to say."""
    begun = time.time_ns()
    answer = await get(admin, "/v1/readings", match="pump-2/temperature", received=True)
    export = await admin.get("/v1/export", params={"match": "pump-10", "received": "true"})
    bucket = await admin.get("/v1/readings", params={"received": "true", "bucket": "1m"})

    assert answer["columns"] == ["time_ns", "series", "value", "received_ns"]
    assert all(begun - 60 * S < int(row[3]) <= begun for row in answer["rows"])
    assert export.text.splitlines()[0].endswith(",unit,received")
    assert bucket.status_code == 400


@pytest.mark.asyncio
async def test_readings_in_buckets(admin: httpx.AsyncClient) -> None:
    """One row per bucket that has readings, with the functions asked for, in their order."""
    answer = await get(
        admin,
        "/v1/readings",
        match="pump-2/temperature",
        bucket="1m",
        agg="max,avg,count",
        **{"from": str(T0 - 60 * S)},
    )

    start = T0 // (60 * S) * 60 * S
    assert answer["columns"] == ["time_ns", "series", "max", "avg", "count"]
    assert answer["rows"] == [[str(start), 0, 31.5, 26.0, 2], [str(start + 60 * S), 0, 22.5, 22.5, 1]]


@pytest.mark.asyncio
async def test_history_waits_for_the_store_and_says_when_it_is_behind(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """History never silently leaves out what was acked before the question."""
    hub.streams.head += 1
    hub.consumer.is_behind = True

    response = await admin.get("/v1/readings", params={"last": "1h"})

    assert (response.status_code, response.json()["error"]["reason"]) == (503, "unavailable")


@pytest.mark.asyncio
async def test_export_streams_every_reading(admin: httpx.AsyncClient) -> None:
    """The file holds the readings of the range in time order."""
    response = await admin.get("/v1/export", params={"match": "**", "format": "csv"})

    lines = response.text.splitlines()
    assert response.headers["content-type"].startswith("text/csv")
    assert lines[0] == "device,channel,time,time_unix_ms,value,unit"
    assert lines[1] == "pump-2,temperature,2026-11-22T19:33:20Z,1795376000000,20.5,Cel"
    assert len(lines) == 6


@pytest.mark.asyncio
async def test_audit_names_losses_and_refusals(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Both ledgers: a stream with a gap is not complete, a refused reading is named, counters add up."""
    pump2 = hub.connect("pump-2")
    hub.send(pump2, wire.encode(wire.Gap(2, 7, "spool_full", {"temperature": (T0, T0 + S)})))
    hub.feed(pump2, ("temperature", 5, 1.0), ("temperature", T0 + S, 30.0))

    answer = await get(admin, "/v1/audit")

    first, second = answer["streams"]
    assert (first["device"], first["stored"], first["accepted"], first["dropped"]) == ("pump-2", 3, 5, 7)
    assert (first["rejected"], first["complete"], second["complete"]) == (1, False, True)
    (gap,) = answer["gaps"]
    assert int(gap.pop("received_ns")) > T0 - 10**18
    assert gap == {
        "device": "pump-2", "stream": "00000000000000aa", "seq": 2, "count": 7, "reason": "spool_full",
        "explanation": "the device's spool was full while it could not send",
        "ranges": {"temperature": [str(T0), str(T0 + S)]},
    }  # fmt: skip
    (rejection,) = answer["rejections"]
    assert (rejection["channel"], rejection["reason"], rejection["count"]) == ("temperature", "time_out_of_range", 1)
    counters = {s["channel"]: (s["accepted"], s["superseded"], s["rows"]) for s in answer["series"]}
    assert counters["temperature"] == (4, 1, 3)
    assert (answer["balanced"], answer["behind"]) == (True, 0)


@pytest.mark.asyncio
async def test_audit_of_a_store_that_is_behind_says_so(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """What is safe in the journal and not yet in the store is in flight: no imbalance, and no reason to fail."""
    pump2 = hub.connect("pump-2")
    hub.consumer.is_behind = True
    hub.feed(pump2, ("temperature", T0 + 100 * S, 1.0), ("temperature", T0 + 101 * S, 2.0))

    answer = await get(admin, "/v1/audit", device="pump-2")

    assert (answer["balanced"], answer["behind"], answer["devices"][0]["in_flight"]) == (True, 1, 2)


@pytest.mark.asyncio
async def test_backlog_drained_newest_first_is_late_and_latest_stays(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """What comes behind something newer is stored, counted as late, and never the newest."""
    pump2 = hub.connect("pump-2")
    for first in (140, 120, 100):
        hub.feed(pump2, *(("temperature", T0 + (first + n) * S, float(first + n)) for n in range(20)))

    devices, latest = await get(admin, "/v1/devices", match="pump-2"), await get(admin, "/v1/latest", match="pump-2/t*")
    audit = await get(admin, "/v1/audit", device="pump-2")

    assert latest["readings"][0]["value"] == 159.0
    assert [d["late"] for d in devices["devices"]] == [40]
    assert {s["channel"]: (s["late"], s["rows"]) for s in audit["series"]} == {
        "counter": (0, 1),
        "temperature": (40, 63),
    }


@pytest.mark.asyncio
async def test_audit_of_one_device(admin: httpx.AsyncClient) -> None:
    """`device` narrows; a name that can be none is an error."""
    answer = await get(admin, "/v1/audit", device="pump-10")
    bad = await admin.get("/v1/audit", params={"device": "no/name"})

    assert [s["device"] for s in answer["streams"]] == ["pump-10"]
    assert bad.status_code == 400


@pytest.mark.asyncio
async def test_enrolment_life_cycle(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Enrol, enrol again (409), rotate (the old token ends), remove (the credential ends, history stays)."""
    made = await admin.post("/v1/devices", json={"device": "new-1"})
    again = await admin.post("/v1/devices", json={"device": "new-1"})
    rotated = await admin.post("/v1/devices/new-1/rotate")
    was_known = hub.identities.authenticate(made.json()["token"])
    now_known = hub.identities.authenticate(rotated.json()["token"])
    removed = await admin.delete("/v1/devices/new-1")
    missing = await admin.delete("/v1/devices/new-1")

    assert [r.status_code for r in (made, again, rotated, removed, missing)] == [201, 409, 200, 204, 404]
    assert (was_known, now_known is not None) == (None, True)
    assert hub.identities.authenticate(rotated.json()["token"]) is None


@pytest.mark.asyncio
async def test_bulk_enrolment_is_all_or_nothing(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """One bad name and no device is enrolled."""
    bad = await admin.post("/v1/devices/bulk", json={"devices": ["ok-1", "not ok"]})
    good = await admin.post("/v1/devices/bulk", json={"devices": ["ok-1", "ok-2"]})

    assert bad.status_code == 400
    assert [d["device"] for d in good.json()["devices"]] == ["ok-1", "ok-2"]


@pytest.mark.asyncio
async def test_token_life_cycle(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """A token is made, listed without its secret, and ended."""
    made = await admin.post("/v1/tokens", json={"role": "watcher", "match": ["pump-*"], "name": "wall"})
    listed = await get(admin, "/v1/tokens")
    removed = await admin.delete(f"/v1/tokens/{made.json()['id']}")

    assert (made.status_code, removed.status_code) == (201, 204)
    assert made.json()["token"] not in str(listed)
    assert [(t["name"], t["match"]) for t in listed["tokens"] if t["role"] == "watcher"] == [("wall", ["pump-*"])]
    assert hub.identities.authenticate(made.json()["token"]) is None


@pytest.mark.asyncio
async def test_token_with_a_bad_pattern_is_refused(admin: httpx.AsyncClient) -> None:
    """A pattern that can match nothing is an error when the token is made, not when it is used."""
    response = await admin.post("/v1/tokens", json={"role": "watcher", "match": ["a/b/c"]})

    assert response.status_code == 400


@pytest.mark.asyncio
async def test_watcher_sees_only_what_is_granted(hub: HubParts) -> None:
    """Patterns of the token bound every listing, history, export and audit."""
    hub.identities.add_device("pump-1")
    _, token = hub.identities.add_token(Role.WATCHER, ["pump-2/counter"])

    async with http_client(make_app(hub), token=token) as client:
        devices = await get(client, "/v1/devices")
        readings = await get(client, "/v1/readings", match="**")
        export = await client.get("/v1/export")
        audit = await get(client, "/v1/audit")

    assert [(d["device"], [c["channel"] for c in d["channels"]]) for d in devices["devices"]] == [
        ("pump-2", ["counter"])
    ]
    assert readings["series"] == [{"device": "pump-2", "channel": "counter", "unit": None}]
    assert len(export.text.splitlines()) == 2
    assert [s["channel"] for s in audit["series"]] == ["counter"]
    assert [s["device"] for s in audit["streams"]] == ["pump-2"]


@pytest.mark.asyncio
async def test_other_namespaces_are_invisible(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """The namespace comes from the credential; nothing of another one shows."""
    hub.feed(hub.connect("secret-1", stream="d" * 16, namespace="other"), ("x", T0, 1.0))

    devices, audit = await get(admin, "/v1/devices"), await get(admin, "/v1/audit")
    export = await admin.get("/v1/export")

    assert "secret-1" not in str(devices) + str(audit) + export.text


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"from": "0001-01-01T00:00:00Z", "to": "9999-12-31T00:00:00Z"}, 200),
        ({"last": "99999999999999w"}, 200),
        ({"page": "9999999999999999999"}, 200),
        ({"bucket": "9999999999999999w"}, 400),
    ],
)
async def test_numbers_beyond_64_bits_are_answered(
    admin: httpx.AsyncClient, query: dict[str, str], status: int
) -> None:
    """A range wider than time itself is all there is; a bucket that long is the asker's mistake, not the hub's."""
    response = await admin.get("/v1/readings", params=query)

    assert response.status_code == status


@pytest.mark.asyncio
async def test_audit_hides_channels_that_are_not_granted(hub: HubParts) -> None:
    """Refusals and lost ranges of other channels of a visible device stay hidden; counts of the device do not."""
    pump = hub.connect("pump-2")
    hub.feed(pump, ("temperature", T0 + 70 * S, "hot"), ("counter", T0 + 70 * S, "many"))
    ranges = {"temperature": (T0, T0 + S), "counter": (T0, T0 + S)}
    hub.send(pump, wire.encode(wire.Gap(hub.next_seq(pump), 4, "spool_full", ranges)))
    _, token = hub.identities.add_token(Role.WATCHER, ["pump-2/counter"])

    async with http_client(make_app(hub), token=token) as client:
        audit = await get(client, "/v1/audit")

    assert [r["channel"] for r in audit["rejections"]] == ["counter"]
    assert [(g["count"], list(g["ranges"])) for g in audit["gaps"]] == [(4, ["counter"])]


@pytest.mark.asyncio
async def test_device_enrolled_again_is_connected_after_its_old_connection_ends(
    hub: HubParts, admin: httpx.AsyncClient
) -> None:
    """Connections are counted by their begins and ends alone, whatever happens to the credential between."""
    await admin.post("/v1/devices", json={"device": "pump-3"})
    old = hub.connect("pump-3")
    await admin.delete("/v1/devices/pump-3")
    old.closed()
    await admin.post("/v1/devices", json={"device": "pump-3"})
    hub.connect("pump-3")

    answer = await get(admin, "/v1/devices", match="pump-3")

    assert [(d["device"], d["connected"]) for d in answer["devices"]] == [("pump-3", True)]


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
