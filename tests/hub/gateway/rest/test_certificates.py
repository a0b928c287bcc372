"""`hub.gateway.rest.certificates`: revoked certificates by REST, in one namespace."""

import pytest

from hub.gateway.http import make_app
from hub.roles import Role
from tests.support.hub_parts import HubParts, http_client

AT = "/v1/certificates/revoked"
A = "ab" * 32


@pytest.mark.asyncio
async def test_revoked_listed_restored(hub: HubParts) -> None:
    """Revoked in any writing, listed, restored once; another namespace sees and changes none of it."""
    _, token = hub.identities.add_token(Role.ADMIN)
    _, other = hub.identities.add_token(Role.ADMIN, namespace="north")

    async with http_client(make_app(hub), token=token) as client:
        made = await client.post(AT, json={"fingerprint": "SHA256:" + A.upper(), "note": "stolen"})
        bad = await client.post(AT, json={"fingerprint": "abc"})
        listed = await client.get(AT)
    async with http_client(make_app(hub), token=other) as client:
        elsewhere = await client.get(AT)
        touched = await client.delete(f"{AT}/{A}")
    is_revoked = hub.revocations.is_revoked("default", A)
    async with http_client(make_app(hub), token=token) as client:
        restored = [(await client.delete(f"{AT}/{A}")).status_code for _ in range(2)]

    assert (made.status_code, made.json()) == (201, {"fingerprint": A})
    assert bad.status_code == 400
    (row,) = listed.json()["revoked"]
    assert (row["fingerprint"], row["note"], int(row["revoked_ns"]) > 0) == (A, "stolen", True)
    assert (elsewhere.json(), touched.status_code, is_revoked) == ({"revoked": []}, 404, True)
    assert restored == [204, 404]
