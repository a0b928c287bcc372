"""A claim code exchanged for this device's own token, once; by the standard library alone.

Owns: the request, its retries, and the file of settings that `Device.from_env` and systemd read. Place: beside
`device`; a program that only records never loads it. Must not: put a code or token where others see it (an address, a
log, a file that others may read), or send a code to a hub that is not known to be the right one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import secrets
import ssl
import sys
import time
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit, urlunsplit

from device_sdk.errors import AuthenticationError, ConnectionLostError, MisuseError, ProtocolError, TelemetryError
from device_sdk.reading import check_device_name
from device_sdk.setting import is_loopback
from device_sdk.transport import check_fingerprint

CLAIM_PATH = "/v1/claim"
TIMEOUT_S = 30.0
# A hub that restarts is back within a second or two; one whose network is gone for longer is asked less often.
FIRST_PAUSE_S, LAST_PAUSE_S = 0.1, 5.0
# What a hub asks for at most when there were too many attempts.
MAX_WAIT_S = 60.0
# An answer is some 200 bytes.
_MAX_ANSWER_BYTES = 64 * 1024
_RETRY_BYTES = 16
_SCHEMES = {"ws": "http", "wss": "https", "http": "http", "https": "https"}
_PORTS = {"http": 80, "https": 443}
# What neither systemd nor a shell reads as anything else; the rest is quoted.
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=~\[\]-]+")


class Claimed(NamedTuple):
    """What a hub gave this device."""

    device: str
    token: str
    namespace: str


class _LaterError(Exception):
    """Not now: the network, or a hub that has no time; ``wait_s`` is the hub's wish."""

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = min(wait_s, MAX_WAIT_S)


def claim(
    url: str,
    code: str | None = None,
    name: str | None = None,
    *,
    ca: Path | str | None = None,
    fingerprint: str | None = None,
    timeout_s: float = TIMEOUT_S,
    insecure_lan: bool = False,
) -> Claimed:
    """Exchange a claim code for this device's token; the hub has it on its disk when this returns.

    Args:
        url: of the hub, ``https`` or ``wss``; what a claim's QR code holds may stand here as it is.
        code: None: it is in ``url``, behind ``#claim=``.
        name: of this device; not needed where the code is for one device.
        ca: PEM file of the authority to trust instead of the system's.
        fingerprint: SHA-256 of the hub's certificate; it alone is trusted.
        timeout_s: how long to try while there is no network, or the hub is away. An answer that got lost on the way is
            asked for again: the hub then gives a new token in place of the lost one.
        insecure_lan: claim without TLS over a network; code and token travel readable.

    Raises:
        MisuseError: an argument is not valid, or there is no TLS to a hub that is not this machine.
        AuthenticationError: the code is unknown, used or expired, or not for this device.
        ConnectionLostError: the hub could not be reached in time. ProtocolError: what answers is no such hub.
    """
    hub, in_url = _split(url, insecure_lan=insecure_lan)
    code = code or in_url
    if not code:
        raise MisuseError("there is no claim code: pass it, or the address of the QR code, which ends in #claim=…")
    if not hub.startswith("https") and (ca is not None or fingerprint is not None):
        raise MisuseError(f"url {hub!r} has no TLS, so ca= and fingerprint= mean nothing; use https://")
    pin = check_fingerprint(fingerprint)
    # The hub gives a lost answer again to whoever knows this; it never leaves this process but to the hub.
    body = {"code": code, "retry": secrets.token_hex(_RETRY_BYTES)}
    if name is not None:
        body["device"] = check_device_name(name)
    deadline, pause_s = time.monotonic() + timeout_s, FIRST_PAUSE_S
    while True:
        left_s = deadline - time.monotonic()
        try:
            return _ask(hub, body, None if ca is None else str(ca), pin, max(left_s, 1.0))
        except _LaterError as error:
            wait_s = max(error.wait_s, pause_s)
            pause_s = min(2 * pause_s, LAST_PAUSE_S)
            if time.monotonic() + wait_s > deadline:
                raise ConnectionLostError(f"not claimed within {timeout_s:g} s: {error}") from error
            time.sleep(wait_s)


def environment(
    url: str,
    claimed: Claimed,
    *,
    ca: Path | str | None = None,
    fingerprint: str | None = None,
    insecure_lan: bool = False,
) -> str:
    """Return the lines that `Device.from_env` and systemd's ``EnvironmentFile=`` understand."""
    hub, _ = _split(url, insecure_lan=insecure_lan)
    values = {
        "HUB_URL": "ws" + hub.removeprefix("http"),
        "DEVICE_NAME": claimed.device,
        "HUB_TOKEN": claimed.token,
        "HUB_CA": None if ca is None else str(Path(ca).absolute()),
        "HUB_FINGERPRINT": check_fingerprint(fingerprint),
    }
    return "".join(f"{key}={_quoted(value)}\n" for key, value in values.items() if value is not None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m device_sdk claim`` and return its exit code: 0, 1 it failed, 2 it was called wrongly."""
    options = _parser().parse_args(arguments)
    trust = {"ca": options.ca, "fingerprint": options.fingerprint, "insecure_lan": options.insecure_lan}
    try:
        # Opened first: a code is good once, and would be used up for a token that cannot be kept.
        file = None if options.out is None else _PrivateFile(options.out)
        try:
            claimed = claim(options.url, options.code, options.name, timeout_s=options.timeout, **trust)
            text = environment(options.url, claimed, **trust)
            if file is None:
                sys.stdout.write(text)
            else:
                file.commit(text)
                sys.stderr.write(f"{claimed.device} is enrolled; its settings are in {options.out}\n")
        finally:
            if file is not None:
                file.close()
    except (TelemetryError, OSError) as error:
        sys.stderr.write(f"claim: {error}\n")
        return 2 if isinstance(error, MisuseError) else 1
    return 0


class _PrivateFile:
    """A file of mode 0600 that is there as a whole, durable, or not at all; what was there before stays until then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._part.unlink(missing_ok=True)
        self._file = os.fdopen(os.open(self._part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8")

    def commit(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._part.replace(self._path)

    def close(self) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)


def _split(url: str, *, insecure_lan: bool) -> tuple[str, str | None]:
    """Return the hub's address as http or https without what is behind ``#``, and the code that stood there."""
    try:
        parts = urlsplit(url if "//" in url else f"https://{url}")
        parts.port  # noqa: B018 - reading it checks it
    except ValueError as error:
        raise MisuseError(f"url: {error}") from error
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise MisuseError("url: use https://host:port, as `hub serve` prints it")
    scheme = _SCHEMES[parts.scheme]
    if scheme == "http" and not insecure_lan and not is_loopback(parts.hostname):
        raise MisuseError(
            f"{parts.hostname} is another machine, and without TLS code and token travel readable: use https:// "
            "(on the hub: hub tls init), or on a network you trust say insecure_lan (--insecure-lan)"
        )
    codes = parse_qs(parts.fragment).get("claim", [])
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/"), "", "")), codes[0] if codes else None


def _ask(hub: str, body: dict[str, str], ca: str | None, pin: str | None, timeout_s: float) -> Claimed:
    parts = urlsplit(hub)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    connection = (
        HTTPSConnection(host, port, timeout=timeout_s, context=_trust(ca, pin))
        if parts.scheme == "https"
        else HTTPConnection(host, port, timeout=timeout_s)
    )
    try:
        connection.connect()
        _check_pin(connection, pin)
        connection.request("POST", parts.path + CLAIM_PATH, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        data = answer.read(_MAX_ANSWER_BYTES)
        wait = answer.headers.get("Retry-After", "")
        if _is_torn(answer, data):
            raise _LaterError(f"the answer of hub {host}:{port} broke off")
    except ssl.SSLCertVerificationError as error:
        raise ConnectionLostError(
            f"hub {host}:{port}: its certificate is not trusted ({error.verify_message}); pass ca= or fingerprint="
        ) from error
    except (OSError, HTTPException) as error:
        raise _LaterError(f"hub {host}:{port} cannot be reached: {str(error) or type(error).__name__}") from error
    finally:
        connection.close()
    return _read(answer.status, data, float(wait) if wait.isdecimal() else 0.0)


def _is_torn(answer: HTTPResponse, data: bytes) -> bool:
    """Say whether the connection ended within the head or the body; `http.client` takes what came for all of it."""
    size = answer.headers.get("Content-Length", "")
    if size.isdecimal():
        return len(data) < min(int(size), _MAX_ANSWER_BYTES)
    return "Transfer-Encoding" not in answer.headers


def _trust(ca: str | None, pin: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise MisuseError(f"ca file {ca}: {error}") from error
    if pin is not None and ca is None:
        # The pin is compared before a byte is sent, and trusts one certificate whoever signed it.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _check_pin(connection: HTTPConnection, pin: str | None) -> None:
    if pin is None or not isinstance(connection.sock, ssl.SSLSocket):
        return
    found = hashlib.sha256(connection.sock.getpeercert(binary_form=True) or b"").hexdigest()
    if found != pin:
        raise ConnectionLostError(
            f"the hub has another certificate than the one pinned (it has {found}); nothing was sent"
        )


def _read(status: int, data: bytes, wait_s: float) -> Claimed:
    try:
        answer = json.loads(data)
        if status == 200:
            return Claimed(str(answer["device"]), str(answer["token"]), str(answer["namespace"]))
        message = str(answer["error"]["message"])
    except (ValueError, KeyError, TypeError) as error:
        raise ProtocolError(f"what answers there is no hub that takes claims (status {status})") from error
    if status == 429 or status >= 500:
        raise _LaterError(message, wait_s)
    if status == 400:
        raise MisuseError(message)
    raise AuthenticationError(message)


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    if not value.isprintable():
        raise MisuseError(f"{value!r} cannot stand in a file of settings: it holds characters that are not printable")
    return '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m device_sdk claim", description="Exchange a one-time code for this device's own token."
    )
    parser.add_argument("url", help="the hub's address, or what the QR code holds")
    parser.add_argument("code", nargs="?", help="the code, unless the address ends in #claim=CODE")
    parser.add_argument("--name", help="this device's name, where the code is for several devices")
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument("--ca", type=Path, help="trust this authority (ca.pem of `hub tls init`)")
    trust.add_argument("--fingerprint", help="trust the certificate with this SHA-256 alone")
    parser.add_argument("--out", type=Path, help="write the settings to this file (mode 0600) instead of printing them")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="seconds to go on trying (default 30)")
    parser.add_argument("--insecure-lan", action="store_true", help="claim without TLS over a network you trust")
    return parser
