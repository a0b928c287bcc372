"""``hub status``: the sizes of a running hub, for people and for programs."""

import pytest

from hub.cli.status import size_text
from tests.hub.cli.conftest import Run
from tests.support.hub_process import HubProcess


def test_status_of_a_running_hub(run: Run, hub: HubProcess, admin: str, recorded: str) -> None:
    """What is stored, what it takes; no budget was set."""
    hub.get(f"/v1/readings?match={recorded}&from=0", token=admin)

    said = run("status", "--url", hub.url, "--token", admin)
    told = run("status", "--url", hub.url, "--token", admin, "--json").json

    assert said.code == 0
    assert told["readings"] >= 11
    assert (told["disk_budget"], told["days_left"], told["is_full"]) == (None, None, False)
    assert "disk budget  none" in said.out
    assert "bytes each" in said.out


def test_status_takes_an_admin(run: Run, hub: HubProcess) -> None:
    """The figures are of everybody's readings."""
    assert run("status", "--url", hub.url).code == 4


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1.55e9, "1.6 GB"), (2e15, "2000.0 TB")]
)
def test_sizes_are_said_as_people_do(size: float, text: str) -> None:
    """In thousands, one digit behind the point."""
    assert size_text(size) == text
