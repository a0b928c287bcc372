"""``hub tls``: prints what a device needs, and what to do next."""

from pathlib import Path

from tests.hub.cli.conftest import Run


def test_init_prints_paths_and_fingerprint(run: Run, tmp_path: Path) -> None:
    """Certificate, key, authority, fingerprint and names, then the command that uses them."""
    outcome = run("tls", "init", "--data", "d", "--name", "hub.example")

    assert outcome.code == 0
    assert {p.name for p in (tmp_path / "d" / "tls").iterdir()} == {
        "ca.pem", "ca-key.pem", "server.pem", "server-key.pem",
    }  # fmt: skip
    assert "hub.example" in outcome.out
    assert "--tls-cert d/tls/server.pem --tls-key d/tls/server-key.pem" in outcome.err


def test_second_init_needs_renew(run: Run) -> None:
    """Pinned devices are not cut off by accident; --renew makes a new certificate of the same authority."""
    first = run("tls", "init", "--json").json

    assert run("tls", "init").code == 6
    second = run("tls", "init", "--renew", "--json").json
    assert second["fingerprint"] != first["fingerprint"]
    assert second["ca"] == first["ca"]


def test_device_prints_what_goes_to_the_device(run: Run, tmp_path: Path) -> None:
    """Certificate, key and fingerprint, then what the hub needs; a second one needs --renew."""
    assert run("tls", "device", "pump", "--data", "d").code == 2
    run("tls", "init", "--data", "d")
    first = run("tls", "device", "pump", "--data", "d")
    again = run("tls", "device", "pump", "--data", "d")
    renewed = run("tls", "device", "pump", "--data", "d", "--renew", "--json")

    assert (first.code, again.code, renewed.code) == (0, 6, 0)
    assert "d/tls/devices/pump.pem" in first.out
    assert "hub devices add pump --data d," in first.err, "there may be no hub yet"
    assert "--tls-client-ca d/tls/ca.pem" in first.err
    assert renewed.json["fingerprint"] not in first.out


def test_renewal_tells_what_it_replaced(run: Run) -> None:
    """The certificate before is still good, and its file is gone: without its fingerprint nobody could revoke it."""
    run("tls", "init", "--data", "d")
    first = run("tls", "device", "pump", "--data", "d", "--json").json
    second = run("tls", "device", "pump", "--data", "d", "--renew", "--json").json
    third = run("tls", "device", "pump", "--data", "d", "--renew")

    assert (first["replaced"], second["replaced"]) == (None, first["fingerprint"])
    assert f"replaced     {second['fingerprint']}" in third.out
