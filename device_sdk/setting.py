"""Settings of a device as people write them, made exact.

Owns: sizes, choices, the default place of a spool. Place: beside `reading`, used
by `device`. Must not: touch the disk.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

from device_sdk.errors import MisuseError

_Choice = TypeVar("_Choice", bound=str)
_FACTORS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(name: str, size: int | str) -> int:
    """Return bytes of an int, ``"64MB"`` or ``"64 MiB"``; raise `MisuseError` that names the setting."""
    if isinstance(size, int):
        return size
    text = size.strip().upper()
    digits = text.rstrip("KMGIB ")
    factor = _FACTORS.get(text[len(digits) :].strip())
    if factor is None or not digits.isdecimal():
        raise MisuseError(f"{name} {size!r}: use bytes, or a whole number with KB, MB, GB, KiB, MiB or GiB")
    return int(digits) * factor


def check_choice(name: str, value: _Choice, allowed: tuple[_Choice, ...]) -> _Choice:
    """Return ``value`` when it is allowed; raise `MisuseError` that lists what is."""
    if value not in allowed:
        raise MisuseError(f"{name} {value!r}: use {' or '.join(allowed)}")
    return value


def is_address(host: str) -> bool:
    """Return whether a host is written as an address and not as a name."""
    return ":" in host or host.replace(".", "").isdigit()


def is_loopback(host: str) -> bool:
    """Say whether a host name or address is this machine itself."""
    # Imported by those who ask: a device that only records never does.
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def from_environment(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `Device.from_env`: those of the environment, and ``settings``, which win.

    HUB_URL, DEVICE_NAME, HUB_TOKEN, HUB_CA, HUB_FINGERPRINT, HUB_CERTIFICATE, HUB_KEY, SPOOL_DIR.

    Raises:
        MisuseError: HUB_URL or DEVICE_NAME is missing.
    """
    names = {
        "name": "DEVICE_NAME", "url": "HUB_URL", "token": "HUB_TOKEN", "ca": "HUB_CA", "spool": "SPOOL_DIR",
        "fingerprint": "HUB_FINGERPRINT", "certificate": "HUB_CERTIFICATE", "key": "HUB_KEY",
    }  # fmt: skip
    found: dict[str, Any] = {key: os.environ[name] for key, name in names.items() if os.environ.get(name)}
    found.update(settings)
    missing = [names[key] for key in ("name", "url") if key not in found]
    if missing:
        raise MisuseError(f"the environment lacks {' and '.join(missing)}")
    return found


def default_spool(device: str) -> Path:
    """Return ``$XDG_STATE_HOME/telemetry/<device>``, else the same under ``~/.local/state``."""
    state = os.environ.get("XDG_STATE_HOME")
    try:
        base = Path(state) if state else Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise MisuseError("there is no home directory for the spool; pass spool= or set SPOOL_DIR") from error
    return base / "telemetry" / device
