"""Servers for the stores that have one: started when first needed, a new database for each test."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from hub.store.base import Store
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
