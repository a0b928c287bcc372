"""Fixtures of the end-to-end tests: a real hub process, and the identities beside it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.auth import Identities
from hub.roles import Role
from tests.support.hub_process import HubProcess


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    """A running hub on an empty data directory."""
    with HubProcess(tmp_path / "data") as running:
        yield running


def enrol(hub: HubProcess, *devices: str) -> dict[str, str]:
    """Enrol devices beside the running hub; return name → token."""
    identities = Identities(hub.data / "identities.sqlite3")
    try:
        return {name: identities.add_device(name) for name in devices}
    finally:
        identities.close()


def admin_token(hub: HubProcess) -> str:
    """Return an admin token made beside the running hub."""
    identities = Identities(hub.data / "identities.sqlite3")
    try:
        return identities.add_token(Role.ADMIN, ("**",), "test")[1]
    finally:
        identities.close()
