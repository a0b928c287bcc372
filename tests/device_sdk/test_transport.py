"""Tests of `device_sdk.transport`."""

import subprocess
import sys
from typing import Any

import pytest

from device_sdk.clock import Clock
from device_sdk.errors import AuthenticationError, ConnectionLostError, MisuseError
from device_sdk.transport import Access, LinkError, RetryPolicy, make_connector, needs_person


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (AuthenticationError("token"), True),
        (ConnectionLostError("taken over", code=4409), True),
        (ConnectionLostError("too slow", code=4008), False),
        (ConnectionLostError("internal", code=4100), False),
        (ConnectionLostError("going away", code=1001), False),
        (ConnectionLostError("no network"), False),
    ],
    ids=["authentication", "4409", "4008", "4100", "1001", "no code"],
)
def test_needs_person_follows_the_close_code(error: LinkError, answer: bool) -> None:
    """A refused credential and 44xx need a person; everything else is worth an early retry."""
    assert needs_person(error) is answer


def test_pause_grows_with_full_jitter_and_starts_again_after_a_stable_link() -> None:
    """Each failure doubles the bound; 30 s of connection reset it."""
    policy = RetryPolicy(lambda: 1.0)
    lost = ConnectionLostError("gone")

    assert [policy.pause_s(lost, 0.0) for _ in range(3)] == [0.5, 1.0, 2.0]
    policy.connected(100.0)
    assert policy.pause_s(lost, 131.0) == 0.5


def test_pause_is_minutes_where_a_person_must_act() -> None:
    """A refused token is tried again after 60 to 120 s, never in a hot loop."""
    assert RetryPolicy(lambda: 0.0).pause_s(AuthenticationError("no"), 0.0) == 60.0
    assert RetryPolicy(lambda: 1.0).pause_s(ConnectionLostError("twin", code=4409), 0.0) == 120.0


def test_pause_is_what_the_hub_wishes() -> None:
    """``retry_ms`` wins over backoff and code."""
    assert RetryPolicy(lambda: 1.0).pause_s(ConnectionLostError("bye", retry_ms=8412), 0.0) == 8.412


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("http://hub:8000", {}, "use wss://"),
        ("hub:8000", {}, "use wss://"),
        ("wss://", {}, "use wss://"),
        ("wss://hub:port", {}, "not valid"),
        ("wss://[::1", {}, "not valid"),
        ("wss://hub..local", {}, "not valid"),
        (f"mqtt://{'h' * 64}.local", {}, "not valid"),
        ("ws://hub", {"ca": "ca.pem"}, "has no TLS"),
        ("mqtt://hub", {"ca": "ca.pem"}, "use mqtts://"),
        ("mqtts://hub", {"device": None}, "a gateway has one connection"),
        ("mqtt://pump:secret@hub", {}, "pass token="),
        ("mqtt://hub/site/+", {}, "prefix of the topics"),
        ("mqtt://hub/site?x=1", {}, "prefix of the topics"),
        ("ws://hub", {"fingerprint": "ab" * 32}, "has no TLS"),
        ("ws://hub", {"certificate": "pump.pem"}, "has no TLS"),
        ("wss://hub", {"key": "pump-key.pem"}, "pass certificate= too"),
        ("wss://hub", {"fingerprint": "abc"}, "64 hex digits"),
        ("wss://hub", {"token": "line\nbreak"}, "no token has"),
    ],
)
def test_make_connector_refuses_what_cannot_work(url: str, options: dict[str, str], message: str) -> None:
    """A wrong URL, TLS options without TLS and a broken token are misuse, said at once."""
    settings: dict[str, Any] = {"token": None, "ca": None, "fingerprint": None, "device": "pump", **options}

    with pytest.raises(MisuseError, match=message):
        make_connector(url, **settings)


@pytest.mark.parametrize("fingerprint", ["AB" * 32, ":".join(["ab"] * 32), "SHA256:" + "ab" * 32])
def test_make_connector_takes_the_usual_forms_of_a_fingerprint(fingerprint: str) -> None:
    """Upper case, colons and the prefix that tools print are all accepted."""
    make_connector("wss://hub", token=None, ca=None, fingerprint=fingerprint)


def test_mqtt_needs_its_extra_and_says_so() -> None:
    """Without aiomqtt the SDK works; a URL that needs it names what to install, when the device is made."""
    code = (
        "import sys; sys.modules['aiomqtt'] = None\n"
        "from device_sdk import Device, MisuseError\n"
        "Device('d', 'ws://127.0.0.1:1', spool=':memory:')\n"
        "try: Device('d', 'mqtt://127.0.0.1:1', spool=':memory:')\n"
        "except MisuseError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "pip install 'telemetry-device-sdk[mqtt]'" in done.stdout


def test_token_is_not_shown_with_what_connections_have_in_common() -> None:
    """Whoever puts it into a message says nothing."""
    assert "dk_secret" not in repr(Access("dk_secret", None, None, None, None, Clock()))
