"""What the quarantine keeps of a foreign message is the message."""

from collections.abc import Generator

import pytest

from hub.decode.base import Publication, at_once


@pytest.mark.parametrize("payload", [b"", b"21.5", b"\n\n", bytes(range(256))])
def test_record_of_a_message_is_read_back(payload: bytes) -> None:
    """Any payload, any topic."""
    sent = Publication("zigbee2mqtt/Küche\n/1", payload, 7, content_type="text/plain")
    assert Publication.from_bytes(sent.to_bytes(), 7) == sent


@pytest.mark.parametrize("record", [b"", b"{}", b"[]\n", b'{"topic":1}\nx', b"x\ny", b'{"op":"batch"}'])
def test_what_is_no_such_record_is_refused(record: bytes) -> None:
    """Among them frames of our own devices."""
    with pytest.raises(ValueError, match=r"."):
        Publication.from_bytes(record, 7)


def test_work_with_pauses_is_done_at_once() -> None:
    """Also one without any."""

    def work(pauses: int) -> Generator[None, None, int]:
        yield from [None] * pauses
        return pauses

    assert [at_once(work(pauses)) for pauses in (0, 3)] == [0, 3]
