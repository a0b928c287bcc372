"""`hub.gateway.access`: which credential counts, where, and what opens without one."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hub.auth import Identities
from hub.gateway.access import MAX_LINKS, LoginLinks, identify, read_cookie, with_offered_token
from hub.roles import LOCAL, Role, Verb
from hub.users import Users
from tests.support.hub_parts import FixedSettings


@dataclass
class Asker:
    """A request's origin."""

    is_loopback: bool = True


@dataclass
class Doors:
    """What `identify` looks at."""

    identities: Identities
    users: Users
    config: FixedSettings = field(default_factory=FixedSettings)


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    """A loopback hub with one device and one watcher."""
    identities = Identities(tmp_path / "identities.sqlite3")
    users = Users(tmp_path / "users.sqlite3")
    yield Doors(identities, users)
    users.close()
    identities.close()


PANEL = "https://panel.example"
HOST = {"host": "127.0.0.1:8000"}


def test_bearer_token_is_its_identity(doors: Doors) -> None:
    """A known token speaks for its device, whatever the case of the scheme."""
    token = doors.identities.add_device("pump-1")

    identity = identify(doors, {"authorization": f"bearer {token}"}, None)

    assert identity is not None
    assert (identity.name, identity.role) == ("pump-1", Role.DEVICE)


def test_token_among_the_subprotocols_is_a_bearer_token() -> None:
    """A browser's WebSocket has no other place for it; a header goes before, and other subprotocols are none."""
    offered = ["watch.v1", "bearer.t1.abc", "bearer.t2.def"]

    settings = FixedSettings(allow_origin=[PANEL])
    own, foreign = {"authorization": "Bearer own"}, {**HOST, "origin": "https://evil.example"}

    for headers in (HOST, {**HOST, "origin": PANEL}):
        assert with_offered_token(settings, headers, offered) == {**headers, "authorization": "Bearer t1.abc"}
    for headers, given in ((own, offered), (HOST, ["watch.v1"]), (foreign, offered)):
        assert with_offered_token(settings, headers, given) == headers


def test_allowed_origin_may_read_as_the_user(doors: Doors) -> None:
    """It is let in as the page is, but changes nothing; any other origin is nobody."""
    doors.config = FixedSettings(allow_origin=[PANEL])
    panel = {**HOST, "origin": PANEL, "sec-fetch-site": "cross-site"}

    assert identify(doors, panel, Asker()) is LOCAL
    assert identify(doors, panel, Asker(), is_change=True) is None
    assert identify(doors, {**panel, "origin": "https://evil.example"}, Asker()) is None
    assert identify(doors, {**HOST, "sec-fetch-site": "cross-site"}, Asker()) is None


@pytest.mark.parametrize("value", ["Bearer wrong", "Basic dTpw", "Bearer", ""], ids=str)
def test_wrong_credential_is_nobody_even_on_loopback(doors: Doors, value: str) -> None:
    """A credential that is given and wrong is never replaced by the free access."""
    assert identify(doors, {**HOST, "authorization": value}, Asker()) is None


def test_devices_need_a_token(doors: Doors) -> None:
    """Without an asker only a Bearer token counts: no cookie, no free access."""
    session = doors.identities.add_session(Role.ADMIN, 60)

    assert identify(doors, {**HOST, "cookie": f"hub_session={session}"}, None) is None


def test_session_cookie_is_its_role(doors: Doors) -> None:
    """The page's cookie counts for the hub's own origin."""
    session = doors.identities.add_session(Role.ADMIN, 60)
    headers = {"host": "hub.local", "origin": "https://hub.local", "cookie": f"a=b; hub_session={session}; c=d"}

    identity = identify(doors, headers, Asker(is_loopback=False))

    assert identity is not None
    assert identity.role is Role.ADMIN


def test_session_cookie_from_another_origin_is_nobody(doors: Doors) -> None:
    """A page of another site that makes the browser send the cookie gets nothing."""
    session = doors.identities.add_session(Role.ADMIN, 60)
    headers = {"host": "hub.local", "origin": "https://evil.example", "cookie": f"hub_session={session}"}

    assert identify(doors, headers, Asker(is_loopback=False)) is None


def test_page_without_tls_is_not_the_page_of_a_hub_with_it(doors: Doors) -> None:
    """Browsers that send the cookie all the same say where the page came from: anybody on the way can make that one."""
    doors.config = FixedSettings(is_loopback=False, is_tls=True)
    session = doors.identities.add_session(Role.ADMIN, 60)
    headers = {"host": "hub.local:8000", "cookie": f"hub_session={session}"}

    own, forged = ({**headers, "origin": f"{scheme}://hub.local:8000"} for scheme in ("https", "http"))

    assert identify(doors, own, Asker(is_loopback=False)) is not None
    assert identify(doors, forged, Asker(is_loopback=False)) is None


def test_this_machine_is_a_watcher_on_loopback(doors: Doors) -> None:
    """On a loopback bind without TLS the page opens without login, as a watcher of everything, never as admin."""
    identity = identify(doors, {**HOST, "origin": "http://127.0.0.1:8000"}, Asker())

    assert identity is LOCAL
    assert (LOCAL.role, LOCAL.scopes) == (Role.WATCHER, {Verb.READ: ("**",)})


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:8000"},
        {"host": "evil.example:8000", "origin": "http://evil.example:8000"},
        {**HOST, "origin": "https://evil.example"},
        {**HOST, "origin": "null"},
        {**HOST, "sec-fetch-site": "cross-site"},
        {**HOST, "x-forwarded-for": "192.0.2.7"},
        {**HOST, "forwarded": "for=192.0.2.7"},
        {},
    ],
    ids=["rebound", "rebound-origin", "other-origin", "sandboxed", "cross-site", "proxied", "proxied-rfc", "no-host"],
)
def test_free_access_is_only_for_this_machine_itself(doors: Doors, headers: dict[str, str]) -> None:
    """A rebound name, a page of another site, a proxy that speaks for somebody: none gets the free access."""
    assert identify(doors, headers, Asker()) is None


@pytest.mark.parametrize(
    ("settings", "is_loopback"),
    [(FixedSettings(is_loopback=False), True), (FixedSettings(is_tls=True), True), (FixedSettings(), False)],
    ids=["open-bind", "tls", "other-peer"],
)
def test_free_access_needs_a_loopback_bind_and_peer(doors: Doors, settings: FixedSettings, is_loopback: bool) -> None:
    """Every other way to listen needs a credential."""
    doors.config = settings

    assert identify(doors, HOST, Asker(is_loopback=is_loopback)) is None


def test_cookie_is_found_among_others() -> None:
    """Only the exact name counts, and the first of them."""
    assert read_cookie("xhub_session=1; hub_session=a=b; hub_session=2", "hub_session") == "a=b"
    assert read_cookie("hub_sessions=1; broken", "hub_session") is None


def test_login_code_is_good_once() -> None:
    """A code opens one session; the second try finds nothing."""
    links = LoginLinks(lambda: 0.0)
    code = links.issue()

    assert (links.redeem(code), links.redeem(code), links.redeem("")) == (Role.ADMIN, None, None)


def test_login_code_ends() -> None:
    """A code that is too old opens nothing."""
    now = [0.0]
    links = LoginLinks(lambda: now[0])
    code = links.issue(ttl_s=60)
    now[0] = 60.0

    assert links.redeem(code) is None


def test_login_codes_are_bounded() -> None:
    """More than 16 open codes end the oldest."""
    links = LoginLinks(lambda: 0.0)
    codes = [links.issue() for _ in range(MAX_LINKS + 1)]

    assert links.redeem(codes[0]) is None
    assert links.redeem(codes[-1]) is Role.ADMIN
