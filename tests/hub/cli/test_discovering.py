"""`hub discover`: what it says when it cannot look. On a network: `tests.end_to_end.test_discovery`."""

import sys

import pytest

from tests.hub.cli.conftest import Run


def test_without_zeroconf_it_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named, with an exit code for wrong use."""
    monkeypatch.setitem(sys.modules, "zeroconf", None)

    outcome = run("discover", "--json")

    assert outcome.code == 2
    assert "pip install 'telemetry-device-sdk[discovery]'" in outcome.err


def test_time_is_a_duration(run: Run) -> None:
    """Nothing is asked of the network when the time to listen makes no sense."""
    assert run("discover", "--timeout", "soon").code == 2
