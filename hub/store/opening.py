"""Which store a data folder has, and opening it.

Owns: the kind of a file, and what a hub opens that was told to keep columns or rows. Place: above the stores, used by
`app` and by the command line on the files of a hub. Columns and their migration are imported by those who use them:
numpy costs a hub of rows 15 MB and 80 ms.
"""

import logging
import sqlite3
from pathlib import Path
from typing import Literal

from hub.database import ReadPool
from hub.errors import StoreError
from hub.renewal import is_replaced
from hub.store import embedded
from hub.store.base import Store
from hub.store.embedded import EmbeddedStore

_log = logging.getLogger("hub.store.opening")

Kind = Literal["columns", "rows"]


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
    return "columns" if version > embedded.SCHEMA_VERSION else "rows"


def open_store(path: Path) -> Store:
    """Open a store as it is, a new one as rows; raises as the store does."""
    return _open(path, kind_of(path) or "rows")


def open_as(path: Path, kind: Kind | None) -> Store:
    """Open the store of a hub; rows become columns if that is what is wanted, and stay if there is no room for both.

    Args:
        kind: None: as the file is.

    Raises:
        StoreError: rows are wanted and there are columns; the columns are finished and cannot take their place, which
            the next start tries again; or as the store does.
    """
    if kind is None:
        return open_store(path)
    found = kind_of(path)
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
    return _open(path, kind)


def _open(path: Path, kind: Kind) -> Store:
    if kind == "rows":
        return EmbeddedStore(path)
    from hub.store.columns import ColumnStore

    return ColumnStore(path)
