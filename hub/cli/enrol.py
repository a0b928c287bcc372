"""Tokens for simulated devices: enrolled once, kept in a private file, used again in the next run.

Owns: that file, and the rule that a device which exists and is not known here
is somebody's real one. Place: before `simulation`.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from hub.cli.exit_code import CliError, ExitCode
from hub.cli.output import tell
from hub.cli.rest import RestClient
from hub.errors import ConflictError


def enrol_by_rest(client: RestClient, names: Sequence[str], *, replace: bool) -> dict[str, str]:
    """Return a token for each name, by an admin's REST calls; a token made here before is used again.

    Args:
        replace: devices that exist and are not known here get new tokens.
    """
    kept_in = _state_folder() / f"simulated-{urlsplit(client.url).netloc.replace(':', '-')}.json"
    try:
        answer = client.post("/v1/devices/bulk", {"devices": list(names)})
        tokens = {entry["device"]: entry["token"] for entry in answer["devices"]}
    except ConflictError:
        tokens = _one_by_one(client, names, _load(kept_in), replace=replace)
    _save(kept_in, tokens)
    return tokens


def enrol_in_folder(
    data: Path, names: Sequence[str], *, replace: bool = False, skip_others: bool = False
) -> dict[str, str]:
    """Return a token for each name, on the hub's own machine; a token made here before is used again.

    Args:
        replace: devices that exist and are not known here get new tokens.
        skip_others: leave out devices that exist and are not known here, instead of refusing.
    """
    from hub.auth import Identities

    data.mkdir(parents=True, exist_ok=True)
    kept_in = data / "simulated-tokens.json"
    kept = _load(kept_in)
    identities = Identities(data / "identities.sqlite3")
    try:
        existing = {device.name for device in identities.devices()}
        valid = {name: token for name, token in kept.items() if name in existing and identities.authenticate(token)}
        others = [name for name in names if name in existing and name not in valid]
        if others and not replace and not skip_others:
            raise _not_ours(others)
        if skip_others and not replace:
            names = [name for name in names if name not in others]
        missing = [name for name in names if name not in valid]
        tokens = {name: valid[name] for name in names if name in valid}
        tokens.update(identities.add_devices(missing, rotate=replace))
    finally:
        identities.close()
    _save(kept_in, tokens)
    return tokens


def _one_by_one(client: RestClient, names: Sequence[str], kept: dict[str, str], *, replace: bool) -> dict[str, str]:
    tokens: dict[str, str] = {}
    others: list[str] = []
    for name in names:
        try:
            tokens[name] = client.post("/v1/devices", {"device": name})["token"]
        except ConflictError:
            if name in kept:
                tokens[name] = kept[name]
            elif replace:
                tokens[name] = client.post(f"/v1/devices/{name}/rotate", {"keep_s": 0})["token"]
            else:
                others.append(name)
    if others:
        raise _not_ours(others)
    return tokens


def _not_ours(names: Sequence[str]) -> CliError:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return CliError(
        f"these devices exist and their tokens are not known here: {shown}. With --replace-tokens they get new ones "
        "(what uses the old ones stops), or choose other names",
        ExitCode.EXISTS,
    )


def _state_folder() -> Path:
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "telemetry-hub"


def _load(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        tell(f"note: {path} cannot be read ({error}); known tokens of simulated devices are lost")
        return {}


def _save(path: Path, tokens: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
        json.dump({**_load(path), **tokens}, file)
    part.replace(path)
