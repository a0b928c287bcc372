"""Servers for the stores that have one: started when first needed, a new database for each test.

InfluxDB 2.x is no program that is started here: ``INFLUXDB_V2_URL``, ``INFLUXDB_V2_ORG`` and ``INFLUXDB_V2_TOKEN`` name
a server that may be written to (`deploy/influxdb`); each test makes a bucket and deletes it.
"""

import json
import os
import urllib.request
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from hub.store.base import Store
from hub.store.flux import FluxEngine
from hub.store.influx import InfluxEngine, parse_address
from hub.store.remote import RemoteStore
from hub.store.sidecar import Sidecar
from tests.support.influxdb import PROGRAM, Influxd

_numbers = count(1)


@pytest.fixture(scope="session")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    """A real InfluxDB."""
    if PROGRAM is None:
        pytest.skip("influxd is not installed: apt-get install influxdb")
    with Influxd(tmp_path_factory.mktemp("influxd")) as server:
        yield server


@pytest.fixture
def influx_store(influxd: Influxd, tmp_path: Path) -> Store:
    """A store in a database of its own."""
    name = f"test{next(_numbers)}"
    influxd.ask(f"CREATE DATABASE {name}")
    address = parse_address(f"influxdb+{influxd.url}/{name}")
    return RemoteStore(InfluxEngine(address), Sidecar(tmp_path / "remote.sqlite3"))


@pytest.fixture
def influx2_store(tmp_path: Path) -> Iterator[Store]:
    """A store in a bucket of its own on the 2.x server that the environment names."""
    url, org, token = (os.environ[f"INFLUXDB_V2_{name}"] for name in ("URL", "ORG", "TOKEN"))

    def ask(method: str, path: str, body: object = None) -> dict[str, Any]:
        headers = {"Authorization": f"Token {token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: dict[str, Any] = json.loads(answer.read() or "{}")
            return found

    (organisation,) = ask("GET", f"/api/v2/orgs?org={org}")["orgs"]
    name = f"hub-test-{os.getpid()}-{next(_numbers)}"
    bucket = ask("POST", "/api/v2/buckets", {"orgID": organisation["id"], "name": name, "retentionRules": []})
    engine = FluxEngine(parse_address(f"influxdb2+{url}/{name}?org={org}"), token)
    yield RemoteStore(engine, Sidecar(tmp_path / "remote.sqlite3"))
    ask("DELETE", f"/api/v2/buckets/{bucket['id']}")
