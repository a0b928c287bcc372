"""REST's questions and answers as pydantic models: validation of what comes in, schema of both for OpenAPI.

Owns: names, types and limits of query parameters and bodies. Place: below
`endpoints`. Answers are built as plain dictionaries (a model per row would
cost more than the query); tests check them against the models here.

Times ``*_ns`` are decimal strings and so are integers beyond 2**53, because
JavaScript loses them.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from device_sdk.reading import Value
from device_sdk.wire import MAX_FRAME_BYTES
from hub.live.patterns import MAX_PATTERN_CHARS, MAX_PATTERNS
from hub.query import MAX_LIMIT
from hub.store.base import AGGREGATES

# A fleet is enrolled in one request; more come in several.
MAX_BULK = 10_000
_EXACT = 2**53

Pattern = Annotated[str, Field(max_length=MAX_PATTERN_CHARS)]
Patterns = Annotated[
    list[Pattern],
    Field(max_length=MAX_PATTERNS, description="`DEVICE/CHANNEL` with `*`; `P` alone means `P/**`. May be repeated."),
]
When = Annotated[
    str | None, Field(max_length=64, description="RFC 3339 with zone, epoch (s, ms, µs or ns), `now`, or `-15m`.")
]
Duration = Annotated[str | None, Field(max_length=32, description="A number with ms, s, m, h, d or w, e.g. `15m`.")]

Received = Annotated[
    bool, Field(description="Also say when the hub received each reading: exact, or up to a second too early.")
]


def json_value(value: Value | None) -> Value | None:
    """Return a value as it stands in JSON: integers beyond 2**53 as text."""
    if isinstance(value, int) and not -_EXACT <= value <= _EXACT:
        return str(value)
    return value


class Question(BaseModel):
    """Base of everything a client sends: an unknown name is an error, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Nothing(Question):
    """No parameters."""


class Matching(Question):
    """Which series; none given = all that the credential may see."""

    match: Patterns = []


class ReadingsQuery(Question):
    """Which readings, in what order, raw or in buckets."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    match: Patterns = []
    last: Duration = None
    start: When = Field(default=None, alias="from")
    end: When = Field(default=None, alias="to")
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="Rows of one answer (about).")] = 1000
    order: Literal["asc", "desc"] = "asc"
    bucket: Duration = None
    agg: Annotated[str, Field(max_length=100, description=f"With `bucket`: some of {', '.join(AGGREGATES)}.")] = "avg"
    page: Annotated[str | None, Field(max_length=40, description="`next` of the answer before.")] = None
    received: Received = False


class ExportQuery(Question):
    """Which readings, written as a file."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    match: Patterns = []
    last: Duration = None
    start: When = Field(default=None, alias="from")
    end: When = Field(default=None, alias="to")
    format: Literal["csv", "ndjson"] = "csv"
    received: Received = False


class AuditQuery(Question):
    """Of one device, or of all."""

    device: Annotated[str | None, Field(max_length=64)] = None


class RawQuery(Question):
    """How much of the bytes."""

    bytes: Annotated[int, Field(ge=0, le=MAX_FRAME_BYTES, description="Show at most so many of its bytes.")] = 4096


class NewDevice(Question):
    """The device to enrol."""

    device: Annotated[str, Field(max_length=64)]


class NewDevices(Question):
    """Devices to enrol in one transaction: all or none."""

    devices: Annotated[list[Annotated[str, Field(max_length=64)]], Field(min_length=1, max_length=MAX_BULK)]
    rotate: Annotated[bool, Field(description="Give devices that exist a new token instead of refusing.")] = False


class NewToken(Question):
    """A watcher's or admin's token."""

    role: Literal["watcher", "admin"]
    match: Patterns = ["**"]
    name: Annotated[str, Field(max_length=100)] = ""


class Answer(BaseModel):
    """Base of what the hub says."""

    model_config = ConfigDict(extra="forbid")


class Fault(Answer):
    """Why a request failed."""

    reason: str
    message: str


class Error(Answer):
    """Every answer with a status of 400 or more."""

    error: Fault


class Health(Answer):
    """Whether the hub takes readings; the status code is 503 when it does not."""

    status: Literal["ok", "failed"]
    version: str
    run: str
    head: int
    store_applied: int
    uptime_s: float


class LatestValue(Answer):
    """The newest value by event time."""

    time_ns: str
    value: Value


class Channel(Answer):
    """A channel of a device, without the device."""

    channel: str
    label: str | None
    unit: str | None
    type: str | None
    every_s: float | None
    range: tuple[float, float] | None
    latest: LatestValue | None


class Device(Answer):
    """A device as the hub sees it now.

    ``late``: readings since the hub's start that came behind a newer one. ``skew_s``: its clock minus the hub's when it
    connected, null when it did not say; ``skewed``: by more than 2 s, so its times are to be doubted.
    """

    device: str
    state: Literal["online", "stale", "offline"]
    connected: bool
    alert: bool
    last_ns: str | None
    rate_hz: float
    late: int
    skew_s: float | None
    skewed: bool
    channels: list[Channel]


class Devices(Answer):
    """All devices the credential may see; watch from ``head`` on to follow without a gap."""

    devices: list[Device]
    head: str
    time_ns: str


class DeviceToken(Answer):
    """A device's token: shown this once."""

    device: str
    token: str


class DeviceTokens(Answer):
    """Tokens of several devices: shown this once."""

    devices: list[DeviceToken]


class DeviceChannel(Answer):
    """A channel with its device."""

    device: str
    channel: str
    unit: str | None
    type: str | None
    label: str | None
    every_s: float | None
    range: tuple[float, float] | None


class Channels(Answer):
    """Matching channels in natural order."""

    channels: list[DeviceChannel]


class LatestReading(Answer):
    """The newest reading of one series."""

    device: str
    channel: str
    unit: str | None
    time_ns: str
    time: str
    value: Value


class Latest(Answer):
    """One reading per series that has any."""

    readings: list[LatestReading]


class SeriesName(Answer):
    """A series by name."""

    device: str
    channel: str
    unit: str | None


class Readings(Answer):
    """Rows as ``columns`` names them; column ``series`` is an index into ``series``."""

    series: list[SeriesName]
    columns: list[str]
    rows: list[list[Value | None]]
    next: str | None


class DeviceAudit(Answer):
    """A device's two ledgers in sum.

    ``produced = accepted + rejected - replayed + dropped`` as far as the device has said; ``in_flight``: accepted
    readings that the store has not taken yet. ``balanced`` false: ``findings`` say what does not add up; null: not
    known now.
    """

    device: str
    balanced: bool | None
    summary: str
    findings: list[str]
    streams: int
    produced: int
    accepted: int
    rejected: int
    dropped: int
    unknown_gaps: int
    quarantined: int
    replayed: int
    in_flight: int | None
    superseded: int
    erased: int
    late: int
    rows: int


class StreamAudit(Answer):
    """One stream's ledger; ``complete``: frames 1…stored hold every reading the device ever sent on it.

    ``replayed``: of ``rejected``, what was replayed from quarantine and is counted on the hub's own stream
    (sixteen zeros) instead.
    ``unknown_gaps``: declared losses whose count nobody knows; they are in no sum.
    """

    device: str
    stream: str
    stored: int
    produced: int
    accepted: int
    rejected: int
    dropped: int
    unknown_gaps: int
    quarantined: int
    replayed: int
    complete: bool
    balanced: bool
    first_ns: str | None
    last_ns: str | None


class GapAudit(Answer):
    """A declared loss; ``count`` null = unknown; ``ranges``: channel → event times of the first and last lost."""

    device: str
    stream: str
    seq: int
    count: int | None
    reason: str
    explanation: str
    received_ns: str
    ranges: dict[str, tuple[str, str]]


class RejectionAudit(Answer):
    """Refused readings, summed up."""

    device: str
    channel: str
    reason: str
    explanation: str
    count: int
    last_ns: str


class SeriesAudit(Answer):
    """The second ledger: accepted − superseded − erased = rows; ``late``: came behind a newer one."""

    device: str
    channel: str
    accepted: int
    superseded: int
    erased: int
    late: int
    rows: int
    balanced: bool


class Audit(Answer):
    """What arrived, what did not, and why, as of one position while readings come in.

    ``behind``: frames that are durable in the journal and not yet in the store; what they hold is ``in_flight``.
    """

    balanced: bool | None
    behind: int
    devices: list[DeviceAudit]
    streams: list[StreamAudit]
    gaps: list[GapAudit]
    rejections: list[RejectionAudit]
    series: list[SeriesAudit]


class Quarantined(Answer):
    """A frame that could not be taken apart; ``count``: the readings it was refused with."""

    id: int
    device: str
    stream: str
    seq: int
    reason: str
    received_ns: str
    count: int
    size: int
    replayed_ns: str | None


class Quarantine(Answer):
    """Quarantined frames that are still kept, oldest first."""

    frames: list[Quarantined]


class RawFrame(Quarantined):
    """A quarantined frame with its bytes: ``text`` when they are printable UTF-8, else ``hex``."""

    text: str | None
    hex: str | None
    truncated: bool


class ReplayAnswer(Answer):
    """What was stored of it on the hub's own stream; ``malformed``: it stays in quarantine, and ``why``."""

    id: int
    outcome: Literal["replayed", "already", "malformed"]
    accepted: int
    rejected: int
    why: str


class TokenListed(Answer):
    """A token without its secret."""

    id: str
    name: str
    role: Literal["watcher", "admin"]
    match: list[str]
    created_ns: str


class Tokens(Answer):
    """Watcher and admin tokens, oldest first."""

    tokens: list[TokenListed]


class TokenMade(Answer):
    """A new token: shown this once."""

    id: str
    token: str
