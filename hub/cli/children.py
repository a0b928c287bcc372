"""``hub children``: the devices behind gateways; who waits, who may speak, what is accepted by itself.

Place: a command module; see `hub.cli`. A gateway's token comes from ``hub tokens add --role gateway``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol
from urllib.parse import quote as quoted

import typer

from hub.cli import options, output

if TYPE_CHECKING:
    from hub.children import Children
    from hub.cli.rest import RestClient

app = typer.Typer(help="Devices behind gateways: accept, ignore, rules.", no_args_is_help=True)

Gateway = Annotated[str, typer.Argument(help="The gateway's name.")]
Devices = Annotated[list[str], typer.Argument(metavar="DEVICE...", help="Names; with `*`, those the gateway has now.")]
Rows = list[dict[str, Any]]


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help="pending, accepted or ignored; all by default.")] = None,
    gateway: Annotated[str | None, typer.Option(help="Of this gateway alone.")] = None,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """List the devices behind gateways, the newest first."""
    with _opened(url, token, ca, data) as hub:
        rows = hub.children(state, gateway)
    if not as_json:
        times = {"first": "first_ns", "last": "last_ns"}
        rows = [{**row, **{shown: output.show_time(row[name]) for shown, name in times.items()}} for row in rows]
    columns = ["state", "gateway", "device", "first", "last"]
    output.show_rows(rows, columns, as_json=as_json, empty="no device behind a gateway")


@app.command("accept")
def accept(
    gateway: Gateway,
    devices: Devices,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
) -> None:
    """Let devices speak behind a gateway, before they came or after."""
    with _opened(url, token, ca, data) as hub:
        for device in _named(hub, gateway, devices):
            hub.decide(gateway, device, "accepted")
            output.tell(f"{device} behind {gateway} is accepted")


@app.command("ignore")
def ignore(
    gateway: Gateway,
    devices: Devices,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
) -> None:
    """Shut devices out, also such that speak now."""
    with _opened(url, token, ca, data) as hub:
        for device in _named(hub, gateway, devices):
            hub.decide(gateway, device, "ignored")
            output.tell(f"{device} behind {gateway} is ignored")


@app.command("forget")
def forget(
    gateway: Gateway,
    devices: Devices,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
) -> None:
    """Undo what was decided; readings stay, and a device that comes again is new."""
    with _opened(url, token, ca, data) as hub:
        for device in _named(hub, gateway, devices):
            hub.forget(gateway, device)
            output.tell(f"{device} behind {gateway} is forgotten")


@app.command("gateways")
def gateways(
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """List gateways with their quota and what they accept by themselves."""
    with _opened(url, token, ca, data) as hub:
        rows = hub.gateways()
    if not as_json:
        rows = [{**row, "auto_accept": " ".join(row["auto_accept"])} for row in rows]
    columns = ["gateway", "quota", "accepted", "pending", "ignored", "auto_accept"]
    output.show_rows(rows, columns, as_json=as_json, empty="no gateway")


@app.command("auto-accept")
def auto_accept(
    gateway: Gateway,
    patterns: Annotated[
        list[str] | None, typer.Argument(metavar="[PATTERN]...", help="Names with `*`; none: every device waits.")
    ] = None,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
) -> None:
    """Set which new devices need nobody's word, up to the quota."""
    with _opened(url, token, ca, data) as hub:
        hub.change(gateway, {"auto_accept": patterns or []})
    output.tell(f"gateway {gateway} accepts by itself: {' '.join(patterns or []) or 'nobody'}")


@app.command("quota")
def quota(
    gateway: Gateway,
    count: Annotated[int, typer.Argument(help="Devices that may be accepted.")],
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
) -> None:
    """Set how many devices may be accepted behind a gateway; a lower number shuts nobody out."""
    with _opened(url, token, ca, data) as hub:
        hub.change(gateway, {"quota": count})
    output.tell(f"gateway {gateway} may have {count} devices")


@app.command("remove-gateway")
def remove_gateway(
    gateway: Gateway,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
) -> None:
    """Forget a gateway and what was decided over its devices; end its tokens with `hub tokens rm`."""
    with _opened(url, token, ca, data) as hub:
        hub.remove(gateway)
    output.tell(f"gateway {gateway} is forgotten")


class _Hub(Protocol):
    """A running hub, or the files of one."""

    def children(self, state: str | None, gateway: str | None) -> Rows:
        """List children."""

    def gateways(self) -> Rows:
        """List gateways."""

    def decide(self, gateway: str, device: str, state: str) -> None:
        """Accept or ignore a child."""

    def forget(self, gateway: str, device: str) -> None:
        """Forget a child."""

    def change(self, gateway: str, rules: dict[str, Any]) -> None:
        """Change rules of a gateway."""

    def remove(self, gateway: str) -> None:
        """Forget a gateway."""


@contextmanager
def _opened(url: str, token: str | None, ca: Path | None, data: Path | None) -> Iterator[_Hub]:
    if data is None:
        yield _Running(options.open_client(url, token, ca))
        return
    with options.open_children(data) as children:
        yield _Files(children)


class _Running:
    def __init__(self, client: "RestClient") -> None:
        self._client = client

    def children(self, state: str | None, gateway: str | None) -> Rows:
        found: Rows = self._client.get("/v1/children", {"state": state, "gateway": gateway})["children"]
        return found

    def gateways(self) -> Rows:
        found: Rows = self._client.get("/v1/gateways")["gateways"]
        return found

    def decide(self, gateway: str, device: str, state: str) -> None:
        self._client.post(_path(gateway, device), {"state": state})

    def forget(self, gateway: str, device: str) -> None:
        self._client.delete(_path(gateway, device))

    def change(self, gateway: str, rules: dict[str, Any]) -> None:
        self._client.patch(_path(gateway), rules)

    def remove(self, gateway: str) -> None:
        self._client.delete(_path(gateway))


class _Files:
    def __init__(self, children: "Children") -> None:
        self._children = children

    def children(self, state: str | None, gateway: str | None) -> Rows:
        from hub.child_book import ChildState

        if state not in (None, *ChildState):
            raise typer.BadParameter(f"{state!r}: use one of {', '.join(ChildState)}")
        found = self._children.listed(gateway=gateway, state=None if state is None else ChildState(state))
        return [
            {"gateway": c.gateway, "device": c.device, "state": c.state.value, "first_ns": str(c.first_ns),
             "last_ns": str(c.last_ns)}
            for c in found
        ]  # fmt: skip

    def gateways(self) -> Rows:
        states = [(child.gateway, child.state.value) for child in self._children.listed()]
        return [
            {"gateway": name, "quota": rules.quota, "auto_accept": list(rules.auto_accept),
             **{state: states.count((name, state)) for state in ("accepted", "pending", "ignored")}}
            for name, rules in self._children.gateways().items()
        ]  # fmt: skip

    def decide(self, gateway: str, device: str, state: str) -> None:
        (self._children.accept if state == "accepted" else self._children.ignore)(gateway, device)

    def forget(self, gateway: str, device: str) -> None:
        self._children.forget(gateway, device)

    def change(self, gateway: str, rules: dict[str, Any]) -> None:
        from hub.errors import NotFoundError

        if gateway not in self._children.gateways():
            raise NotFoundError(f"no gateway {gateway!r}; make its token with: hub tokens add --role gateway")
        self._children.set_rules(gateway, **rules)

    def remove(self, gateway: str) -> None:
        self._children.remove_gateway(gateway)


def _named(hub: _Hub, gateway: str, devices: Sequence[str]) -> list[str]:
    """Return the devices: names as they are, patterns as those that the gateway has now and they mean."""
    patterns = [name for name in devices if "*" in name]
    if not patterns:
        return list(devices)
    known = [row["device"] for row in hub.children(None, gateway)]
    fit = sorted(name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns))
    named = [*(name for name in devices if "*" not in name), *fit]
    if not named:
        from hub.errors import NotFoundError

        raise NotFoundError(f"no device of gateway {gateway} fits {' '.join(patterns)}; see: hub children list")
    return named


def _path(gateway: str, device: str | None = None) -> str:
    path = f"/v1/gateways/{quoted(gateway, safe='')}"
    return path if device is None else f"{path}/children/{quoted(device, safe='')}"
