"""Write what is generated of the documentation: run ``python -m docs.generate`` after changing a source.

A test compares the files with what this module returns, so they cannot age.
"""

import ast
import inspect
import json
import sys
import typing
from pathlib import Path
from types import ModuleType
from typing import Any

from device_sdk import columns, envelope, errors, reading, wire
from device_sdk.columns import Batch, Column
from docs.cli_page import cli
from docs.mqtt_page import mqtt
from docs.rest_page import rest
from hub import session
from hub.gateway.asyncapi import document_bytes
from hub.live import budget, encode, poll
from hub.model import Frame, Kind, Series, SeriesColumn, StreamKey

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
_TABLE_BEGIN, _TABLE_END = "<!-- modules: python -m docs.generate -->", "<!-- end of modules -->"
_T0 = 1_795_376_000_000_000_000
_STREAM, _CHAIN, _POS = "9f3a51c07d20e8b4", "ab12" * 8, "7f3a0c11.1000123"

_EXAMPLES: list[tuple[str, str, type[tuple[Any, ...]], bytes]] = [
    ("device → hub", "hello", wire.Hello, wire.encode(wire.Hello(
        "greenhouse-7", _STREAM, "51c0", "77aa", 1180, 1201, _CHAIN, "python/0.1.0", seen=_POS,
        mono_ns=88_000_000_000, wall_ns=_T0, clock="synced"))),
    ("device → hub", "schema", wire.Schema, wire.encode(wire.Schema((
        reading.Channel("temperature", "Cel", reading.ValueType.FLOAT, 1.0, 10.0, 27.5),
        reading.Channel("door", type=reading.ValueType.BOOL))))),
    ("device → hub", "batch", Batch, columns.encode_json(Batch(1201, 3, _T0, 10**6, (
        Column("temperature", [0, 1000], [21.53, 21.6]), Column("door", [400], [True]))))),
    ("device → hub", "gap", wire.Gap, wire.encode(
        wire.Gap(1202, 70, "spool_full", {"temperature": (_T0, _T0 + 10**9)}))),
    ("hub → device", "welcome", wire.Welcome, wire.encode(wire.Welcome(1200, _CHAIN, _POS, _T0))),
    ("hub → device", "new_stream", wire.NewStream, wire.encode(wire.NewStream(1200, _CHAIN, "seq_reuse", _POS))),
    ("hub → device", "ack", wire.Ack, wire.encode(wire.Ack(
        1201, _CHAIN, _POS, 1, (wire.Rejection(1201, "door", 0, "type_conflict"),)))),
    ("hub → device", "error", wire.Error, wire.encode(wire.Error("out_of_order", 1200, "got 1203, expected 1201"))),
    ("hub → device", "slow", wire.Slow, wire.encode(wire.Slow("disk_full", 5000))),
    ("hub → device", "command", wire.Command, wire.encode(wire.Command("k7", "fan", {"speed": 3}, _T0))),
    ("device → hub", "reply", wire.Reply, wire.encode(wire.Reply("k7", True, {"speed": 3}))),
    ("hub → device", "desired", wire.Desired, wire.encode(wire.Desired(4, {"interval_s": 10}))),
    ("device → hub", "reported", wire.Reported, wire.encode(wire.Reported(4, {"interval_s": 10}))),
    ("both", "bye", wire.Bye, wire.encode(wire.Bye(8412))),
]  # fmt: skip


def protocol() -> str:
    """Return docs/reference/protocol.md."""
    parts = [
        "# The device protocol `telemetry.v1`\n",
        "*Generated from `device_sdk/wire.py`, `columns.py`, `envelope.py`, `reading.py` and `hub/session.py` by "
        "`python -m docs.generate`; golden vectors for other languages are in `tests/vectors/`, every message as JSON "
        "Schema is in [asyncapi.json](asyncapi.json).*\n",
        f"WebSocket at `{wire.DEVICE_PATH}`, subprotocol `{wire.DEVICE_SUBPROTOCOL}`, credential in the upgrade: "
        "`Authorization: Bearer <token>`. Text frames hold one JSON object with an `op`; binary frames hold a batch. "
        "Times are decimal strings of UTC nanoseconds.\n",
        inspect.cleandoc(session.__doc__ or "").split("Theory of operation.", 1)[1].strip() + "\n",
        "## Messages\n",
    ]
    parts += [_message(*example) for example in _EXAMPLES]
    parts += ["## Batch bodies\n", _layout()]
    parts += ["## Devices behind a gateway\n", _envelope()]
    parts += ["## What is allowed when\n", _states(), "## Limits\n", _limits((wire, reading, columns, envelope))]
    parts += ["## Close codes\n", inspect.cleandoc(wire.Close.__doc__ or "") + "\n", _close_codes()]
    parts += ["## Reasons\n", _reasons()]
    return "\n".join(parts)


def _envelope() -> str:
    """Return what the envelope's module says of it, with an example in bytes."""
    words = inspect.cleandoc(envelope.__doc__ or "").split("A gateway numbers", 1)[1]
    binary = envelope.wrap(7, b"\x01").hex(" ")
    text = envelope.wrap(7, wire.encode(wire.Bye(5000, 4403, "child_pending", "greenhouse-9 waits"))).decode()
    return f"A gateway numbers{words}\n\n```json\n{text}\n```\n\nA binary batch of device 7 begins with `{binary}`.\n"


def watching() -> str:
    """Return docs/reference/watch.md."""
    doc = inspect.cleandoc(encode.__doc__ or "").split("shared:\n", 1)[1]
    fields, words = doc.split("\n", 1)
    return "\n".join([
        "# Readings as watchers get them: `watch.v1`\n",
        "*Generated from `hub/live/encode.py` and `poll.py` by `python -m docs.generate`; every message as JSON Schema "
        "is in [asyncapi.json](asyncapi.json).*\n",
        f"WebSocket at `{wire.WATCH_PATH}`, subprotocol `{wire.WATCH_SUBPROTOCOL}`; the same by server-sent events at "
        "`GET /v1/watch?match=…`, and [by long poll](#by-long-poll). "
        "Before the first `data` of a series comes a `series` message that names it:\n",
        '```json\n{"op":"series","sub":"s1",' + encode.encode_series(_WATCHED).decode() + "\n```\n",
        "## data\n",
        f"`{{\"op\":\"data\",\"sub\":\"s1\",{fields.strip()}`\n",
        f"{words}\n",
        '```json\n{"op":"data","sub":"s1",' + _data_example() + "\n```\n",
        "## By long poll\n",
        inspect.cleandoc(poll.__doc__ or "").split("For clients:\n\n", 1)[1] + "\n",
        _CHECK_A_SERVER,
        "## Reading slowly\n",
        inspect.cleandoc(budget.__doc__ or "").split("Theory of operation. ", 1)[1] + "\n",
    ])  # fmt: skip


_CHECK_A_SERVER = """\
## Check a server

```
python -m tests.conformance --aborts 50
python -m tests.conformance --aborts 1000 --readings 1000000 --transports ws,sse,poll --seed 7
python -m tests.conformance --url https://hub.local:8000 --token T --device probe --device-token D --ca ca.pem
```

Real devices send numbered readings; watchers that are cut off, stalled and restarted must see each once, in order.
The answer is a table and an exit code: 1 when anything was wrong. The seed is printed; the same seed cuts at the same
bytes. Without `--url` a hub is started in a temporary folder, with a ring of newest frames smaller than the outages;
with it, use a new device (its numbers stay in that hub), and scenarios that need a hold on the server are left out, as
are transports that it does not have.

| scenario | what happens | required |
| --- | --- | --- |
| `abort` | cuts at random bytes, of the request too; some outages outlast the ring | no gap, no duplicate, order kept |
| `resume` | away for short and for long; an older cursor is used a second time | the same, and the same twice |
| `restart` | the server is killed (SIGKILL) while readings come | the same, and no `reset` |
| `restore` | the server is put back to a backup | a cursor from behind it is told `reset`; one from before it goes on |
| `expire` | the credential ends during a replay | it stops; the old one is refused, a new one goes on exactly |
| `stall` | watchers stop reading while megabytes are due | others do not wait; who reads again gets each reading once |
| `conflate` | only the newest value, 10 times a second, with cuts | no older, no oftener; the last value is true |

In each, a watcher is told `live` when nothing more is behind, and what `recovered` says holds.
Another server, or another transport, is two small classes beside `tests/conformance/adapter.py`: connect from a cursor,
receive, abort.
"""


_WATCHED = [Series(12, "default", "greenhouse-7", "temperature", reading.ValueType.FLOAT, "Cel")]


def _data_example() -> str:
    """Return a message of a live reading and of a minute that the device had kept back."""
    key = StreamKey("default", "greenhouse-7", _STREAM)
    frames = []
    for offset, t0, dt, late in ((1, _T0, [0], ()), (2, _T0 - 60 * 10**9, [0, 1000], ((0, _T0 - 10**7),))):
        column = SeriesColumn(_WATCHED[0], Column("temperature", dt, [21.5 + n / 5000 for n in dt]))
        frames.append(Frame(key, offset, Kind.BATCH, _T0, b"", b"", t0, 10**6, (column,), len(dt), late=late))
    (message,) = encode.encode_frames(frames, {12}, 2, lambda _: _POS)
    return message.tail.decode()


def _message(direction: str, op: str, kind: type[tuple[Any, ...]], example: bytes) -> str:
    rows = ["| field | type | default |", "| --- | --- | --- |"]
    defaults: dict[str, object] = getattr(kind, "_field_defaults", {})
    hints = typing.get_type_hints(kind)
    for name in getattr(kind, "_fields", ()):
        default = f"`{json.dumps(defaults[name])}`" if name in defaults else ""
        rows.append(f"| `{name}` | {_type(hints[name])} | {default} |")
    doc = inspect.cleandoc(kind.__doc__ or "")
    return f"### {op} ({direction})\n\n{doc}\n\n```json\n{example.decode()}\n```\n\n" + "\n".join(rows) + "\n"


def _type(hint: object) -> str:
    name = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    for module in ("device_sdk.wire.", "device_sdk.reading.", "device_sdk.columns.", "collections.abc."):
        name = name.replace(module, "")
    return "`" + name.replace("|", "or") + "`"


def _layout() -> str:
    doc = inspect.cleandoc(columns.__doc__ or "")
    return "```text\n" + doc[doc.index("JSON (readable") :] + "\n```\n"


def _states() -> str:
    rows = ["| op | allowed in |", "| --- | --- |"]
    for op, states in session.ALLOWED.items():
        rows.append(f"| `{op}` | {', '.join(sorted(s.value for s in states))} |")
    return "\n".join(rows) + "\n\nAnything else closes with 4400 and changes nothing.\n"


def _limits(modules: tuple[ModuleType, ...]) -> str:
    rows = ["| limit | value | why |", "| --- | --- | --- |"]
    for module in modules:
        lines = inspect.getsource(module).splitlines()
        for node in ast.parse("\n".join(lines)).body:
            if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
                continue
            name = node.targets[0].id
            value = getattr(module, name)
            if name.isupper() and not name.startswith("_") and isinstance(value, int | str):
                comment = lines[node.lineno - 2] if node.lineno > 1 else ""
                why = comment.removeprefix("# ") if comment.startswith("# ") else ""
                rows.append(f"| `{name}` | {value} | {why} |")
    return "\n".join(rows) + "\n"


def _close_codes() -> str:
    rows = ["| code | name |", "| --- | --- |"]
    rows += [f"| {value} | {name.lower()} |" for name, value in vars(wire.Close).items() if name.isupper()]
    return "\n".join(rows) + "\n"


def _reasons() -> str:
    rows = ["| reason | what it means |", "| --- | --- |"]
    rows += [f"| `{reason}` | {errors.explain(reason)} |" for reason in errors.Reason]
    words = "One word each, the same on wire, page, audit and in `device_sdk.errors.Reason`.\n\n"
    return words + "\n".join(rows) + "\n"


def architecture() -> str:
    """Return ARCHITECTURE.md with its table of modules made from their docstrings."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    before, rest = text.split(_TABLE_BEGIN)
    after = rest.split(_TABLE_END)[1]
    rows = ["| module | owns |", "| --- | --- |"]
    for package in ("device_sdk", "hub", "simulators"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name in ("__init__.py", "__main__.py") or "build" in path.parts:
                continue
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            rows.append(f"| `{name}` | {doc.splitlines()[0].rstrip('.')} |")
    return f"{before}{_TABLE_BEGIN}\n\n" + "\n".join(rows) + f"\n\n{_TABLE_END}{after}"


FILES = {
    REFERENCE / "protocol.md": protocol,
    REFERENCE / "watch.md": watching,
    REFERENCE / "rest.md": rest,
    REFERENCE / "cli.md": cli,
    REFERENCE / "mqtt.md": mqtt,
    REFERENCE / "asyncapi.json": lambda: document_bytes().decode(),
    ROOT / "ARCHITECTURE.md": architecture,
}


def main() -> int:
    """Write every generated file."""
    REFERENCE.mkdir(exist_ok=True)
    for path, make in FILES.items():
        path.write_text(make(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
