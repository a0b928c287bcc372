"""Exit codes of ``hub``, and which error means which.

Owns: the one table. Place: before every command. Light: no import of ours
but the error trees.
"""

from enum import IntEnum

from device_sdk.errors import AuthenticationError, ConnectionLostError, MisuseError, TelemetryError
from hub.errors import (
    BadRequestError,
    ConfigError,
    ConflictError,
    ForbiddenError,
    HubError,
    NotFoundError,
    UnauthenticatedError,
)


class ExitCode(IntEnum):
    """What a script may branch on."""

    OK = 0
    FAILED = 1  # it was tried and failed; a ledger that does not balance; rows of a file that cannot be replayed
    USAGE = 2  # a wrong option, name, pattern or setting
    UNREACHABLE = 3  # no hub answers there, or its certificate is not trusted
    REFUSED = 4  # the credential is missing, wrong, or may not do this
    NOT_FOUND = 5  # nothing by that name
    EXISTS = 6  # it exists already
    INTERRUPTED = 130  # Ctrl-C


class CliError(Exception):
    """Ends the command with a message that says what to do, and a code."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


class UnreachableError(CliError):
    """No hub answered."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.UNREACHABLE)


_CODES: tuple[tuple[type[Exception], ExitCode], ...] = (
    (UnauthenticatedError, ExitCode.REFUSED),
    (ForbiddenError, ExitCode.REFUSED),
    (NotFoundError, ExitCode.NOT_FOUND),
    (ConflictError, ExitCode.EXISTS),
    (BadRequestError, ExitCode.USAGE),
    (ConfigError, ExitCode.USAGE),
    (MisuseError, ExitCode.USAGE),
    (AuthenticationError, ExitCode.REFUSED),
    (ConnectionLostError, ExitCode.UNREACHABLE),
    (HubError, ExitCode.FAILED),
    (TelemetryError, ExitCode.FAILED),
    (OSError, ExitCode.FAILED),
)


def exit_code_of(error: Exception) -> ExitCode | None:
    """Return the code of an error that was foreseen, None for a fault of ours."""
    if isinstance(error, CliError):
        return error.code
    return next((code for kind, code in _CODES if isinstance(error, kind)), None)
