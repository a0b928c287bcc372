"""`hub.gateway.rest.sign_in`: the session's cookie, its end, who I am, and pages of other sites."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.gateway.http import make_app
from hub.passwords import hash_password
from hub.roles import Role
from tests.support.hub_parts import FixedSettings, HubParts, http_client, hub_parts

PASSWORD = "ten letters"
LOGIN = {"name": "anna", "password": PASSWORD}
PAGE = {"Origin": "https://hub.local", "Sec-Fetch-Site": "same-origin"}
BASE = "https://hub.local"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubParts]:
    """A hub behind TLS with one admin among its users."""
    with hub_parts(tmp_path) as parts:
        parts.config = FixedSettings(tmp_path, is_loopback=False, is_tls=True)
        parts.users.add("anna", Role.ADMIN, hash=hash_password(PASSWORD))
        yield parts


@pytest.mark.asyncio
async def test_session_from_sign_in_to_sign_out(hub: HubParts) -> None:
    """The cookie is HttpOnly, Strict and Secure, new at each sign-in; the old one and a signed-out one are nobody's."""
    async with http_client(make_app(hub), base_url=BASE) as client:
        before = await client.get("/v1/me")
        first = await client.post("/v1/login", json=LOGIN, headers=PAGE)
        old = client.cookies["hub_session"]
        me = await client.get("/v1/me")
        await client.post("/v1/login", json=LOGIN, headers=PAGE)
        new = client.cookies["hub_session"]
        ended = await client.post("/v1/logout", headers=PAGE)
        after = await client.get("/v1/me")

    cookie = first.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "samesite=strict", "secure", "path=/", "max-age="))
    assert (before.status_code, after.status_code, ended.status_code) == (401, 401, 204)
    assert {k: me.json()[k] for k in ("name", "role", "namespace", "signed_in")} == {
        "name": "anna", "role": "admin", "namespace": "default", "signed_in": True,
    }  # fmt: skip
    assert me.json()["id"] == old.partition(".")[0]
    assert old != new
    assert hub.users.authenticate(old) is None
    assert hub.users.authenticate(new) is None


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {**PAGE, "Sec-Fetch-Site": "cross-site"},
     {"Sec-Fetch-Site": "same-site"}],
    ids=["says-nothing", "other-origin", "sandboxed", "cross-site", "sibling"],
)  # fmt: skip
async def test_cookie_changes_nothing_for_another_site(hub: HubParts, headers: dict[str, str]) -> None:
    """A change with the cookie must come from the hub's own page; with a token it may come from anywhere."""
    _, token = hub.identities.add_token(Role.ADMIN)
    async with http_client(make_app(hub), base_url=BASE) as client:
        await client.post("/v1/login", json=LOGIN, headers=PAGE)
        foreign = await client.post("/v1/devices", json={"device": "pump-1"}, headers=headers)
        own = await client.post("/v1/devices", json={"device": "pump-1"}, headers=PAGE)
        program = await client.post(
            "/v1/devices", json={"device": "pump-2"}, headers={**headers, "Authorization": f"Bearer {token}"}
        )

    assert (foreign.status_code, own.status_code, program.status_code) == (401, 201, 201)


@pytest.mark.asyncio
async def test_another_site_cannot_sign_its_visitor_in_or_out(hub: HubParts) -> None:
    """A sign-in or sign-out that another site makes the browser do is refused, and sets no cookie."""
    foreign = {"Origin": "https://evil.example"}
    async with http_client(make_app(hub), base_url=BASE) as client:
        answers = [
            await client.post("/v1/login", json=LOGIN, headers=foreign),
            await client.post("/v1/logout", headers=foreign),
            await client.post("/v1/invite", json={"code": "x", "password": PASSWORD}, headers=foreign),
        ]

    assert [(a.status_code, "set-cookie" in a.headers) for a in answers] == [(403, False)] * 3


@pytest.mark.asyncio
async def test_tries_are_slowed_down_in_words_and_header(hub: HubParts) -> None:
    """The sixth wrong try is 429 with Retry-After; wrong ones are counted in the log, the name only if it is one."""
    async with http_client(make_app(hub), base_url=BASE, peer="192.0.2.7") as client:
        for name in ("anna", "anna", "hunter2hunter2", "anna", "anna"):
            answer = await client.post("/v1/login", json={"name": name, "password": "wrong guess"})
            assert answer.status_code == 401
        late = await client.post("/v1/login", json=LOGIN)

    assert (late.status_code, late.headers["retry-after"]) == (429, "1")
    assert late.json()["error"]["reason"] == "too_many_requests"
    hub.change_log.flush()
    found = {(e.target, e.outcome, e.peer): e.count for e in hub.change_log.entries("default", 9)}
    assert found == {
        ("anna", "unauthenticated", "192.0.2.7"): 4, ("", "unauthenticated", "192.0.2.7"): 1,
        ("", "too_many_requests", "192.0.2.7"): 1,
    }  # fmt: skip


@pytest.mark.asyncio
async def test_invitation_sets_a_password_and_signs_in(hub: HubParts) -> None:
    """The code opens a session once."""
    hub.users.add("berta", Role.WATCHER)
    body = {"code": hub.users.invite("berta"), "password": "another ten"}

    async with http_client(make_app(hub), base_url=BASE) as client:
        first = await client.post("/v1/invite", json=body, headers=PAGE)
        again = await client.post("/v1/invite", json=body, headers=PAGE)

    assert (first.status_code, first.json()["name"], again.status_code) == (200, "berta", 401)


@pytest.mark.asyncio
async def test_every_credential_may_ask_who_it_is(hub: HubParts) -> None:
    """A device's token is answered as well; no session ends with it."""
    async with http_client(make_app(hub), token=hub.identities.add_device("pump-1")) as client:
        me = await client.get("/v1/me")

    assert (me.json()["name"], me.json()["role"], me.json()["signed_in"]) == ("pump-1", "device", False)
