"""Tokens of simulated devices: made once, kept privately, and never taken from somebody's real device."""

import stat
from pathlib import Path

import pytest

from hub.auth import Identities
from hub.cli.enrol import enrol_by_rest, enrol_in_folder
from hub.cli.exit_code import CliError, ExitCode
from hub.cli.rest import RestClient
from tests.support.hub_process import HubProcess


def names_of(tokens: dict[str, str], data: Path) -> dict[str, str | None]:
    """Return whom each token speaks for."""
    identities = Identities(data / "identities.sqlite3")
    try:
        found = {name: identities.authenticate(token) for name, token in tokens.items()}
        return {name: identity.name if identity else None for name, identity in found.items()}
    finally:
        identities.close()


def test_second_run_uses_the_same_tokens(tmp_path: Path) -> None:
    """Devices stay enrolled between runs; the file of tokens is private."""
    first = enrol_in_folder(tmp_path, ["a", "b"])

    second = enrol_in_folder(tmp_path, ["a", "b", "c"])

    assert {name: second[name] for name in first} == first
    assert names_of(second, tmp_path) == {"a": "a", "b": "b", "c": "c"}
    assert stat.S_IMODE((tmp_path / "simulated-tokens.json").stat().st_mode) == 0o600


def test_device_of_somebody_else_is_refused_skipped_or_replaced(tmp_path: Path) -> None:
    """A name that exists and is not known here: an error; left out; or, when asked for, a new token."""
    identities = Identities(tmp_path / "identities.sqlite3")
    theirs = identities.add_device("a")
    identities.close()

    with pytest.raises(CliError, match="--replace-tokens") as refused:
        enrol_in_folder(tmp_path, ["a", "b"])
    assert refused.value.code is ExitCode.EXISTS

    assert set(enrol_in_folder(tmp_path, ["a", "b"], skip_others=True)) == {"b"}
    assert names_of({"a": theirs}, tmp_path) == {"a": "a"}

    replaced = enrol_in_folder(tmp_path, ["a", "b"], replace=True)
    assert names_of(replaced | {"old": theirs}, tmp_path) == {"a": "a", "b": "b", "old": None}


def test_tokens_of_removed_devices_are_made_again(tmp_path: Path) -> None:
    """A kept token that ended is not used: the data folder may be a new one."""
    old = enrol_in_folder(tmp_path, ["a"])
    identities = Identities(tmp_path / "identities.sqlite3")
    identities.remove_device("a")
    identities.close()

    new = enrol_in_folder(tmp_path, ["a"])

    assert new != old
    assert names_of(new, tmp_path) == {"a": "a"}


def test_rest_enrols_reuses_and_refuses(hub: HubProcess, admin: str, name: str) -> None:
    """The same rules hold over REST."""
    client = RestClient(hub.url, admin)
    theirs = client.post("/v1/devices", {"device": f"{name}-theirs"})["token"]

    first = enrol_by_rest(client, [f"{name}-1", f"{name}-2"], replace=False)
    second = enrol_by_rest(client, [f"{name}-1", f"{name}-2", f"{name}-3"], replace=False)

    assert {key: second[key] for key in first} == first
    with pytest.raises(CliError, match=f"{name}-theirs"):
        enrol_by_rest(client, [f"{name}-1", f"{name}-theirs"], replace=False)
    replaced = enrol_by_rest(client, [f"{name}-theirs"], replace=True)
    assert names_of(replaced, hub.data) == {f"{name}-theirs": f"{name}-theirs"}
    assert names_of({"old": theirs}, hub.data) == {"old": None}
