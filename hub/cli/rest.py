"""A small client of the hub's REST interface, on the standard library.

Owns: requests, TLS trust, and answers that are errors. Place: after
`exit_code`, before the commands that speak to a hub.
"""

import ipaddress
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, cast

from hub.cli.exit_code import CliError, ExitCode, UnreachableError
from hub.errors import (
    BadRequestError,
    ConflictError,
    ForbiddenError,
    HubError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)

TIMEOUT_S = 30.0
_ERRORS: dict[int, type[HubError]] = {
    400: BadRequestError,
    401: UnauthenticatedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    503: UnavailableError,
}
_SCHEMES = {"ws": "http", "wss": "https", "http": "http", "https": "https"}

Parameters = Mapping[str, str | int | list[str] | None]


class RestClient:
    """Requests to one hub.

    Args:
        url: ``http``, ``https``, ``ws`` or ``wss``; the path is left out.
        token: sent as a bearer; None: what the hub allows without.
        ca: PEM file to trust instead of the system's authorities.

    Every method raises `UnreachableError` when nothing answers, a `HubError` of the answer's status otherwise.
    """

    def __init__(self, url: str, token: str | None = None, ca: Path | None = None) -> None:
        parts = urllib.parse.urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise CliError(f"{url!r} is no address of a hub; use e.g. https://hub.local:8000", ExitCode.USAGE)
        self.url = f"{_SCHEMES[parts.scheme]}://{parts.netloc}"
        self._headers = {"Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=_trust(ca))]
        if _is_loopback(parts.hostname):
            # A proxy of the surroundings cannot reach this machine's loopback.
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    @property
    def device_url(self) -> str:
        """Return the address for devices and watchers: ``ws`` or ``wss``."""
        return "ws" + self.url.removeprefix("http")

    def get(self, path: str, parameters: Parameters | None = None) -> dict[str, Any]:
        """Return the parsed answer of a GET."""
        return self._call("GET", path, parameters)

    def post(self, path: str, body: Mapping[str, object], *, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """Return the parsed answer of a POST; the hub may take ``timeout_s`` for it."""
        return self._call("POST", path, None, json.dumps(body).encode(), timeout_s)

    def patch(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Return the parsed answer of a PATCH."""
        return self._call("PATCH", path, None, json.dumps(body).encode())

    def delete(self, path: str) -> None:
        """Do a DELETE."""
        self._call("DELETE", path)

    @contextmanager
    def stream(
        self, path: str, parameters: Parameters | None = None, timeout_s: float = TIMEOUT_S
    ) -> Iterator[HTTPResponse]:
        """Give the answer's body as a file while it arrives; an answer that ends early raises `UnreachableError`.

        ``timeout_s``: how long the hub may be silent.
        """
        with self._open("GET", path, parameters, None, timeout_s) as answer:
            try:
                yield answer
            except HTTPException as error:
                raise UnreachableError(f"the answer of {self.url} ended early: {error!r}") from error

    def _call(
        self,
        method: str,
        path: str,
        parameters: Parameters | None = None,
        body: bytes | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> dict[str, Any]:
        with self._open(method, path, parameters, body, timeout_s) as answer:
            data = answer.read()
        if not data:
            return {}
        try:
            return cast("dict[str, Any]", json.loads(data))
        except ValueError as error:
            raise UnreachableError(f"{self.url} answers, but is no telemetry hub; check --url") from error

    @contextmanager
    def _open(
        self,
        method: str,
        path: str,
        parameters: Parameters | None,
        body: bytes | None,
        timeout_s: float = TIMEOUT_S,
    ) -> Iterator[HTTPResponse]:
        given = {name: value for name, value in (parameters or {}).items() if value is not None}
        url = self.url + path + ("?" + urllib.parse.urlencode(given, doseq=True) if given else "")
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        # The scheme was checked in __init__: no file: or other surprise can be opened here.
        request = urllib.request.Request(url, data=body, headers=headers, method=method)  # noqa: S310
        try:
            with self._opener.open(request, timeout=timeout_s) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            with error:
                raise _hub_error(error, self.url) from error
        except (OSError, HTTPException) as error:
            raise _unreachable(self.url, error) from error


def _trust(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as error:
        raise CliError(f"--ca {ca}: {error}; give the ca.pem that `hub tls init` wrote", ExitCode.USAGE) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unreachable(url: str, error: Exception) -> CliError:
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return UnreachableError(
            f"the certificate of {url} is not trusted ({reason.verify_message}); "
            "give the hub's ca.pem with --ca or HUB_CA"
        )
    return UnreachableError(f"no hub answers at {url} ({reason}); start it with `hub serve`, or say where with --url")


def _hub_error(error: urllib.error.HTTPError, url: str) -> Exception:
    try:
        message = str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError, OSError):
        message = f"{url} answered {error.code} {error.reason}"
    if error.code in (401, 403):
        message += (
            "; give a token that may do this with --token or HUB_TOKEN (`hub tokens add --role admin --data DIR`)"
        )
    kind = _ERRORS.get(error.code)
    return CliError(message) if kind is None else kind(message)
