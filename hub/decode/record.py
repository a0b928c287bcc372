"""JSON objects of channels and values, as a person writes them: ``{"temperature": 21.5}`` → readings.

Owns: what ``time`` in such an object means. Place: after `rows`. Pure.

Objects inside are parts of the name: ``{"air": {"co2": 612}}`` is channel ``air.co2``. ``null`` is no value.
"""

from collections.abc import Iterator

from hub.decode.base import DecodeError
from hub.decode.moment import since_epoch_ns, time_ns_of
from hub.decode.rows import MAX_ROWS, STEP, Rows
from hub.decode.scope import Scope
from hub.decode.value import flatten

TIME = "time"
# Objects of one list; each costs a look at its members.
MAX_RECORDS = MAX_ROWS
_EPOCH_CHARS = 19


def read_records(document: object, scope: Scope) -> Rows:
    """Return the readings of one object or a list of them, all of the sender.

    Raises:
        DecodeError: it is neither.
    """
    rows = Rows()
    for _ in reading(document, scope, rows):
        pass
    return rows


def reading(document: object, scope: Scope, rows: Rows) -> Iterator[None]:
    """Read a document into ``rows``; yields now and then, so that others are heard. Raises as `read_records`."""
    records = document if isinstance(document, list) else [document]
    if len(records) > MAX_RECORDS:
        raise DecodeError(f"{len(records)} objects in one list; the limit is {MAX_RECORDS}")
    for at, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise DecodeError('send an object of channels and values, e.g. {"temperature": 21.5}, or a list of such')
        _read(rows, at, record, scope)
        if at % STEP == 0:
            yield


def _read(rows: Rows, at: int, record: dict[str, object], scope: Scope) -> None:
    time_ns = None
    if TIME in record:
        said = record[TIME]
        time_ns = _time_ns(said)
        if time_ns is None and said is not None:
            rows.fault(at, "bad_time", f"{str(said)[:40]!r} is no time: RFC 3339 with a zone, or an epoch")
            return
        record = {name: value for name, value in record.items() if name != TIME}
    try:
        values = flatten(record)
    except DecodeError as error:
        rows.fault(at, "malformed", str(error))
        return
    for path, value in values:
        rows.add(at, None, scope.names.channel(scope.device, path), value, time_ns)


def _time_ns(said: object) -> int | None:
    """Return the time of text or number; an epoch may be text, for JavaScript loses the nanoseconds of a number."""
    if isinstance(said, str) and said.isascii() and said.isdigit() and len(said) <= _EPOCH_CHARS:
        return since_epoch_ns(int(said))
    return time_ns_of(said)
