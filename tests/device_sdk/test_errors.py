"""One tree, by what the caller can do."""

import pytest

from device_sdk import errors
from device_sdk.errors import (
    EXPLANATIONS,
    ChainConflictError,
    ConnectionLostError,
    FlushTimeoutError,
    MisuseError,
    ProtocolError,
    Reason,
    SpoolError,
    TelemetryError,
    explain,
)


def test_every_error_is_a_telemetry_error() -> None:
    """One ``except`` catches all that the SDK raises on purpose."""
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)]

    assert len(classes) > 5
    assert all(issubclass(c, TelemetryError) for c in classes)


@pytest.mark.parametrize(
    ("error", "builtin"), [(MisuseError, ValueError), (SpoolError, OSError), (FlushTimeoutError, TimeoutError)]
)
def test_errors_are_also_what_python_calls_them(error: type[Exception], builtin: type[Exception]) -> None:
    """Code that knows nothing of the SDK still handles them right."""
    assert issubclass(error, builtin)


def test_errors_carry_data_beside_the_message() -> None:
    """Reason, code and the hub's wish are attributes, not words to parse."""
    assert ProtocolError("x").reason is Reason.BAD_MESSAGE
    assert ProtocolError("x", Reason.TOO_LARGE).reason is Reason.TOO_LARGE
    assert ChainConflictError("x").reason is Reason.CHAIN_CONFLICT
    lost = ConnectionLostError("x", code=4409, retry_ms=60_000)
    assert (lost.code, lost.retry_ms, str(lost)) == (4409, 60_000, "x")


def test_reason_codes_are_words_for_the_wire() -> None:
    """Lower case with underscores, each once."""
    values = [reason.value for reason in Reason]

    assert all(value == value.lower() and value.replace("_", "").isalpha() for value in values)
    assert len(set(values)) == len(values)


def test_every_reason_is_explained() -> None:
    """What people read is one table; a word from a newer peer becomes words itself."""
    assert set(EXPLANATIONS) == set(Reason)
    assert explain("spool_full") == explain(Reason.SPOOL_FULL) == "the device's spool was full while it could not send"
    assert explain("malformed: no columns") == EXPLANATIONS[Reason.MALFORMED]
    assert explain("not_itemised") == "not itemised"
