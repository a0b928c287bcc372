"""JSON as the wire and the spool have it: UTF-8, no spaces.

Owns: how a value becomes bytes. Place: leftmost. Pure.

The library comes with the first message, because it is 2 % of what `import device_sdk` costs: a program that
starts has its readings on the spool before that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any


def to_json(value: Any) -> bytes:
    """Return the value as JSON, keys in their order.

    Raises:
        TypeError: something in it is no JSON value.
    """
    return _encoder()(value).encode()


def from_json(data: bytes | bytearray | str) -> Any:
    """Return the value.

    Raises:
        ValueError: no JSON. RecursionError: nested too deep.
    """
    return _decoder()(data)


@cache
def _encoder() -> Callable[[Any], str]:
    from json import JSONEncoder

    return JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


@cache
def _decoder() -> Callable[[bytes | bytearray | str], Any]:
    from json import loads

    return loads
