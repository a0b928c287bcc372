"""What the page of MQTT says is refused is what the endpoint answers."""

import pytest

from docs.mqtt_page import REFUSALS, Refusal, mqtt
from hub.mqtt.conversation import ALLOWED, Conversation
from hub.mqtt.field import Property
from hub.mqtt.handler import Code
from hub.mqtt.opening import MAX_UNACKED
from hub.mqtt.recent import Recent
from tests.support import mqtt_packets as say
from tests.support.mqtt_handler import RecordingHandler

_NAMES = {0x20: "CONNACK", 0x90: "SUBACK", 0xE0: "DISCONNECT"}


def _said(version: int) -> dict[str, list[bytes]]:
    """What a client says for each row, after CONNECT where that is not the first."""
    hello = say.connect(version=version)
    will = ("w", b"", 2, False)
    flood = [say.publish("a", b"", number, version) for number in range(1, MAX_UNACKED + 2)]
    expiry = {Property.SESSION_EXPIRY: 60}
    method = {Property.AUTHENTICATION_METHOD: "SCRAM"}
    return {
        "a publication of QoS 2": [hello, say.publish("a", b"", 1, version, qos=2)],
        "a will of QoS 2": [say.connect(version=version, will=will)],
        "a subscription with QoS 2": [hello, say.subscribe(1, ("a", 2), version=version)],
        "a topic filter that is not the client's own": [hello, say.subscribe(1, ("denied", 1), version=version)],
        "a shared subscription (`$share/…`)": [hello, say.subscribe(1, ("$share/g/a", 1), version=version)],
        "a subscription identifier": [
            hello, say.subscribe(1, ("a", 1), version=5, properties={Property.SUBSCRIPTION_IDENTIFIER: 1})
        ],
        "a session that stays": [say.connect(version=version, is_clean=False, properties=expiry)],
        "authentication by a method (AUTH)": [say.connect(version=version, properties=method)],
        "MQTT 3.1 (`MQIsdp`)": [say.connect(version=3, name="MQIsdp")],
        "a session without a client identifier": [say.connect("", version, is_clean=False)],
        "publications beyond Receive Maximum": [hello, *flood],
        "a topic alias beyond the maximum": [
            hello, say.publish("a", b"", 0, version, properties={Property.TOPIC_ALIAS: 17})
        ],
        "a packet that is too large": [hello, b"\x32\xff\xff\xff\x7f"],
        "silence for 1.5 × keep alive": [hello],
    }  # fmt: skip


def _answer(version: int, packets: list[bytes], *, passes_time: bool) -> str:
    """Say it, and put what is answered last in the words of the page."""
    handler = RecordingHandler(is_prompt=False)
    handler.codes["denied"] = Code.NOT_AUTHORIZED
    talk = Conversation(handler, Recent(), new_client_id=lambda: "given", now=0.0)
    for data in packets:
        talk.receive(data, 0.0, 0)
    if passes_time:
        talk.tick(90.0, 0)
    told = talk.take_output()
    head, body = say.packets(told)[-1] if told else (0, b"")
    words = []
    if head == 0x20:
        words += [f"CONNACK {body[1]}" if version < 5 else f"CONNACK 0x{body[1]:02X}"]
        words += ["session present 0"] if not body[0] else []
        words += ["taken as QoS 1"] if handler.connects and handler.connects[0].will else []
        words += ["an assigned one in CONNACK"] if b"given" in body else []
    elif head:
        code = body[-1] if head == 0x90 else body[0]
        words += [f"{_NAMES[head]} {code}" if code < 0x80 else f"{_NAMES[head]} 0x{code:02X}"]
    words += ["the connection ends"] if talk.is_closed else []
    words += [] if talk.wants_read else ["not read until there is room"]
    return "; ".join(words)


@pytest.mark.parametrize("version", [4, 5], ids=["3.1.1", "5"])
@pytest.mark.parametrize("refusal", REFUSALS, ids=[refusal.what for refusal in REFUSALS])
def test_refusal_is_answered_as_the_page_says(refusal: Refusal, version: int) -> None:
    """The last thing that the page says of it is what is answered last; – means that the version cannot ask."""
    stated = refusal.old if version == 4 else refusal.new
    if not stated:
        return
    packets = _said(version)[refusal.what]

    answered = _answer(version, packets, passes_time=refusal.what.startswith("silence"))

    assert stated.replace(",", ";").split("; ")[-1] in answered


def test_page_has_every_packet_and_code() -> None:
    """From the tables themselves."""
    page = mqtt()
    assert all(f"| {kind.name} |" in page for kind in ALLOWED)
    assert all(f"| 0x{code:02X} | {code.name.lower()} |" in page for code in Code)
