"""Arguments of a command against what the device declared: wrong ones are refused before anything is sent.

Owns: pydantic models made from declarations. Place: after `errors`, inside `commands`. Pure. A declaration was checked
by `validate` when the device sent it; fleets declare the same text, so models are kept by text.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.types import AllowInfNan, Strict

# Kinds of device in one fleet; one entry is some 100 KB of models at the most.
MAX_KEPT = 100
MAX_ERROR_CHARS = 300
_INT_MAX = 2**63 - 1
_TYPES: dict[str, Any] = {
    "int": Annotated[int, Strict(), Field(ge=-(2**63), le=_INT_MAX)],
    "float": Annotated[float, Strict(), AllowInfNan(False)],
    "bool": Annotated[bool, Strict()],
    "str": Annotated[str, Strict()],
    "dict": dict[str, Any],
    "list": Annotated[list[Any], Strict()],
}


def refusal(declared: str, name: str, args: Mapping[str, object]) -> str:
    """Return why a device does not take this command with these arguments; empty: it does.

    Args:
        declared: what the device declared, as JSON text; empty when it declared nothing.
    """
    models = _models(declared) if declared else {}
    model = models.get(name)
    if model is None:
        known = f"it has: {', '.join(sorted(models))}" if models else "it has declared none"
        return f"unknown command {name!r}; {known}"[:MAX_ERROR_CHARS]
    try:
        model.model_validate(dict(args))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        told = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in problems[:3])
        return f"{name}: {told}"[:MAX_ERROR_CHARS]
    return ""


@lru_cache(maxsize=MAX_KEPT)
def _models(declared: str) -> dict[str, type[BaseModel]]:
    return {name: _model(spec.get("args", {})) for name, spec in json.loads(declared).items()}


def _model(args: Mapping[str, Mapping[str, Any]]) -> type[BaseModel]:
    # Fields by number, names as aliases: an argument may be called like something that pydantic has itself.
    fields: dict[str, Any] = {}
    for at, (name, spec) in enumerate(args.items()):
        kind = _TYPES[spec["type"]]
        if "choices" in spec:
            kind = Annotated[kind, AfterValidator(_one_of(spec["choices"]))]
        if spec.get("nullable"):
            kind = kind | None
        fields[f"f{at}"] = (kind, Field(... if spec.get("required") else None, alias=name))
    return create_model("Arguments", __config__=ConfigDict(extra="forbid"), **fields)


def _one_of(choices: list[object]) -> Any:
    def check(value: object) -> object:
        # The type too: True is no 1.
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise ValueError(f"use one of {', '.join(map(repr, choices))}")
        return value

    return check
