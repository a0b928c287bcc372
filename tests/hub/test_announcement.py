"""`hub.announcement`: what is said and when it is refused. On a network: `tests.end_to_end.test_discovery`."""

import asyncio
import logging
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from device_sdk import discovery
from hub.announcement import SERVICE, _Service, announce, check_announceable, instance_name, properties
from hub.config import Config
from hub.errors import ConfigError
from hub.tls import make_certificates
from tests.support.hub_process import ROOT


def test_what_is_announced_is_what_devices_understand(tmp_path: Path) -> None:
    """Both ends mean the same service; of a chain the first certificate, the hub's own, is the one to pin."""
    files = make_certificates(tmp_path, ["hub.local"], now=datetime.now(UTC))
    chain = tmp_path / "chain.pem"
    chain.write_bytes(files.cert.read_bytes() + files.ca.read_bytes())

    told = properties(Config(host="0.0.0.0", tls_cert=chain, tls_key=files.key))

    said = {key.encode(): value.encode() for key, value in told.items()}
    assert SERVICE == discovery.SERVICE
    assert discovery.found_hub(f"barn.{SERVICE}", ["192.0.2.7"], 8443, said) == discovery.FoundHub(
        "wss://192.0.2.7:8443", files.fingerprint, "barn", "telemetry.v1"
    )


def test_without_tls_nothing_is_there_to_pin() -> None:
    """A hub by `--insecure-lan` says so."""
    assert properties(Config(host="0.0.0.0", insecure_lan=True))["tls"] == "0"


def test_file_without_a_certificate_is_named(tmp_path: Path) -> None:
    """A key in the place of the certificate is said at the start, not by a task that nobody asks."""
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")

    with pytest.raises(ConfigError, match=r"wrong\.pem holds no certificate"):
        check_announceable(Config(host="0.0.0.0", tls_cert=wrong, tls_key=wrong))


@pytest.mark.parametrize(
    ("host", "message"), [("127.0.0.1", "only this machine"), ("2001:db8::1", "IPv4 addresses only")]
)
def test_what_cannot_be_announced_is_said_at_the_start(host: str, message: str) -> None:
    """A hub that nobody could reach by it is not announced silently."""
    with pytest.raises(ConfigError, match=message):
        check_announceable(Config(host=host, insecure_lan=True))


@pytest.mark.slow
def test_without_zeroconf_the_hub_says_what_to_install(tmp_path: Path) -> None:
    """`--announce` without the extra ends at once, with the name of it, before a port is open."""
    code = "import sys; sys.modules['zeroconf'] = None; from hub.cli import main; main()"
    serve = ["serve", "--announce", "--insecure-lan", "--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path / "d")]
    done = subprocess.run([sys.executable, "-c", code, *serve], capture_output=True, text=True, timeout=30, cwd=ROOT)

    assert done.returncode == 2
    assert "hub: --announce needs zeroconf: pip install 'telemetry-hub[discovery]'" in done.stderr
    assert not (tmp_path / "d").exists()


def test_names_differ_without_asking_anybody() -> None:
    """Two machines of one name and two hubs of one machine have two names; a hub keeps its own; none is too long."""
    names = [
        instance_name(host, node, port)
        for host, node, port in [("pi.lan", 1, 8443), ("pi", 2, 8443), ("pi", 1, 8444), ("x" * 64, 1, 1), ("", 1, 1)]
    ]

    assert names[0] == instance_name("pi", 1, 8443)
    assert len(set(names)) == 5
    assert max(map(len, names)) <= 63
    assert [name.rpartition("-")[0] for name in names] == ["pi", "pi", "pi", "x" * 50, "hub"]


def test_nothing_is_registered_after_the_end() -> None:
    """A hub that stops while it waits for a network does not appear in it afterwards; to end twice is allowed."""
    service = _Service(Config(host="0.0.0.0", insecure_lan=True), {})
    service.end()
    service.begin()
    service.end()

    assert service._network is None


def test_hub_without_a_network_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    """It tries on; a warning each half minute for weeks would hide all others."""
    caplog.set_level(logging.DEBUG, "hub.announcement")

    async def fail_thrice() -> None:
        # No name server is asked for a name with such a label.
        announcing = asyncio.create_task(announce(Config(host="x" * 64, insecure_lan=True), retry_s=0.01))
        while len(caplog.records) < 3:  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0.01)
        announcing.cancel()
        await asyncio.gather(announcing, return_exceptions=True)

    asyncio.run(asyncio.wait_for(fail_thrice(), 20))

    assert [record.levelname for record in caplog.records[:3]] == ["WARNING", "DEBUG", "DEBUG"]
