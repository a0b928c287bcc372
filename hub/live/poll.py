"""One long poll: what is behind a cursor, or what comes within the wait, as one answer of bounded size.

Owns: when an answer is due, and what is in it. Place: after `subscription`, which decides what is sent as it does for
a WebSocket; `hub.gateway.poll` is its shell. Pure. A flush names the series of its rows once for all polls of a room.

For clients:

`GET /v1/watch?match=…&since=…&wait=20s` has the parameters of the event stream, and `wait`: how long the hub may keep
the question when nothing is behind the cursor, `0s` to `55s`. It answers in JSON:

    {"o":"<cursor>","messages":[{"op":"series",…},{"op":"data",…},{"op":"live","o":"<cursor>"}]}

Apply the messages in order, keep `o`, and ask again with `since=<o>`. That is all there is: the hub remembers nothing
of a client between two questions, so an answer that was lost is asked for again, from any process that speaks for this
hub, and nothing is missed or comes twice. A cursor holds over restarts of the hub. One that a restored backup or the
journal's retention has made worthless is answered with `reset`: why, and the head to go on from.

- The hub answers at once when it has something to tell: readings, a `reset`, or a first cursor, for a question whose
  `since` is none (absent, a time, `last`). Else it answers with the first that comes, or with the position when the
  wait is over. `wait=0s` never waits: a page of what is there, and the cursor behind it.
- No page is added to an answer of 128 KiB; `last` names each series once, whatever their number. `live` at the end says
  that nothing more was behind it; without it ask again at once.
- Until the first `live` a row replaces an earlier one of its series and time, as on every transport: history and what
  comes meanwhile may overlap.
- Each answer names the series of its own rows; all there are: `GET /v1/latest`.
- `mode=latest` answers a resumed question no sooner than `1 / max_hz` after it came.
- `lag` says that history cannot be read yet, and how far the store is behind; the position stays.
- `bye` says that the hub stops, and after how many ms (`retry_ms`) to ask again.
- Errors are those of REST: 400 a parameter, 401 a credential that is unknown or ended while the question waited, 403
  nothing of what was asked for is granted. A client that hangs up is forgotten at once.

It is beside the event stream and not at `/v1/readings`, because it gives the same messages and takes the same
parameters and cursors: a client that falls back adds `wait` and nothing else. `/v1/readings` answers questions about
history in rows, with values in buckets and pages of a range, and its `next` is no position among what is to come.
"""

from collections.abc import Callable, Iterator

import orjson

from hub.live.cursor import Start
from hub.live.encode import encode_series
from hub.live.figures import Origin, SubscriptionFigures
from hub.live.room import RoomKey
from hub.live.rooms import Live
from hub.live.subscription import Need, Phase, Subscription

# No page is begun behind it: some 8,000 readings, applied by a browser in a few milliseconds.
ANSWER_BYTES = 128 * 1024
# Proxies give up on a request that is silent for a minute (nginx, load balancers), some after half of that.
MAX_WAIT_S = 55.0
_SERIES, _LAG, _LIVE = (b'{"op":"%s",' % op for op in (b"series", b"lag", b"live"))


class Poll:
    """One poll. Call `step` until it answers False; again when ``wake`` was called, until `is_due` or the wait is over.

    Args:
        live, key, start: which room, and where to begin.
        origin: who asks; the end of that credential ends the poll.
        wake: asks the shell to look again; called from inside a flush, so it must only schedule.
    """

    # Equal for all, so that a flush wraps a chunk once for every poll of a room.
    key = "poll"

    def __init__(self, live: Live, key: RoomKey, start: Start, origin: Origin, wake: Callable[[], None]) -> None:
        self.identity_id = origin.identity.id
        self.origin = origin
        self.ended: tuple[int, str, int | None] | None = None
        self._live = live
        self._wake = wake
        self._written: list[bytes] = []
        self._size = 0
        self._is_lagging = False
        # Who has no position must get one now: were this answer lost, what comes while it waits would be missed.
        self._has_position = start.resumes and start.time_ns is None and not start.is_last
        self._subscription = Subscription(live, key, start, self, wake, lambda _: None, is_polled=True)
        live.enter(self)

    # --- shell -----------------------------------------------------------------------------------------------

    def step(self) -> Need | bool:
        """Write at most one page. True: call again soon; False: nothing to do now; a `Need`: read it for `reader`."""
        return False if self._is_lagging else self._subscription.step()

    @property
    def reader(self) -> Subscription:
        """Where the answer to a `Need` goes."""
        return self._subscription

    @property
    def is_due(self) -> bool:
        """Whether there is something to answer, so that waiting would only delay it."""
        return bool(self._written) or not self._has_position or self.is_over

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come: the hub ended the poll, or the client left."""
        return self.ended is not None or self._subscription.phase is Phase.ENDED

    def answer(self) -> bytes:
        """Return the answer's JSON and end the poll: ``{"o":"<cursor>","messages":[…]}``.

        The cursor stands behind the messages, and behind all that was looked at and did not match.
        """
        lines = list(self._lines())
        cursor = self._subscription.cursor()
        if self._subscription.phase is Phase.LIVE:
            lines.append(orjson.dumps({"op": "live", "o": cursor}))
        if self.ended is not None:
            code, reason, retry_ms = self.ended
            lines.append(orjson.dumps({"op": "bye", "code": code, "reason": reason, "retry_ms": retry_ms}))
        self.leave()
        return b'{"o":"%s","messages":[%s]}' % (cursor.encode(), b",".join(lines))

    def leave(self) -> None:
        """Forget the client, who has left or is answered. Harmless when called twice."""
        self._subscription.end()
        self._live.leave(self)

    def _lines(self) -> Iterator[bytes]:
        """Yield the messages written, without names that an earlier one has told."""
        named: dict[str, object] = {}
        for line in b"".join(self._written).splitlines():
            if not line.startswith(_SERIES):
                yield line
                continue
            message = orjson.loads(line)
            told, gone = message["s"], message.get("gone", ())
            new = {i: series for i, series in told.items() if named.get(i) != series}
            named |= new
            for number in gone:
                named.pop(str(number), None)
            if new or gone:
                yield line if len(new) == len(told) else orjson.dumps({**message, "s": new})

    # --- outlet ----------------------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether the answer is large enough; the cursor says what is still owed."""
        return self._size >= ANSWER_BYTES

    def wrap(self, op: str, tail: bytes, cursor: str | None) -> bytes:
        """Return one message on a line of its own (JSON holds no line breaks), behind the names of its series."""
        line = b'{"op":"%s",%s\n' % (op.encode(), tail)
        if op != "data":
            return line
        members = self._subscription.members
        found = {row[0]: members[row[0]] for row in orjson.loads(b"{" + tail)["u"]}
        return b"%s%s\n%s" % (_SERIES, encode_series(found.values()), line)

    def write(self, data: bytes) -> None:
        """Add messages to the answer."""
        if data.startswith(_LIVE):
            # Said once, at the end of the answer; to one who waits it would be no reason to answer.
            return
        self._is_lagging |= data.startswith(_LAG)
        self._written.append(data)
        self._size += len(data)
        self._wake()

    # --- watcher ---------------------------------------------------------------------------------------------

    @property
    def buffered_bytes(self) -> int:
        """What the answer holds until it is sent."""
        return self._size

    def figures(self) -> list[SubscriptionFigures]:
        """Return how its subscription stands."""
        return [self._subscription.figures()]

    def tick(self) -> None:
        """Say nothing: the answer tells the position."""

    def end(self, code: int, reason: str, retry_ms: int | None = None) -> None:
        """End the poll from the hub's side; the answer says so."""
        self.ended = (code, reason, retry_ms)
        self._wake()
