"""``hub query``, ``hub export``, ``hub audit``: what was stored, and whether the ledgers balance.

Place: a command module; see `hub.cli`. Each works on a running hub or, with
``--data``, on its files.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from hub.cli import options, output
from hub.cli.exit_code import ExitCode

_COPY_BYTES = 256 * 1024


class ExportFormat(StrEnum):
    """Formats of an export."""

    CSV = "csv"
    NDJSON = "ndjson"
    ARROW = "arrow"
    PARQUET = "parquet"


From = Annotated[str | None, typer.Option("--from", help="Begin: RFC 3339, epoch ns, or -15m.")]
To = Annotated[str | None, typer.Option("--to", help="End (not included).")]
Raw = Annotated[bool, typer.Option("--raw", help="Values as they are stored, without a channel's scale and offset.")]
Last = Annotated[str | None, typer.Option("--last", help="The last 30s, 15m, 1h, 7d …")]


def query(
    pattern: options.Patterns = None,
    last: Last = None,
    start: From = None,
    to: To = None,
    bucket: Annotated[str | None, typer.Option(help="One row for each 10s, 1h, 1d, 1w, 1mo … of a channel.")] = None,
    tz: Annotated[str | None, typer.Option(help="Whose days and hours: Europe/Brussels …; else UTC.")] = None,
    agg: Annotated[
        str,
        typer.Option(help="Of each: min,max,mean,count,sum,first,last,std,rate,increase,integral,integral_h,twa."),
    ] = "avg,min,max,count",
    fill: Annotated[
        str | None, typer.Option(help="What stands in empty buckets: null, previous, linear or a number.")
    ] = None,
    raw: Raw = False,
    limit: Annotated[int, typer.Option(min=1, help="At most about this many rows.")] = 1000,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Show stored readings; without a range the last hour."""
    if last is None and start is None and to is None:
        last = "1h"
    parameters = {
        "match": pattern or ["**"], "last": last, "from": start, "to": to, "limit": str(limit),
        "bucket": bucket, "tz": tz, "agg": agg if bucket else None, "fill": fill, "raw": "true" if raw else None,
    }  # fmt: skip
    rows: list[dict[str, Any]] = []
    columns: list[str] = []
    with options.open_source(url, token, ca, data) as source:
        page: str | None = None
        while True:
            answer = source.readings({**parameters, "page": page})
            columns = ["time", "device", "channel", *answer["columns"][2:], "unit"]
            rows += _named_rows(answer)
            page = answer.get("next")
            if page is None or len(rows) >= limit:
                break
    if not as_json:
        rows = [{**row, "unit": row["unit_shown"]} for row in rows]
    output.show_rows(rows, columns, as_json=as_json, empty="no reading in that range")
    if page is not None:
        output.tell(f"there is more; these are the first {len(rows)} rows (--limit)")


def export(
    pattern: options.Patterns = None,
    last: Last = None,
    start: From = None,
    to: To = None,
    format: Annotated[ExportFormat, typer.Option(help="csv, ndjson, arrow or parquet.")] = ExportFormat.CSV,
    received: Annotated[bool, typer.Option(help="Also say when the hub received each reading.")] = False,
    raw: Raw = False,
    output_path: Annotated[Path, typer.Option("--output", "-o", help="File to write; - is stdout.")] = Path("-"),
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
) -> None:
    """Write all stored readings: device, channel, time (ISO 8601), time_unix_ms, value, unit."""
    parameters = {"match": pattern or ["**"], "last": last, "from": start, "to": to, "format": format.value}
    if received:
        parameters["received"] = "true"
    if raw:
        parameters["raw"] = "true"
    with (
        options.open_source(url, token, ca, data) as source,
        source.export(parameters) as chunks,
        _open_output(output_path) as file,
    ):
        written = 0
        for chunk in chunks:
            file.write(chunk)
            written += len(chunk)
            if sys.stderr.isatty() and output_path != Path("-"):
                sys.stderr.write(f"\r{written / 1e6:.1f} MB ")
        file.flush()
    if output_path != Path("-"):
        output.tell(f"{output_path}: {written:,} bytes")


def audit(
    device: Annotated[str | None, typer.Argument(help="Only this device.")] = None,
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Show both ledgers: each stream complete 1…N or what is missing and why; each series' counts.

    Ends with code 1 when they do not balance. A declared loss does: it is accounted for.
    """
    with options.open_source(url, token, ca, data) as source:
        answer = source.audit(device)
    if as_json:
        output.show_json(answer)
    else:
        _show_audit(answer)
    if answer["balanced"] is False:
        raise typer.Exit(ExitCode.FAILED)


def _show_audit(answer: dict[str, Any]) -> None:
    for line in headlines(answer):
        typer.echo(line)
    if not answer["devices"]:
        return
    typer.echo("")
    streams = [
        {**stream, "frames": _completeness(stream), "last": output.show_time(stream["last_ns"])}
        for stream in answer["streams"]
    ]
    columns = ["device", "stream", "frames", "accepted", "rejected", "dropped", "quarantined", "replayed", "last"]
    output.show_rows(streams, columns, as_json=False)
    for title, rows, columns in (
        ("declared losses", list(map(_gap_row, answer["gaps"])),
         ["device", "stream", "seq", "count", "why", "told", "channel", "from", "to"]),
        ("rejected", [{**r, "why": r["explanation"], "last": output.show_time(r["last_ns"])}
                      for r in answer["rejections"]],
         ["device", "channel", "count", "reason", "why", "last"]),
        ("series", answer["series"],
         ["device", "channel", "accepted", "superseded", "erased", "expired", "refused", "late", "rows"]),
    ):  # fmt: skip
        if rows:
            typer.echo(f"\n{title}")
            output.show_rows(rows, columns, as_json=False)


def headlines(answer: dict[str, Any]) -> list[str]:
    """Return what an audit says in a few lines: the sum, each device of which there is more to say, the store."""
    devices = answer["devices"]
    if not devices:
        return ["nothing was ever received"]
    lines = [f"{d['device']}: {d['summary']}" for d in devices if len(devices) == 1 or not _is_plain(d)]
    if len(devices) > 1:
        readings = sum(d["accepted"] for d in devices)
        plain = len(devices) - len(lines)
        all_of = "all accounted for" if not lines else f"{plain:,} of them without a loss; of the others:"
        lines.insert(0, f"{len(devices):,} devices, {readings:,} readings, {all_of}")
    if answer["behind"]:
        lines.append(f"the store is {answer['behind']:,} frames behind; what they hold is safe in the journal")
    return lines


def _is_plain(device: dict[str, Any]) -> bool:
    return device["balanced"] is not False and not (device["dropped"] or device["rejected"] or device["unknown_gaps"])


def _gap_row(gap: dict[str, Any]) -> dict[str, Any]:
    channels = list(gap["ranges"].items())
    first = min((int(times[0]) for _, times in channels), default=None)
    last = max((int(times[1]) for _, times in channels), default=None)
    return {
        **gap, "count": "unknown" if gap["count"] is None else gap["count"], "why": gap["explanation"],
        "told": output.show_time(gap["received_ns"]), "channel": ", ".join(name for name, _ in channels),
        "from": output.show_time(first), "to": output.show_time(last),
    }  # fmt: skip


def _completeness(stream: dict[str, Any]) -> str:
    word = "complete" if stream["complete"] else "see losses"
    return f"1…{stream['stored']} {word}" if stream["balanced"] else f"1…{stream['stored']} does not balance"


def _named_rows(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    series, names = answer["series"], answer["columns"][2:]
    for time_ns, index, *values in answer["rows"]:
        of = series[index]
        yield {
            "time": output.show_time(time_ns), "time_ns": str(time_ns), "device": of["device"],
            "channel": of["channel"], **dict(zip(names, values, strict=True)), "unit": of.get("unit"),
            "unit_shown": of.get("unit_shown"),
        }  # fmt: skip


@contextmanager
def _open_output(path: Path) -> Iterator[BinaryIO]:
    """Give stdout, or a file that takes its name only when it is whole."""
    if path == Path("-"):
        yield sys.stdout.buffer
        return
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
