"""JSON bytes: written without spaces, read from bytes and text alike."""

import json

import pytest

from device_sdk.json_bytes import from_json, to_json


def test_it_is_short_and_keeps_the_order_of_keys() -> None:
    """A message has the bytes that the test vectors fix: no spaces, no escapes outside ASCII."""
    assert to_json({"op": "batch", "c": {"Küche": [1, 2.5, None, True]}}) == (
        '{"op":"batch","c":{"Küche":[1,2.5,null,true]}}'.encode()
    )


def test_what_was_written_is_read_again() -> None:
    """Text and bytes are the same to it."""
    value = {"a": [1, -0.0, "€"], "b": {}}

    assert from_json(to_json(value)) == from_json(to_json(value).decode()) == json.loads(json.dumps(value)) == value


def test_what_is_no_json_raises() -> None:
    """The errors that callers catch are those of the standard library."""
    with pytest.raises(ValueError, match="Expecting"):
        from_json(b"{")
    with pytest.raises(RecursionError):
        from_json(b"[" * 200_000)
    with pytest.raises(TypeError):
        to_json(object())
