"""Where stored readings come from: a running hub, or the files of a data folder.

Owns: the two sources behind ``query``, ``export`` and ``audit``; both give the
answers of the REST interface. Place: after `rest`, before `history`.
"""

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from hub.audit import audit_object, take_books
from hub.cli.exit_code import CliError, ExitCode
from hub.cli.output import tell
from hub.cli.rest import Parameters, RestClient
from hub.database import ReadPool
from hub.description import NO_CHANNEL_DESCRIPTION
from hub.devices import Registry, natural_key
from hub.gateway.endpoint import unit_object
from hub.gateway.export import export_chunks
from hub.gateway.quarantine import quarantine_object, raw_object
from hub.history import History
from hub.journal.account import read_account
from hub.journal.base import JournalAccount
from hub.journal.catalog import load_series
from hub.journal.ledger import read_quarantine, read_quarantined
from hub.metadata import read_channels
from hub.model import Series
from hub.query import Query, time_range
from hub.roles import DEFAULT_NAMESPACE, EVERYTHING, SYSTEM_DEVICE
from hub.store.opening import open_store

_CHUNK_BYTES = 256 * 1024


class Source(Protocol):
    """Answers as of the REST interface."""

    def readings(self, parameters: Parameters) -> dict[str, Any]:
        """Return one page of ``/v1/readings``."""

    def export(self, parameters: Parameters) -> AbstractContextManager[Iterable[bytes]]:
        """Give the chunks of ``/v1/export``."""

    def audit(self, device: str | None) -> dict[str, Any]:
        """Return ``/v1/audit``."""

    def quarantine(self, device: str | None) -> list[dict[str, Any]]:
        """Return the frames of ``/v1/quarantine``."""

    def quarantined(self, id: int, max_bytes: int) -> dict[str, Any]:
        """Return one frame of the quarantine with its bytes."""


class RestSource:
    """A running hub."""

    def __init__(self, client: RestClient) -> None:
        self._client = client

    def readings(self, parameters: Parameters) -> dict[str, Any]:
        """Return one page of readings."""
        return self._client.get("/v1/readings", parameters)

    @contextmanager
    def export(self, parameters: Parameters) -> Iterator[Iterable[bytes]]:
        """Give the export as it arrives."""
        with self._client.stream("/v1/export", parameters) as answer:
            yield iter(lambda: answer.read(_CHUNK_BYTES), b"")

    def audit(self, device: str | None) -> dict[str, Any]:
        """Return the audit."""
        return self._client.get("/v1/audit", {"device": device})

    def quarantine(self, device: str | None) -> list[dict[str, Any]]:
        """Return quarantined frames."""
        frames: list[dict[str, Any]] = self._client.get("/v1/quarantine", {"device": device})["frames"]
        return frames

    def quarantined(self, id: int, max_bytes: int) -> dict[str, Any]:
        """Return one frame."""
        return self._client.get(f"/v1/quarantine/{id}", {"bytes": max_bytes})


class FilesSource:
    """The files of a data folder, only read; a hub may run beside.

    Raises:
        CliError: there is no journal or no store in the folder.
    """

    def __init__(self, data: Path) -> None:
        self._journal = data / "journal.sqlite3"
        store = data / "readings.sqlite3"
        for path in (self._journal, store):
            if not path.is_file():
                raise CliError(f"{path}: no such file; --data must be the folder of a hub", ExitCode.NOT_FOUND)
        described = read_channels(data / "metadata.sqlite3")
        self._registry = Registry(
            load_series(self._journal), described=lambda key: described.get(key, NO_CHANNEL_DESCRIPTION)
        )
        self._store = open_store(store)
        self._query = Query(self._registry, self._store)
        self._tell_if_behind()

    def readings(self, parameters: Parameters) -> dict[str, Any]:
        """Return one page of readings."""
        series = self._series(parameters)
        given = {name: str(value) for name, value in parameters.items() if value is not None}
        asked = History(
            given.get("last"), given.get("from"), given.get("to"), given.get("at"), given.get("lookback"),
            given.get("bucket"), given.get("tz"), agg=given.get("agg"), fill=given.get("fill"),
            limit=int(given["limit"]) if "limit" in given else None, page=given.get("page"), raw="raw" in given,
        )  # fmt: skip
        answer = asked.answer(self._query, series, time.time_ns())
        named = [{"device": s.device, "channel": s.channel, **unit_object(s)} for s in answer.series]
        return {"series": named, "columns": answer.columns, "rows": answer.rows, "next": answer.next_page}

    @contextmanager
    def export(self, parameters: Parameters) -> Iterator[Iterable[bytes]]:
        """Give the export a page of rows at a time."""
        series = self._series(parameters)
        start_ns, end_ns = _range(parameters)
        received = parameters.get("received") is not None
        raw = parameters.get("raw") is not None
        pages = self._query.dump(series, start_ns, end_ns, received=received, raw=raw)
        yield export_chunks(series, pages, str(parameters["format"]), received=received, raw=raw)

    def audit(self, device: str | None) -> dict[str, Any]:
        """Return both ledgers, what was declared or refused, and whether they balance."""
        known = [s.id for s in self._registry.by_id.values() if device in (None, s.device)]
        books = take_books(lambda after: self._account(device, after), self._store.account, known)
        # As over the network: the hub's own readings are shown to who names them.
        return audit_object(books, lambda name, _: device is not None or name != SYSTEM_DEVICE, natural_key)

    def quarantine(self, device: str | None) -> list[dict[str, Any]]:
        """Return quarantined frames."""
        with self._reading() as connection:
            return [quarantine_object(entry) for entry in read_quarantine(connection, DEFAULT_NAMESPACE, device)]

    def quarantined(self, id: int, max_bytes: int) -> dict[str, Any]:
        """Return one frame."""
        with self._reading() as connection:
            return raw_object(*read_quarantined(connection, DEFAULT_NAMESPACE, id), max_bytes)

    def close(self) -> None:
        """Close the files."""
        self._store.close()

    def _account(self, device: str | None, after: int) -> JournalAccount:
        with self._reading() as connection:
            return read_account(connection, DEFAULT_NAMESPACE, device, after)

    def _series(self, parameters: Parameters) -> list[Series]:
        match = parameters["match"]
        granted = (*EVERYTHING, SYSTEM_DEVICE)
        return self._query.series(DEFAULT_NAMESPACE, match if isinstance(match, list) else [str(match)], granted)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        pool = ReadPool(self._journal)
        try:
            with pool.connection() as connection:
                yield connection
        except sqlite3.Error as error:
            raise CliError(
                f"{self._journal}: {error}; is this the journal of a hub, and was that started since its upgrade?"
            ) from error
        finally:
            pool.close()

    def _tell_if_behind(self) -> None:
        """The store follows the journal; after a kill what it lacks comes with the next start of the hub."""
        with self._reading() as connection:
            row = connection.execute(
                'SELECT first_offset + n - 1 FROM "commit" ORDER BY first_offset DESC LIMIT 1'
            ).fetchone()
        behind = 0 if row is None else int(row[0]) - self._store.applied
        if behind > 0:
            tell(f"note: {behind} frames are safe in the journal and not yet in the store; start the hub to see them")


def _range(parameters: Parameters) -> tuple[int, int]:
    texts = {name: parameters.get(name) for name in ("from", "to", "last")}
    start, end, last = (None if texts[name] is None else str(texts[name]) for name in ("from", "to", "last"))
    return time_range(start, end, last, time.time_ns())
