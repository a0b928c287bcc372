"""``hub decode``: what would be stored of a message, or why nothing would be."""

import json
from pathlib import Path

import pytest

from tests.hub.cli.conftest import Run

SENSOR = '{"Time":"2021-09-09T13:22:25","ENERGY":{"Power":9},"TempUnit":"C"}'


def test_readings_are_shown_with_units_and_times(run: Run) -> None:
    """As a table for people; who read it is beside it."""
    outcome = run("decode", "--topic", "tele/plug/SENSOR", "--payload", SENSOR, "--device-zone", "Europe/Berlin")

    assert outcome.out.splitlines()[1].split() == ["plug", "ENERGY.Power", "9", "W", "2021-09-09", "11:22:25Z"]
    assert "decoder: tasmota" in outcome.err


def test_readings_are_given_as_json(run: Run) -> None:
    """With the time it would have."""
    shown = run("decode", "--topic", "a b/x", "--payload", "ON", "--json").json

    device = shown["devices"][0]
    assert (shown["outcome"], shown["decoder"], shown["reason"]) == ("stored", "plain", "")
    assert (device["device"], device["channels"]) == ("a-b", [{"channel": "x", "unit": None, "label": None}])
    assert (device["readings"][0]["value"], device["readings"][0]["has_time"]) == (True, False)


def test_device_of_the_token_is_said(run: Run) -> None:
    """A message of a device's own token is that device's."""
    outcome = run("decode", "--topic", "x", "--payload", "1.5", "--device", "pump")

    assert outcome.out.splitlines()[1].split() == ["pump", "x", "1.5", "when", "it", "came"]


def test_messages_before_are_learnt_from(run: Run, tmp_path: Path) -> None:
    """As the broker keeps them; one that cannot be read is named, and the others count."""
    config = {"name": "Air", "state_topic": "office/air", "unit_of_measurement": "°C", "device": {"ids": ["x"]}}
    file = tmp_path / "before.txt"
    file.write_text(f"homeassistant/sensor/a b/config {json.dumps(config)}\n\nhomeassistant/sensor/b/config []\nx\n")

    outcome = run("decode", "--announce", str(file), "--topic", "office/air", "--payload", "21.5")

    assert outcome.out.splitlines()[1].split()[:4] == ["x", "air", "21.5", "°C"]
    assert "homeassistant/sensor/b/config: no JSON object" in outcome.err


def test_announcement_shows_what_is_learnt(run: Run, tmp_path: Path) -> None:
    """It is no reading, and says units."""
    file = tmp_path / "payload.json"
    file.write_text('{"name":"Air","state_topic":"office/air","unit_of_measurement":"W","device":{"ids":"x"}}')

    outcome = run("decode", "--topic", "homeassistant/sensor/a/config", "--payload-file", str(file))

    assert "nothing is stored: an announcement" in outcome.err
    assert outcome.out.splitlines()[1].split() == ["x", "air", "W", "Air"]


def test_message_kept_by_a_broker_is_no_reading(run: Run) -> None:
    """It comes again at each start."""
    assert "kept by the broker" in run("decode", "--topic", "a/b", "--payload", "1", "--retained").err


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_what_cannot_be_read_says_why(run: Run, flags: list[str]) -> None:
    """The reason is the one that the quarantine would show."""
    outcome = run("decode", "--topic", "tele/plug/SENSOR", "--payload", "{", *flags)

    assert outcome.code == 1
    assert "goes into quarantine: no JSON" in outcome.err
    if flags:
        assert json.loads(outcome.out)["outcome"] == "quarantine"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--payload"), (["--payload", "1", "--payload-file", "x"], "--payload"),
        (["--payload", "1", "--decoder", "nobody"], "nobody"), (["--payload", "1", "--device-zone", "Mars"], "Mars"),
    ],
)  # fmt: skip
def test_wrong_use_is_told(run: Run, arguments: list[str], says: str) -> None:
    """Before anything is read."""
    outcome = run("decode", "--topic", "a/b", *arguments)

    assert outcome.code == 2
    assert says in outcome.err


def test_settings_of_this_folder_hold(run: Run, tmp_path: Path) -> None:
    """As `hub serve` here would read it."""
    (tmp_path / "hub.toml").write_text('device_zone = "Europe/Berlin"')

    outcome = run("decode", "--topic", "tele/plug/SENSOR", "--payload", SENSOR)

    assert "2021-09-09 11:22:25Z" in outcome.out
