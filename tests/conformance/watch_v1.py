"""Messages of ``watch.v1`` as `Got`: the part that WebSocket, SSE and long poll share.

Owns: decoding, written from docs/reference/watch.md and not from the SDK, so that both are checked. Pure.
"""

import time
from typing import Any

from tests.conformance.adapter import NOTHING, Got, RefusedError, Value

# Readings carry their own number, and their time says it once more: a value beside a wrong time is no reading.
STEP_NS = 1_000_000
_DAY_NS = 86_400 * 10**9
# Yesterday at midnight: no retention takes it, and nothing lies in the future.
START_NS = (time.time_ns() // _DAY_NS - 1) * _DAY_NS


class Decoder:
    """The messages of one connection, in order."""

    def __init__(self) -> None:
        self._series: dict[int, str] = {}
        self._text: set[int] = set()

    def take(self, message: dict[str, Any]) -> Got:
        """Return what a message came to."""
        match message["op"]:
            case "series":
                self._series |= {int(n): f"{s['device']}/{s['channel']}" for n, s in message["s"].items()}
                # Text is padding that makes a reading heavy; it is no number.
                self._text |= {int(n) for n, s in message["s"].items() if s["type"] == "str"}
            case "data":
                return Got(self._values(message), message["o"])
            case "ok":
                return Got(cursor=message.get("from"), recovered=message.get("recovered"))
            case "live":
                return Got(cursor=message["o"], is_live=True)
            case "reset":
                return Got(cursor=message["head"], reset=message["why"])
            case "error":
                if message["reason"] in ("forbidden", "unauthenticated"):
                    raise RefusedError(message["message"])
                raise AssertionError(f"the server refuses what the suite asks: {message}")
        return NOTHING

    def _values(self, message: dict[str, Any]) -> list[Value]:
        t0, tick, series = int(message["t0"]), int(message["tick"]), self._series
        values = []
        for place, dt, number in message["u"]:
            if place in self._text:
                continue
            wrong = t0 + int(dt) * tick - time_ns_of(int(number))
            assert not wrong, f"{series[place]}: reading {number} is {wrong} ns away from its time"
            values.append(Value(series[place], int(number)))
        return values


def time_ns_of(number: int) -> int:
    """Return the time of a reading of this number."""
    return START_NS + number * STEP_NS
