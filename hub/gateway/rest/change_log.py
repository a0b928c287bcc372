"""The log of changes: who did what, when, from where.

Place: `hub.gateway.rest`, above `hub.change_log`.
"""

import asyncio
import time
from typing import Annotated

from pydantic import Field

from hub.change_log import MAX_TEXT, Filter
from hub.gateway.endpoint import Answer, Call, Endpoint, JsonObject, Question, When
from hub.query import parse_time
from hub.roles import Verb

MAX_PAGE = 1000
_Text = Annotated[str, Field(max_length=MAX_TEXT)]


class LogQuestion(Question):
    """Which entries: each text that is given must be contained in its field."""

    who: _Text = ""
    what: _Text = ""
    device: Annotated[str, Field(max_length=MAX_TEXT, description="Part of what it was done to.")] = ""
    since: When = None
    before: Annotated[int, Field(ge=0, description="Entries older than this id: `next` of the page before.")] = 0
    after: Annotated[int, Field(ge=0, description="Entries newer than this id.")] = 0
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 100


class LogEntry(Answer):
    """One change or refusal; ``count`` is above 1 where refusals alike are counted."""

    id: int
    time_ns: str
    who: str
    role: str
    credential: str
    peer: str
    what: str
    target: str
    outcome: str
    count: int


class LogCut(Answer):
    """What the log does not hold any more: how many entries, the last of them of when."""

    count: int
    until_ns: str


class LogPage(Answer):
    """Entries of the caller's namespace, newest first; ``next`` is null at the end."""

    entries: list[LogEntry]
    next: int | None
    cut: LogCut | None


async def list_changes(call: Call, query: LogQuestion) -> JsonObject:
    """List who changed what, newest first."""
    log = call.hub.change_log
    since_ns = 0 if query.since is None else parse_time(query.since, time.time_ns())
    wanted = Filter(query.who, query.what, query.device, since_ns, query.before, query.after)
    found = await asyncio.to_thread(log.entries, call.namespace, query.limit, wanted)
    cut = await asyncio.to_thread(log.cut, call.namespace)
    return {
        "entries": [
            {
                "id": e.id, "time_ns": str(e.time_ns), "who": e.who, "role": e.role, "credential": e.credential,
                "peer": e.peer, "what": e.what, "target": e.target, "outcome": e.outcome, "count": e.count,
            }
            for e in found
        ],
        "next": found[-1].id if len(found) == query.limit else None,
        "cut": None if cut is None else {"count": cut.count, "until_ns": str(cut.until_ns)},
    }  # fmt: skip


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/v1/log", "Who changed what", Verb.MANAGE, LogQuestion, LogPage, list_changes, whole=True),
)
