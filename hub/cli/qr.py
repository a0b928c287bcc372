"""A claim as a QR code: on the terminal, or in a private file.

Owns: the address that a claim is scanned as. Place: before the commands; the only importer of ``segno``.

The code stands behind ``#``: what opens the address keeps that part to itself, so it is in no log of a server or proxy.
"""

import io
import os
from pathlib import Path
from urllib.parse import urlsplit

from hub.cli.exit_code import CliError, ExitCode

_KINDS = (".png", ".svg")
# Pixels (PNG) or user units (SVG) of one square: about 6 cm on paper at 96 dots an inch.
_SCALE = 5


def claim_address(url: str, code: str) -> str:
    """Return what the QR code holds: ``https://hub:8000/#claim=CODE``; `device_sdk.claim` takes it as it is."""
    return f"{url.rstrip('/')}/#claim={code}"


def is_of_this_machine(url: str) -> bool:
    """Say whether the address leads nowhere from another machine."""
    from hub.config import is_loopback

    return is_loopback(urlsplit(url).hostname or "")


def draw(text: str) -> str:
    """Return a QR code for a terminal, two squares a character."""
    import segno

    out = io.StringIO()
    segno.make_qr(text).terminal(out, compact=True)
    return out.getvalue()


def check_file(path: Path) -> Path:
    """Return a path that `save` can write; raise `CliError` before a code was made for nothing."""
    if path.suffix.lower() not in _KINDS:
        raise CliError(f"--qr-file {path}: use a name that ends in {' or '.join(_KINDS)}", ExitCode.USAGE)
    if path.exists():
        raise CliError(f"--qr-file {path} exists; choose another name or remove it", ExitCode.EXISTS)
    if not path.absolute().parent.is_dir():
        raise CliError(f"--qr-file {path}: there is no such folder", ExitCode.NOT_FOUND)
    return path


def save(text: str, path: Path) -> None:
    """Write a QR code as PNG or SVG (mode 0600: who reads it can claim)."""
    import segno

    out = io.BytesIO()
    segno.make_qr(text).save(out, kind=path.suffix.lower()[1:], scale=_SCALE)
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(out.getvalue())
