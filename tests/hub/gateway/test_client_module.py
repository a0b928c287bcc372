"""`hub.gateway.client_module`: the browser client at its addresses, for pages of every origin."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.gateway.client_module import CLIENT_PATH, content_digest
from hub.gateway.http import make_app
from hub.gateway.page import PAGE
from tests.support.hub_parts import FixedSettings, HubParts, http_client, hub_parts


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubParts]:
    """A hub behind TLS."""
    with hub_parts(tmp_path) as parts:
        parts.config = FixedSettings(is_loopback=False, is_tls=True)
        yield parts


@pytest.mark.asyncio
@pytest.mark.parametrize(("name", "kind"), [("hub-client.js", "text/javascript"), ("hub-client.d.ts", "text/plain")])
async def test_module_is_for_every_origin_and_never_stale(hub: HubParts, name: str, kind: str) -> None:
    """Without a credential, with its type; a browser that has it asks whether it is still the same."""
    async with http_client(make_app(hub)) as client:
        first = await client.get(f"{CLIENT_PATH}/{name}")
        again = await client.get(f"{CLIENT_PATH}/{name}", headers={"If-None-Match": first.headers["etag"]})

    assert first.status_code == 200
    assert first.headers["content-type"].startswith(kind)
    assert (again.status_code, again.content) == (304, b"")
    for response in (first, again):
        assert response.headers["access-control-allow-origin"] == "*"
        assert response.headers["cross-origin-resource-policy"] == "cross-origin"
        assert response.headers["cache-control"] == "no-cache"


@pytest.mark.asyncio
async def test_address_of_the_content_is_kept_for_ever(hub: HubParts) -> None:
    """Every answer names the address of this very content; there a browser keeps it without asking."""
    async with http_client(make_app(hub)) as client:
        exact = (await client.get(f"{CLIENT_PATH}/hub-client.js")).headers["content-location"]
        kept = await client.get(exact)
        other = await client.get("/client/0123456789abcdef/hub-client.js")
        outside = await client.get(f"{CLIENT_PATH}/../app.js")

    assert exact == f"/client/{content_digest(PAGE / 'client')}/hub-client.js"
    assert kept.content == (PAGE / "client" / "hub-client.js").read_bytes()
    assert "immutable" in kept.headers["cache-control"]
    assert (other.status_code, outside.status_code) == (404, 404)


def test_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    """Any change of any file gives another address; the order of the folder gives none."""
    digests = set()
    for name, text in (("a.js", "1"), ("a.js", "2"), ("b.js", "2")):
        folder = tmp_path / name / text
        folder.mkdir(parents=True)
        (folder / name).write_text(text)
        digests.add(content_digest(folder))

    assert len(digests) == 3
    assert content_digest(tmp_path / "none") == content_digest(tmp_path / "nor-this")
