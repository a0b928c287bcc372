"""`hub certificates`: by REST and on a folder; by fingerprint and by file."""

from pathlib import Path

import pytest

from tests.hub.cli.conftest import Run
from tests.support.hub_process import HubProcess

A = "ab" * 32


@pytest.mark.parametrize("way", ["rest", "folder"])
def test_revoked_listed_restored(run: Run, hub: HubProcess, admin: str, tmp_path: Path, way: str) -> None:
    """A file's certificate is revoked by its fingerprint, listed with its note, and restored."""
    run("tls", "init", "--data", tmp_path)
    made = run("tls", "device", "pump", "--data", tmp_path, "--json").json
    at = ("--data", tmp_path) if way == "folder" else ("--url", hub.url, "--token", admin)

    revoked = run("certificates", "revoke", made["cert"], "--note", "stolen", *at)
    listed = run("certificates", "ls", "--json", *at)
    table = run("certificates", "ls", *at)
    restored = run("certificates", "restore", made["fingerprint"].upper(), *at)
    after = run("certificates", "ls", "--json", *at)

    assert (revoked.code, listed.code, restored.code) == (0, 0, 0)
    assert [(r["fingerprint"], r["note"]) for r in listed.json] == [(made["fingerprint"], "stolen")]
    assert made["fingerprint"] in table.out
    assert after.json == []


def test_first_of_a_chain_is_the_one_that_ends(run: Run, tmp_path: Path) -> None:
    """A device's file may bring its authority along, and text of `openssl`: the device's own is revoked."""
    run("tls", "init", "--data", tmp_path)
    made = run("tls", "device", "pump", "--data", tmp_path, "--json").json
    chain = tmp_path / "chain.pem"
    chain.write_text("Certificate: ü\n" + Path(made["cert"]).read_text() + (tmp_path / "tls" / "ca.pem").read_text())

    assert run("certificates", "revoke", chain, "--data", tmp_path).code == 0

    listed = run("certificates", "ls", "--data", tmp_path, "--json").json
    assert [r["fingerprint"] for r in listed] == [made["fingerprint"]]


def test_what_is_no_certificate(run: Run, tmp_path: Path) -> None:
    """A file without a certificate and a word that is no fingerprint are misuse; what is not revoked is not found."""
    (tmp_path / "key.pem").write_text("no certificate")

    assert run("certificates", "revoke", tmp_path / "key.pem", "--data", tmp_path).code == 2
    typo = run("certificates", "revoke", "pump.pem", "--data", tmp_path)
    assert (typo.code, "'pump.pem' is no file, and a fingerprint is" in " ".join(typo.err.split())) == (2, True)
    assert run("certificates", "restore", A, "--data", tmp_path).code == 5
