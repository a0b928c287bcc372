"""The first decoder that knows a message has it; what was learnt is said once; retained messages are no readings."""

import pytest

from device_sdk.reading import Channel
from hub.decode.base import Decoded, DecodeError, ForeignReading, Publication, Said
from hub.decode.dispatch import MAX_LEARNT, Decoders


class Fixed:
    """Says what it was told to."""

    name = "fixed"

    def __init__(self, *answers: Decoded | None) -> None:
        self._answers = list(answers)

    def decode(self, publication: Publication) -> Decoded | None:
        """Return the next answer."""
        return self._answers.pop(0)


def test_plugin_is_asked_before_ours() -> None:
    """What it does not know is ours."""
    known = Decoded("fixed", ignored="for a test")
    decoders = Decoders(plugins=[lambda: Fixed(None, known)])

    assert decoders.decode(Publication("a/b", b"1")).decoder == "plain"
    assert decoders.decode(Publication("a/b", b"1")) == known


def test_retained_message_is_no_reading() -> None:
    """It comes again at each subscribe; what it says of channels counts."""
    decoded = Decoders().decode(Publication("living room/x", b"1", is_retained=True))

    assert decoded.said == (Said("living-room", (), (Channel("x"),)),)
    assert "kept by the broker" in decoded.ignored


def test_channel_is_said_once() -> None:
    """Until something of it is new."""
    first, second = Channel("x", "W"), Channel("x", "kW")
    says = [Decoded("fixed", (Said("d", (), (channel,)),)) for channel in (first, first, second)]
    decoders = Decoders(plugins=[lambda: Fixed(*says)])

    news = [decoders.decode(Publication("", b"")).said[0].channels for _ in says]

    assert news == [(first,), (), (second,)]
    assert decoders.channels_of("d") == (second,)
    assert decoders.channels_of("e") == ()


def test_name_that_was_changed_is_kept_as_label() -> None:
    """Once; a name that is ours already needs none."""
    decoders = Decoders("pump")

    said = decoders.decode(Publication("", '{"in °C":1,"x":2}'.encode())).said[0]

    assert said.channels == (Channel("in-C", label="in °C"), Channel("x"))
    assert decoders.decode(Publication("", '{"in °C":3}'.encode())).said[0] == Said(
        "pump", (ForeignReading("in-C", 3),)
    )


def test_what_is_learnt_is_bounded() -> None:
    """The oldest is forgotten, and said again."""
    decoders = Decoders()
    for at in range(MAX_LEARNT + 1):
        decoders.decode(Publication(f"d/x{at}", b"1"))

    assert len(decoders.channels_of("d")) == MAX_LEARNT
    assert decoders.decode(Publication("d/x0", b"1")).said[0].channels == (Channel("x0"),)


def test_decoder_that_fails_says_so() -> None:
    """A fault of ours, or of a plugin, is a reason for the quarantine."""
    with pytest.raises(DecodeError, match="decoder fixed failed: IndexError"):
        Decoders(plugins=[Fixed]).decode(Publication("a/b", b"1"))


def test_topic_beyond_all_measure_is_refused() -> None:
    """The record of the quarantine has it."""
    with pytest.raises(DecodeError, match="1024"):
        Decoders().decode(Publication("x" * 1025, b"1"))
