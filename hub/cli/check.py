"""The ledger of a simulation against the hub: waits until the store has all, then compares.

Place: after `rest`, before `simulation`.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hub.cli.exit_code import CliError
from hub.cli.rest import RestClient
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
    return compare(load(folder), _exported(client), client.get("/v1/audit"), load_baseline(folder))


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


def _exported(client: RestClient) -> Iterator[dict[str, Any]]:
    with client.stream("/v1/export", {"format": "ndjson", "match": ["**"]}) as answer:
        for line in answer:
            yield json.loads(line)
