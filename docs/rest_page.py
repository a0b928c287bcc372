"""The page docs/reference/rest.md: routes, roles, errors and the ops of both WebSockets, from the tables they run by.

Place: beside `docs.generate`, which writes it. A route, a role, an error or an op that is added appears by itself.
"""

import importlib
import inspect
import pkgutil
import re
from typing import Any, get_args

from pydantic import BaseModel

import hub
from device_sdk import errors as sdk_errors
from device_sdk.wire import DEVICE_PATH, WATCH_PATH, Close
from hub import errors, session
from hub.gateway.asyncapi import close_codes
from hub.gateway.endpoint import Endpoint, Nothing
from hub.gateway.http import BODY_S, MAX_BODY_BYTES
from hub.gateway.influx import HEALTH, PING, QUERY, WRITE_V1, WRITE_V2
from hub.gateway.rest import ENDPOINTS
from hub.live import message
from hub.live.poll import MAX_WAIT_S
from hub.roles import VERBS, Role, Verb

_LIMITS = {
    "minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}",
    "minLength": "≥ {} characters", "maxLength": "≤ {} characters", "minItems": "≥ {} items", "maxItems": "≤ {} items",
    "pattern": "`{}`", "const": "`{}`",
}  # fmt: skip
# Faults that the HTTP side answers before an endpoint is asked.
_OF_HTTP = (
    (405, "method_not_allowed", "the path exists, the method does not"),
    (413, "too_large", f"the body is over {MAX_BODY_BYTES} bytes"),
    (426, "upgrade_required", f"`{DEVICE_PATH}` speaks WebSocket"),
)


def rest() -> str:
    """Return docs/reference/rest.md."""
    return "\n".join([
        "# REST, roles, errors and ops\n",
        "*Generated from the tables the hub runs by (`hub/gateway/rest`, `hub/roles.py`, `hub/errors.py`, "
        "`hub/session.py`, `hub/live/message.py`) by `python -m docs.generate`; a running hub has the same as "
        "`/openapi.json`, and its protocols as [`/v1/asyncapi.json`](asyncapi.json). "
        "Exit codes and options of the command line: [cli.md](cli.md); messages of devices: "
        "[protocol.md](protocol.md); of watchers: [watch.md](watch.md).*\n",
        "Credential: `Authorization: Bearer <token>`, or the page's cookie. The namespace is the credential's. A body "
        f"is JSON of at most {MAX_BODY_BYTES} bytes within {BODY_S:g} s; a name that is not listed is an error.\n",
        "## Roles and verbs\n", _roles(),
        "## Routes\n", _overview(),
        *(_route(endpoint) for endpoint in ENDPOINTS),
        f"### `GET {WATCH_PATH}`\n\nWatch by server-sent events: verb `read`; parameters as the `sub` message below "
        "(`match`, `not`, `selector`, `since`, `mode`, `max_hz`, `agg`, `every`), `Last-Event-ID` goes before `since`. "
        f"With `wait` (`0s` to `{MAX_WAIT_S:g}s`) it is a long poll instead: one answer in JSON, "
        "see [watch.md](watch.md#by-long-poll).\n",
        f"### `POST {WRITE_V2}`, `POST {WRITE_V1}`\n\nLine protocol, as clients of InfluxDB 2 and 1 send it: verb "
        "`write`; `precision`, gzip, `Idempotency-Key`; `bucket`, `org`, `db` and `rp` say nothing. The token as "
        "`Bearer`, `Token`, password of `Basic`, or `p` in the query of InfluxDB 1. 204: all is stored; 400 `partial "
        f"write`: the lines that are named are not. Errors as InfluxDB has them. Beside them `GET {PING}`, "
        f"`GET {HEALTH}`, and of `{QUERY}` `CREATE DATABASE`, which does nothing ([how](../how-to/http-ingest.md)).\n",
        "## Errors\n", _errors(),
        "## Close codes of WebSockets\n", _close_codes(),
        f"## Ops of devices (`{DEVICE_PATH}`)\n", _device_ops(),
        f"## Ops of watchers (`{WATCH_PATH}`)\n", _watch_ops(),
    ])  # fmt: skip


def _roles() -> str:
    """Return the table roles × verbs."""
    rows = ["| role | " + " | ".join(f"`{verb}`" for verb in Verb) + " |", "| --- |" + " --- |" * len(Verb)]
    rows += [f"| {role} | " + " | ".join("yes" if v in VERBS[role] else "–" for v in Verb) + " |" for role in Role]
    return "\n".join(rows) + "\n"


def _overview() -> str:
    rows = ["| route | what | verb | whole namespace |", "| --- | --- | --- | --- |"]
    rows += [
        f"| `{e.method} {e.path}` | {e.summary} | {'open' if e.verb is None else f'`{e.verb}`'} "
        f"| {'yes' if e.whole else '–'} |"
        for e in ENDPOINTS
    ]
    return "\n".join(rows) + "\n"


def _route(endpoint: Endpoint) -> str:
    """Return the section of one route."""
    access = "open to all" if endpoint.verb is None else f"verb `{endpoint.verb}`"
    whole = " for the whole namespace" if endpoint.whole else ""
    parts = [f"### `{endpoint.method} {endpoint.path}`\n", inspect.cleandoc(endpoint.answer.__doc__ or ""), ""]
    parts.append(f"Access: {access}{whole}. Answer: {_gives(endpoint)}.\n")
    if names := re.findall(r"\{(\w+)\}", endpoint.path):
        parts.append(f"In the path: {', '.join(f'`{name}`' for name in names)}.\n")
    if endpoint.bodies:
        parts.append(f"Body: {', '.join(f'`{media}`' for media in endpoint.bodies)}.\n")
    if endpoint.takes is not Nothing:
        where = "Query" if endpoint.method in ("GET", "DELETE") or endpoint.bodies else "Body"
        parts.append(f"{where}: {_prose(endpoint.takes)}\n\n{_fields(endpoint.takes, required=True)}")
    if endpoint.gives is not None:
        parts.append(f"{_prose(endpoint.gives)}\n\n{_fields(endpoint.gives, required=False)}")
    return "\n".join(parts)


def _gives(endpoint: Endpoint) -> str:
    if endpoint.media:
        return f"{endpoint.status}, " + " or ".join(f"`{media}`" for media in endpoint.media)
    return str(endpoint.status) if endpoint.gives is None else f"{endpoint.status}, `{endpoint.gives.__name__}`"


def _prose(model: type[BaseModel]) -> str:
    """Return a model's own docstring on one line; one that it only inherits says nothing of it."""
    return " ".join(inspect.cleandoc(model.__dict__.get("__doc__") or "").split())


def _fields(model: type[BaseModel], *, required: bool) -> str:
    """Return a table of a model's fields with their limits; of an answer also those of what it holds."""
    schema = model.model_json_schema(by_alias=True)
    shown = {model.__name__: schema, **schema.get("$defs", {})}
    out = []
    for name, part in shown.items():
        if "properties" not in part:
            continue
        title = "" if name == model.__name__ else f"`{name}`: {' '.join(part.get('description', '').split())}\n\n"
        last = "default" if required else "note"
        rows = [f"| field | type and limits | {last} |", "| --- | --- | --- |"]
        for field, value in part["properties"].items():
            note = _default(field, value, part) if required else ""
            words = value.get("description", "")
            rows.append(f"| `{field}` | {_type(value)} | {'; '.join(text for text in (note, words) if text)} |")
        out.append(title + "\n".join(rows) + "\n")
    return "\n".join(out)


def _default(field: str, value: dict[str, Any], part: dict[str, Any]) -> str:
    return "required" if field in part.get("required", ()) else f"`{value.get('default')}`"


def _type(value: dict[str, Any]) -> str:
    """Return a JSON schema's type with its limits in words."""
    if "$ref" in value:
        text = f"`{value['$ref'].rsplit('/', 1)[1]}`"
    elif "anyOf" in value:
        text = " or ".join(_type(option) for option in value["anyOf"])
    elif "enum" in value:
        text = ", ".join(f"`{word}`" for word in value["enum"])
    elif value.get("type") == "array":
        text = f"list of {_type(value['items'])}" if "items" in value else "list"
    elif isinstance(value.get("additionalProperties"), dict):
        text = f"object of {_type(value['additionalProperties'])}"
    else:
        text = value.get("type", "any")
    limits = [form.format(value[name]).replace("|", "\\|") for name, form in _LIMITS.items() if name in value]
    return ", ".join([text, *limits])


def hub_errors() -> list[type[errors.HubError]]:
    """Return every error of the hub, in whichever module it is declared."""
    for module in pkgutil.walk_packages(hub.__path__, "hub."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: list[type[errors.HubError]] = []
    left = [errors.HubError]
    while left:
        error = left.pop()
        found.append(error)
        left += [kind for kind in error.__subclasses__() if kind.__module__.startswith("hub.")]
    return found


def _errors() -> str:
    rows = ["| reason | HTTP | what it means |", "| --- | --- | --- |"]
    found = {(e.status, e.reason, (e.__doc__ or "").partition("\n")[0].rstrip(".")) for e in hub_errors()}
    rows += [f"| `{reason}` | {status} | {words} |" for status, reason, words in sorted({*found, *_OF_HTTP})]
    said = 'Every answer of 400 and more is `{"error": {"reason": …, "message": …}}`.\n\n'
    words = ["", "Reasons of readings, frames, streams and connections, the same on wire, audit and page:", ""]
    words += ["| reason | what it means |", "| --- | --- |"]
    words += [f"| `{reason}` | {sdk_errors.explain(reason)} |" for reason in sdk_errors.Reason]
    return said + "\n".join(rows + words) + "\n"


def _close_codes() -> str:
    doc = inspect.cleandoc(Close.__doc__ or "")
    rows = ["| code | name | meaning |", "| --- | --- | --- |"]
    rows += [f"| {one['code']} | {one['name']} | {one['meaning']} |" for one in close_codes()]
    return f"{doc}\n\n" + "\n".join(rows) + "\n"


def _device_ops() -> str:
    rows = ["| op | allowed in | role |", "| --- | --- | --- |"]
    for op, states in session.ALLOWED.items():
        rows.append(f"| `{op}` | {', '.join(sorted(state.value for state in states))} | {_roles_with(Verb.WRITE)} |")
    return "\n".join(rows) + "\n\nA device speaks for itself alone: the name in `hello` must be the credential's.\n"


def _watch_ops() -> str:
    parts = [f"Allowed to {_roles_with(Verb.READ)}, at any time after the upgrade.\n"]
    for model in get_args(message.ClientMessage):
        op = model.model_fields["op"].annotation
        parts.append(f"### {get_args(op)[0]}\n\n{_prose(model)}\n\n{_fields(model, required=True)}")
    return "\n".join(parts)


def _roles_with(verb: Verb) -> str:
    return ", ".join(role for role in Role if verb in VERBS[role])
