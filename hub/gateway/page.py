"""The page's files, the login link, and the headers that keep a browser honest.

Owns: where static files come from, the Content-Security-Policy, the cookie.
Place: below `http`. The page is our own un-bundled modules in ``hub/page``:
everything from this origin, nothing inline, nothing from elsewhere.
"""

import asyncio
from html import escape
from importlib.resources import files
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.errors import NotFoundError
from hub.gateway.access import SESSION_COOKIE, SESSION_S, Doors, LoginLinks
from hub.gateway.client_module import client_routes
from hub.roles import Role

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PAGE = Path(str(files("hub"))) / "page"


class SecurityHeaders:
    """Puts the headers on every answer; what an answer set itself stays."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and complete the answer's headers."""

        async def complete(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                # Values and tokens are never kept by a cache; files say themselves how long they hold.
                headers.setdefault("Cache-Control", "no-cache" if "etag" in headers else "no-store")
                message["headers"] = headers.raw
            await send(message)

        await self._app(scope, receive, complete if scope["type"] == "http" else send)


def page_routes(hub: Doors, links: LoginLinks) -> list[BaseRoute]:
    """Return the routes of the page: ``/``, ``/page/…``, ``/client/…``, ``/login``."""

    async def index(request: Request) -> Response:
        path = PAGE / "index.html"
        if not path.is_file():
            raise NotFoundError("this hub was built without its page; the API is at /openapi.json")
        return FileResponse(path)

    async def login(request: Request) -> Response:
        role = links.redeem(request.query_params.get("code", ""))
        if role is None:
            return _words(
                403,
                "This login link was used already, or is too old.",
                "Restart the hub, or make a token with: hub tokens add",
            )
        session = await asyncio.to_thread(hub.identities.add_session, role, SESSION_S)
        # Not a redirect: a SameSite=Strict cookie is not sent on a redirect that began on another site.
        # With the link comes the first user: the page asks for its name and password, and may be told "later".
        target = "/#first-user" if role is Role.ADMIN and await asyncio.to_thread(hub.users.is_empty) else "/"
        answer = _words(200, "You are logged in.", f'<a href="{target}">Open the page</a>', refresh=target)
        answer.set_cookie(
            SESSION_COOKIE, session, max_age=int(SESSION_S), path="/", secure=hub.config.is_tls, httponly=True,
            samesite="strict",
        )  # fmt: skip
        return answer

    return [
        Route("/", index),
        Route("/login", login),
        *client_routes(PAGE / "client"),
        Mount("/page", StaticFiles(directory=PAGE, check_dir=False)),
    ]


def _words(status: int, title: str, then: str, *, refresh: str = "") -> HTMLResponse:
    onward = f'<meta http-equiv="refresh" content="0;url={refresh}">' if refresh else ""
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8">{onward}<title>{escape(title)}</title>'
        f"<h1>{escape(title)}</h1><p>{then}</p></html>",
        status,
    )
