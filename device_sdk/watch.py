"""The watcher's half of ``watch.v1`` for one subscription: messages in, readings and a cursor out.

Owns: what to ask for after each (re)connection, decoding, and where the
watcher stands. Place: before `client`. Pure: no socket, no clock.

A cursor names what was *taken*: it moves only when the caller comes for more,
so whatever happens between two messages, the next connection begins exactly
behind the last reading that was handed out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from device_sdk.errors import AuthenticationError, MisuseError, ProtocolError, ResetError
from device_sdk.reading import Value

# One subscription per connection, so one name is enough.
SUBSCRIPTION = "s1"
# Of what is asked of the connection itself: its answers are not the subscription's.
CONNECTION_ID = "connection"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class WatchedReading:
    """One reading of one series as a watcher gets it (``time_ns``: UTC epoch nanoseconds, exact).

    ``late``: it is older than what the hub had of its series when it came, e.g. from a device that was offline.
    ``least``, ``greatest`` (a watch with ``agg="minmax"``): of all that came of its series since the message before.
    """

    device: str
    channel: str
    time_ns: int
    value: Value
    unit: str | None = None
    late: bool = False
    least: bool = False
    greatest: bool = False

    @property
    def time(self) -> datetime:
        """Return the instant as an aware datetime, cut to microseconds."""
        return _EPOCH + timedelta(microseconds=self.time_ns // 1000)


class Subscription:
    """One subscription over any number of connections.

    Call `request` on each new connection and send it; feed every message to
    `receive`; call `taken` when the readings of the last message were used.

    Args:
        match: patterns over ``device/channel``.
        since: cursor, RFC 3339 time, ``-15m``, ``last``; None = from now on.
        mode: ``lossless``, ``latest`` or ``sample``.
        max_hz: messages per second in mode ``latest``; None = the hub's default.
        exclude: patterns that take series out again.
        more: further fields of the request, e.g. ``agg``; those that are None are left out.
    """

    def __init__(
        self,
        match: Sequence[str],
        since: str | None = None,
        mode: str = "lossless",
        max_hz: float | None = None,
        exclude: Sequence[str] = (),
        **more: object,
    ) -> None:
        self.cursor = since
        self.is_live = False
        self.behind = 0
        self.retry_ms: int | None = None
        # Given what the hub says of the connection itself: `welcome`, and answers to `auth`.
        self.told: Callable[[Mapping[str, Any]], None] | None = None
        self._asked: dict[str, object] = {"op": "sub", "sub": SUBSCRIPTION, "match": list(match), "mode": mode}
        if exclude:
            self._asked["not"] = list(exclude)
        if max_hz is not None:
            self._asked["max_hz"] = max_hz
        self._asked |= {name: value for name, value in more.items() if value is not None}
        self._series: dict[int, dict[str, Any]] = {}
        self._arrived: str | None = None

    def request(self) -> str:
        """Return the message that begins or resumes the subscription on a new connection."""
        self._arrived = None
        self.is_live = False
        since = {} if self.cursor is None else {"since": self.cursor}
        return json.dumps({"id": 1, **self._asked, **since})

    def hello(self) -> str:
        """Return the message that asks the hub what it knows of the connection."""
        return json.dumps({"op": "hello", "id": CONNECTION_ID})

    def receive(self, data: str | bytes) -> list[WatchedReading]:
        """Take one message; return its readings, often none.

        Raises:
            ResetError: the hub could not resume the cursor; it goes on from ``cursor``, which is now the hub's head.
            MisuseError: the hub does not understand the request.
            AuthenticationError: nothing of what was asked for may be seen.
            ProtocolError: this is no watch.v1.
        """
        try:
            message = json.loads(data)
            if message.get("id") == CONNECTION_ID:
                self._apply_to_connection(message)
                return []
            return self._apply(message["op"], message)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, MisuseError):
                raise
            raise ProtocolError(f"the hub sent a message this SDK cannot read: {error!r}") from error

    def taken(self) -> None:
        """Move the cursor behind the last message received: its readings are the caller's now."""
        if self._arrived is not None:
            self.cursor, self._arrived = self._arrived, None

    def series(self) -> list[tuple[str, str]]:
        """Return device and channel of all series that belong to the subscription now, sorted."""
        return sorted((info["device"], info["channel"]) for info in self._series.values())

    def _apply(self, op: str, message: dict[str, Any]) -> list[WatchedReading]:
        match op:
            case "data":
                self._arrived = str(message["o"])
                return self._readings(message)
            case "series":
                self._series |= {int(number): series for number, series in message["s"].items()}
                for number in message.get("gone", ()):
                    self._series.pop(number, None)
            case "ok":
                # All that belong are named again: some may have left while there was no connection.
                self._series.clear()
                self._arrived = str(message["from"])
                self.taken()
            case "live":
                self._arrived = str(message["o"])
                self.is_live, self.behind = True, 0
                self.taken()
            case "lag":
                self.behind = int(message["behind"])
            case "bye":
                self.retry_ms = int(message["retry_ms"])
            case "reset":
                self._arrived = str(message["head"])
                self.taken()
                raise ResetError(f"the hub cannot go on from this position ({message['why']})", str(message["why"]))
            case "error":
                kind = AuthenticationError if message["reason"] == "forbidden" else MisuseError
                raise kind(str(message.get("message", message["reason"])))
        return []

    def _apply_to_connection(self, message: dict[str, Any]) -> None:
        if self.told is not None:
            self.told(message)
        if SUBSCRIPTION in message.get("ended", ()):
            raise AuthenticationError("the new token may see nothing of what is watched")

    def _readings(self, message: dict[str, Any]) -> list[WatchedReading]:
        t0, tick, series = int(message["t0"]), int(message["tick"]), self._series
        late, least, greatest = (_marked(message, name) for name in ("late", "least", "greatest"))
        readings = []
        for row, (number, dt, value) in enumerate(message["u"]):
            info = series[number]
            # Integers beyond 2**53 travel as text; a series of strings says so.
            if isinstance(value, str) and info.get("type") != "str":
                value = int(value)
            at_ns, marks = t0 + int(dt) * tick, (row in late, row in least, row in greatest)
            readings.append(WatchedReading(info["device"], info["channel"], at_ns, value, info.get("unit"), *marks))
        return readings


def _marked(message: dict[str, Any], name: str) -> set[int]:
    """Return the rows that runs [begin, end) name; what lies beyond the rows of the message is nothing."""
    return {row for begin, end in message.get(name, ()) for row in range(begin, min(end, len(message["u"])))}
