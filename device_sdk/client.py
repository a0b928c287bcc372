"""`Client`: history and live readings of a hub, for programs and notebooks.

Owns: REST over the standard library, and the shell around `watch` that
reconnects. Place: beside `device`; a program that only records never loads
it. ``websockets`` is imported when something is watched.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from os import PathLike
from typing import TYPE_CHECKING, Any

from device_sdk.backoff import Backoff
from device_sdk.errors import AuthenticationError, ConnectionLostError, MisuseError, ProtocolError, ResetError
from device_sdk.loop_thread import loop_runner
from device_sdk.reading import INT_MAX, INT_MIN, Value, to_time_ns
from device_sdk.renewal import Renewal
from device_sdk.rows import Rows
from device_sdk.setting import is_loopback
from device_sdk.token_source import Token, TokenSource
from device_sdk.watch import Subscription, WatchedReading
from device_sdk.wire import WATCH_PATH, WATCH_SUBPROTOCOL, Close

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.exceptions import ConnectionClosed

TIMEOUT_S = 30.0
# As the hub has it: a person waits.
COMMAND_TIMEOUT_S = 10.0
# Rows asked for in one page of history: about 300 KiB of JSON.
PAGE_ROWS = 10_000
# The hub's live messages are below 256 KiB but for one instant of thousands of series; more is no hub of ours.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
# People look at watchers: come back within seconds, also when the hub was away for long.
MAX_WAIT_S = 5.0
# The hub takes numbers below for s, ms or µs: ns of about 1970 must be written as text.
_LEAST_NS_NUMBER = 10**17
_BUCKET_FUNCTIONS = ("avg", "min", "max", "count")
_SCHEMES = {"ws": "http", "wss": "https", "http": "http", "https": "https"}

Time = datetime | int | str


class Watch:
    """Readings as they are stored, each once: ``async for reading in watch``, or ``for``.

    ``for`` waits, also where an event loop runs (a notebook's cell): that loop stands still meanwhile, and the
    connection has one of its own in a thread, which ends with the loop over it. ``on_reset`` is called there.

    A connection that drops is made again and resumed at ``cursor``, which names
    what the loop has been given *completely*: keep it to go on in another process.
    A loop that was left may be followed by another: it goes on behind the last reading.
    Ends only by `close`, ``break`` or an exception:

    ``wait(seconds)`` sleeps between attempts; a program with a clock of its own may replace it.

    Raises (in the loop):
        ResetError: the hub was restored or no longer holds what was missed, and no ``on_reset`` was given. Looping on
            continues from the hub's head.
        AuthenticationError: the credential is wrong, ended (and no function gave one that holds), or may not see any
            of it.
        MisuseError: a pattern or ``since`` that the hub cannot read.
        ConnectionLostError: the first connection could not be made; later ones are tried for ever.
    """

    def __init__(
        self, client: Client, subscription: Subscription, on_reset: Callable[[ResetError], None] | None
    ) -> None:
        self._client = client
        self._subscription = subscription
        self._on_reset = on_reset
        self._socket: ClientConnection | None = None
        self._backoff = Backoff(random.random, cap_s=MAX_WAIT_S)
        self._was_connected = False
        self._is_asked = False
        self._renewal: Renewal | None = None
        # Another token was asked for since the hub last said something.
        self._is_renewed = False
        # Of the last message, what no loop was given yet: one that is left may be followed by another.
        self._rest: deque[WatchedReading] = deque()
        self.wait: Callable[[float], Awaitable[object]] = asyncio.sleep

    @property
    def cursor(self) -> str | None:
        """Where the loop stands; pass it as ``since`` to go on from there."""
        return self._subscription.cursor

    @property
    def is_live(self) -> bool:
        """Whether everything older was received and new readings arrive as they are stored."""
        return self._subscription.is_live

    @property
    def series(self) -> list[tuple[str, str]]:
        """Device and channel of all series that belong to the watch now, sorted: with a ``selector`` they change."""
        return self._subscription.series()

    async def __aiter__(self) -> AsyncIterator[WatchedReading]:
        try:
            while True:
                await self._refill()
                while self._rest:
                    yield self._rest.popleft()
        finally:
            await self.close()

    def __iter__(self) -> Iterator[WatchedReading]:
        with loop_runner() as runner:
            try:
                while True:
                    runner.run(self._refill())
                    while self._rest:
                        yield self._rest.popleft()
            finally:
                runner.run(self.close())

    async def batch(self) -> list[WatchedReading]:
        """Wait for the next readings; those of the call before count as taken. May be cancelled without loss.

        When a loop was left in the middle of a message, these are its rest.
        """
        if self._rest:
            rest = list(self._rest)
            self._rest.clear()
            return rest
        self._subscription.taken()
        while True:
            try:
                readings = await self._receive()
            except (ResetError, ConnectionLostError, AuthenticationError) as error:
                if not await self._go_on(error):
                    raise
            else:
                if readings:
                    return readings
                self._subscription.taken()

    async def close(self) -> None:
        """Close the connection; a later `batch` would open another."""
        socket, self._socket = self._socket, None
        if self._renewal is not None:
            self._renewal.end()
        if socket is not None:
            await socket.close()

    async def _refill(self) -> None:
        # Here, and not where it is waited for: an interrupt there would lose what has come.
        if not self._rest:
            self._rest.extend(await self.batch())

    async def _receive(self) -> list[WatchedReading]:
        from websockets.exceptions import ConnectionClosed

        if self._socket is None:
            self._socket = await self._client._open_watch()
            self._was_connected = True
            self._backoff.connected(time.monotonic())
            self._is_asked = False
        try:
            if not self._is_asked:
                await self._ask(self._socket)
                self._is_asked = True
            data = await self._socket.recv()
        except ConnectionClosed as error:
            raise _closed(error) from error
        self._is_renewed = False
        readings = self._subscription.receive(data)
        if self._renewal is not None and self._renewal.must_reconnect:
            await self.close()
        return readings

    async def _go_on(self, error: ResetError | ConnectionLostError | AuthenticationError) -> bool:
        if isinstance(error, ResetError):
            if self._on_reset is not None:
                self._on_reset(error)
            return self._on_reset is not None
        if isinstance(error, ConnectionLostError):
            if self._was_connected:
                await self._pause(error)
            return self._was_connected
        # Another token: once, until the hub says something again.
        may = error.is_unknown and self._client._token.is_function and not self._is_renewed
        self._is_renewed = True
        await self.close()
        return may

    async def _ask(self, socket: ClientConnection) -> None:
        source = self._client._token
        if source.is_function:
            self._renewal = Renewal(source, socket.send)
            self._subscription.told = self._renewal.told
            await socket.send(self._subscription.hello())
        await socket.send(self._subscription.request())

    async def _pause(self, error: ConnectionLostError) -> None:
        await self.close()
        retry_ms = error.retry_ms or self._subscription.retry_ms or 0
        self._subscription.retry_ms = None
        await self.wait(self._backoff.failed(time.monotonic(), at_least_s=retry_ms / 1000))


class Client:
    """One hub, read; and its devices commanded.

    Args:
        url: ``http``, ``https``, ``ws`` or ``wss``, e.g. ``https://hub.local:8000``.
        token: a watcher's or admin's token; None where the hub asks for none (its own machine). A function, plain or
            ``async``, is asked for each request and connection, and by a watch before the token ends.
        ca: PEM file to trust instead of the system's (``hub tls init`` writes one).

    Example:
        >>> client = Client("http://127.0.0.1:8000")
        >>> for row in client.query("greenhouse-*/temperature", last="1h"):
        ...     print(row["device"], row["time_ns"], row["value"])
    """

    def __init__(self, url: str, token: Token | None = None, *, ca: str | PathLike[str] | None = None) -> None:
        parts = urllib.parse.urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise MisuseError(f"{url!r} is no address of a hub; use e.g. https://hub.local:8000")
        self.url = f"{_SCHEMES[parts.scheme]}://{parts.netloc}"
        self._token = TokenSource(token)
        self._tls = _tls_context(ca) if self.url.startswith("https") else None
        # A proxy of the surroundings cannot reach this machine's loopback.
        self._is_local = is_loopback(parts.hostname)
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})] if self._is_local else []
        if self._tls is not None:
            handlers.append(urllib.request.HTTPSHandler(context=self._tls))
        self._opener = urllib.request.build_opener(*handlers)

    def query(
        self,
        *match: str,
        last: str | None = None,
        start: Time | None = None,
        end: Time | None = None,
        at: Time | None = None,
        lookback: str | None = None,
        bucket: str | None = None,
        tz: str | None = None,
        points: int | None = None,
        agg: str | Sequence[str] | None = None,
        fill: str | float | None = None,
        limit: int | None = None,
        order: str = "asc",
    ) -> Rows:
        """Return stored readings ordered by time, all of them: pages are fetched until there is no more.

        Args:
            match: patterns over ``device/channel``; none = everything.
            last: ``1h``, ``15m``, ``7d``: alone, or ``start``/``end`` (start ≤ time < end).
            at: instead of a range: the last reading of each series by then, not older than ``lookback``.
            bucket: ``10s``, ``1h``, ``1d``, ``1w``, ``1mo``: aggregates instead of readings.
            tz: whose days and hours the buckets are, e.g. ``Europe/Brussels``; None = UTC.
            points: instead of ``bucket``: the range in at most so many, for a chart; with exact least and greatest.
            agg: min, max, mean, count, sum, first, last, std, rate, increase, integral, integral_h, twa.
            fill: what stands in buckets without a reading: ``null``, ``previous``, ``linear`` or a number; None leaves
                them out.
            limit: rows at most; None = all.
            order: ``asc`` or ``desc``: newest first.

        Raises:
            MisuseError: the hub refuses the request; the message says why.
            AuthenticationError: no or a wrong credential.
            ConnectionLostError: no hub answers.
        """
        if limit is not None and limit < 1:
            raise MisuseError(f"limit {limit}: use 1 or more, or None for all rows")
        if agg is None and bucket is not None:
            agg = _BUCKET_FUNCTIONS
        parameters: dict[str, object] = {
            "match": list(match) or ["**"], "last": last, "from": _time_text(start), "to": _time_text(end),
            "at": _time_text(at), "lookback": lookback, "bucket": bucket, "tz": tz, "points": points,
            "agg": agg if agg is None or isinstance(agg, str) else ",".join(agg), "fill": fill, "order": order,
        }  # fmt: skip
        if at is None and points is None:
            parameters["limit"] = PAGE_ROWS if limit is None else min(limit, PAGE_ROWS)
        rows: list[tuple[Value | None, ...]] = []
        while True:
            answer = self.get("/v1/readings", **parameters)
            rows += self._rows(answer)
            if answer.get("next") is None or (limit is not None and len(rows) >= limit):
                return Rows(("device", "channel", "unit", "time_ns", *answer["columns"][2:]), rows[:limit])
            parameters["page"] = answer["next"]

    def devices(self) -> list[dict[str, Any]]:
        """Return every device with its state, channels and newest values, as ``GET /v1/devices`` gives them."""
        found: list[dict[str, Any]] = self.get("/v1/devices")["devices"]
        return found

    def command(
        self,
        match: str,
        name: str,
        /,
        *,
        timeout_s: float = COMMAND_TIMEOUT_S,
        queue: bool = False,
        expires: str | None = None,
        id: str | None = None,
        args: Mapping[str, object] | None = None,
        **named: object,
    ) -> list[dict[str, Any]]:
        """Have devices do something and wait: ``client.command("greenhouse-*", "fan", speed=3)``.

        Args:
            match: devices by name, ``site:north``, ``tag:tomatoes``; ``*``: all.
            timeout_s: how long answers may take, at most an hour.
            queue: keep it for devices that are not connected, until ``expires`` (``1d``, at most ``30d``).
            id: chosen by you: a call that comes again is the same command, and takes effect once.
            args: arguments that are called like one of these; others are ``named``.

        Returns:
            For each device ``device``, ``state`` (``done`` when it did), ``value``, ``error``.

        Raises: as `query`; `MisuseError` also when no device fits.
        """
        body = {
            "match": match, "name": name, "args": {**(args or {}), **named}, "timeout": f"{round(timeout_s * 1000)}ms",
            "queue": queue, "expires": expires, "id": id, "wait": True,
        }  # fmt: skip
        results: list[dict[str, Any]] = self.post("/v1/commands", body, timeout_s + TIMEOUT_S)["results"]
        return results

    def watch(
        self,
        *match: str,
        since: Time | None = None,
        mode: str = "lossless",
        max_hz: float | None = None,
        agg: str | None = None,
        every: int | None = None,
        exclude: Sequence[str] = (),
        selector: str | None = None,
        on_reset: Callable[[ResetError], None] | None = None,
    ) -> Watch:
        """Return a `Watch` of the patterns (none = everything); it connects when it is looped over.

        Args:
            since: a cursor, a time, ``-15m`` or ``last``; None = from now on.
            mode: ``lossless``: each reading once; ``latest``: the newest per series, at most ``max_hz`` times a second;
                ``sample``: one of ``every`` readings of each series.
            agg: ``minmax`` (mode ``latest``): the ``least`` and the ``greatest`` between two messages too: no spike is
                lost.
            selector: of what matches, only devices that it chooses as they are described at each moment:
                ``site:north tag:tomatoes``; `Watch.series` says which belong now.
            on_reset: called instead of raising `ResetError`; the watch goes on from the hub's head.
        """
        more = {"agg": agg, "every": every, "selector": selector}
        subscription = Subscription(match or ("**",), _time_text(since), mode, max_hz, exclude, **more)
        return Watch(self, subscription, on_reset)

    def get(self, path: str, **parameters: object) -> dict[str, Any]:
        """Return the parsed answer of a GET; parameters that are None are left out, lists are repeated.

        Raises:
            MisuseError, AuthenticationError, ConnectionLostError: as `query`.
            ProtocolError: what answers is no hub.
        """
        given = {name: value for name, value in parameters.items() if value is not None}
        return self._ask(f"{path}?{urllib.parse.urlencode(given, doseq=True)}")

    def post(self, path: str, body: dict[str, Any], timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """Return the parsed answer of a POST of a JSON object. Raises as `get`."""
        return self._ask(path, json.dumps(body).encode(), timeout_s)

    def state(self, device: str) -> dict[str, Any]:
        """Return a device's desired and reported state and how they differ: ``GET /v1/devices/{device}/state``."""
        return self.get(f"/v1/devices/{urllib.parse.quote(device, safe='')}/state")

    def set_desired(
        self, selector: str, patch: dict[str, Any], *, expected_version: int | None = None
    ) -> list[dict[str, Any]]:
        """Change the desired state of all devices that match; return what became of each (``POST /v1/desired``).

        Args:
            selector: ``greenhouse-*``, ``site:north tag:fan``, ``*``.
            patch: merged into the state; None removes a key (RFC 7396).
            expected_version: refuse devices that have another version by now; ``error`` says so.
        """
        body = {"selector": selector, "patch": patch, "expected_version": expected_version}
        outcomes: list[dict[str, Any]] = self.post("/v1/desired", body)["devices"]
        return outcomes

    def _ask(self, target: str, body: bytes | None = None, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        # The scheme was checked in __init__: no file: or other surprise can be opened here.
        request = urllib.request.Request(f"{self.url}{target}", data=body, headers=self._token.headers())  # noqa: S310
        if body is not None:
            request.add_header("Content-Type", "application/json")
        try:
            with self._opener.open(request, timeout=timeout_s) as answer:
                found = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error) from error
        except (OSError, HTTPException) as error:
            raise ConnectionLostError(f"no hub answers at {self.url}: {getattr(error, 'reason', error)}") from error
        except ValueError as error:
            raise ProtocolError(f"{self.url} answers, but is no telemetry hub") from error
        if not isinstance(found, dict):
            raise ProtocolError(f"{self.url} answers, but is no telemetry hub")
        return found

    def _rows(self, answer: dict[str, Any]) -> Iterator[tuple[Value | None, ...]]:
        names = [(s["device"], s["channel"], s["unit"]) for s in answer["series"]]
        large = self._large_integers(answer)
        for time_ns, number, *values in answer["rows"]:
            if number in large:
                values = [int(v) if isinstance(v, str) else v for v in values]
            yield (*names[number], int(time_ns), *values)

    def _large_integers(self, answer: dict[str, Any]) -> set[int]:
        """Return the series whose text values are integers beyond 2**53; asks for types only when there is text."""
        text = {row[1] for row in answer["rows"] if any(isinstance(v, str) for v in row[2:])}
        if not text:
            return set()
        match = [f"{answer['series'][n]['device']}/{answer['series'][n]['channel']}" for n in text]
        types = {
            (c["device"], c["channel"]): c["type"]
            for begin in range(0, len(match), 32)
            for c in self.get("/v1/channels", match=match[begin : begin + 32])["channels"]
        }
        return {n for n in text if types.get((answer["series"][n]["device"], answer["series"][n]["channel"])) != "str"}

    async def _open_watch(self) -> ClientConnection:
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidStatus, WebSocketException
        from websockets.typing import Subprotocol

        headers = await self._token.headers_soon()
        try:
            return await connect(
                "ws" + self.url.removeprefix("http") + WATCH_PATH,
                subprotocols=[Subprotocol(WATCH_SUBPROTOCOL)],
                additional_headers=headers,
                ssl=self._tls,
                compression=None,
                max_size=MAX_MESSAGE_BYTES,
                proxy=None if self._is_local else True,
            )
        except InvalidStatus as error:
            if (status := error.response.status_code) in (401, 403):
                message = _message_of(bytes(error.response.body or b""), str(error))
                raise AuthenticationError(message, is_unknown=status == 401) from error
            raise ConnectionLostError(f"the hub refused the connection: {error}") from error
        except (OSError, TimeoutError, WebSocketException) as error:
            raise ConnectionLostError(f"no hub answers at {self.url}: {error}") from error


def _time_text(time: Time | None) -> str | None:
    if time is None or isinstance(time, str):
        return time
    time_ns = max(INT_MIN, min(to_time_ns(time), INT_MAX))
    if abs(time_ns) >= _LEAST_NS_NUMBER:
        return str(time_ns)
    seconds, rest = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(0, UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _tls_context(ca: str | PathLike[str] | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise MisuseError(f"ca file {ca}: {error}") from error


def _closed(error: ConnectionClosed) -> Exception:
    code = None if error.rcvd is None else error.rcvd.code
    if code in (Close.UNAUTHENTICATED, Close.FORBIDDEN):
        return AuthenticationError(f"the hub ended this credential ({error})", is_unknown=code == Close.UNAUTHENTICATED)
    if code in (Close.BAD_MESSAGE, Close.TOO_LARGE):
        return ProtocolError(f"the hub does not understand this SDK ({error})")
    return ConnectionLostError(f"the hub closed the connection ({error})", code=code)


def _refusal(error: urllib.error.HTTPError) -> Exception:
    message = _message_of(error.read(), f"the hub answered {error.code} {error.reason}")
    if error.code in (401, 403):
        return AuthenticationError(message)
    return ConnectionLostError(message, code=error.code) if error.code >= 500 else MisuseError(message)


def _message_of(body: bytes, otherwise: str) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return otherwise
