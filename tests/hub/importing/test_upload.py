"""A file is sent until all of it is stored, and only what is lacking; every reading is accounted for."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from device_sdk.reading import Value
from device_sdk.wire import CHAIN_START
from hub.errors import BadRequestError, ConflictError, DiskFullError, UnavailableError
from hub.gateway.endpoint import Call
from hub.gateway.http import MAX_BODY_BYTES
from hub.gateway.rest.imports import ImportAnswer, ImportedFrames, store_frames
from hub.importing.report import Report
from hub.importing.row import Blank, Item, Refused, Row
from hub.importing.upload import REQUEST_BYTES, REQUEST_FRAMES, Upload
from hub.roles import Identity, Role
from tests.support.hub_parts import HubParts, hub_parts

ID = "ab" * 16
T0 = 1_700_000_000 * 10**9


class Sender:
    """The way to a hub without HTTP, that may lose requests (``before``) and answers (``after``) by their number."""

    def __init__(self, hub: HubParts) -> None:
        self.hub = hub
        self.requests: list[list[dict[str, Any]]] = []
        self.waits: list[int] = []
        self.before: dict[int, Exception] = {}
        self.after: dict[int, Exception] = {}

    def __call__(self, frames: list[dict[str, Any]]) -> dict[str, Any]:
        number = len(self.requests)
        self.requests.append(frames)
        if number in self.before:
            raise self.before[number]
        identity = Identity("t0", "tests", Role.ADMIN)
        call = Call(self.hub, identity, {"id": ID}, ("**",))
        answer = asyncio.run(store_frames(call, ImportedFrames.model_validate({"frames": frames})))
        ImportAnswer.model_validate(answer)
        if number in self.after:
            raise self.after[number]
        return answer

    def run(self, items: list[Item]) -> Report:
        """Import once and return the report."""
        report = Report()
        for _ in Upload(self, lambda error, attempt: self.waits.append(attempt), report).run(iter(items)):
            pass
        return report


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Sender]:
    """Return the way to an empty hub."""
    with hub_parts(tmp_path) as hub:
        yield Sender(hub)


def rows(count: int, value: Value = 1.0, device: str = "d") -> list[Item]:
    """Return readings of one channel."""
    return [Row(2 + i, device, "t", T0 + i, value) for i in range(count)]


def counts(report: Report) -> tuple[int, int, int, int]:
    """Return what adds up: read = stored + already + refused."""
    assert report.read == report.stored + report.already + report.refused
    return report.read, report.stored, report.already, report.refused


def in_store(hub: HubParts) -> int:
    """Return how many rows there are; none was ever superseded."""
    found = hub.store.counters(list(hub.registry.by_id))
    assert sum(c.superseded for c in found) == 0
    return sum(c.rows for c in found)


def test_second_run_sends_next_to_nothing(sender: Sender) -> None:
    """The first answer about a device says what is stored: the rest of its file is read and not sent."""
    first = sender.run(rows(50_000))
    sent = sum(map(len, sender.requests))
    sender.requests.clear()
    second = sender.run(rows(50_000))

    assert (counts(first), counts(second)) == ((50_000, 50_000, 0, 0), (50_000, 0, 50_000, 0))
    assert (sent, in_store(sender.hub)) == (25, 50_000)
    assert sum(map(len, sender.requests)) <= 10


def test_run_after_a_kill_goes_on_where_it_was(sender: Sender) -> None:
    """Whatever request was the last one, and whether its answer came: each reading is stored once."""
    for number in range(3):
        sender.before = {len(sender.requests) + number: KeyboardInterrupt()}  # type: ignore[dict-item]
        with pytest.raises(KeyboardInterrupt):
            sender.run(rows(50_000))

    last = sender.run(rows(50_000))

    assert in_store(sender.hub) == 50_000
    assert last.stored < 50_000
    assert counts(last)[0] == 50_000


def test_lost_requests_and_answers_are_repeated_and_counted_once(sender: Sender) -> None:
    """Also what the hub refused in an answer that never came is in the report, without its line."""
    items = [*rows(20_000), *rows(10, "text", "e"), *rows(5, 1.0, "e"), Refused(9, "no time"), Blank(9)]
    items += [Row(7, "d", "t", T0 + 10**6 + i, "text") for i in range(3)]
    sender.before = {0: UnavailableError("away"), 3: DiskFullError("full")}
    sender.after = {1: UnavailableError("cut"), 4: UnavailableError("cut"), 5: ConflictError("late")}

    report = sender.run(items)

    read, _, _, refused = counts(report)
    assert (read, refused, report.blank) == (20_019, 9, 1)
    assert in_store(sender.hub) == 20_010
    assert len(report.shown) == refused - report.refused_before
    assert sender.waits == [1, 2, 1, 2, 3]


def test_refused_readings_have_their_lines(sender: Sender) -> None:
    """The hub names a place in a frame; the report the line of the file."""
    items = rows(3)
    items.insert(2, Row(77, "d", "t", T0 + 9, "text"))

    report = sender.run(items)

    assert report.shown == [Refused(77, "type_conflict", "d/t")]
    assert counts(report) == (4, 3, 0, 1)
    assert counts(sender.run(items)) == (4, 0, 3, 1)


def test_other_readings_under_the_same_name_are_refused(sender: Sender) -> None:
    """A reader that changed without a new version must not go on in the middle: the chain shows it."""
    sender.run(rows(5))

    with pytest.raises(ConflictError, match="other readings"):
        sender.run(rows(5, 2.0))


def test_what_is_no_trouble_of_the_way_ends_the_import(sender: Sender) -> None:
    """A credential that may not do it does not get better by waiting."""
    sender.before = {0: BadRequestError("no")}

    with pytest.raises(BadRequestError):
        sender.run(rows(5))
    assert sender.waits == []


def test_channels_of_a_file_are_bounded(sender: Sender) -> None:
    """A hub has each device in memory for good: a column of values taken for names is refused, with its lines."""
    items: list[Item] = [Row(2 + i, f"d{i % 5}", "t", T0 + i, 1.0) for i in range(10)]
    report = Report()

    for _ in Upload(sender, lambda error, attempt: None, report, 3).run(iter(items)):
        pass

    assert counts(report) == (10, 6, 0, 4)
    assert [refused.line for refused in report.shown] == [5, 6, 10, 11]
    assert "right column" in report.shown[0].reason
    assert len(sender.hub.registry.by_id) == 3


def test_requests_are_bounded() -> None:
    """Many devices and long texts: no request weighs more than the hub takes, or holds more frames."""
    items: list[Item] = [Row(i, f"d{i}", "t", T0, 1.0) for i in range(1200)]
    items += [Row(i, "text", "t", T0 + i, "x" * 1000) for i in range(2000)]

    requests: list[list[dict[str, Any]]] = []

    def post(frames: list[dict[str, Any]]) -> dict[str, Any]:
        requests.append(frames)
        new = {"stored": 0, "chain": CHAIN_START.hex(), "accepted": 0, "rejected": 0}
        return {"before": [{"device": f["device"], **new} for f in frames], "refused": [], "units": []}

    list(Upload(post, _never, Report()).run(iter(items)))

    assert max(map(len, requests)) == REQUEST_FRAMES
    assert max(len(orjson.dumps(request)) for request in requests) <= REQUEST_BYTES < MAX_BODY_BYTES
    assert sum(map(len, requests)) > 1200


def _never(error: Exception, attempt: int) -> None:
    raise error
