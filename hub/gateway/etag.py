"""Whether an answer about history can still be what the asker holds: its ``ETag``, told without reading history.

Owns: `answer_version`. Place: above `endpoint`, used by `rest.readings`.

Theory of operation. A tag is made of the question, the series that it is about and how they are shown, and their
revisions in the store. When the newest reading of a series lies behind the range, what arrives in order cannot change
the answer; then its count of accepted readings is left out, and the tag holds while live data go on. What is late,
corrects, is erased or dropped has counters of its own; sums that a policy deletes have none, so a tag is of one day.
An answer that looks at what comes behind its range has no end here.

The newest times are taken first, then the store catches up with them, then it is asked for revisions, then history is
read. So a tag is never of a later state than its answer, at worst of an earlier one, and then the next request reads
again. Tags are weak for that reason, and because a store may sum the same readings in another order.

There is no ``max-age``: a late reading may change any range at any time, so whoever keeps an answer must ask.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import orjson
from pydantic import BaseModel
from starlette.responses import Response

from hub.gateway.endpoint import Call, version, wait_for_store
from hub.history import Reach
from hub.model import LATE_TOLERANCE_NS, Series
from hub.store.base import Revision

# Two answers of one hub with the same tag by chance: never, up to 2**64 of them.
_TAG_BYTES = 16
_DAY_NS = 86400 * 10**9


@dataclass(frozen=True, slots=True)
class AnswerVersion:
    """The version of one answer; ``is_held``: the asker has it already."""

    headers: Mapping[str, str]
    is_held: bool

    def not_modified(self) -> Response:
        """Return the answer that says so."""
        return Response(status_code=304, headers=self.headers)


async def answer_version(
    call: Call, path: str, question: BaseModel, series: Sequence[Series], reach: Reach
) -> AnswerVersion:
    """Wait for the store, then return the version of what it will answer.

    Args:
        path: which endpoint's form the answer has.
        reach: what ``question`` is of, resolved.

    Raises:
        UnavailableError: the store is too far behind.
    """
    newest = {s.id: time_ns for s, time_ns, _ in call.hub.query.latest(series, raw=True)}
    await wait_for_store(call.hub)
    revisions = await asyncio.to_thread(call.hub.store.revisions, [s.id for s in series])
    about = [
        [s.id, s.device, s.channel, s.effective().unit, str(s.scaling), s.shown_type, s.described.kind,
         _counts(revision, newest.get(s.id), reach.end_ns)]
        for s, revision in zip(series, revisions, strict=True)
    ]  # fmt: skip
    # A hub restored from a backup counts again from there: `run` is another then.
    now_ns = time.time_ns()
    whole = [
        version(),
        call.hub.streams.run,
        now_ns // _DAY_NS,
        # The rules of a zone are read once; a start may come with others.
        0 if getattr(question, "tz", None) is None else call.hub.started_ns,
        path,
        question.model_dump(mode="json"),
        tuple(reach),
        call.namespace,
        about,
    ]
    tag = f'W/"{blake2b(orjson.dumps(whole), digest_size=_TAG_BYTES).hexdigest()}"'
    # What has not ended is another answer soon: not worth a place in a browser's cache.
    control = "private, no-cache" if reach.end_ns <= now_ns else "no-store"
    return AnswerVersion({"ETag": tag, "Cache-Control": control}, _holds(call, tag))


def _counts(revision: Revision, newest_ns: int | None, end_ns: int) -> list[int]:
    """Return the counters of a series that can change an answer up to ``end_ns``."""
    accepted, *others = revision
    # What is older than the newest by less than the tolerance does not count as late. A series that was erased has no
    # newest reading in the store: nothing would be late.
    is_behind = newest_ns is not None and newest_ns - LATE_TOLERANCE_NS >= end_ns and not revision[2]
    return others if is_behind else [accepted, *others]


def _holds(call: Call, tag: str) -> bool:
    held = call.peer.headers.get("if-none-match", "")
    return tag.removeprefix("W/") in (part.strip().removeprefix("W/") for part in held.split(","))
