"""`device_sdk.merge_patch`: changes of states as RFC 7396 says."""

from typing import Any

import pytest

from device_sdk.errors import MisuseError
from device_sdk.merge_patch import merged
from device_sdk.wire import MAX_CONTROL_DEPTH


@pytest.mark.parametrize(
    ("state", "patch", "after"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}), ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}), ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}), ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}), ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}), ({"a": 1}, {"a": {}}, {"a": {}}),
    ],
    ids=str,
)  # fmt: skip
def test_merges_as_the_rfc_says(state: dict[str, Any], patch: dict[str, Any], after: dict[str, Any]) -> None:
    """The examples of RFC 7396, appendix A, whose target and patch are objects; no argument is changed."""
    kept = str(state), str(patch)

    assert merged(state, patch) == after
    assert (str(state), str(patch)) == kept


def test_deep_patch_is_refused() -> None:
    """What no reader should follow is refused where it is said."""
    patch: dict[str, Any] = {}
    for _ in range(MAX_CONTROL_DEPTH - 1):
        patch = {"a": patch}
    assert merged({}, patch) == patch

    with pytest.raises(MisuseError, match=str(MAX_CONTROL_DEPTH)):
        merged({}, {"a": patch})
