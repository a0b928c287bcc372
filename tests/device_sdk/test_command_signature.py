"""`device_sdk.command_signature`: a function's signature is the declaration."""

from typing import Any, Literal

import pytest

from device_sdk import MisuseError
from device_sdk.command_signature import declare


def fan(
    speed: int,
    level: float = 2,
    on: bool = True,
    mode: Literal["eco", "full"] = "eco",
    until: float | None = None,
    *,
    more: dict[str, Any],
    steps: list | None,  # type: ignore[type-arg]
) -> dict[str, int]:
    """Turn the fan.

    And more.
    """
    return {}


def test_all_that_a_signature_says_is_declared() -> None:
    """Types, what is required, defaults, choices, None, the first line."""
    assert declare("fan", fan) == {
        "doc": "Turn the fan.",
        "args": {
            "speed": {"type": "int", "required": True},
            "level": {"type": "float", "default": 2},
            "on": {"type": "bool", "default": True},
            "mode": {"type": "str", "choices": ["eco", "full"], "default": "eco"},
            "until": {"type": "float", "nullable": True, "default": None},
            "more": {"type": "dict", "required": True},
            "steps": {"type": "list", "nullable": True, "required": True},
        },
    }


def untyped(speed): ...  # type: ignore[no-untyped-def]
def of_bytes(data: bytes) -> None: ...
def of_two(value: int | str) -> None: ...
def of_mixed(value: Literal[1, "a"]) -> None: ...
def of_many(*speed: int) -> None: ...
def of_any_name(**speed: int) -> None: ...
def by_place(speed: int, /) -> None: ...
def wrong_default(speed: int = 1.5) -> None: ...  # type: ignore[assignment]
def true_is_no_int(speed: int = True) -> None: ...
def wrong_choice(mode: Literal["a"] = "b") -> None: ...  # type: ignore[assignment]
def no_json(level: float = float("nan")) -> None: ...
def unknown(speed: "Speed") -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    "function",
    [
        untyped, of_bytes, of_two,
        of_mixed, of_many, of_any_name, by_place, wrong_default, true_is_no_int, wrong_choice,
        no_json, unknown,
    ],
)  # fmt: skip
def test_what_cannot_be_declared_is_misuse(function: Any) -> None:
    """It is said when decorating, with the command and the argument."""
    with pytest.raises(MisuseError, match="command 'x'"):
        declare("x", function)
