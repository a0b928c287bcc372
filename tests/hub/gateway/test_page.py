"""`hub.gateway.page`: static files, the login link, the headers a browser must get."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.gateway.access import LoginLinks
from hub.gateway.http import make_app
from hub.gateway.page import CSP, PAGE
from hub.roles import Role
from tests.support.hub_parts import FixedSettings, HubParts, http_client, hub_parts


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubParts]:
    """A hub behind TLS."""
    with hub_parts(tmp_path) as parts:
        parts.config = FixedSettings(is_loopback=False, is_tls=True)
        yield parts


@pytest.mark.asyncio
async def test_page_is_served_with_a_strict_policy(hub: HubParts) -> None:
    """The page and its modules come from this origin, with their types, and may load nothing from elsewhere."""
    async with http_client(make_app(hub)) as client:
        page, module = await client.get("/"), await client.get("/page/app.js")

    assert page.headers["content-type"].startswith("text/html")
    assert module.headers["content-type"].startswith("text/javascript")
    for response in (page, module):
        assert response.status_code == 200
        assert response.headers["content-security-policy"] == CSP
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-cache"
    assert "unsafe" not in CSP
    assert "http:" not in CSP


@pytest.mark.asyncio
async def test_answers_are_never_cached(hub: HubParts) -> None:
    """Values and tokens stay out of caches."""
    async with http_client(make_app(hub)) as client:
        response = await client.get("/v1/devices")

    assert response.headers["cache-control"] == "no-store"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "path", ["/page/../auth.py", "/page/%2e%2e/auth.py", "/page/..%2fauth.py", "/page//etc/passwd"]
)
async def test_no_file_outside_the_page_is_served(hub: HubParts, path: str) -> None:
    """Whatever the path, only files of the page's folder are read."""
    async with http_client(make_app(hub)) as client:
        response = await client.get(path)

    assert response.status_code == 404
    assert PAGE.is_dir()


@pytest.mark.asyncio
async def test_login_link_sets_a_guarded_cookie_once(hub: HubParts) -> None:
    """The cookie is HttpOnly, SameSite=Strict, Secure with TLS; it opens admin routes; the link is used up."""
    links = LoginLinks(lambda: 0.0)
    code = links.issue(Role.ADMIN)

    async with http_client(make_app(hub, links=links), peer="192.0.2.7", base_url="https://hub.local") as client:
        before = await client.get("/v1/tokens")
        hub.users.add("anna", Role.ADMIN)
        login = await client.get("/login", params={"code": code})
        after = await client.get("/v1/tokens")
        foreign = await client.get("/v1/tokens", headers={"Origin": "https://evil.example"})
        client.cookies.clear()
        again = await client.get("/login", params={"code": code})

    cookie = login.headers["set-cookie"].lower()
    assert [before.status_code, login.status_code, after.status_code, foreign.status_code] == [401, 200, 200, 401]
    assert all(word in cookie for word in ("hub_session=", "httponly", "samesite=strict", "secure", "path=/"))
    assert 'content="0;url=/"' in login.text
    assert (again.status_code, "set-cookie" in again.headers) == (403, False)


@pytest.mark.asyncio
async def test_login_link_of_a_hub_without_users_leads_to_the_first_one(hub: HubParts) -> None:
    """Who opens the first link is asked for the first user's name and password, and is admin in any case."""
    links = LoginLinks(lambda: 0.0)

    async with http_client(make_app(hub, links=links), base_url="https://hub.local") as client:
        login = await client.get("/login", params={"code": links.issue(Role.ADMIN)})
        made = await client.post(
            "/v1/users", json={"name": "anna", "role": "admin", "password": "ten letters"},
            headers={"Origin": "https://hub.local"},
        )  # fmt: skip

    assert 'content="0;url=/#first-user"' in login.text
    assert made.status_code == 201
