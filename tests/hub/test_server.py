"""``hub serve`` says where it is, refuses a taken port with words, and ends within two seconds."""

import socket
from pathlib import Path

import pytest

from device_sdk import Device
from hub.auth import Identities
from hub.config import Config
from hub.errors import ConfigError
from hub.server import base_url, serve
from tests.support.hub_process import HubProcess


def test_base_url_names_scheme_host_and_port(tmp_path: Path) -> None:
    """The address printed can be opened as it stands, also for IPv6."""
    assert base_url(Config(), 8000) == "http://127.0.0.1:8000"
    assert base_url(Config(host="::1"), 8000) == "http://[::1]:8000"
    assert base_url(Config(host="0.0.0.0", insecure_lan=True), 80) == f"http://{socket.gethostname()}:80"


def test_serve_refuses_a_taken_port(tmp_path: Path) -> None:
    """The message names the port and what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="--port"):
            serve(Config(data=tmp_path / "data", port=taken.getsockname()[1]))


@pytest.mark.slow
def test_serve_ends_within_two_seconds(tmp_path: Path) -> None:
    """Ctrl-C with an open device: it is told to come back, everything acked is stored, exit code 0."""
    with HubProcess(tmp_path / "data") as hub:
        identities = Identities(hub.data / "identities.sqlite3")
        token = identities.add_device("d")
        identities.close()
        with Device("d", hub.ws_url, token=token, spool=":memory:") as device:
            device.record(x=1.5)
            device.flush(10)
            assert hub.stop() < 2.0
        assert hub.exit_code == 0
        hub.start()
        assert [row[2] for row in hub.get("/v1/readings?match=d/x&last=1h")["rows"]] == [1.5]
        greeting = hub.log.read_text()

    assert f"● hub {hub.url}" in greeting
    assert f"page     {hub.url}/" in greeting
