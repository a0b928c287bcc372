"""The ledger of a simulation against a hub, or against its files: waits until the store has all, then compares.

Place: after `rest` and `source`, before `simulation`.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hub.cli.exit_code import CliError
from hub.cli.rest import RestClient
from hub.cli.source import FilesSource, RestSource, Source
from simulators.ledger import load, load_baseline
from simulators.verdict import Verdict, compare

# The store follows the journal within milliseconds; after a restart it may have minutes of frames to take.
STORE_LIMIT_S = 120.0
_POLL_S = 0.05


def compare_with_hub(client: RestClient, folder: Path) -> Verdict:
    """Return the verdict on a ledger's folder.

    Raises:
        CliError: the store did not catch up within `STORE_LIMIT_S`.
    """
    _wait_for_store(client)
    return _compare_with(RestSource(client), folder)


def compare_with_files(data: Path, folder: Path) -> Verdict:
    """Return the verdict on a ledger's folder by the files of a data folder; no hub need run.

    Raises:
        CliError: these are not the files of a hub.
    """
    source = FilesSource(data)
    try:
        return _compare_with(source, folder)
    finally:
        source.close()


def _compare_with(source: Source, folder: Path) -> Verdict:
    return compare(load(folder), _exported(source), source.audit(None), load_baseline(folder))


def _wait_for_store(client: RestClient) -> None:
    head = _offset(client.get("/healthz")["head"])
    deadline = time.monotonic() + STORE_LIMIT_S
    while _offset(client.get("/healthz")["store_applied"]) < head:
        if time.monotonic() > deadline:
            raise CliError(f"the store lags behind the journal for {STORE_LIMIT_S:.0f} s; look at the hub's log")
        time.sleep(_POLL_S)


def _offset(value: int | str) -> int:
    """Return the offset of a number or of a cursor ``run.offset``."""
    return int(str(value).rpartition(".")[2])


def _exported(source: Source) -> Iterator[dict[str, Any]]:
    torn = b""
    # The ledger knows what devices sent, not what somebody made of it with a scale.
    with source.export({"format": "ndjson", "match": ["**"], "raw": "true"}) as chunks:
        for chunk in chunks:
            *lines, torn = (torn + chunk).split(b"\n")
            for line in lines:
                yield json.loads(line)
