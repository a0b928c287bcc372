"""`hub.command_arguments`: what a device declared decides which arguments it is sent."""

import json
from typing import Any

import pytest

from hub.command_arguments import refusal

DECLARED = json.dumps({
    "fan": {"args": {
        "speed": {"type": "int", "required": True}, "level": {"type": "float"}, "on": {"type": "bool"},
        "mode": {"type": "str", "choices": ["eco", "full"]}, "one": {"type": "int", "choices": [1, 2]},
        "until": {"type": "float", "nullable": True}, "more": {"type": "dict"}, "steps": {"type": "list"},
        "model_config": {"type": "str"},
    }},
    "blink": {},
})  # fmt: skip


@pytest.mark.parametrize(
    "args",
    [
        {"speed": 3},
        {"speed": -1, "level": 2.5, "on": True, "mode": "eco", "until": None, "more": {"a": [1]}, "steps": [1, "b"]},
        {"speed": 3, "level": 2, "one": 2, "model_config": "any name is allowed"},
    ],
)
def test_arguments_of_the_declared_types_pass(args: dict[str, Any]) -> None:
    """An integer is a float, and a default need not be given."""
    assert refusal(DECLARED, "fan", args) == ""


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({}, "speed: Field required"),
        ({"speed": "3"}, "speed: Input should be a valid integer"),
        ({"speed": True}, "speed: Input should be a valid integer"),
        ({"speed": 3.5}, "speed: Input should be a valid integer"),
        ({"speed": 2**63}, "speed: Input should be less"),
        ({"speed": None}, "speed: Input should be a valid integer"),
        ({"speed": 3, "level": "high"}, "level: Input should be a valid number"),
        ({"speed": 3, "on": 1}, "on: Input should be a valid boolean"),
        ({"speed": 3, "mode": "turbo"}, "mode: Value error, use one of 'eco', 'full'"),
        ({"speed": 3, "one": True}, "one: Input should be a valid integer"),
        ({"speed": 3, "more": [1]}, "more: Input should be a valid dictionary"),
        ({"speed": 3, "steps": {}}, "steps: Input should be a valid list"),
        ({"speed": 3, "sped": 3}, "sped: Extra inputs are not permitted"),
    ],
)
def test_wrong_arguments_are_named(args: dict[str, Any], told: str) -> None:
    """The message says which argument, and what it may be; nothing is converted."""
    assert refusal(DECLARED, "fan", args).startswith(f"fan: {told}")


def test_unknown_commands_are_refused_with_what_there_is() -> None:
    """Also when the device has declared none."""
    assert refusal(DECLARED, "fly", {}) == "unknown command 'fly'; it has: blink, fan"
    assert refusal("", "fan", {}) == "unknown command 'fan'; it has declared none"
    assert refusal(DECLARED, "blink", {}) == ""
