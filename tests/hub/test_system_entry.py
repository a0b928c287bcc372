"""`hub.system_entry`: whatever an entry says, it fits a reading."""

import json

import pytest

from device_sdk.reading import MAX_STRING_BYTES
from hub.system_entry import as_value


@pytest.mark.parametrize("text", ["a" * 9999, '"' * 9999, "\U0001f321" * 9999, "\x00" * 300, "\udc80 lone"])
def test_value_fits_a_reading(text: str) -> None:
    """Whatever peers put into names and reasons."""
    value = as_value({"device": text, "reason": text, "why": text, "count": 2**63, "first_ns": None})

    assert len(value.encode()) <= MAX_STRING_BYTES
    assert json.loads(value)["count"] == 2**63
