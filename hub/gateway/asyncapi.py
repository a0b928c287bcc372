"""``/v1/asyncapi.json``: the protocols of devices and watchers as AsyncAPI 3.0, made from the models they run by.

Owns: the translation of models, records and constants to channels, operations and schemas, and what close codes mean.
Place: beside `openapi`, which describes REST. Pure. Source: asyncapi.com/docs/reference/specification/v3.0.0.

Nothing of a message is written here: what devices say is `hub.device_message.MODELS`, what they are told the records of
`device_sdk.wire` and its encoder, what watchers say `hub.live.message`, what they are told `hub.live.outgoing`.
Payloads are JSON Schema draft 07, which is what AsyncAPI means without a word. Fields beside those described are left
alone by all: an older end serves a newer one.
"""

import inspect
import re
from collections.abc import Iterable, Mapping
from functools import cache
from types import ModuleType
from typing import Any, get_args

import orjson
from pydantic import BaseModel, TypeAdapter

from device_sdk import columns, envelope, reading, wire
from device_sdk.wire import DEVICE_PATH, DEVICE_SUBPROTOCOL, PING_S, WATCH_PATH, WATCH_SUBPROTOCOL, Close
from hub.device_message import MODELS
from hub.gateway.access import OFFER_PREFIX, SESSION_COOKIE
from hub.gateway.record_schema import JsonObject, schema_of
from hub.live import message, outgoing, patterns, poll, watch

CLOSE_MEANINGS: dict[int, str] = {
    Close.GOING_AWAY: "the hub stops; come back after `retry_ms` of its `bye`",
    Close.TOO_SLOW: "too much was written that the peer did not take",
    Close.NO_PONG: "the peer was silent and did not answer a ping",
    Close.RATE_LIMITED: "too much in too short a time",
    Close.INTERNAL: "the hub failed; its log says why",
    Close.BAD_MESSAGE: "a message breaks the protocol, is not allowed in this state, or the first one did not come",
    Close.UNAUTHENTICATED: "the credential was revoked or has ended",
    Close.FORBIDDEN: "the credential does not allow it",
    Close.TAKEN_OVER: "a newer connection continues the stream",
    Close.TOO_LARGE: "the message was larger than a frame may be",
    Close.EVICTED: "watchers that do not read held too much memory, this one among the most",
}
_SCHEMAS = "#/components/schemas/"
_JSON, _BYTES = "application/json", "application/octet-stream"
_DEVICE, _GATEWAY, _WATCH, _EVENTS, _POLL = "devices", "gateways", "watch", "watchEvents", "watchPoll"
_EXACT = 2**53
_SECURITY: JsonObject = {
    "token": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer <token>` of the upgrade."},
    "offered": {
        "type": "httpApiKey", "in": "header", "name": "Sec-WebSocket-Protocol",
        "description": f"A browser offers its token as a further subprotocol, `{OFFER_PREFIX}<token>`.",
    },
    "session": {"type": "httpApiKey", "in": "cookie", "name": SESSION_COOKIE, "description": "Of the hub's own page."},
    "certificate": {"type": "X509", "description": "A device's own, where the hub was given an authority."},
}  # fmt: skip
# Which of them each channel takes.
_BY_DEVICES, _BY_SOCKET, _BY_HTTP = ("token", "certificate"), ("token", "offered", "session"), ("token", "session")


def asyncapi() -> JsonObject:
    """Return the document."""
    document = _Document()
    _devices(document)
    _gateways(document)
    _watch(document)
    _events(document)
    _poll(document)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "telemetry hub: devices and watchers",
            "version": f"{wire.PROTOCOL_VERSION}.0.0",
            "description": "Requests and answers without a conversation are in `/openapi.json`.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": _JSON,
        "servers": {name: _server(name) for name in ("ws", "wss", "http", "https")},
        "channels": document.channels,
        "operations": document.operations,
        "components": {
            "schemas": document.schemas, "messages": document.messages, "securitySchemes": _SECURITY,
        },
    }  # fmt: skip


def close_codes() -> list[JsonObject]:
    """Return each close code with what it means and when its receiver may come back."""
    found = {name: code for name, code in vars(Close).items() if name.isupper()}
    return [
        {
            "code": code, "name": name.lower(), "meaning": CLOSE_MEANINGS[code],
            "reconnect": "soon" if code // 100 in (40, 41) else "after minutes: a person must act",
        }
        for name, code in found.items()
    ]  # fmt: skip


class _Document:
    """The document while it grows; names of messages and schemas are equal: ``device_hello``, ``watch_data``."""

    def __init__(self) -> None:
        self.schemas: dict[str, JsonObject] = {}
        self.messages: dict[str, JsonObject] = {}
        self.channels: dict[str, JsonObject] = {}
        self.operations: dict[str, JsonObject] = {}

    def say(self, name: str, op: str, schema: JsonObject, content: str = _JSON) -> str:
        """Add a message with its schema; return its name."""
        prefix = name.partition("_")[0]
        schema = _draft07(schema, prefix)
        for inner, found in schema.pop("$defs", {}).items():
            self.schemas[_inner(inner, prefix)] = found
        words = schema.pop("description", "")
        self.schemas[name] = schema
        self.messages[name] = {
            "name": op, "title": op, "summary": words.partition("\n")[0], "description": words,
            "contentType": content, "payload": {"$ref": _SCHEMAS + name},
        }  # fmt: skip
        return name

    def channel(self, name: str, address: str, words: str, messages: Iterable[str], **further: object) -> None:
        """Add a channel; ``further``: bindings and extensions."""
        protocols = ("ws", "wss") if name in (_DEVICE, _GATEWAY, _WATCH) else ("http", "https")
        self.channels[name] = {
            "address": address,
            "description": words,
            "servers": [{"$ref": f"#/servers/{protocol}"} for protocol in protocols],
            "messages": {one: {"$ref": f"#/components/messages/{one}"} for one in messages},
            **further,
        }

    def operation(
        self, name: str, channel: str, messages: Iterable[str], security: Iterable[str], *, is_sent: bool = False,
        replies: Iterable[str] = (), bindings: JsonObject | None = None,
    ) -> None:  # fmt: skip
        """Add what the hub receives, or sends."""
        within = f"#/channels/{channel}"
        self.operations[name] = {
            "action": "send" if is_sent else "receive",
            "channel": {"$ref": within},
            "messages": [{"$ref": f"{within}/messages/{one}"} for one in messages],
            "security": [{"$ref": f"#/components/securitySchemes/{scheme}"} for scheme in security],
        }
        if bindings is not None:
            self.operations[name]["bindings"] = bindings
        if answers := [{"$ref": f"{within}/messages/{one}"} for one in replies]:
            self.operations[name]["reply"] = {"channel": {"$ref": within}, "messages": answers}


# --- devices ---------------------------------------------------------------------------------------------


def _devices(document: _Document) -> None:
    records = {kind.__name__.lower(): kind for kind in (*get_args(wire.DeviceMessage), columns.Batch)}
    said = [
        document.say(f"device_{op}", op, {**_with_op(op, model), "description": inspect.getdoc(records[op]) or ""})
        for op, model in MODELS.items()
    ]
    words = inspect.getdoc(columns) or ""
    layout = "A batch as columns of numbers.\n\n" + words[words.index("Binary (fast columns)") :]
    said.append(document.say("device_batch_binary", "batch", {**_BLOB, "description": layout}, _BYTES))
    told = [
        document.say(f"hub_{schema['properties']['op']['const']}", schema["properties"]["op"]["const"], schema)
        for schema in (schema_of(kind, wire.encode) for kind in get_args(wire.HubMessage))
    ]
    document.channel(
        _DEVICE, DEVICE_PATH, "One device; its name is that of its credential. A message that begins with byte 02 is "
        "raw DEFLATE of the rest. " + _one_line(Close), [*said, *told],
        **_socket(DEVICE_SUBPROTOCOL, (wire, reading, columns), PING_S),
    )  # fmt: skip
    document.operation("deviceSays", _DEVICE, said, _BY_DEVICES)
    document.operation("deviceIsTold", _DEVICE, told, _BY_DEVICES, is_sent=True)


def _gateways(document: _Document) -> None:
    """Add the same in envelopes; what the hub says without a number is for all."""
    document.schemas["envelope"] = {
        "type": "object", "required": ["n"],
        "properties": {"n": {"type": "integer", "minimum": 1, "maximum": envelope.MAX_NUMBER}},
    }  # fmt: skip
    said: list[str] = []
    told: list[str] = []
    for name, found in list(document.messages.items()):
        inside = [{"$ref": _SCHEMAS + name}, {"$ref": _SCHEMAS + "envelope"}]
        is_json = found["contentType"] == _JSON
        schema = {"allOf": inside} if is_json else dict(_BLOB)
        schema["description"] = found["description"]
        wrapped = document.say(f"gateway_{name}", found["name"], schema, found["contentType"])
        (said if name.startswith("device_") else told).append(wrapped)
    told.append("hub_bye")
    words = (inspect.getdoc(envelope) or "").partition("A gateway numbers")
    document.channel(
        _GATEWAY, DEVICE_PATH, words[1] + words[2], [*said, *told],
        **_socket(DEVICE_SUBPROTOCOL, (envelope,), PING_S),
    )  # fmt: skip
    document.operation("gatewaySays", _GATEWAY, said, _BY_DEVICES)
    document.operation("gatewayIsTold", _GATEWAY, told, _BY_DEVICES, is_sent=True)


# --- watchers --------------------------------------------------------------------------------------------


def _watch(document: _Document) -> None:
    asked = {
        _op(model): document.say(f"watcher_{_op(model)}", _op(model), model.model_json_schema(ref_template="{model}"))
        for model in get_args(message.ClientMessage)
    }
    error = document.say("watch_error", "error", _typed(outgoing.Error))
    answers: dict[str, str] = {}
    for op, kind in outgoing.ANSWERS.items():
        name = {outgoing.SubOk: "watch_ok_sub", outgoing.AuthOk: "watch_ok_auth"}.get(kind, f"watch_{_op(kind)}")
        answers[op] = document.say(name, _op(kind), _typed(kind))
    told = [document.say(f"watch_{_op(kind)}", _op(kind), _typed(kind)) for kind in (*outgoing.TOLD, outgoing.Bye)]
    document.channel(
        _WATCH, WATCH_PATH, "Many subscriptions on one connection. " + _one_line(Close),
        dict.fromkeys([*asked.values(), error, *answers.values(), *told]),
        **_socket(WATCH_SUBPROTOCOL, (message, watch, patterns), PING_S),
    )  # fmt: skip
    for op, name in asked.items():
        document.operation(f"watcherSays{op.title()}", _WATCH, [name], _BY_SOCKET, replies=(answers[op], error))
    document.operation("watcherIsTold", _WATCH, told, _BY_SOCKET, is_sent=True)


def _events(document: _Document) -> None:
    told = [
        document.say(f"event_{_op(kind)}", _op(kind), _without(_typed(kind), "op", "sub"))
        for kind in (*outgoing.TOLD, outgoing.Ended)
    ]
    document.channel(
        _EVENTS, WATCH_PATH, "One subscription as server-sent events: the op is the event's name, the payload its "
        "data, the cursor its id. `Last-Event-ID` goes before `since` and resumes every series at once.", told,
    )  # fmt: skip
    document.operation("eventsAreSent", _EVENTS, told, _BY_HTTP, is_sent=True, bindings=_query())


def _poll(document: _Document) -> None:
    told = [
        document.say(f"poll_{_op(kind)}", _op(kind), _without(_typed(kind), "sub"))
        for kind in (*outgoing.TOLD, outgoing.Ended)
    ]
    page = document.say("poll_page", "page", {
        "description": "What is behind a cursor, in order, and the cursor to ask with next.",
        "type": "object", "required": ["o", "messages"],
        "properties": {
            "o": {"type": "string"},
            "messages": {"type": "array", "items": {"anyOf": [{"$ref": _SCHEMAS + name} for name in told]}},
        },
    })  # fmt: skip
    words = (inspect.getdoc(poll) or "").partition("For clients:\n\n")[2]
    document.channel(_POLL, WATCH_PATH, words, [page], **{"x-limits": _limits((poll,))})
    wait = {"type": "string", "description": f"How long the hub may keep the question: 0s to {poll.MAX_WAIT_S:g}s."}
    document.operation("pageIsSent", _POLL, [page], _BY_HTTP, is_sent=True, bindings=_query(wait=wait))


def _query(**further: JsonObject) -> JsonObject:
    """Return the binding of ``GET /v1/watch``: its parameters are the fields of a `Sub`."""
    schema = _draft07(_without(message.Sub.model_json_schema(), "op", "sub", "id"), "watcher")
    fields = {**schema["properties"], **further}
    query = {"type": "object", "properties": fields, "required": list(further)}
    return {"http": {"method": "GET", "query": query, "bindingVersion": "0.3.0"}}


# --- schemas ---------------------------------------------------------------------------------------------

_BLOB: JsonObject = {"type": "string", "format": "binary"}


def _typed(kind: Any) -> JsonObject:
    """Return the schema of a message that is declared as a type."""
    return {**TypeAdapter(kind).json_schema(ref_template="{model}"), "description": inspect.getdoc(kind) or ""}


def _op(kind: Any) -> str:
    """Return the op of a model or a type."""
    return str(get_args(inspect.get_annotations(kind)["op"])[0])


def _with_op(op: str, model: type[BaseModel]) -> JsonObject:
    schema = model.model_json_schema(ref_template="{model}")
    fields, required = schema.get("properties", {}), schema.get("required", [])
    return {**schema, "properties": {"op": {"const": op}, **fields}, "required": ["op", *required]}


def _without(schema: JsonObject, *names: str) -> JsonObject:
    fields = {name: field for name, field in schema["properties"].items() if name not in names}
    return {**schema, "properties": fields, "required": [n for n in schema.get("required", ()) if n not in names]}


def _inner(model: str, prefix: str) -> str:
    """Return the name of a schema inside those of one side: two sides may have models of one name."""
    return prefix + model.strip("_").removesuffix("Model")


def _draft07(found: Any, prefix: str) -> Any:
    """Return a schema of pydantic (2020-12) as draft 07, with its references as they are named here."""
    if isinstance(found, list):
        return [_draft07(one, prefix) for one in found]
    if not isinstance(found, dict):
        return found
    out = {k: _draft07(v, prefix) for k, v in found.items() if not (k == "title" and isinstance(v, str))}
    if "prefixItems" in out:
        out["items"], out["additionalItems"] = out.pop("prefixItems"), False
    if isinstance(out.get("$ref"), str):
        target = out.pop("$ref")
        reference = {"$ref": target if target.startswith("#") else _SCHEMAS + _inner(target, prefix)}
        # What stands beside a reference is not read in draft 07.
        return {"allOf": [reference], **out} if out else reference
    return out


def _socket(subprotocol: str, modules: Iterable[ModuleType], ping_s: int) -> JsonObject:
    """Return what a WebSocket's channel says beside its messages."""
    protocol = {"type": "string", "pattern": rf"(^|[,\s]){re.escape(subprotocol)}($|[,\s])"}
    headers = {"type": "object", "properties": {"Sec-WebSocket-Protocol": protocol}}
    return {
        "bindings": {"ws": {"method": "GET", "headers": headers, "bindingVersion": "0.1.0"}},
        "x-close-codes": close_codes(),
        "x-limits": {"ping_s": ping_s, **_limits(modules)},
    }


def _limits(modules: Iterable[ModuleType]) -> JsonObject:
    """Return the numbers that modules name in capitals: what a peer may rely on, and may not pass."""
    found = {
        name.lower(): value
        for module in modules
        for name, value in vars(module).items()
        if name.isupper() and not name.startswith("_") and isinstance(value, int | float)
    }
    return {name: str(value) if abs(value) > _EXACT else value for name, value in found.items()}


def _server(protocol: str) -> JsonObject:
    host: Mapping[str, object] = {
        "default": "127.0.0.1:8000",
        "description": "Where the hub listens; one port for all.",
    }
    return {"host": "{host}", "protocol": protocol, "variables": {"host": host}}


def _one_line(kind: type) -> str:
    return " ".join((inspect.getdoc(kind) or "").split())


@cache
def document_bytes() -> bytes:
    """Return the document as the hub serves it and as it stands in the repository; made when it is first asked for."""
    return orjson.dumps(asyncapi(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
