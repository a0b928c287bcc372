"""Exit codes: one table, in the help and in every error."""

import pytest

from device_sdk.errors import AuthenticationError, ConnectionLostError, MisuseError, SpoolError
from hub.cli.exit_code import CliError, ExitCode, UnreachableError, exit_code_of
from hub.errors import ConfigError, ConflictError, ForbiddenError, JournalError, NotFoundError, UnauthenticatedError
from tests.hub.cli.conftest import Run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnreachableError("x"), 3),
        (UnauthenticatedError("x"), 4),
        (ForbiddenError("x"), 4),
        (NotFoundError("x"), 5),
        (ConflictError("x"), 6),
        (ConfigError("x"), 2),
        (MisuseError("x"), 2),
        (AuthenticationError("x"), 4),
        (ConnectionLostError("x"), 3),
        (JournalError("x"), 1),
        (SpoolError("x"), 1),
        (OSError("x"), 1),
        (CliError("x", ExitCode.USAGE), 2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_foreseen_error_has_its_code(error: Exception, code: int) -> None:
    """A script can tell what to do from the code alone."""
    assert exit_code_of(error) == code


def test_fault_of_ours_has_no_code() -> None:
    """A bug is not dressed up as an error of the user: it keeps its traceback."""
    assert exit_code_of(KeyError("x")) is None


def test_help_lists_every_code(run: Run) -> None:
    """The codes are documented where a person looks first."""
    text = " ".join(run("--help").out.split())

    assert "Exit codes:" in text
    for code in ExitCode:
        assert f" {code.value} " in text
