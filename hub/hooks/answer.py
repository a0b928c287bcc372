"""What a hook is asked, and what its answers mean.

Owns: the types that the author of a hook sees, and the rules for answers: an `ingest` hook accepts, changes or rejects
and never adds; an `authorize` hook narrows and never widens. Place: below `ingest` and `grant`. Pure.

A wrong answer is a `HookError`, never a guess: its frame is not taken, its asker gets nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from device_sdk.columns import Batch, Column
from device_sdk.errors import Reason
from device_sdk.reading import Value
from hub.errors import HubError
from hub.live.patterns import MAX_PATTERNS, Glob, Pattern, parse_pattern

# It is in each ack that names such a reading, in the ledger and on the page: a few words, not an essay.
MAX_REASON_CHARS = 80
_PLAIN = frozenset({float, int, bool, str})


class HookError(HubError):
    """A hook raised, took too long or answered what means nothing: the hub's log says which one and why."""

    status = 503
    reason = Reason.HOOK_FAILED.value


@dataclass(frozen=True, slots=True)
class Context:
    """Who it is about.

    Attributes:
        namespace: the tenant.
        name: of the device whose readings came; of the credential or user that asks.
        role: ``device``, ``watcher``, ``operator`` or ``admin``.
        asked: patterns of the subscription or request; empty: all that may be seen. Of no meaning to `ingest`.
        time_ns: when the readings came, or the question (UTC epoch).
    """

    namespace: str
    name: str
    role: str
    asked: tuple[str, ...] = ()
    time_ns: int = 0


@dataclass(frozen=True, slots=True)
class Reject:
    """The answer no, with a reason that the device, the ledger and the page are told: some words, one line."""

    reason: str

    def word(self) -> str:
        """Return the reason as it stands in acks and ledgers."""
        text = " ".join(str(self.reason).split())[:MAX_REASON_CHARS]
        # Half a character (of a file name, say) is text to Python alone: no ack and no file takes it.
        text = text.encode(errors="replace").decode()
        return f"{Reason.HOOK}: {text}" if text else Reason.HOOK.value


class Readings:
    """One column of a batch: ``values[i]`` was read at ``times_ns[i]``. Both are copies.

    Values are what the device sent, unchecked: of another type than the channel has, or None, is possible.
    """

    __slots__ = ("_batch", "_column", "channel", "values")

    def __init__(self, batch: Batch, column: Column) -> None:
        self.channel = column.channel
        self.values: list[Value] = list(column.values)
        self._batch = batch
        self._column = column

    @property
    def times_ns(self) -> list[int]:
        """Return the times, made when they are asked for."""
        t0, tick = self._batch.t0, self._batch.tick
        return [t0 + dt * tick for dt in self._column.dt]


class Columns(Mapping[str, Readings]):
    """The readings of one batch: channel → `Readings`."""

    __slots__ = ("_columns",)

    def __init__(self, batch: Batch) -> None:
        self._columns = {column.channel: Readings(batch, column) for column in batch.columns}

    def __getitem__(self, channel: str) -> Readings:
        return self._columns[channel]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def name_of(hook: object) -> str:
    """Return what a hook is called in logs."""
    return f"{getattr(hook, '__module__', '?')}:{getattr(hook, '__qualname__', type(hook).__qualname__)}"


# Channel → index → why, of the readings that a hook refused.
Refused = dict[str, dict[int, str]]


def left_by(answer: object, batch: Batch, refused: Refused) -> Batch:
    """Return the batch as an `ingest` hook leaves it; put what it rejects into ``refused``, changed only on success.

    Args:
        answer: None: all stays. `Reject`: all goes. A mapping of channel → new values, of which one may be a `Reject`;
            or → `Reject` of the column. Channels that are not in it stay.
        refused: of the hooks before; those readings stay refused.

    Raises:
        HookError: anything else, a channel that is not in the batch, another number of values.
    """
    if answer is None:
        return batch
    if isinstance(answer, Reject):
        answer = dict.fromkeys((column.channel for column in batch.columns), answer)
    if not isinstance(answer, Mapping):
        raise HookError(f"it answered {type(answer).__name__}: None, Reject or a mapping of channel → values is meant")
    if not answer:
        return batch
    known = {column.channel: column for column in batch.columns}
    news: Refused = {}
    for channel, given in answer.items():
        column = known.get(channel)
        if column is None:
            raise HookError(f"it answered for channel {str(channel)[:64]!r}, which is not in the batch: hooks add none")
        values, no = _column_left(given, column)
        known[channel] = column._replace(values=values)
        news[channel] = no
    for channel, no in news.items():
        if no:
            refused[channel] = {**no, **refused.get(channel, {})}
    return batch._replace(columns=tuple(known.values()))


def _column_left(given: object, column: Column) -> tuple[Sequence[Value], dict[int, str]]:
    if isinstance(given, Reject):
        return column.values, dict.fromkeys(range(len(column.values)), given.word())
    if isinstance(given, Readings):
        given = given.values
    # Arrays of numpy and others know how to be a list.
    values = given.tolist() if hasattr(given, "tolist") else given
    if not isinstance(values, list | tuple) or len(values) != len(column.values):
        raise HookError(
            f"channel {column.channel!r} has {len(column.values)} values: answer as many, or Reject in their places"
        )
    # A copy: the hook may use its list again, and what watchers see must stay what is stored.
    values = list(values)
    if not _PLAIN.issuperset(map(type, values)):
        values = [_plain(value) for value in values]
    no = {i: value.word() for i, value in enumerate(values) if isinstance(value, Reject)}
    if no:
        # Hooks that follow see what it was: a None would surprise them.
        values = [column.values[i] if i in no else value for i, value in enumerate(values)]
    return values, no


def _plain(value: object) -> Any:
    """Return a value as JSON knows it, of a scalar of numpy or another subclass; anything else as it is."""
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    return float(value) if isinstance(value, float) else value


def narrowed(answer: object, pattern: Pattern) -> tuple[Pattern, ...]:
    """Return what an `authorize` hook leaves of a granted pattern.

    Args:
        answer: True: all of it. False or `Reject`: nothing. Patterns: what they have in common with it.

    Raises:
        HookError: anything else (None too: a forgotten ``return`` opens nothing), or a pattern of which the common part
            is no pattern.
    """
    if answer is True:
        return (pattern,)
    if answer is False or isinstance(answer, Reject):
        return ()
    if isinstance(answer, str) or not isinstance(answer, Sequence | set | frozenset):
        raise HookError(f"it answered {type(answer).__name__}: True, False, Reject or a list of patterns is meant")
    if len(answer) > MAX_PATTERNS:
        raise HookError(f"it answered {len(answer)} patterns: use at most {MAX_PATTERNS}, with * for several names")
    try:
        common = [_common(pattern, parse_pattern(text)) for text in answer]
    except HookError:
        raise
    except Exception as error:  # foreign code's objects: a tuple in the place of a text, a list that cannot be read
        raise HookError(f"it answered what is no pattern: {error!r}"[:200]) from error
    return tuple(found for found in common if found is not None)


def _common(one: Pattern, other: Pattern) -> Pattern | None:
    """Return the pattern of what both select, None when that is nothing."""
    if not one.overlaps(other):
        return None
    device, channel = _inner(one.device, other.device), _inner(one.channel, other.channel)
    if device is None or channel is None:
        raise HookError(f"what {one} and {other} have in common is no pattern: answer one that lies in the other")
    return parse_pattern(f"{device}/{channel}")


def _inner(one: Glob, other: Glob) -> str | None:
    """Return which of the two lies in the other: what covers a glob fits its text, a ``*`` of it by a ``*``."""
    if one.matches(other.text):
        return other.text
    return one.text if other.matches(one.text) else None
