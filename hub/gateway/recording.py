"""Which requests the log of changes has, and in which words.

Owns: from a request and its outcome to an `Entry`. Place: above `endpoint`, below `http` and `rest`. Must not: write
anything of a body that is not named in `_TOLD`: passwords and tokens travel there.
"""

import asyncio
import logging
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from pydantic import BaseModel

from hub.change_log import ChangeLog, Entry
from hub.errors import ForbiddenError, HubError, UnauthenticatedError
from hub.gateway.access import Peer
from hub.gateway.endpoint import Endpoint
from hub.roles import DEFAULT_NAMESPACE, Identity

_log = logging.getLogger("hub.gateway")

# Of a question: what it was done to. Nothing else of a body is written down.
_TOLD = ("device", "devices", "name", "role", "match", "channel", "tag", "site", "fingerprint")
_MOST_NAMES = 3
_ID = re.compile(r"[a-z]{0,2}[0-9a-f]{1,20}")


def refused(what: str, address: str) -> Entry:
    """Return the entry of a credential that the hub does not know; it belongs to no namespace but the hub's own."""
    return Entry(what, outcome=UnauthenticatedError.reason, peer=address)


class Record:
    """One request on its way: ``async with Record(...) as record`` around the answer; writes before it is sent.

    A log that cannot be written is said in the hub's log and holds up nothing: what was asked for is done by then.
    """

    def __init__(self, log: ChangeLog, endpoint: Endpoint, peer: Peer, path: Mapping[str, str]) -> None:
        self._log = log
        self._endpoint = endpoint
        self._peer = peer
        self._path = path
        self.identity: Identity | None = None
        self.question: BaseModel | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._endpoint.is_change or (self._endpoint.is_part and error is None):
            return
        if isinstance(error, UnauthenticatedError):
            # Written where the credential was looked at.
            return
        entry = self._entry("ok" if error is None else error.reason if isinstance(error, HubError) else "failed")
        if isinstance(error, ForbiddenError):
            self._log.refused(entry)
            return
        await write(self._log, entry)

    def _entry(self, outcome: str) -> Entry:
        who = self.identity
        return Entry(
            f"{self._endpoint.method} {self._endpoint.path}",
            _target(self._path, self.question),
            outcome,
            who="" if who is None else who.name or who.id,
            role="" if who is None else who.role.value,
            credential="" if who is None else who.id,
            peer=self._peer.address,
            namespace=DEFAULT_NAMESPACE if who is None else who.namespace,
        )


async def write(log: ChangeLog, entry: Entry) -> None:
    """Write one entry, or say in the hub's log that it is missing."""
    try:
        await asyncio.to_thread(log.record, entry)
    except HubError as error:
        _log.error("change not in the log what=%s who=%s outcome=%s: %s", entry.what, entry.who, entry.outcome, error)


def _id(text: str) -> str:
    """Return an id without what was pasted after it; what is none may be a secret."""
    id_ = text.partition(".")[0]
    return id_ if _ID.fullmatch(id_) else ""


def _target(path: Mapping[str, str], question: BaseModel | None) -> str:
    told = [_id(value) if name == "id" else value for name, value in path.items()]
    for name in _TOLD:
        value = getattr(question, name, None)
        if isinstance(value, str) and value:
            told.append(value)
        elif isinstance(value, list) and value:
            names = " ".join(map(str, value[:_MOST_NAMES]))
            told.append(names if len(value) <= _MOST_NAMES else f"{names} and {len(value) - _MOST_NAMES} more")
    return " ".join(told)
