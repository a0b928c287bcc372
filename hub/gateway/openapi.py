"""``/openapi.json``, generated from the endpoint table.

Owns: the translation of `Endpoint` and its pydantic models to OpenAPI 3.1.
Place: beside `rest`. Pure. Source: spec.openapis.org/oas/v3.1.1.
"""

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from hub.gateway.endpoint import Endpoint, Error, Nothing

_REFERENCE = "#/components/schemas/{model}"


def openapi(endpoints: Sequence[Endpoint], version: str) -> dict[str, Any]:
    """Return the document."""
    answers = {e.gives for e in endpoints if e.gives is not None} | {Error}
    bodies = {e.takes for e in endpoints if e.method in ("POST", "PATCH") and not e.bodies and e.takes is not Nothing}
    _, schemas = models_json_schema(
        [(model, "validation") for model in sorted(answers | bodies, key=lambda model: model.__name__)],
        ref_template=_REFERENCE,
    )
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "telemetry hub", "version": version, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "hub_session"},
            },
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    answer = {"description": "As asked."} if endpoint.status != 204 else {"description": "Done."}
    operation: dict[str, Any] = {
        "operationId": endpoint.answer.__name__,
        "summary": endpoint.summary,
        "description": (endpoint.answer.__doc__ or "").strip(),
        "security": [] if endpoint.verb is None else [{"token": []}, {"session": []}],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"\{(\w+)\}", endpoint.path)
        ],
        "responses": {str(endpoint.status): answer, "default": {"description": "Why not.", **_json(Error)}},
    }
    if endpoint.verb is not None:
        operation["x-verb"] = endpoint.verb.value
    if endpoint.gives is not None:
        answer.update(_json(endpoint.gives))
    if endpoint.media:
        operation["responses"][str(endpoint.status)]["content"] = {media: {} for media in endpoint.media}
    if endpoint.bodies:
        operation["requestBody"] = {"required": True, "content": {media: {} for media in endpoint.bodies}}
        operation["parameters"] += _query(endpoint.takes)
    elif endpoint.method in ("POST", "PATCH") and endpoint.takes is not Nothing:
        is_required = any(field.is_required() for field in endpoint.takes.model_fields.values())
        operation["requestBody"] = {"required": is_required, **_json(endpoint.takes)}
    else:
        operation["parameters"] += _query(endpoint.takes)
    return operation


def _query(model: type[BaseModel]) -> list[dict[str, Any]]:
    schema = model.model_json_schema(ref_template=_REFERENCE)
    required = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": field}
        for name, field in schema.get("properties", {}).items()
    ]


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}}}
