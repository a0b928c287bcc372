"""Messages of devices that people own, and what is read from each: tests/vectors/decode, one file for each family.

A case is a message (topic; payload as text or JSON), those that came before it, and what is expected: values by device
and channel (``[value, time_ns]`` where the message says the time), units by device and channel, or a part of the reason
why there are none. Of an announcement, units and labels are what is learnt.
"""

import json
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from device_sdk.reading import Channel
from hub.decode.base import Decoded, DecodeError, Publication
from hub.decode.dispatch import Decoders

_FOLDER = Path(__file__).parents[1] / "vectors" / "decode"
FAMILIES = tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))
# 2021-09-09T11:23:00Z: when each message came.
RECEIVED_NS = 1_631_186_580_000_000_000


def cases(family: str) -> list[Any]:
    """Return the cases of a family, as parameters of a test."""
    found = json.loads((_FOLDER / f"{family}.json").read_text(encoding="utf-8"))
    return [pytest.param(case, id=case["id"]) for case in found]


def publication(topic: str, payload: object, *, is_retained: bool = False) -> Publication:
    """Return a message as it came."""
    text = payload if isinstance(payload, str) else json.dumps(payload)
    return Publication(topic, text.encode(), RECEIVED_NS, is_retained)


def in_steps(decoders: Decoders, message: Publication) -> tuple[Decoded, int]:
    """Return what is read of a message in steps, and after how many pauses."""
    reading, pauses = decoders.reading(message), 0
    while True:
        try:
            next(reading)
        except StopIteration as end:
            return end.value, pauses
        pauses += 1


def check(case: dict[str, Any]) -> None:
    """Compare what is read with what the case expects."""
    zone = ZoneInfo(case["zone"]) if "zone" in case else None
    decoders, others = (Decoders(case.get("device", ""), zone=zone) for _ in range(2))
    for topic, payload in case.get("before", []):
        decoders.decode(publication(topic, payload))
        others.decode(publication(topic, payload))
    message = publication(case["topic"], case["payload"], is_retained=case.get("retained", False))
    if "error" in case:
        with pytest.raises(DecodeError, match=case["error"]):
            decoders.decode(message)
        with pytest.raises(DecodeError, match=case["error"]):
            in_steps(others, message)
        return

    decoded = decoders.decode(message)

    assert in_steps(others, message)[0] == decoded
    assert decoded.decoder == case["decoder"]
    assert _readings(decoded) == case.get("readings", {})
    channels = {one.device: one.channels if one.readings else decoders.announced_of(one.device) for one in decoded.said}
    assert _told(channels, "unit") == case.get("units", {})
    assert case.get("ignored", "") in decoded.ignored
    assert bool(decoded.ignored) == ("ignored" in case)
    if "labels" in case:
        assert _told(channels, "label") == case["labels"]


def _readings(decoded: Decoded) -> dict[str, dict[str, Any]]:
    return {
        one.device: {r.channel: r.value if r.time_ns is None else [r.value, r.time_ns] for r in one.readings}
        for one in decoded.said if one.readings
    }  # fmt: skip


def _told(channels: dict[str, tuple[Channel, ...]], field: str) -> dict[str, dict[str, str]]:
    found = {device: {c.name: told for c in of if (told := getattr(c, field))} for device, of in channels.items()}
    return {device: of for device, of in found.items() if of}
