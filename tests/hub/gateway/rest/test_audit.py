"""`hub.gateway.rest.audit`: both ledgers, for those who may see them."""

import httpx
import pytest

from device_sdk import wire
from hub.gateway.http import make_app
from hub.roles import Role
from tests.hub.gateway.conftest import T0, S, get
from tests.support.hub_parts import HubParts, http_client


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
