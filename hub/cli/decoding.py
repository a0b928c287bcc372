"""``hub decode``: what the hub would make of a message of a device, before the device is let near it.

Place: a command module; see `hub.cli`. Asks no hub: it reads as `hub serve` in this folder would.
"""

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli import options, output
from hub.cli.exit_code import CliError, ExitCode
from hub.unit import unit_shown

if TYPE_CHECKING:
    from hub.decode.base import Decoded, Publication, Said
    from hub.decode.dispatch import Decoders

# A topic may have spaces in it: what follows is JSON, or one word.
_LINE = re.compile(rb"(.+?)(?:[ \t]([{\[\"].*|[^ \t]*))")


def decode(
    topic: Annotated[str, typer.Option(help="The message's topic; empty for HTTP.")] = "",
    payload: Annotated[str | None, typer.Option(help="What it holds.")] = None,
    payload_file: Annotated[Path | None, typer.Option(help="A file with what it holds; - is standard input.")] = None,
    announce: Annotated[
        list[Path] | None,
        typer.Option(help="Messages that came before, a line `TOPIC PAYLOAD` each, as `mosquitto_sub -v` writes them."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Name of the device whose token it comes by; none: a gateway's token, or a broker.")
    ] = "",
    retained: Annotated[bool, typer.Option("--retained", help="As one that a broker has kept.")] = False,
    decoder: Annotated[list[str] | None, typer.Option(help="As of `hub serve`.")] = None,
    device_zone: Annotated[str | None, typer.Option(help="As of `hub serve`.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file instead of ./hub.toml.")] = None,
    as_json: options.Json = False,
) -> None:
    """Explain what would be stored of a message: device, channels, units, times; or why nothing would be."""
    from hub.config import load_config
    from hub.decode.base import DecodeError, Publication
    from hub.decode.dispatch import decoders_of

    settings = load_config({"decoder": decoder or None, "device_zone": device_zone}, config).config
    decoders = decoders_of(settings.decoder, settings.device_zone)(device)
    for file in announce or []:
        for before in _messages(file):
            try:
                decoders.decode(before)
            except DecodeError as error:
                output.tell(f"{file}: {output.printable(before.topic)}: {output.printable(str(error))}")
    message = Publication(topic, _payload(payload, payload_file), time.time_ns(), retained)
    try:
        decoded = decoders.decode(message)
    except DecodeError as error:
        if as_json:
            output.show_json({"outcome": "quarantine", "decoder": None, "reason": str(error), "devices": []})
        raise CliError(f"goes into quarantine: {output.printable(str(error))}") from error
    if as_json:
        output.show_json(_as_json(decoded, decoders, message))
    else:
        _show(decoded, decoders)


def _payload(text: str | None, file: Path | None) -> bytes:
    if (text is None) == (file is None):
        raise CliError("say --payload or --payload-file", ExitCode.USAGE)
    if file is None:
        return (text or "").encode("utf-8", "surrogateescape")
    return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()


def _messages(file: Path) -> Iterator["Publication"]:
    from hub.decode.base import Publication

    for line in file.read_bytes().splitlines():
        found = _LINE.fullmatch(line)
        if found is not None:
            topic, payload = found.groups()
            yield Publication(topic.decode("utf-8", "replace"), payload, time.time_ns(), True)


def _show(decoded: "Decoded", decoders: "Decoders") -> None:
    output.tell(f"decoder: {decoded.decoder}")
    rows = [
        {**row, "value": _shown(row["value"]), "unit": unit_shown(row["unit"]),
         "time": output.show_time(row["time_ns"]) or "when it came"}
        for said in decoded.said for row in _readings(said, decoders)
    ]  # fmt: skip
    if rows:
        output.show_rows(rows, ["device", "channel", "value", "unit", "time"], as_json=False)
    else:
        output.tell(f"nothing is stored: {output.printable(decoded.ignored)}")
    learnt = [
        {"device": said.device, **row}
        for said in decoded.said
        if not said.readings
        for row in _channels(said, decoders)
    ]
    if learnt:
        output.show_rows(learnt, ["device", "channel", "unit", "label"], as_json=False)
    for answer in decoded.answers:
        output.tell(f"answers at {answer.topic}: {output.printable(answer.payload.decode('utf-8', 'replace'))}")


def _as_json(decoded: "Decoded", decoders: "Decoders", message: "Publication") -> dict[str, Any]:
    is_stored = any(said.readings for said in decoded.said)
    return {
        "outcome": "stored" if is_stored else "ignored",
        "decoder": decoded.decoder,
        "reason": decoded.ignored,
        "devices": [
            {
                "device": said.device, "channels": _channels(said, decoders),
                "readings": [
                    {**row, "time_ns": str(row["time_ns"] or message.received_ns), "has_time": bool(row["time_ns"])}
                    for row in _readings(said, decoders)
                ],
            }
            for said in decoded.said
        ],
        "answers": [{"topic": a.topic, "payload": a.payload.decode("utf-8", "replace")} for a in decoded.answers],
    }  # fmt: skip


def _readings(said: "Said", decoders: "Decoders") -> list[dict[str, Any]]:
    units = {channel.name: channel.unit for channel in decoders.channels_of(said.device)}
    return [
        {"device": said.device, "channel": name, "value": value, "unit": units.get(name), "time_ns": time_ns}
        for name, value, time_ns in said.readings
    ]


def _channels(said: "Said", decoders: "Decoders") -> list[dict[str, Any]]:
    named = {reading.channel for reading in said.readings}
    return [
        {"channel": channel.name, "unit": channel.unit, "label": channel.label}
        for channel in decoders.announced_of(said.device) if not named or channel.name in named
    ]  # fmt: skip


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return output.printable(repr(value) if isinstance(value, float) else str(value))
