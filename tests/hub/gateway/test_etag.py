"""`hub.gateway.etag`: an answer that the asker holds is not read or sent again."""

import asyncio
from collections.abc import Callable

import httpx
import pytest

from hub.gateway.http import make_app
from hub.metadata import Edit
from hub.model import SeriesKey
from hub.roles import Role
from hub.store.base import Store
from tests.hub.gateway.conftest import T0, TEMPERATURE, S
from tests.support.gateway import serving
from tests.support.hub_parts import HubParts

MS = 10**6
# The newest reading of pump-2/temperature is at 61 s.
ENDED = {"match": "pump-2/temperature", "from": str(T0), "to": str(T0 + 10 * S)}
PATHS = ("/v1/readings", "/v1/export")


class Unread:
    """A store that may be asked for revisions, and for nothing else."""

    def __init__(self, store: Store) -> None:
        self.applied = store.applied
        self.revisions = store.revisions


async def ask(client: httpx.AsyncClient, path: str, tag: str | None = None, **query: str) -> httpx.Response:
    """Ask, with a tag when one is held."""
    headers = {} if tag is None else {"If-None-Match": tag}
    return await client.get(path, params=query or ENDED, headers=headers)


@pytest.mark.asyncio
@pytest.mark.parametrize("path", PATHS)
async def test_what_is_held_is_not_read_again(hub: HubParts, admin: httpx.AsyncClient, path: str) -> None:
    """The tag of the answer before gives 304 without a body, and history is not touched; a list of tags does too."""
    first = await ask(admin, path)
    tag = first.headers["etag"]
    store, hub.store = hub.store, Unread(hub.store)  # type: ignore[assignment]
    again = await ask(admin, path, f'"other", {tag}')
    hub.store = store
    other = await ask(admin, path, '"other"')

    assert first.status_code == 200
    assert tag.startswith('W/"')
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert other.content == first.content


def late(hub: HubParts) -> None:
    """Feed a reading of the range after newer ones."""
    hub.feed(hub.connect("pump-2"), ("temperature", T0 + 2 * S, 1.0))


def correct(hub: HubParts) -> None:
    """Write a stored instant again."""
    hub.feed(hub.connect("pump-2"), ("temperature", T0 + S, 1.0))


def erase(hub: HubParts) -> None:
    """Erase the channel."""
    hub.store.erase([hub.registry.by_key[SeriesKey("default", "pump-2", "temperature")].id])


def drop(hub: HubParts) -> None:
    """Drop what retention would."""
    hub.store.drop_before([hub.registry.by_key[SeriesKey("default", "pump-2", "temperature")].id], T0 + 7200 * S)


def scale(hub: HubParts) -> None:
    """Give the channel a scale."""
    hub.metadata.change(Edit(SeriesKey("default", "pump-2", "temperature"), {"scale": 2.0}), "admin")
    hub.describe()


def unit(hub: HubParts) -> None:
    """Give the channel another unit."""
    hub.metadata.change(Edit(SeriesKey("default", "pump-2", "temperature"), {"unit": "K"}), "admin")
    hub.describe()


@pytest.mark.asyncio
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("change", [late, correct, erase, drop, scale, unit], ids=lambda change: change.__name__)
async def test_what_changes_the_answer_changes_the_tag(
    hub: HubParts, admin: httpx.AsyncClient, path: str, change: Callable[[HubParts], None]
) -> None:
    """Late, corrected, erased, dropped, another scale or unit: the tag held is of no use, the body is new."""
    first = await ask(admin, path)
    change(hub)
    second = await ask(admin, path, first.headers["etag"])

    assert second.status_code == 200
    assert second.headers["etag"] != first.headers["etag"]
    assert second.content != first.content


@pytest.mark.asyncio
async def test_live_readings_behind_the_range_keep_the_tag(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """A range that ended keeps its tag while the series goes on; a question without an end does not."""
    endless = {"match": "pump-2/temperature", "from": str(T0)}
    first, open_first = await ask(admin, PATHS[0]), await ask(admin, PATHS[0], **endless)
    hub.feed(hub.connect("pump-2"), ("temperature", T0 + 62 * S, 1.0))
    second = await ask(admin, PATHS[0], first.headers["etag"])
    open_second = await ask(admin, PATHS[0], open_first.headers["etag"], **endless)

    assert second.status_code == 304
    assert (open_second.status_code, len(open_second.json()["rows"])) == (200, 4)


@pytest.mark.asyncio
async def test_only_ranges_that_ended_are_worth_a_place_in_a_cache(admin: httpx.AsyncClient) -> None:
    """They may be kept, and are asked for again each time; others are not kept. No answer is good for a while."""
    ended = await ask(admin, PATHS[0], to="2020-01-01T00:00:00Z")
    still_open = await ask(admin, PATHS[0], to="2100-01-01T00:00:00Z")

    assert ended.headers["cache-control"] == "private, no-cache"
    assert still_open.headers["cache-control"] == "no-store"


@pytest.mark.asyncio
async def test_what_looks_behind_its_range_changes_with_it(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """A line to the next reading behind the range is part of an integral: live readings may change that."""
    integral = ENDED | {"bucket": "10s", "agg": "integral"}
    mean = ENDED | {"bucket": "10s", "agg": "mean"}
    first, plain = await ask(admin, PATHS[0], **integral), await ask(admin, PATHS[0], **mean)
    hub.feed(hub.connect("pump-2"), ("temperature", T0 + 61 * S - MS, 500.0))
    second = await ask(admin, PATHS[0], first.headers["etag"], **integral)
    again = await ask(admin, PATHS[0], plain.headers["etag"], **mean)

    assert (second.status_code, again.status_code) == (200, 304)
    assert second.json()["rows"] != first.json()["rows"]


@pytest.mark.asyncio
async def test_buckets_that_are_filled_until_now_change_with_the_time(admin: httpx.AsyncClient) -> None:
    """Without an end, empty buckets go on: nothing came, and the answer is longer all the same."""
    filled = {"match": "pump-2/temperature", "from": str(T0), "bucket": "1d", "fill": "null"}
    first = await ask(admin, PATHS[0], **filled)
    second = await ask(admin, PATHS[0], first.headers["etag"], **filled)
    ended = await ask(admin, PATHS[0], **filled, to=str(T0 + 10 * S))
    held = await ask(admin, PATHS[0], ended.headers["etag"], **filled, to=str(T0 + 10 * S))

    assert (second.status_code, held.status_code) == (200, 304)


@pytest.mark.asyncio
async def test_readings_too_little_late_to_count_change_the_tag(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """Behind a range that ends just before the newest reading, what is 10 ms out of order is not late: it counts."""
    close = {"match": "pump-2/temperature", "from": str(T0), "to": str(T0 + 61 * S - MS)}
    first = await ask(admin, PATHS[0], **close)
    hub.feed(hub.connect("pump-2"), ("temperature", T0 + 61 * S - 2 * MS, 1.0))
    second = await ask(admin, PATHS[0], first.headers["etag"], **close)

    assert (second.status_code, len(second.json()["rows"])) == (200, 3)


@pytest.mark.asyncio
async def test_readings_after_an_erasure_change_the_tag(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """After an erasure nothing is late, so every reading counts."""
    erase(hub)
    first = await ask(admin, PATHS[0])
    hub.feed(hub.connect("pump-2"), ("temperature", T0 + S, 1.0))
    second = await ask(admin, PATHS[0], first.headers["etag"])

    assert (second.status_code, len(second.json()["rows"])) == (200, 1)


@pytest.mark.asyncio
async def test_a_series_that_matches_later_changes_the_tag(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """A pattern's answer names its series: a new one makes another answer, also when all its readings lie outside."""
    wide = ENDED | {"match": "*/temperature"}
    first = await ask(admin, PATHS[0], **wide)
    pump3 = hub.connect("pump-3", stream="c" * 16)
    hub.feed(pump3, ("temperature", T0 + 3600 * S, 1.0), channels=(TEMPERATURE,))
    second = await ask(admin, PATHS[0], first.headers["etag"], **wide)

    assert second.status_code == 200
    assert len(second.json()["series"]) == 2


@pytest.mark.asyncio
async def test_each_question_has_its_own_tag(admin: httpx.AsyncClient) -> None:
    """Order, page, range, buckets, format and path: what is asked is in the tag."""
    questions: list[tuple[str, dict[str, str]]] = [
        ("/v1/readings", {}),
        ("/v1/readings", {"order": "desc"}),
        ("/v1/readings", {"limit": "1"}),
        ("/v1/readings", {"bucket": "1s"}),
        ("/v1/readings", {"bucket": "1s", "agg": "max"}),
        ("/v1/readings", {"from": str(T0 + 1)}),
        ("/v1/readings", {"bucket": "1s", "tz": "Europe/Brussels"}),
        ("/v1/readings", {"bucket": "1s", "fill": "null"}),
        ("/v1/export", {}),
        ("/v1/export", {"format": "ndjson"}),
        ("/v1/export", {"received": "true"}),
    ]

    answers = await asyncio.gather(*(ask(admin, path, **(ENDED | more)) for path, more in questions))

    assert len({answer.headers["etag"] for answer in answers}) == len(questions)


@pytest.mark.asyncio
async def test_local_buckets_have_another_tag_after_a_start(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """The system may have other rules for the zone by then; what no zone has a part in keeps its tag."""
    local = ENDED | {"bucket": "1d", "tz": "Africa/Casablanca"}
    before = [(await ask(admin, PATHS[0], **query)).headers["etag"] for query in (local, ENDED)]
    hub.started_ns += 1
    after = [
        (await ask(admin, PATHS[0], tag, **query)).status_code
        for tag, query in zip(before, (local, ENDED), strict=True)
    ]

    assert after == [200, 304]


@pytest.mark.asyncio
async def test_a_tag_is_of_one_namespace(hub: HubParts, admin: httpx.AsyncClient) -> None:
    """The same names in another namespace: its tag is another, the first's is answered with its own readings."""
    _, token = hub.identities.add_token(Role.ADMIN, namespace="other")
    stranger = hub.connect("pump-2", stream="d" * 16, namespace="other")
    hub.feed(stranger, ("temperature", T0, 9.5), ("temperature", T0 + S, 9.5), channels=(TEMPERATURE,))
    first = await ask(admin, PATHS[0])
    admin.headers["Authorization"] = f"Bearer {token}"
    second = await ask(admin, PATHS[0], first.headers["etag"])

    assert second.status_code == 200
    assert [row[2] for row in second.json()["rows"]] == [9.5, 9.5]


@pytest.mark.asyncio
async def test_nothing_is_sent_again_over_a_connection(hub: HubParts) -> None:
    """Through the server a 304 has the tag and no body, and the connection goes on."""
    _, token = hub.identities.add_token(Role.ADMIN)
    async with serving(make_app(hub)) as port:
        base, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=base, headers=headers) as client:
            first = await ask(client, PATHS[1])
            again = await ask(client, PATHS[1], first.headers["etag"])
            late(hub)
            changed = await ask(client, PATHS[1], first.headers["etag"])

    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert (changed.status_code, len(changed.text.splitlines())) == (200, 4)
