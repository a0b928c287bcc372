"""Raw bytes of a peer are shown as far as asked for, and never so that a terminal interprets them."""

import pytest

from hub.decode.base import Publication
from hub.gateway.quarantine import quarantine_object, raw_object
from hub.gateway.rest.quarantine import Quarantined, RawFrame
from hub.journal.base import QuarantineEntry
from hub.model import FOREIGN_STREAM, StreamKey

FOREIGN = QuarantineEntry(8, StreamKey("default", "lamp", FOREIGN_STREAM), 3, "no JSON", 2**60, 1, 5, None)
ENTRY = QuarantineEntry(7, StreamKey("default", "pump", "a" * 16), 3, "malformed: c", 2**60, 4, 5, None)


def test_listed_entry_fits_its_model() -> None:
    """Times are decimal strings; bodies are not in it."""
    Quarantined.model_validate(quarantine_object(ENTRY))

    assert quarantine_object(ENTRY)["received_ns"] == str(2**60)


@pytest.mark.parametrize(
    ("body", "limit", "text", "hex_"),
    [
        pytest.param(b'{"op":\n"\xc3\xa4"}', 100, '{"op":\n"ä"}', None, id="text"),
        pytest.param(b"abc\xc3\xa4", 4, "abc", None, id="cut-inside-a-character"),
        pytest.param(b"\x00\xff{", 100, None, "00ff7b", id="bytes"),
        pytest.param(b"\x1b[31mred", 100, None, "1b5b33316d726564", id="terminal-escape"),
        pytest.param("\u202eevil".encode(), 100, None, "e280ae6576696c", id="turns-text-around"),
        pytest.param(b"abc\xc3", 100, None, "616263c3", id="ends-inside-a-character"),
        pytest.param(b"\x00\x01\x02", 2, None, "0001", id="bytes-cut"),
        pytest.param(b"abc", 0, "", None, id="nothing-asked"),
    ],
)
def test_raw_bytes(body: bytes, limit: int, text: str | None, hex_: str | None) -> None:
    """Text only when all of it is printable UTF-8, else hex; never more than asked for."""
    found = raw_object(ENTRY, body, limit)

    RawFrame.model_validate(found)
    assert (found["text"], found["hex"], found["truncated"]) == (text, hex_, len(body) > limit)


@pytest.mark.parametrize(
    ("body", "topic", "kind", "text"),
    [
        (Publication("zigbee2mqtt/Küche", b'{"a":1}').to_bytes(), "zigbee2mqtt/Küche", "", '{"a":1}'),
        (Publication("", b"m f=1", content_type="text/plain").to_bytes(), "", "text/plain", "m f=1"),
        (b"no record", None, None, "no record"),
    ],
)
def test_foreign_message_is_topic_and_payload(body: bytes, topic: str | None, kind: str | None, text: str) -> None:
    """Apart from each other; what is no such record is shown as it is."""
    found = raw_object(FOREIGN, body, 100)

    RawFrame.model_validate(found)
    assert (found["topic"], found["content_type"], found["text"], found["truncated"]) == (topic, kind, text, False)
