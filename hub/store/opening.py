"""Which store a data folder has, and opening it.

Owns: the kind of a file, and what a hub opens that was told to keep columns or rows, or where its server is. Place:
above the stores, used by `app` and by the command line on the files of a hub. Columns, their migration and servers are
imported by those who use them: numpy costs a hub of rows 15 MB and 80 ms.
"""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final, Literal

from hub.database import ReadPool
from hub.errors import StoreError
from hub.renewal import is_replaced
from hub.store import embedded, sidecar, victoria_file
from hub.store.base import Store
from hub.store.embedded import EmbeddedStore
from hub.store.remote import RemoteStore
from hub.store.sidecar import Sidecar

_log = logging.getLogger("hub.store.opening")

Kind = Literal["columns", "rows", "remote", "victoriametrics"]
# How each server's address begins.
SCHEMES = (
    "influxdb+http://", "influxdb+https://", "influxdb2+http://", "influxdb2+https://",
    "victoriametrics+http://", "victoriametrics+https://",
)  # fmt: skip
# Beside what the server's own file holds: where its readings are.
_PLACE = "CREATE TABLE IF NOT EXISTS place(id INTEGER PRIMARY KEY CHECK(id = 1), address TEXT NOT NULL)"
_VICTORIA: Final = "victoriametrics"


def kind_of(path: Path) -> Kind | None:
    """Return what a file holds; None when there is no store in it.

    Raises:
        StoreError: it is no database.
    """
    if not path.exists():
        return None
    pool = ReadPool(path)
    try:
        with pool.connection() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        raise StoreError(f"cannot open {path}: {error}; restore a backup or use another data directory") from error
    finally:
        pool.close()
    if not version:
        return None
    if version >= victoria_file.SCHEMA_VERSION:
        return _VICTORIA
    if version >= sidecar.SCHEMA_VERSION:
        return "remote"
    return "columns" if version > embedded.SCHEMA_VERSION else "rows"


def open_store(path: Path) -> Store:
    """Open a store as it is, a new one as rows; raises as the store does, and when its readings are on a server."""
    found = kind_of(path)
    if found in ("remote", _VICTORIA):
        raise StoreError(
            f"the readings of {path} are on a server: start the hub with --store and its address, and ask the hub"
        )
    return _open(path, found or "rows")


def open_as(path: Path, kind: str | None, *, token: str = "") -> Store:
    """Open the store of a hub; rows become columns if that is what is wanted, and stay if there is no room for both.

    Args:
        kind: ``rows``, ``columns`` or a server's address; None: as the file is.
        token: for a server.

    Raises:
        StoreError: rows are wanted and there are columns; the columns are finished and cannot take their place, which
            the next start tries again; a server is wanted and there are readings, or the other way round; or as the
            store does.
        ConfigError: the address cannot be one, or what speaks to such a server is not installed.
    """
    if kind is None:
        return open_store(path)
    found = kind_of(path)
    if kind.startswith(SCHEMES):
        return _open_remote(path, kind, token, found)
    if found in ("remote", _VICTORIA):
        return open_store(path)
    if found == "columns" and kind == "rows":
        raise StoreError(f"{path} holds column chunks, which do not become rows again: start without --store rows")
    if found == "rows" and kind == "columns":
        from hub.store.migration import migrate

        try:
            migrate(path)
        except (StoreError, OSError, sqlite3.Error) as error:
            if is_replaced(path):
                raise StoreError(f"{path} became columns, which cannot take its name: {error}; start again") from error
            _log.error("readings stay rows reason=%s; tried again at the next start", error)
            kind = "rows"
    return _open(path, "columns" if kind == "columns" else "rows")


def _open_remote(path: Path, address: str, token: str, found: Kind | None) -> Store:
    is_victoria = address.startswith(_VICTORIA)
    if found not in (None, _VICTORIA if is_victoria else "remote"):
        raise StoreError(
            f"{path} holds readings, which do not move to a server, or to another one: give the hub another data "
            "folder, or start it as before"
        )
    store = _open_victoria(path, address, token) if is_victoria else _open_influx(path, address, token)
    try:
        _note_place(path, address.rstrip("/"))
    except sqlite3.Error as error:
        store.close()
        raise StoreError(f"cannot open {path}: {error}") from error
    return store


def _note_place(path: Path, address: str) -> None:
    """Say when readings were begun elsewhere: they are found only if the server was moved with its data."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(_PLACE)
        known = database.execute("SELECT address FROM place").fetchone()
        if known is None or known[0] != address:
            database.execute("INSERT OR REPLACE INTO place VALUES (1, ?)", (address,))
    if known is not None and known[0] != address:
        _log.error(
            "the store's address changed from=%s to=%s: readings so far are in answers only if they were moved, too; "
            "hub audit shows what is missing",
            known[0], address,
        )  # fmt: skip


def _open_victoria(path: Path, address: str, token: str) -> Store:
    from hub.store.victoria import VictoriaStore
    from hub.store.victoria_client import VictoriaClient

    return VictoriaStore(path, VictoriaClient(address, token))


def _open_influx(path: Path, address: str, token: str) -> Store:
    from hub.store.flux import FluxEngine
    from hub.store.influx import InfluxEngine, parse_address

    where = parse_address(address)
    engine = FluxEngine(where, token) if where.is_v2 else InfluxEngine(where, token)
    try:
        return RemoteStore(engine, Sidecar(path))
    except BaseException:
        engine.close()
        raise


def _open(path: Path, kind: Kind) -> Store:
    if kind == "rows":
        return EmbeddedStore(path)
    from hub.store.columns import ColumnStore

    return ColumnStore(path)
