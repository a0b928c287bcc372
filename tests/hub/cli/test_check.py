"""The ledger against a real hub: what is missing is found, whatever else balances."""

from pathlib import Path

import pytest

from hub.cli.check import compare_with_files, compare_with_hub
from hub.cli.exit_code import CliError
from hub.cli.rest import RestClient
from simulators.ledger import Ledger
from tests.hub.cli.conftest import T0
from tests.support.hub_process import HubProcess


def witness(folder: Path, device: str, count: int) -> None:
    """Write a ledger of ``count`` temperatures and the state, as `recorded` made them."""
    ledger = Ledger(folder)
    for n in range(count):
        ledger.recorded(device, "temperature", T0 + n * 10**9, 20.0 + n)
    ledger.recorded(device, "state", T0, 'on, "really"')
    ledger.close()


def test_what_was_recorded_balances(hub: HubProcess, recorded: str, tmp_path: Path) -> None:
    """The witness and the hub agree, whatever other devices did."""
    witness(tmp_path, recorded, 10)

    verdict = compare_with_hub(RestClient(hub.url), tmp_path)

    assert verdict.is_balanced
    assert verdict.total("stored") == 11


def test_reading_that_never_arrived_is_lost(hub: HubProcess, recorded: str, tmp_path: Path) -> None:
    """A reading the witness saw and the hub has not."""
    witness(tmp_path, recorded, 11)

    verdict = compare_with_hub(RestClient(hub.url), tmp_path)

    assert (verdict.is_balanced, verdict.total("lost")) == (False, 1)


def test_reading_nobody_witnessed_is_found(hub: HubProcess, recorded: str, tmp_path: Path) -> None:
    """A reading the hub has and the witness never saw."""
    witness(tmp_path, recorded, 9)

    assert compare_with_hub(RestClient(hub.url), tmp_path).total("unwitnessed") == 1


def test_files_say_what_the_hub_says(hub: HubProcess, recorded: str, tmp_path: Path) -> None:
    """The same verdict by the data folder alone: stored, and lost when one was never there."""
    witness(tmp_path / "sound", recorded, 10)
    witness(tmp_path / "one more", recorded, 11)
    compare_with_hub(RestClient(hub.url), tmp_path / "sound")  # waits until the store has all

    assert compare_with_files(hub.data, tmp_path / "sound").is_balanced
    assert compare_with_files(hub.data, tmp_path / "one more").total("lost") == 1


def test_folder_without_a_hub_is_no_witness(tmp_path: Path) -> None:
    """Files that are not there prove nothing."""
    with pytest.raises(CliError, match="must be the folder of a hub"):
        compare_with_files(tmp_path, tmp_path)
