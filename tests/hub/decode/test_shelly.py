"""Messages of both kinds of Shelly are read as they are."""

from typing import Any

import pytest

from tests.support.foreign_messages import cases, check


@pytest.mark.parametrize("case", cases("shelly"))
def test_message_is_read(case: dict[str, Any]) -> None:
    """Each message of tests/vectors/decode/shelly.json says what stands there."""
    check(case)
