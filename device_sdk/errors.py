"""Error tree of the SDK and the reason codes shared with the wire.

Owns: every exception the SDK raises, the one enum of reason codes and what
each means in words. Place: leftmost; imports nothing of ours.

Subclasses say what the caller can *do*: fix the call, fix the credential,
wait, or look at the disk. ``record()`` raises only `MisuseError`.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a reading, a frame or a connection was refused; the same words on wire, page and docs."""

    # one reading
    TYPE_CONFLICT = "type_conflict"
    NOT_FINITE = "not_finite"
    OUT_OF_RANGE = "out_of_range"
    TOO_LONG = "too_long"
    TIME_OUT_OF_RANGE = "time_out_of_range"
    UNKNOWN_CHANNEL = "unknown_channel"
    BAD_NAME = "bad_name"
    CHANNEL_LIMIT = "channel_limit"
    HOOK = "hook"  # followed by ``: `` and the words of the hook
    # one frame
    MALFORMED = "malformed"
    OUT_OF_ORDER = "out_of_order"
    UNREADABLE = "unreadable"
    # one connection
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    UNKNOWN_DEVICE = "unknown_device"
    TAKEN_OVER = "taken_over"
    TOO_LARGE = "too_large"
    BAD_MESSAGE = "bad_message"
    GOING_AWAY = "going_away"
    # one device behind a gateway
    CHILD_PENDING = "child_pending"
    CHILD_IGNORED = "child_ignored"
    CHILD_QUOTA = "child_quota"
    CHILD_PREFIX = "child_prefix"
    CHILD_TAKEN = "child_taken"
    # one stream
    SEQ_REUSE = "seq_reuse"
    CHAIN_CONFLICT = "chain_conflict"
    # backpressure
    DISK_FULL = "disk_full"
    STORE_BEHIND = "store_behind"
    TOO_MANY_STREAMS = "too_many_streams"
    HOOK_FAILED = "hook_failed"
    # declared gaps
    SPOOL_FULL = "spool_full"
    THINNED = "thinned"  # left out by ``when_full="thin"``: what is around them is there
    POWER_CUT = "power_cut"
    SPOOL_DAMAGED = "spool_damaged"
    HUB_RESTORED = "hub_restored"
    # counted at the device, never sent
    NO_VALUE = "no_value"


# What each word means to a person; `hub audit`, REST, the page and the protocol reference take it from here.
EXPLANATIONS: dict[str, str] = {
    Reason.TYPE_CONFLICT: "the channel has values of another type",
    Reason.NOT_FINITE: "the value was no finite number",
    Reason.OUT_OF_RANGE: "the number does not fit 64 bits",
    Reason.TOO_LONG: "the text was longer than a value may be",
    Reason.TIME_OUT_OF_RANGE: "the time lies too far in the past or the future",
    Reason.UNKNOWN_CHANNEL: "the channel was not declared",
    Reason.BAD_NAME: "the name breaks the rules for names",
    Reason.CHANNEL_LIMIT: "the device has as many channels as it may have",
    Reason.HOOK: "a hook of the hub refused it",
    Reason.MALFORMED: "the frame could not be taken apart; its bytes are in quarantine",
    Reason.OUT_OF_ORDER: "the frame did not follow the one before it",
    Reason.UNREADABLE: "the frame could not be read at all",
    Reason.UNAUTHENTICATED: "the credential is missing or wrong",
    Reason.FORBIDDEN: "the credential does not allow it",
    Reason.UNKNOWN_DEVICE: "the device is not enrolled",
    Reason.TAKEN_OVER: "another connection continues the stream",
    Reason.TOO_LARGE: "the message was larger than a frame may be",
    Reason.BAD_MESSAGE: "the message breaks the protocol",
    Reason.GOING_AWAY: "the hub was stopping",
    Reason.CHILD_PENDING: "the device behind a gateway waits until a person accepts it",
    Reason.CHILD_IGNORED: "a person has shut the device out",
    Reason.CHILD_QUOTA: "the gateway has as many devices as it may have",
    Reason.CHILD_PREFIX: "the gateway's credential does not cover a device of this name",
    Reason.CHILD_TAKEN: "the device has a token of its own, or is behind another gateway",
    Reason.SEQ_REUSE: "the device's spool was set back to an older state, or a copy of it is in use",
    Reason.CHAIN_CONFLICT: "two devices, or two copies of a spool, used the same stream",
    Reason.DISK_FULL: "the hub's disk was full",
    Reason.STORE_BEHIND: "the hub could not keep up",
    Reason.TOO_MANY_STREAMS: "the device began more new streams in a day than one that keeps its spool would",
    Reason.HOOK_FAILED: "a hook of the hub failed or took too long",
    Reason.SPOOL_FULL: "the device's spool was full while it could not send",
    Reason.THINNED: "the device's spool was full: of each channel every second reading was left out",
    Reason.POWER_CUT: "the device lost power before its last readings were on its disk",
    Reason.SPOOL_DAMAGED: "the device's spool was damaged on its disk",
    Reason.HUB_RESTORED: "the hub was restored from an older copy",
    Reason.NO_VALUE: "the sensor gave no value",
}


def explain(reason: str) -> str:
    """Return what a reason means in words; one that this version does not know becomes words itself."""
    word = reason.partition(":")[0]
    return EXPLANATIONS.get(word) or word.replace("_", " ")


class TelemetryError(Exception):
    """Root of everything the SDK raises on purpose."""


class MisuseError(TelemetryError, ValueError):
    """You called it wrongly: fix the call; nothing was recorded."""


class SpoolError(TelemetryError, OSError):
    """The spool cannot be opened or written: look at the path, the disk, or the other process."""


class AuthenticationError(TelemetryError):
    """The hub refused the credential: fix the token or the device name.

    ``is_unknown``: the hub does not know the credential, or it has ended; another one may be taken.
    """

    def __init__(self, message: str = "", *, is_unknown: bool = False) -> None:
        super().__init__(message)
        self.is_unknown = is_unknown


class ProtocolError(TelemetryError):
    """The peer broke the protocol: the connection ends, a new one is tried."""

    def __init__(self, message: str, reason: Reason = Reason.BAD_MESSAGE) -> None:
        super().__init__(message)
        self.reason = reason


class ConnectionLostError(TelemetryError):
    """The transport failed or closed: retry; ``retry_ms`` is the hub's wish, if it had one."""

    def __init__(self, message: str, *, code: int | None = None, retry_ms: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_ms = retry_ms


class ResetError(TelemetryError):
    """A watcher's position cannot be resumed: ask from a time; ``why``: ``run`` (hub restored) or ``expired``."""

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


class FlushTimeoutError(TelemetryError, TimeoutError):
    """`flush` ran out of time; the readings stay in the spool and are still delivered later."""


class ChainConflictError(ProtocolError):
    """The hub acked a frame this spool did not cut that way: begin a new stream, then reconnect."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Reason.CHAIN_CONFLICT)
