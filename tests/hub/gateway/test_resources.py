"""`hub.gateway.resources`: how values stand in JSON."""

import pytest

from device_sdk.reading import Value
from hub.gateway.resources import json_value


@pytest.mark.parametrize(
    ("value", "expected"),
    [(2**53, 2**53), (2**53 + 1, str(2**53 + 1)), (-(2**63), str(-(2**63))), (True, True), (1.5, 1.5), ("x", "x")],
    ids=str,
)
def test_integers_that_javascript_would_lose_travel_as_text(value: Value, expected: Value) -> None:
    """Exactly up to 2**53 as numbers, beyond it as decimal text; everything else as it is."""
    assert json_value(value) == expected
    assert type(json_value(value)) is type(expected)
