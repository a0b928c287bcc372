"""Error tree of the hub: each error knows its HTTP status and its reason word.

Owns: what a caller of the hub may see. Place: leftmost in `hub`. The reason
words are those of the wire (`device_sdk.errors.Reason`) where both know the
fault. Must not: carry tokens or payloads.
"""


class HubError(Exception):
    """Root of the hub's errors; ``str(error)`` is fit for a person and says the next step."""

    status = 500
    reason = "internal"
    # When to try the same again, in seconds; None: not before something was changed.
    retry_s: float | None = None


class BadRequestError(HubError):
    """The request cannot be understood: fix it."""

    status = 400
    reason = "bad_request"


class UnauthenticatedError(HubError):
    """No credential, or one that is not known: get a token."""

    status = 401
    reason = "unauthenticated"


class ForbiddenError(HubError):
    """The credential is known but may not do this: use another role or pattern."""

    status = 403
    reason = "forbidden"


class NotFoundError(HubError):
    """Nothing by that name."""

    status = 404
    reason = "not_found"


class ConflictError(HubError):
    """It exists already, or its state does not allow this."""

    status = 409
    reason = "conflict"


class TooManyRequestsError(HubError):
    """Too often: try again after ``retry_s`` seconds."""

    status = 429
    reason = "too_many_requests"

    def __init__(self, message: str, *, retry_s: float) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class UnavailableError(HubError):
    """The hub cannot do this now: try again."""

    status = 503
    reason = "unavailable"
    retry_s: float | None = 1.0


class ConfigError(HubError):
    """A setting is wrong: the message names it, where it came from and what it may be."""

    reason = "config"


class JournalError(HubError):
    """The journal cannot be opened or read, or a commit failed: after that the hub must stop taking frames."""

    reason = "journal"


class DiskFullError(JournalError):
    """The disk is full: nothing was stored; devices are told ``slow`` and keep their frames."""

    status = 503
    reason = "disk_full"
    retry_s: float | None = 5.0


class StoreError(HubError):
    """The store cannot be opened, or a write failed: the journal keeps the frames, the consumer tries again."""

    status = 503
    reason = "store"


class DiskFailedError(JournalError, StoreError):
    """The disk failed a read, a write or an fsync: what the file holds is not known, so nothing more goes to it.

    The hub starts again on a fresh copy of the file.
    """

    status = 503
    reason = "disk_failed"


class ExpiredError(HubError):
    """The position asked for is older than the journal keeps: start from a time instead."""

    status = 410
    reason = "expired"
