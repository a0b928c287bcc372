"""Raw bytes of a peer are shown as far as asked for, and never so that a terminal interprets them."""

import pytest

from hub.gateway.quarantine import quarantine_object, raw_object
from hub.gateway.rest.quarantine import Quarantined, RawFrame
from hub.journal.base import QuarantineEntry
from hub.model import StreamKey

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
