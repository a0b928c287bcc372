"""Quarantined frames as answers: a listing without their bytes, and one frame's bytes as far as asked for.

Owns: how raw bytes of a peer are shown: as text only when every character is printable, else in hex, so that no
terminal or page interprets them. Place: below `endpoints`; the offline command line uses it too. Pure.
"""

from contextlib import suppress
from typing import Any

from hub.decode.base import Publication
from hub.journal.base import QuarantineEntry
from hub.model import FOREIGN_STREAM


def quarantine_object(entry: QuarantineEntry) -> dict[str, Any]:
    """Return the entry as listed."""
    return {
        "id": entry.offset, "device": entry.key.device, "stream": entry.key.stream, "seq": entry.seq,
        "reason": entry.reason, "received_ns": str(entry.received_ns), "count": entry.count, "size": entry.size,
        "replayed_ns": None if entry.replayed_ns is None else str(entry.replayed_ns),
    }  # fmt: skip


def raw_object(entry: QuarantineEntry, body: bytes, max_bytes: int) -> dict[str, Any]:
    """Return the entry with its first ``max_bytes``: ``text`` when printable, else ``hex``; the other is null.

    Of a foreign message these are its payload; ``topic`` and ``content_type`` are null for frames of devices.
    """
    topic = content_type = None
    if entry.key.stream == FOREIGN_STREAM:
        with suppress(ValueError):  # a damaged record is shown as it is
            publication = Publication.from_bytes(body, entry.received_ns)
            topic, content_type, body = publication.topic, publication.content_type, publication.payload
    shown = body[:max_bytes]
    text = _printable(shown, is_cut=len(shown) < len(body))
    return {
        **quarantine_object(entry), "topic": topic, "content_type": content_type, "text": text,
        "hex": shown.hex() if text is None else None, "truncated": len(shown) < len(body),
    }  # fmt: skip


def _printable(data: bytes, *, is_cut: bool) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        # A cut may go through the last character.
        if not is_cut or error.reason != "unexpected end of data":
            return None
        text = data[: error.start].decode()
    return text if all(c.isprintable() or c in "\t\r\n" for c in text) else None
