"""``hub serve`` says where it is, refuses a taken port with words, and ends within two seconds."""

import http.client
import json
import os
import resource
import signal
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from device_sdk import Device
from hub.auth import Identities
from hub.config import Config
from hub.errors import ConfigError
from hub.gateway.mqtt_door import MQTT_PORT
from hub.server import _bind_mqtt, base_url, serve
from hub.tls import make_certificates
from tests.support.hub_process import HubProcess

T0 = 1_790_000_000_000_000_000
# Above the hub's log, below its journal and a copy of it.
LIMIT_BYTES = 64 * 1024


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


def test_serve_refuses_a_taken_mqtt_port_that_was_asked_for(tmp_path: Path) -> None:
    """One that nobody asked for is done without: `test_second_hub_of_a_machine_has_no_mqtt`."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="--mqtt-port"):
            serve(Config(data=tmp_path / "data", port=0, mqtt_port=taken.getsockname()[1]))


@pytest.mark.parametrize(
    ("settings", "port"),
    [({"port": 8000}, MQTT_PORT), ({"port": 0}, None), ({"mqtt_port": "off"}, None)],
    ids=["default", "port chosen for it", "off"],
)
def test_mqtt_is_on_by_default_on_this_machine(settings: dict[str, object], port: int | None) -> None:
    """Unless the hub is one of many there; if the port is taken it goes without."""
    bound = [_bind_mqtt(Config.model_validate(settings)) for _ in range(2)]
    try:
        found = [None if listener is None else listener.getsockname() for listener in bound]
    finally:
        for listener in bound:
            if listener is not None:
                listener.close()

    assert found[1] is None
    assert found[0] in (None, ("127.0.0.1", port))


def test_mqtt_is_off_beyond_this_machine_until_it_is_asked_for() -> None:
    """Nobody opens a port to a network by default."""
    config = Config(host="0.0.0.0", insecure_lan=True)
    asked = _bind_mqtt(config.model_copy(update={"mqtt_port": 0}))
    assert asked is not None
    asked.close()

    assert _bind_mqtt(config) is None


def test_serve_names_the_file_that_is_no_authority(tmp_path: Path) -> None:
    """What OpenSSL says of it names neither the file nor the setting; no port is open then."""
    files = make_certificates(tmp_path / "tls", ["127.0.0.1"], now=datetime.now(UTC))
    config = Config(data=tmp_path / "data", port=0, tls_cert=files.cert, tls_key=files.key, tls_client_ca=files.key)

    with pytest.raises(ConfigError, match=r"--tls-client-ca .*server-key\.pem: .*ca\.pem of `hub tls init`"):
        serve(config)

    assert not (tmp_path / "data").exists()


def test_serve_without_the_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--socketio` on a machine without python-socketio ends before a port is open, with the command that helps."""
    monkeypatch.setitem(sys.modules, "socketio", None)

    with pytest.raises(ConfigError, match=r"--socketio .* pip install 'telemetry-hub\[socketio\]'"):
        serve(Config(data=tmp_path / "data", port=0, socketio=True))

    assert not (tmp_path / "data").exists()


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


@pytest.mark.slow
def test_nobody_comes_back_by_a_connection_that_is_kept(tmp_path: Path) -> None:
    """The answer that tells a poll to come back says that its connection ends; else the next poll held the hub up."""
    with HubProcess(tmp_path / "data") as hub:
        poll = http.client.HTTPConnection(hub.host, hub.port, timeout=10)
        poll.request("GET", "/v1/watch?match=**&wait=0s")
        cursor = json.load(poll.getresponse())["o"]
        poll.request("GET", f"/v1/watch?match=**&wait=50s&since={cursor}")
        limit = time.monotonic() + 20
        while 'hub_watchers{transport="poll"} 1.0' not in hub.get("/metrics"):
            assert time.monotonic() < limit
            time.sleep(0.05)
        os.kill(hub.pid, signal.SIGINT)
        answer = poll.getresponse()
        told = json.load(answer)["messages"][-1]
        poll.close()
        hub.stop()

    assert (told["op"], answer.getheader("connection"), hub.exit_code) == ("bye", "close", 0)


@pytest.mark.slow
def test_hub_whose_disk_failed_goes_on_by_itself(tmp_path: Path) -> None:
    """Writes fail, a fresh copy too for a while; then the same process takes readings again: none lost, none doubled.

    The fault is a limit on the size of files: a write beyond it fails with an error that is not "disk full".
    """
    with HubProcess(tmp_path / "data") as hub:
        pid = hub.pid
        identities = Identities(hub.data / "identities.sqlite3")
        token = identities.add_device("d")
        identities.close()
        with Device("d", hub.ws_url, token=token, spool=tmp_path / "spool") as device:
            for n in range(200):
                device.record({"n": n, "text": "x" * 1000}, time=T0 + n)
            device.flush(10)
            _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (LIMIT_BYTES, most))
            for n in range(200, 220):
                device.record({"n": n, "text": "x" * 1000}, time=T0 + n)
            wait_for_log(hub, "hub starts again in_s=2 ")
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))
            device.flush(30)

        assert hub.get("/healthz")["status"] == "ok"
        rows = hub.get("/v1/readings?match=d/n&from=0&limit=1000")["rows"]
        assert [(int(row[0]), row[2]) for row in rows] == [(T0 + n, n) for n in range(220)]
        (series,) = [s for s in hub.get("/v1/audit")["series"] if s["channel"] == "n"]
        assert (series["accepted"], series["superseded"], series["rows"]) == (220, 0, 220)
        assert not [*hub.data.glob("*-suspect"), *hub.data.glob("*-renewed"), *hub.data.glob("*-fresh")]
        assert hub.pid == pid
        hub.stop()
        assert hub.exit_code == 0


def wait_for_log(hub: HubProcess, text: str) -> None:
    """Return when the hub has logged the text."""
    limit = time.monotonic() + 20
    while text not in hub.log.read_text():
        assert time.monotonic() < limit, hub.log.read_text()[-3000:]
        time.sleep(0.02)
