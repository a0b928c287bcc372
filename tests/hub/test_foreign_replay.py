"""A foreign message of the quarantine is read again for whom its sender may speak today, and stored once."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from device_sdk.reading import INT_MAX
from device_sdk.wire import HUB_STREAM
from hub.decode.base import Decoded, DecodeError, Decoder, ForeignReading, Publication, Said
from hub.decode.dispatch import Decoders
from hub.foreign_replay import ForeignMessages, timed
from hub.gateway.http import make_app
from hub.journal.base import QuarantineEntry
from hub.model import FOREIGN_STREAM, StreamKey
from hub.replay import Outcome, Replay, Replays
from hub.roles import Role
from hub.validate import MalformedError
from tests.support.hub_parts import HubParts, http_client, hub_parts

pytestmark = pytest.mark.asyncio
NOW = 1_700_000_000 * 10**9


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubParts]:
    """Return a hub with a device, and a gateway with an accepted child."""
    with hub_parts(tmp_path) as parts:
        parts.identities.add_device("lamp")
        parts.children.set_rules("gate")
        parts.children.accept("gate", "kitchen")
        yield parts


def put_aside(hub: HubParts, payload: bytes, *, sender: str = "lamp", topic: str = "kitchen/x", kind: str = "") -> int:
    """Put a message into quarantine, as a receiver does; return its id."""
    publication = Publication(topic, payload, NOW, content_type=kind)
    hub.foreign.quarantine("default", sender, publication, "not read: yet", lambda why: None)
    return hub.journal.head


async def replayed(hub: HubParts, payload: bytes, *, sender: str = "lamp", topic: str = "kitchen/x") -> Replay:
    """Put a message aside and replay it."""
    return await hub.replays.replay("default", put_aside(hub, payload, sender=sender, topic=topic))


def stored(hub: HubParts) -> dict[str, list[tuple[int, object]]]:
    """Return what is stored, by device and channel."""
    return {
        f"{one.device}/{one.channel}": [
            (row.time_ns - NOW, row.value) for row in hub.store.read([one.id], 0, 2**62, 99)
        ]
        for one in hub.registry.by_id.values()
    }


async def test_message_that_is_read_now_is_stored_once(hub: HubParts) -> None:
    """On the hub's own stream, with the time at which it came; a device's is the device's, whatever its topic says."""
    id_ = put_aside(hub, b'[{"n": "t", "u": "Cel", "v": 21.5}, {"n": "t", "v": 22}, {"n": "t", "t": -1, "v": 20}]')
    first, second = await asyncio.gather(*(hub.replays.replay("default", id_) for _ in range(2)))

    assert first == second == Replay(Outcome.REPLAYED, 3, 0)
    assert await hub.replays.replay("default", id_) == Replay(Outcome.ALREADY)
    assert stored(hub) == {"lamp/t": [(-(10**9), 20), (0, 21.5), (1, 22)]}
    assert hub.registry.device("default", "lamp").channels["t"].unit == "Cel"
    assert hub.streams.get(StreamKey("default", "lamp", HUB_STREAM)).mark.accepted == 3


async def test_ledger_balances_before_and_after(hub: HubParts) -> None:
    """Put aside it counts as malformed, whatever words the decoder had; replayed as stored."""
    id_ = put_aside(hub, b"m f=1,g=2")
    (before,) = hub.journal.rejections("default", "lamp")
    assert (before.reason, before.count) == ("malformed", 1)
    await hub.replays.replay("default", id_)

    _, token = hub.identities.add_token(Role.ADMIN)
    async with http_client(make_app(hub), token=token) as admin:
        found = (await admin.get("/v1/audit", params={"device": "lamp"})).json()
    (device,) = found["devices"]
    assert (found["balanced"], device["replayed"], device["accepted"], device["produced"]) == (True, 1, 2, 2)


async def test_message_of_a_gateway_is_of_its_children(hub: HubParts) -> None:
    """One that is accepted; the entry is counted where it lies."""
    assert await replayed(hub, b"21.5", sender="gate", topic="kitchen/t") == Replay(Outcome.REPLAYED, 1, 0)
    assert stored(hub) == {"kitchen/t": [(0, 21.5)]}
    assert list(hub.journal.replays("default")) == [StreamKey("default", "gate", FOREIGN_STREAM)]

    other = await replayed(hub, b"21.5", sender="gate", topic="attic/t")
    several = await replayed(hub, b"m,host=kitchen f=1\nm,host=attic f=1", sender="gate")
    assert (other.outcome, "attic waits" in other.why) == (Outcome.MALFORMED, True)
    assert (several.outcome, "2 devices" in several.why) == (Outcome.MALFORMED, True)


@pytest.mark.parametrize(
    ("payload", "topic", "why"),
    [
        (b"\xff\x00", "kitchen/x", "neither text"), (b"[", "kitchen/x", "no JSON"),
        (b"", "kitchen/x", "no readings"), (b"m f=1\nrubbish", "x", "line 2"),
    ],
)  # fmt: skip
async def test_what_is_still_no_message_stays(hub: HubParts, payload: bytes, topic: str, why: str) -> None:
    """And says why; nothing is stored, it may be replayed after the next fix."""
    answer = await replayed(hub, payload, topic=topic)

    assert (answer.outcome, why in answer.why) == (Outcome.MALFORMED, True), answer
    assert hub.journal.quarantine("default")[0].replayed_ns is None
    assert stored(hub) == {}


class Broken:
    """A decoder of somebody else: what it gives is no value."""

    name = "broken"

    def decode(self, publication: Publication) -> Decoded:
        """Give what no store takes."""
        return Decoded(self.name, (Said("x", (ForeignReading("t", object()),)),))  # type: ignore[arg-type]


async def test_decoder_of_somebody_else_may_give_anything(hub: HubParts) -> None:
    """It stays in quarantine, and the hub goes on."""

    def make(device: str) -> Decoders:
        plugin: type[Decoder] = Broken
        return Decoders(device, plugins=[plugin])

    messages = ForeignMessages(make, hub.identities, hub.children)
    replays = Replays(hub.streams, hub.registry, hub.journal, hub.store_frames, lambda: NOW, messages)
    answer = await replays.replay("default", put_aside(hub, b"1"))

    assert (answer.outcome, "no frame" in answer.why) == (Outcome.MALFORMED, True)


async def test_damaged_record_stays(hub: HubParts) -> None:
    """It is no message."""
    entry = QuarantineEntry(7, StreamKey("default", "lamp", FOREIGN_STREAM), 3, "x", NOW, 1, 2, None)
    with pytest.raises(MalformedError, match="not a record"):
        hub.messages.read(entry, b"{}")


async def test_admins_see_topic_and_payload(hub: HubParts) -> None:
    """As they came, apart; replayed by REST it is done."""
    id_ = put_aside(hub, b'{"ENERGY": {"Power": 9}}', topic="tele/plug/SENSOR", kind="application/json")
    _, token = hub.identities.add_token(Role.ADMIN)
    async with http_client(make_app(hub), token=token) as admin:
        shown = (await admin.get(f"/v1/quarantine/{id_}")).json()
        done: httpx.Response = await admin.post(f"/v1/quarantine/{id_}/replay", json={})

    assert (shown["topic"], shown["content_type"]) == ("tele/plug/SENSOR", "application/json")
    assert (shown["text"], shown["reason"]) == ('{"ENERGY": {"Power": 9}}', "not read: yet")
    assert (done.json()["outcome"], done.json()["accepted"]) == ("replayed", 1)


async def test_readings_without_a_time_are_set_apart_by_channel() -> None:
    """Those with one keep it."""
    readings = [ForeignReading("a", 1), ForeignReading("b", 1), ForeignReading("a", 2), ForeignReading("a", 3, INT_MAX)]

    assert [r.time_ns for r in timed(readings, NOW)] == [NOW, NOW, NOW + 1, INT_MAX]


async def test_decode_error_is_a_reason(hub: HubParts) -> None:
    """Of whatever decoder."""

    class Refusing(Decoders):
        def decode(self, publication: Publication) -> Decoded:
            raise DecodeError("not today")

    messages = ForeignMessages(Refusing, hub.identities, hub.children)
    entry = QuarantineEntry(7, StreamKey("default", "lamp", FOREIGN_STREAM), 3, "x", NOW, 1, 2, None)
    with pytest.raises(MalformedError, match="not today"):
        messages.read(entry, Publication("t", b"1", NOW).to_bytes())
