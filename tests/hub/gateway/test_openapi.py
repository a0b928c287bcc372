"""`hub.gateway.openapi`: the document says what the table says."""

from hub.gateway.openapi import openapi
from hub.gateway.rest import ENDPOINTS

DOCUMENT = openapi(ENDPOINTS, "1.2.3")


def test_every_endpoint_is_described_once() -> None:
    """Paths and methods are those of the table, each with its own operation id."""
    described = {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item}

    assert described == {(e.method, e.path) for e in ENDPOINTS}
    ids = [operation["operationId"] for item in DOCUMENT["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids)) == len(ENDPOINTS)


def test_parameters_have_the_names_clients_use() -> None:
    """Query parameters carry their public names, path parameters are required."""
    readings = {p["name"] for p in DOCUMENT["paths"]["/v1/readings"]["get"]["parameters"]}
    rotate = DOCUMENT["paths"]["/v1/devices/{device}/rotate"]["post"]["parameters"]

    assert readings == {
        "match", "last", "from", "to", "at", "lookback", "limit", "order", "bucket", "tz", "points", "agg", "fill",
        "page", "received", "raw", "format",
    }  # fmt: skip
    assert rotate == [{"name": "device", "in": "path", "required": True, "schema": {"type": "string"}}]


def test_every_reference_resolves() -> None:
    """No schema points to one that is not there."""
    schemas = DOCUMENT["components"]["schemas"]

    for reference in references(DOCUMENT):
        assert reference.removeprefix("#/components/schemas/") in schemas


def references(found: object) -> list[str]:
    """Every ``$ref`` in the document."""
    if isinstance(found, dict):
        own = [found["$ref"]] if "$ref" in found else []
        return own + [reference for value in found.values() for reference in references(value)]
    if isinstance(found, list):
        return [reference for value in found for reference in references(value)]
    return []


def test_open_endpoints_and_verbs_are_named() -> None:
    """Health is open; the rest names the verb it asks for."""
    assert DOCUMENT["paths"]["/healthz"]["get"]["security"] == []
    assert DOCUMENT["paths"]["/v1/tokens"]["post"]["x-verb"] == "manage"
