"""States as JSON objects: merged as RFC 7396 says, and small enough to travel.

Owns: what a change of a state means, for the device's reported state and the hub's desired one. Place: after
`wire`; imported by those who keep states. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from device_sdk.errors import MisuseError
from device_sdk.wire import MAX_CONTROL_DEPTH


def merged(state: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state after the patch: objects are merged, None removes a key, all else replaces what was there.

    Neither argument is changed; unchanged parts are shared. Source: RFC 7396.

    Raises:
        MisuseError: the patch is nested deeper than `MAX_CONTROL_DEPTH`.
    """
    return _merged(state, patch, MAX_CONTROL_DEPTH)


def _merged(state: object, patch: Mapping[str, Any], depth: int) -> dict[str, Any]:
    if not depth:
        raise MisuseError(f"a state nested deeper than {MAX_CONTROL_DEPTH}: make it flatter")
    result = dict(state) if isinstance(state, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            result[name] = _merged(result.get(name), value, depth - 1)
        else:
            _check_depth(value, depth - 1)
            result[name] = value
    return result


def _check_depth(value: object, depth: int) -> None:
    if isinstance(value, list | tuple):
        if not depth:
            raise MisuseError(f"a state nested deeper than {MAX_CONTROL_DEPTH}: make it flatter")
        for inner in value:
            _check_depth(inner, depth - 1)
    elif isinstance(value, Mapping):
        _check_depth(list(value.values()), depth)
