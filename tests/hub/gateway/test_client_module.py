"""`hub.gateway.client_module`: the browser client at its addresses, for pages of every origin."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette

from hub.gateway.client_module import CLIENT_PATH, client_routes, content_digest
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


@pytest.mark.asyncio
async def test_a_mended_module_of_the_same_size_and_time_is_another(tmp_path: Path) -> None:
    """As images have it that are built reproducibly: all files of one time. Browsers must not keep the old one."""
    tags: list[str] = []
    for text in ("const a = 1;", "const a = 2;"):
        (tmp_path / "hub-client.js").write_text(text)
        os.utime(tmp_path / "hub-client.js", (1, 1))
        headers = {"If-None-Match": tags[0]} if tags else {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:02 GMT"}
        async with http_client(Starlette(routes=client_routes(tmp_path))) as client:
            answer = await client.get(f"{CLIENT_PATH}/hub-client.js", headers=headers)
            part = await client.get(f"{CLIENT_PATH}/hub-client.js", headers={"Range": "bytes=0-4", "If-Range": '"old"'})
        assert (answer.status_code, answer.text) == (200, text)
        assert (part.status_code, part.text) == (200, text)
        tags.append(answer.headers["etag"])

    assert tags[0] != tags[1]


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
