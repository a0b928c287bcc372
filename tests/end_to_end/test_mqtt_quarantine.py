"""A message that no decoder can read is kept, looked at, and stored once after the fix: MQTT and command line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import admin_token
from tests.support.hub_process import ROOT, HubProcess
from tests.support.mqtt_hub import MqttHub, Paho, until

pytestmark = pytest.mark.end_to_end

# What the device sends: temperature and humidity in tenths, little-endian.
PAYLOAD = b"\x80\x00\xd7\x00\xd6\x01"
DECODER = """
import struct

from hub.decode.base import Decoded, ForeignReading, Publication, Said


def decode(publication: Publication) -> Decoded | None:
    if publication.topic != "raw/cellar":
        return None
    _, temperature, humidity = struct.unpack("<Hhh", publication.payload)
    readings = (ForeignReading("temperature", temperature / 10), ForeignReading("humidity", humidity / 10))
    return Decoded("cellar", (Said("cellar", readings),))
"""


def values(hub: HubProcess, channel: str) -> list[Any]:
    """Return what is stored of a channel."""
    return [row[2] for row in hub.get(f"/v1/readings?match=cellar/{channel}&last=1h")["rows"]]


def quarantine(hub: HubProcess, token: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``hub quarantine``."""
    command = [sys.executable, "-m", "hub", "quarantine", *arguments, "--url", hub.url, "--token", token]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)


def test_message_is_replayed_after_the_fix(tmp_path: Path) -> None:
    """PUBACK comes at once: the input goes on. Started again with a decoder, the hub stores the readings once."""
    (tmp_path / "cellar_decoder.py").write_text(DECODER, encoding="utf-8")
    with MqttHub(tmp_path / "data") as first:
        admin, hub = admin_token(first), first
        with Paho(first, "cellar", first.enrol("cellar")) as client:
            client.publish("raw/cellar", PAYLOAD)
            client.publish("raw/battery", "3.9")
        until(lambda: values(hub, "raw.battery") == [3.9], "what came behind it")
        (entry,) = json.loads(quarantine(hub, admin, "ls", "--json").stdout)
        shown = quarantine(hub, admin, "show", str(entry["id"]))
        early = quarantine(hub, admin, "replay", str(entry["id"]), "--json")
        hub.stop()

    assert "topic raw/cellar" in shown.stderr
    assert shown.stdout.strip() == PAYLOAD.hex()
    assert (early.returncode, json.loads(early.stdout)[0]["outcome"]) == (1, "malformed")
    environment = {"PYTHONPATH": str(tmp_path)}
    with HubProcess(
        tmp_path / "data", "--mqtt-port", "off", "--decoder", "cellar_decoder:decode", environment=environment
    ) as fixed:
        answers = [quarantine(fixed, admin, "replay", str(entry["id"]), "--json") for _ in range(2)]
        until(lambda: values(fixed, "temperature") == [21.5], "the reading")
        humidity = values(fixed, "humidity")
        audit = fixed.get("/v1/audit?device=cellar")

    assert [json.loads(answer.stdout)[0]["outcome"] for answer in answers] == ["replayed", "already"]
    assert humidity == [47.0]
    assert audit["balanced"] is True
