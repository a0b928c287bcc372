"""Where metadata comes from: a running hub, or the file of a data folder.

Owns: the two sources behind ``hub metadata``; both give the answers of the REST interface. Place: after `rest`, before
`metadata`.
"""

import getpass
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from device_sdk.reading import MAX_CHANNEL_NAME, MAX_DEVICE_NAME
from hub.cli.exit_code import CliError, ExitCode
from hub.cli.options import recorded
from hub.cli.rest import RestClient
from hub.devices import natural_key
from hub.errors import BadRequestError, HubError
from hub.gateway.rest.metadata import change_object, channel_metadata
from hub.journal.catalog import load_series
from hub.live.patterns import PatternSet
from hub.metadata import MAX_EDITS, Edit, Metadata
from hub.metadata_table import TableRow
from hub.model import Series, SeriesKey
from hub.query import parse_time
from hub.roles import DEFAULT_NAMESPACE

Answer = dict[str, Any]
# Edits of one request: with all fields at their longest its body stays below the hub's 1 MiB.
_EDITS_EACH = 100
# Of a name, one character more than it may have is enough to be refused as its row.
_DEVICE_CHARS, _CHANNEL_CHARS = MAX_DEVICE_NAME + 1, MAX_CHANNEL_NAME + 1


class MetadataSource(Protocol):
    """Answers as of the REST interface."""

    def listing(self, match: Sequence[str]) -> Answer:
        """Return ``/v1/metadata``."""

    def change(self, device: str, channel: str | None, body: Mapping[str, Any]) -> None:
        """Do a PATCH of a device or a channel."""

    def history(self, device: str, channel: str | None, limit: int, at: str | None) -> Answer:
        """Return the history of a device or a channel."""

    def change_all(self, rows: Sequence[TableRow], *, is_trial: bool) -> list[Answer]:
        """Return an outcome for each row."""


class RestMetadata:
    """A running hub."""

    def __init__(self, client: RestClient) -> None:
        self._client = client

    def listing(self, match: Sequence[str]) -> Answer:
        """Return what matches."""
        found: Answer = {"devices": [], "channels": []}
        after: str | None = None
        while True:
            page = self._client.get("/v1/metadata", {"match": list(match), "after": after})
            for name, rows in found.items():
                rows += page[name]
            after = page["next"]
            if after is None:
                return found

    def change(self, device: str, channel: str | None, body: Mapping[str, Any]) -> None:
        """Change fields."""
        self._client.patch(_path(device, channel), body)

    def history(self, device: str, channel: str | None, limit: int, at: str | None) -> Answer:
        """Return changes."""
        return self._client.get(f"{_path(device, channel)}/history", {"limit": limit, "at": at})

    def change_all(self, rows: Sequence[TableRow], *, is_trial: bool) -> list[Answer]:
        """Change rows, some in each request."""
        outcomes: list[Answer] = []
        for begin in range(0, len(rows), _EDITS_EACH):
            edits = [
                {
                    "device": r.device[:_DEVICE_CHARS],
                    "channel": None if r.channel is None else r.channel[:_CHANNEL_CHARS],
                    "fields": dict(r.fields),
                }
                for r in rows[begin : begin + _EDITS_EACH]
            ]
            outcomes += self._client.post("/v1/metadata", {"edits": edits, "dry_run": is_trial})["outcomes"]
        return outcomes


class FilesMetadata:
    """The file of a data folder; a hub may run beside and sees what is changed."""

    def __init__(self, data: Path) -> None:
        if not data.is_dir():
            raise CliError(
                f"{data} is no folder; start the hub once with `hub serve --data {data}`", ExitCode.NOT_FOUND
            )
        journal = data / "journal.sqlite3"
        self._series = {
            SeriesKey(s.namespace, s.device, s.channel): s for s in (load_series(journal) if journal.is_file() else ())
        }
        self._metadata = Metadata(data / "metadata.sqlite3")
        self._who = f"{getpass.getuser()} at the files"

    def listing(self, match: Sequence[str]) -> Answer:
        """Return what matches."""
        wanted = _patterns(match)
        keys = {*self._series, *self._metadata.subjects(DEFAULT_NAMESPACE)}
        found = sorted(
            (
                key
                for key in keys
                if key.namespace == DEFAULT_NAMESPACE and wanted.matches(key.device, key.channel or "*")
            ),
            key=lambda key: (natural_key(key.device), natural_key(key.channel)),
        )
        devices = dict.fromkeys(key.device for key in found)
        held = self._metadata.fields
        return {
            "devices": [{"device": d, "set": held(SeriesKey(DEFAULT_NAMESPACE, d, ""))} for d in devices],
            "channels": [channel_metadata(key, held(key), self._described(key)) for key in found if key.channel],
        }

    def change(self, device: str, channel: str | None, body: Mapping[str, Any]) -> None:
        """Change fields."""
        fields = dict(body)
        add, remove = fields.pop("add_tags", ()), fields.pop("remove_tags", ())
        self._metadata.change(self._edit(device, channel, fields, add, remove), self._who)

    def history(self, device: str, channel: str | None, limit: int, at: str | None) -> Answer:
        """Return changes."""
        subject = SeriesKey(DEFAULT_NAMESPACE, device, channel or "")
        found = self._metadata.history(subject, limit)
        held = None if at is None else self._metadata.held_at(subject, parse_time(at, time.time_ns()))
        since_ns = None if found.since_ns is None else str(found.since_ns)
        return {"changes": list(map(change_object, found.changes)), "since_ns": since_ns, "held": held}

    def change_all(self, rows: Sequence[TableRow], *, is_trial: bool) -> list[Answer]:
        """Change rows, some in each transaction."""
        outcomes: list[Answer] = []
        for begin in range(0, len(rows), MAX_EDITS):
            edits = [self._edit(r.device, r.channel, r.fields) for r in rows[begin : begin + MAX_EDITS]]
            for result in self._metadata.change_all(edits, self._who, is_trial=is_trial):
                if isinstance(result, HubError):
                    outcomes.append({"changed": [], "error": str(result)})
                else:
                    outcomes.append({"changed": [change.field for change in result], "error": None})
        return outcomes

    def close(self) -> None:
        """Close the file."""
        self._metadata.close()

    def _edit(
        self, device: str, channel: str | None, fields: Mapping[str, Any], add: Sequence[str] = (),
        remove: Sequence[str] = (),
    ) -> Edit:  # fmt: skip
        subject = SeriesKey(DEFAULT_NAMESPACE, device, channel or "")
        series = self._series.get(subject)
        return Edit(subject, fields, add, remove, None if series is None else series.type)

    def _described(self, key: SeriesKey) -> Series:
        series = self._series.get(key) or Series(0, *key)
        series.described = self._metadata.channel(key)
        return series


@contextmanager
def open_metadata(client: RestClient | None, data: Path | None) -> Iterator[MetadataSource]:
    """Give the running hub, or with ``data`` the file of a folder."""
    if data is None:
        assert client is not None, "without a folder there is a hub"
        yield RestMetadata(client)
        return
    source = FilesMetadata(data)
    try:
        with recorded(data):
            yield source
    finally:
        source.close()


def _path(device: str, channel: str | None) -> str:
    return f"/v1/devices/{device}" + ("" if channel is None else f"/channels/{channel}") + "/metadata"


def _patterns(match: Sequence[str]) -> PatternSet:
    try:
        return PatternSet(tuple(match) or ("**",))
    except ValueError as error:
        raise BadRequestError(str(error)) from error
