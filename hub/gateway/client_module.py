"""The browser client as an ES module: ``/client/v1/hub-client.js``, for the hub's own page and for pages of others.

Owns: its addresses, and how long a browser may keep it. Place: below `page`. Everybody may import it, from any origin:
it holds nothing that is secret; what it then asks for needs a credential.
"""

import hashlib
import os
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

# The version of its interface: a page written for it is served by every later hub.
CLIENT_PATH = "/client/v1"
_DIGEST_DIGITS = 16


def client_routes(folder: Path) -> list[BaseRoute]:
    """Return the routes of the module and its types.

    ``/client/v1/…`` is asked for anew each time (an answer of 304 where nothing changed), so a mended hub mends the
    pages of others too. ``/client/<digest>/…`` names this very content and may be kept for ever; each answer names it.

    Args:
        folder: where the files are; without it all is 404.
    """
    digest = content_digest(folder)
    return [
        Mount(CLIENT_PATH, _ClientFiles(folder, digest, "no-cache")),
        Mount(f"/client/{digest}", _ClientFiles(folder, digest, "public, max-age=31536000, immutable")),
    ]


def content_digest(folder: Path) -> str:
    """Return what all files of the module together are named by."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        digest.update(b"%s\0%s\0" % (path.name.encode(), path.read_bytes()))
    return digest.hexdigest()[:_DIGEST_DIGITS]


class _ClientFiles(StaticFiles):
    def __init__(self, folder: Path, digest: str, cache: str) -> None:
        super().__init__(directory=folder, check_dir=False)
        self._digest = digest
        self._cache = cache

    def is_not_modified(self, response_headers: Headers, request_headers: Headers) -> bool:
        """Answer by the contents: where images are built reproducibly all files are of one time, mended ones too."""
        assert isinstance(response_headers, MutableHeaders), "of an answer that is being made"
        response_headers["ETag"] = f'"{self._digest}"'
        return "If-None-Match" in request_headers and super().is_not_modified(response_headers, request_headers)

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(
            {
                "Access-Control-Allow-Origin": "*",
                "Cross-Origin-Resource-Policy": "cross-origin",
                "Cache-Control": self._cache,
                "Content-Location": f"/client/{self._digest}/{path.replace(os.sep, '/')}",
            }
        )
        if path.endswith(".ts"):
            # Machines take .ts for a film.
            response.headers["Content-Type"] = "text/plain; charset=utf-8"
        return response
