"""InfluxDB as an engine: written to by its own client, asked in InfluxQL, which 1.x and 3.x answer.

Owns: requests and answers. Place: after `store.remote`; ``influxdb_client`` and ``aiohttp`` (extra ``influxdb``) are
imported when an engine is made. An event loop in a thread of its own carries the requests, because the client is
asynchronous: its blocking twin has a queue without a bound and loses what is in it.

Source: InfluxDB 1.8 documentation, "InfluxDB API reference", "InfluxQL". 2.x is asked in Flux (`store.flux`).
"""

import asyncio
import json
import re
import threading
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from hub.errors import ConfigError, StoreError
from hub.store.line_protocol import BOOL, FIELDS, FLOAT, INT, MEASUREMENT, SeriesName, tags_of
from hub.store.remote import RefusedLinesError, Rows

SCHEME, SCHEME_2 = "influxdb", "influxdb2"
# For one request; the consumer tries again, a person sees the error.
TIMEOUT_S = 30.0
# Statements of one request: a URL-sized part of a fleet.
STATEMENTS = 100
# What 64 bits hold but the server does not: it keeps the ends for itself.
_FIRST_NS, _LAST_NS = -(2**63) + 2, 2**63 - 2
_FUNCTIONS = {"avg": "mean"}
# Of what is in the request: malformed, or a type that the field does not have. Proxies and ports that want TLS answer
# so, too: it is a refusal of lines only in the server's own words, or all that the journal holds would be given up.
_REFUSED = frozenset({400, 422})
# Too large is so whoever says it.
_OF_LINES = _REFUSED | {413}
# How the words end when it parsed all lines, and left out so many.
_DROPPED = re.compile(r"partial write: .* dropped=([0-9]+)$")
_IS_IT = "is the address right, http or https?"
_Answer = TypeVar("_Answer")


class Address(NamedTuple):
    """Where the server is, and what of it is ours; ``is_v2``: it speaks Flux, and ``database`` is a bucket."""

    url: str
    database: str
    organisation: str
    is_v2: bool = False


def parse_address(text: str) -> Address:
    """Return the parts of ``influxdb+http://host:8086/DATABASE`` or ``influxdb2+http://host:8086/BUCKET?org=ORG``.

    Raises:
        ConfigError: it is none; credentials in it, which would be seen in logs.
    """
    parts = urlsplit(text)
    version, _, scheme = parts.scheme.partition("+")
    database = unquote(parts.path.strip("/"))
    if "@" in parts.netloc:
        raise ConfigError("store: leave user and password out of the address; put USER:PASSWORD, or a token, into "
                          "the environment variable HUB_STORE_TOKEN")  # fmt: skip
    asked = parse_qs(parts.query)
    organisation = asked.pop("org", ["-"])[0]
    if (
        (version not in (SCHEME, SCHEME_2) or scheme not in ("http", "https"))
        or not (parts.hostname and database)
        or "/" in database
        or asked
    ):
        # The address is not repeated: whatever was put into it may be a secret.
        raise ConfigError(
            "store: use influxdb+http://HOST:8086/DATABASE, or for 2.x influxdb2+http://HOST:8086/BUCKET?org=ORG"
        )
    if version == SCHEME_2 and organisation == "-":
        raise ConfigError("store: InfluxDB 2.x needs the organisation: influxdb2+http://HOST:8086/BUCKET?org=ORG")
    return Address(f"{scheme}://{parts.netloc}", database, organisation, version == SCHEME_2)


class InfluxEngine:
    """One InfluxDB server.

    Args:
        address: where it is.
        token: of 2.x and 3.x, or ``user:password`` of 1.x; "" where none is needed.
        timeout_s: for one request.

    Raises:
        ConfigError: the client is not installed.
    """

    def __init__(self, address: Address, token: str = "", *, timeout_s: float = TIMEOUT_S) -> None:
        try:
            import aiohttp
            from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync
        except ImportError as error:
            raise ConfigError("store: InfluxDB needs its client: pip install 'telemetry-hub[influxdb]'") from error
        self._address = address
        self._timeout_s = timeout_s
        self._errors = (aiohttp.ClientError, OSError)
        headers = {"Authorization": f"Token {token}"} if token else {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hub-store-influxdb", daemon=True)
        self._thread.start()

        async def connect() -> tuple[Any, Any]:
            # A redirect would carry readings and token to whoever it names.
            client = InfluxDBClientAsync(
                address.url, token, org=address.organisation, timeout=int(timeout_s * 1000), enable_gzip=False,
                allow_redirects=False,
            )  # fmt: skip
            timeout = aiohttp.ClientTimeout(total=timeout_s)
            return client, aiohttp.ClientSession(address.url, headers=headers, timeout=timeout)

        self._client, self._session = self._run(connect())

    def write(self, lines: bytes) -> None:
        """Store lines in one request; 204 comes when they are in the server's log on its disk."""
        from influxdb_client.rest import ApiException

        try:
            is_stored = self._run(
                self._client.write_api().write(self._address.database, record=lines, write_precision="ns")
            )
        except ApiException as error:
            message = f"InfluxDB {error.status}: {_said(error.body or error.message)}{_hint(error.status)}"
            if error.status in _REFUSED and not _is_of_influxdb(error.body):
                raise StoreError(f"{message}; something else answers at {self._address.url}: {_IS_IT}") from error
            if error.status not in _OF_LINES:
                raise StoreError(message) from error
            dropped = _DROPPED.search(message)
            raise RefusedLinesError(message, int(dropped[1]) if dropped else None) from error
        if not is_stored:
            raise StoreError(f"{self._address.url} answers 200 or 202 to a write, not 204 as InfluxDB does: {_IS_IT}")

    def read(
        self, names: Sequence[SeriesName], start_ns: int, end_ns: int, limit: int, *, descending: bool = False
    ) -> list[Rows]:
        """Return of each series its first ``limit`` rows of [start_ns, end_ns), in order."""
        fields = ", ".join(("kind", *FIELDS.values()))
        order = "DESC" if descending else "ASC"
        found = self._ask(
            f"SELECT {fields} FROM {MEASUREMENT} WHERE {_of(name)} AND {_within(start_ns, end_ns)} "  # noqa: S608
            f"ORDER BY time {order} LIMIT {limit}"
            for name in names
        )
        return [[(row[0], value_of(*row[1:])) for row in rows] for rows in found]

    def buckets(
        self, names: Sequence[SeriesName], start_ns: int, end_ns: int, step_ns: int, origin_ns: int,
        functions: Sequence[str],
    ) -> list[list[tuple[int, tuple[float | int, ...]]]]:  # fmt: skip
        """Return of each series of floats its non-empty buckets."""
        wanted = ", ".join(f"{_FUNCTIONS.get(name, name)}({FIELDS[FLOAT]})" for name in functions)
        found = self._ask(
            f"SELECT {wanted} FROM {MEASUREMENT} WHERE {_of(name)} AND {_within(start_ns, end_ns)} "  # noqa: S608
            f"GROUP BY time({step_ns}ns, {origin_ns % step_ns}ns) fill(none)"
            for name in names
        )
        return [
            [
                (row[0], tuple(v if f == "count" else float(v) for f, v in zip(functions, row[1:], strict=True)))
                for row in rows
            ]
            for rows in found
        ]

    def count(self, names: Sequence[SeriesName]) -> list[int]:
        """Return how many rows each series has."""
        found = self._ask(f"SELECT count(kind) FROM {MEASUREMENT} WHERE {_of(name)}" for name in names)  # noqa: S608
        return [rows[0][1] if rows else 0 for rows in found]

    def delete(self, name: SeriesName) -> None:
        """Delete a series."""
        self._ask([f"DELETE FROM {MEASUREMENT} WHERE {_of(name)}"])  # noqa: S608

    def durable(self, offset: int) -> int:
        """Return ``offset``: the server answers when its log is on the disk."""
        return offset

    def close(self) -> None:
        """Close connections and the thread; safe to call twice."""
        if self._loop.is_closed():
            return
        try:
            self._run(self._client.close())
            self._run(self._session.close())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(self._timeout_s)
            if not self._thread.is_alive():
                self._loop.close()

    def _ask(self, statements: "Iterator[str] | Sequence[str]") -> list[list[list[Any]]]:
        """Return the rows of each statement."""
        asked = list(statements)
        found: list[list[list[Any]]] = []
        for begin in range(0, len(asked), STATEMENTS):
            found += self._run(self._query(asked[begin : begin + STATEMENTS]))
        return found

    async def _query(self, statements: Sequence[str]) -> list[list[list[Any]]]:
        form = {"db": self._address.database, "epoch": "ns", "q": ";".join(statements)}
        text = await self._post("/query", data=form)
        try:
            # Python's own: "-0" must stay negative, which only a hook sees.
            results = list(json.loads(text, parse_int=_whole)["results"])
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(f"{self._address.url} answers something else to a query: is this InfluxDB 1.x?") from error
        for result in results:
            if "error" in result:
                raise StoreError(f"InfluxDB: {result['error']}")
            if any(series.get("partial") for series in result.get("series") or ()):
                raise StoreError("InfluxDB leaves rows out of its answers: set max-row-limit = 0 under [http]")
        return [result["series"][0]["values"] if result.get("series") else [] for result in results]

    async def _post(self, path: str, **request: Any) -> str:
        async with self._session.post(path, allow_redirects=False, **request) as answer:
            # Texts of devices are UTF-8, whatever the server's header says of its answer.
            text: str = await answer.text("utf-8")
            if answer.status >= 300:
                raise StoreError(f"InfluxDB {answer.status}: {_said(text)}{_hint(answer.status)}")
            return text

    def _run(self, work: Coroutine[Any, Any, _Answer]) -> _Answer:
        if self._loop.is_closed():
            work.close()
            raise StoreError("InfluxDB: the store is closed")
        waiting = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            # The request ends by its own time-out; this is for a loop that does not answer.
            return waiting.result(self._timeout_s * 2)
        except TimeoutError as error:
            waiting.cancel()
            raise StoreError(f"InfluxDB {self._address.url}: no answer within {self._timeout_s:g} s") from error
        except self._errors as error:
            raise StoreError(f"InfluxDB {self._address.url} cannot be reached: {error}") from error


def _of(name: SeriesName) -> str:
    return " AND ".join(f"{key}={_quoted(text)}" for key, text in tags_of(name).items())


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _within(start_ns: int, end_ns: int) -> str:
    return f"time >= {max(start_ns, _FIRST_NS)} AND time <= {min(end_ns - 1, _LAST_NS)}"


def _whole(digits: str) -> float | int:
    return -0.0 if digits == "-0" else int(digits)


def value_of(kind: int, number: Any, whole: Any, truth: Any, text: Any) -> Any:
    """Return which of the fields of a row counts."""
    if kind == FLOAT:
        return float(number)
    return whole if kind == INT else truth if kind == BOOL else text


def _hint(status: int) -> str:
    return " (the token of HUB_STORE_TOKEN must write and read there)" if status in (401, 403) else ""


def _is_of_influxdb(said: bytes | str | None) -> bool:
    try:
        found = json.loads(said or "")
    except ValueError:
        return False
    return isinstance(found, dict) and ("error" in found or "message" in found)


def _said(text: bytes | str) -> str:
    """Return what a server said, short."""
    text = text.decode(errors="replace") if isinstance(text, bytes) else text
    try:
        found = json.loads(text)
        text = found.get("error") or found.get("message") or text
    except (ValueError, AttributeError):
        pass
    return " ".join(str(text).split())[:300]
