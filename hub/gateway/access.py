"""Who asks: from a request's headers to an identity, the same for REST, page and WebSocket.

Owns: where a credential may travel (Bearer, the page's cookie, this machine
itself), the one-time login links. Place: above `auth` and `origin`, below
`http`; `hub.app` asks here before a WebSocket exists. Must not: decide what
a scope allows on a route (the endpoint table does).
"""

import hmac
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from device_sdk.wire import WATCH_PATH
from hub.auth import Identities
from hub.change_log import ChangeLog, Entry
from hub.children import Children
from hub.commands import Commands
from hub.devices import Registry
from hub.disk_budget import DiskBudget
from hub.errors import UnauthenticatedError
from hub.gateway.attempts import Attempts
from hub.gateway.origin import is_loopback_address, is_loopback_host, is_same_origin
from hub.hooks.grant import Grants
from hub.hooks.ingest import IngestStatistics
from hub.importing.intake import Imports
from hub.journal.base import Journal
from hub.journal.writer import WriterStatistics
from hub.live.rooms import Live
from hub.metadata import Metadata
from hub.mqtt.clients import Figures
from hub.posts import Posts
from hub.query import Query
from hub.replay import Replays
from hub.retention import Retention
from hub.revocations import Revocations
from hub.roles import LOCAL, Identity, Role
from hub.rollout import Rollout
from hub.sign_in import SignIn
from hub.store.base import Store
from hub.store.consumer import ConsumerStatistics
from hub.streams import Streams
from hub.users import Users

SESSION_COOKIE = "hub_session"
SESSION_S = 30 * 86400.0
# A link is printed and opened at once; half a day survives a lunch break, not a forgotten terminal log.
LOGIN_LINK_S = 12 * 3600.0
MAX_LINKS = 16
# Before a token among the subprotocols that a browser's WebSocket offers.
OFFER_PREFIX = "bearer."
# A reverse proxy on this machine speaks for somebody else.
_PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-real-ip")

S_co = TypeVar("S_co", covariant=True)


class Settings(Protocol):
    """What the gateway needs of `hub.config.Config`."""

    @property
    def data(self) -> Path:
        """The folder of the hub's files."""

    @property
    def journal_hours(self) -> float:
        """How long the journal keeps frames."""

    @property
    def allow_origin(self) -> Sequence[str]:
        """Origins beside the hub's own whose pages may ask."""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the port."""

    @property
    def is_tls(self) -> bool:
        """Whether the port speaks TLS."""


class Consumer(Protocol):
    """What the gateway needs of the store's consumer."""

    async def applied(self, offset: int, timeout_s: float) -> bool:
        """Wait until the store holds all frames up to ``offset``."""


class Counting(Protocol[S_co]):
    """A part of which only the figures are asked for here."""

    def statistics(self) -> S_co:
        """Return the figures of now."""


class Feed(Consumer, Counting[ConsumerStatistics], Protocol):
    """The store's consumer with its figures."""


class Parts(Protocol):
    """The parts of a hub that the gateway reads (`hub.app.Hub` is one)."""

    @property
    def config(self) -> Settings: ...
    @property
    def identities(self) -> Identities: ...
    @property
    def users(self) -> Users: ...
    @property
    def revocations(self) -> Revocations: ...
    @property
    def sign_in(self) -> SignIn: ...
    @property
    def change_log(self) -> ChangeLog: ...
    @property
    def children(self) -> Children: ...
    @property
    def registry(self) -> Registry: ...
    @property
    def streams(self) -> Streams: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def store(self) -> Store: ...
    @property
    def consumer(self) -> Feed: ...
    @property
    def writer(self) -> Counting[WriterStatistics]: ...
    @property
    def ingest(self) -> Counting[IngestStatistics]: ...
    @property
    def mqtt(self) -> Counting[Figures]: ...
    @property
    def grants(self) -> Grants: ...
    @property
    def live(self) -> Live: ...
    @property
    def query(self) -> Query: ...
    @property
    def replays(self) -> Replays: ...
    @property
    def imports(self) -> Imports: ...
    @property
    def posts(self) -> Posts: ...
    @property
    def metadata(self) -> Metadata: ...
    @property
    def commands(self) -> Commands: ...
    def describe(self) -> None: ...
    @property
    def retention(self) -> Retention | None: ...
    @property
    def disk_budget(self) -> DiskBudget | None: ...
    @property
    def claim_attempts(self) -> Attempts: ...
    @property
    def rollout(self) -> Rollout: ...
    @property
    def started_ns(self) -> int: ...
    def pause(self, seconds: float) -> None: ...
    @property
    def failed(self) -> Exception | None: ...


class Asker(Protocol):
    """Where a request came from (`UpgradeRequest` is one)."""

    @property
    def is_loopback(self) -> bool:
        """Whether the peer is this machine."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a request: its address, and its headers with lower-case names."""

    address: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_loopback(self) -> bool:
        """Whether the peer is this machine."""
        return is_loopback_address(self.address)

    @property
    def has_credential(self) -> bool:
        """Whether something was sent that may be right or wrong."""
        return "authorization" in self.headers or self.cookie is not None

    @property
    def cookie(self) -> str | None:
        """The page's cookie."""
        return read_cookie(self.headers.get("cookie", ""), SESSION_COOKIE)


class Doors(Protocol):
    """The parts that `identify` looks at."""

    @property
    def config(self) -> Settings: ...
    @property
    def identities(self) -> Identities: ...
    @property
    def users(self) -> Users: ...


def is_from_page(headers: Mapping[str, str]) -> bool:
    """Return whether a browser says that the hub's own page asks; what it says, a page of another site cannot forge.

    Stricter than what reading with a cookie needs: a request that says nothing of its origin is not the page's.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        return False
    return is_same_origin(origin, headers.get("host", "")) if origin is not None else site is not None


def identify(
    hub: Doors, headers: Mapping[str, str], asker: Asker | None, *, is_change: bool = False
) -> Identity | None:
    """Return who asks, or None.

    A Bearer token counts alone: a wrong one is never replaced by a cookie. The
    page's cookie and the free access on loopback are for browsers, so they
    hold only for the hub's own origin; of those that the settings allow, for reading.

    Args:
        headers: lower-case names.
        asker: where the request came from; None accepts a Bearer token only (devices).
        is_change: the request changes something, so a cookie counts only when the page itself asks.
    """
    authorization = headers.get("authorization")
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        # `Token` is what clients of InfluxDB say.
        return hub.identities.authenticate(token.strip()) if scheme.lower() in ("bearer", "token") else None
    allowed = () if is_change else hub.config.allow_origin
    if asker is None or not _is_own(hub.config, headers, allowed):
        return None
    cookie = read_cookie(headers.get("cookie", ""), SESSION_COOKIE)
    if cookie and (not is_change or is_from_page(headers)):
        session = hub.users.authenticate(cookie) or hub.identities.authenticate(cookie)
        if session is not None:
            return session
    return LOCAL if _is_local(hub.config, headers, asker) else None


def identify_again(hub: Parts, peer: str, token: str) -> Identity:
    """Return whose token a connected watcher goes on with; ``peer``: its address, for the log of changes.

    Raises:
        UnauthenticatedError: nobody's.
    """
    identity = hub.identities.authenticate(token)
    if identity is None:
        hub.change_log.refused(Entry(f"auth {WATCH_PATH}", outcome=UnauthenticatedError.reason, peer=peer))
        raise UnauthenticatedError("this token is not known or has ended; the connection goes on with the one before")
    return identity


def with_offered_token(config: Settings, headers: Mapping[str, str], subprotocols: Sequence[str]) -> Mapping[str, str]:
    """Return the headers with the token that a browser offers as subprotocol ``bearer.TOKEN``; its header goes before.

    A browser gives a WebSocket no headers of the page's choice, and an address is logged by every proxy on the way.
    From an origin that is not allowed it does not count: what `fetch` may not do, a WebSocket may not.
    """
    offered = next((name for name in subprotocols if name.startswith(OFFER_PREFIX)), None)
    if offered is None or "authorization" in headers:
        return headers
    if not _is_own(config, headers, config.allow_origin):
        return headers
    return {**headers, "authorization": f"Bearer {offered.removeprefix(OFFER_PREFIX)}"}


def read_cookie(header: str, name: str) -> str | None:
    """Return the first cookie of that name, or None."""
    for part in header.split(";"):
        key, equals, value = part.strip().partition("=")
        if equals and key == name:
            return value
    return None


def _is_own(config: Settings, headers: Mapping[str, str], allowed: Collection[str]) -> bool:
    origin, host = headers.get("origin"), headers.get("host", "")
    return is_same_origin(origin, host, allowed=allowed, is_tls=config.is_tls)


def _is_local(config: Settings, headers: Mapping[str, str], asker: Asker) -> bool:
    """Whether this machine itself asks: bound to loopback, from loopback, by a loopback name, not for somebody else.

    The Host must be checked: a name of another site can be made to resolve to
    127.0.0.1 (DNS rebinding), and its page then counts as same origin.
    """
    return (
        config.is_loopback
        and not config.is_tls
        and asker.is_loopback
        and is_loopback_host(headers.get("host", ""))
        and (
            headers.get("sec-fetch-site", "none") in ("none", "same-origin")
            or headers.get("origin") in config.allow_origin
        )
        and not any(name in headers for name in _PROXY_HEADERS)
    )


class LoginLinks:
    """One-time codes that open the page; in RAM only, so a restart ends them.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._codes: dict[str, tuple[Role, float]] = {}

    def issue(self, role: Role = Role.ADMIN, ttl_s: float = LOGIN_LINK_S) -> str:
        """Return a code that is good once, for ``ttl_s``; the oldest of more than `MAX_LINKS` ends."""
        code = secrets.token_urlsafe(24)
        while len(self._codes) >= MAX_LINKS:
            del self._codes[next(iter(self._codes))]
        self._codes[code] = (role, self._clock() + ttl_s)
        return code

    def redeem(self, code: str) -> Role | None:
        """Use a code up; return its role, or None when it is unknown, used or too old."""
        found = [known for known in self._codes if hmac.compare_digest(known.encode(), code.encode("utf-8", "replace"))]
        if not found:
            return None
        role, ends = self._codes.pop(found[0])
        return role if self._clock() < ends else None
