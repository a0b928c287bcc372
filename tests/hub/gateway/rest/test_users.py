"""`hub.gateway.rest.users`: users by REST, in one namespace, without a word of passwords."""

import pytest

from hub.gateway.http import make_app
from hub.roles import Role
from tests.support.hub_parts import HubParts, http_client


@pytest.mark.asyncio
async def test_users_from_invitation_to_removal(hub: HubParts) -> None:
    """Added, listed, given other scopes and another password, removed; no answer has a password or its hash."""
    _, token = hub.identities.add_token(Role.ADMIN)

    async with http_client(make_app(hub), token=token) as client:
        body = {"name": "anna", "role": "operator", "match": ["greenhouse-*"], "scopes": {"edit": []}}
        made = await client.post("/v1/users", json=body)
        twice = await client.post("/v1/users", json=body)
        listed = await client.get("/v1/users")
        changed = await client.post("/v1/users/anna", json={"role": "watcher"})
        password = await client.post("/v1/users/anna/password", json={"password": "ten letters"})
        after = await client.get("/v1/users")
        removed = [await client.delete("/v1/users/anna") for _ in range(2)]

    assert (made.status_code, twice.status_code) == (201, 409)
    assert hub.users.invited(made.json()["invite"]) is None
    (user,) = listed.json()["users"]
    assert user.pop("created_ns")
    assert user == {
        "name": "anna", "role": "operator", "has_password": False,
        "scopes": {"read": ["greenhouse-*"], "command": ["greenhouse-*"]},
    }  # fmt: skip
    assert (changed.status_code, password.status_code) == (204, 204)
    assert (after.json()["users"][0]["role"], after.json()["users"][0]["has_password"]) == ("watcher", True)
    assert "argon2" not in after.text
    assert [answer.status_code for answer in removed] == [204, 404]


@pytest.mark.asyncio
async def test_another_namespace_has_its_own_users(hub: HubParts) -> None:
    """An admin of one namespace neither sees nor touches the users of another."""
    hub.users.add("anna", Role.ADMIN)
    _, token = hub.identities.add_token(Role.ADMIN, namespace="north")
    hub.users.add("own", Role.ADMIN, namespace="north")

    async with http_client(make_app(hub), token=token) as client:
        taken = [await client.post("/v1/users", json={"name": name, "role": "admin"}) for name in ("anna", "own")]
        hub.users.remove("own", namespace="north")
        listed = await client.get("/v1/users")
        touched = [
            await client.delete("/v1/users/anna"),
            await client.post("/v1/users/anna", json={"role": "admin"}),
            await client.post("/v1/users/anna/invite"),
            await client.post("/v1/users/anna/password", json={"password": "ten letters"}),
        ]

    assert listed.json() == {"users": []}
    assert [answer.status_code for answer in touched] == [404] * 4
    assert [answer.status_code for answer in taken] == [409] * 2
    assert taken[0].text.replace("anna", "own") == taken[1].text
    assert "passwd" not in taken[0].text


@pytest.mark.asyncio
async def test_bad_password_and_pattern_are_named(hub: HubParts) -> None:
    """The error says the rule and never the password."""
    _, token = hub.identities.add_token(Role.ADMIN)

    async with http_client(make_app(hub), token=token) as client:
        short = await client.post("/v1/users", json={"name": "anna", "role": "admin", "password": "hunter2"})
        long = await client.post("/v1/users", json={"name": "anna", "role": "admin", "password": "hunter2" * 99})
        pattern = await client.post("/v1/users", json={"name": "anna", "role": "admin", "match": ["a/b/c"]})

    assert [a.status_code for a in (short, long, pattern)] == [400] * 3
    assert "hunter2" not in short.text + long.text
    assert hub.users.is_empty()
