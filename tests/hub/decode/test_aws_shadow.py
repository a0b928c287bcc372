"""Shadows of AWS IoT: what is reported is readings, what is desired is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.decode.aws_shadow import AwsShadow
from hub.decode.base import Decoded, DecodeError, ForeignReading, Publication, Said
from hub.decode.dispatch import Decoders
from hub.decode.scope import Scope

_SHADOW = "$aws/things/pump-1/shadow"


def _decode(topic: str, payload: bytes) -> Decoded | None:
    return AwsShadow(Scope()).decode(Publication(topic, payload))


def test_reported_state_is_readings() -> None:
    """Documents in it are paths; a value that is taken away is none."""
    found = _decode(
        f"{_SHADOW}/update",
        b'{"state":{"reported":{"temp":21,"motor":{"on":true,"rpm":1450.5},"gone":null},"desired":{"temp":25}},"version":3}',
    )

    readings = (ForeignReading("temp", 21), ForeignReading("motor.on", True), ForeignReading("motor.rpm", 1450.5))
    assert found == Decoded("aws-shadow", (Said("pump-1", readings),))


def test_named_shadow_stands_in_front() -> None:
    """Two shadows of a thing may hold the same name."""
    found = _decode(f"{_SHADOW}/name/power/update", b'{"state":{"reported":{"W":9}}}')

    assert found is not None
    assert found.said == (Said("pump-1", (ForeignReading("power.W", 9),)),)


@pytest.mark.parametrize(
    ("end", "payload"),
    [("update", b'{"state":{"desired":{"temp":25}}}'), ("update", b'{"state":{"reported":null}}'),
     ("update", b'{"state":{"reported":{}}}'), ("get", b""), ("update/accepted", b"{}"), ("update/delta", b"{}"),
     ("delete", b""), ("name/power/get", b"")],
)  # fmt: skip
def test_all_else_of_a_shadow_is_ignored(end: str, payload: bytes) -> None:
    """Desired states, questions and the service's answers are no readings."""
    found = _decode(f"{_SHADOW}/{end}", payload)

    assert found is not None
    assert found.ignored
    assert found.said == ()


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"state":1}'])
def test_what_is_no_shadow_cannot_be_read(payload: bytes) -> None:
    """It goes into quarantine."""
    with pytest.raises(DecodeError):
        _decode(f"{_SHADOW}/update", payload)


def test_other_topics_are_of_others() -> None:
    """Rules, and topics that only look like one."""
    assert _decode("$aws/rules/x/a", b"1") is None
    assert _decode("$aws/things//shadow/update", b"{}") is None
    found = Decoders("own").decode(Publication(f"{_SHADOW}/update", b'{"state":{"reported":{"t":1}}}'))
    assert (found.decoder, found.said[0].device) == ("aws-shadow", "own")


@given(st.binary(max_size=40))
def test_any_payload_is_read_or_refused(payload: bytes) -> None:
    """Nothing but `DecodeError` comes out."""
    try:
        _decode(f"{_SHADOW}/update", payload)
    except DecodeError:
        return
