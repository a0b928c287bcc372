"""`hub.device_names`: a star and nothing else is special."""

import pytest

from hub.device_names import check_names, is_among
from hub.errors import BadRequestError


@pytest.mark.parametrize("pattern", ["", "barn-[0-9]", "barn-?", "barn/*", "b" * 65, "barn *", "barn\n"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    """The error says what was wrong and what is right."""
    with pytest.raises(BadRequestError, match=r"prefix .*greenhouse-\*"):
        check_names(pattern, "prefix")


@pytest.mark.parametrize(
    ("name", "is_meant"), [("barn-1", True), ("barn-", True), ("Barn-1", False), ("barn", False), ("a-barn-1", False)]
)
def test_pattern_means_whole_names(name: str, is_meant: bool) -> None:
    """From the first character to the last, in the case as written; one of several is enough."""
    assert is_among(name, ["shed-*", check_names("barn-*")]) is is_meant
