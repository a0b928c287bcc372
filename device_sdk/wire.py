"""Messages of ``telemetry.v1`` as values, to and from bytes; every limit a peer must know.

Owns: the protocol version, the size limits, the chain, the control messages.
The columns inside a batch are `device_sdk.columns`. Place: after `reading`.
Pure: no clock, task, socket, randomness. ``docs/reference/protocol.md`` is
generated from this file; ``tests/vectors/*.json`` fix it for other languages.

Times travel as decimal strings of nanoseconds, because JavaScript loses
integers beyond 2**53.
"""

from __future__ import annotations

import zlib
from hashlib import blake2b
from typing import Any

from device_sdk.errors import ProtocolError, Reason
from device_sdk.frozen import Frozen
from device_sdk.json_bytes import from_json, to_json
from device_sdk.reading import Channel, ValueType

PROTOCOL_VERSION = 1
DEVICE_SUBPROTOCOL = "telemetry.v1"
WATCH_SUBPROTOCOL = "watch.v1"
DEVICE_PATH = "/v1/device"
WATCH_PATH = "/v1/watch"

# A constant of protocol 1: a frame must fit a small device's memory and one read of the hub.
MAX_FRAME_BYTES = 256 * 1024
# Frames cut and not yet acked; 32 hides a 300 ms link at 100 frames/s and bounds what a crash resends.
MAX_WINDOW = 32
# Readings in one frame: beyond about 1,000 the cost per reading no longer falls (measured 0.057 µs).
MAX_FRAME_READINGS = 10_000
# A device has tens of channels; 200 leaves room and stops a loop that invents names.
MAX_CHANNELS = 200
PING_S = 15
# A link that costs by the byte: a ping each 15 min would be 6 KB a day; each frame is a sign of life too.
METERED_PING_S = 900
# First byte of a deflated message: what follows is raw DEFLATE (RFC 1951) of one whole message, text or binary.
DEFLATED = b"\x02"
# Below this deflate saves nothing.
DEFLATE_FROM_BYTES = 100
# Readings outside 2000-01-01 … 2100-01-01 UTC come from a clock that was never set, not from a sensor.
MIN_TIME_NS = 946_684_800_000_000_000
MAX_TIME_NS = 4_102_444_800_000_000_000

CHAIN_BYTES = 16
CHAIN_START = bytes(CHAIN_BYTES)
# How far back both ends can compare chains.
CHAINS_KEPT = 64
# Earlier streams that a hello names: a new one begins at a power cut or a rolled-back card, so this is months back.
MAX_EARLIER = 16
# A desired or reported state, a command's arguments, a reply's value, as JSON: settings, not files.
MAX_CONTROL_BYTES = 32 * 1024
# Objects and lists in each other in one of these: settings are a few levels deep; far below where JSON readers give up.
MAX_CONTROL_DEPTH = 32
# A device's own verbs: more is a program that should take an argument.
MAX_COMMANDS = 64
MAX_COMMAND_ARGUMENTS = 32
# The error of a reply to a command whose time was over when it came: it was not run.
EXPIRED_ERROR = "expired"
# The hub's own stream of each device: what the hub itself has to tell of it. No device may use this name.
HUB_STREAM = "0" * 16


class Close:
    """WebSocket close codes: 40xx and 41xx reconnect soon, 44xx minutes apart (a person must act)."""

    GOING_AWAY = 4000
    TOO_SLOW = 4008
    NO_PONG = 4010
    RATE_LIMITED = 4029
    INTERNAL = 4100
    BAD_MESSAGE = 4400
    UNAUTHENTICATED = 4401
    FORBIDDEN = 4403
    TAKEN_OVER = 4409
    TOO_LARGE = 4413
    EVICTED = 4429


def pack(message: bytes) -> bytes:
    """Return a message for a metered link: deflated where that is shorter. Chains cover the message itself."""
    if len(message) < DEFLATE_FROM_BYTES:
        return message
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = DEFLATED + squeeze.compress(message) + squeeze.flush()
    return packed if len(packed) < len(message) else message


def unpack(packed: bytes) -> bytes:
    """Return the message that `pack` packed (anything else as it is), never more than `MAX_FRAME_BYTES`.

    Raises:
        ProtocolError: not deflated, or larger.
    """
    if packed[:1] != DEFLATED:
        return packed
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        message = inflate.decompress(packed[1:], MAX_FRAME_BYTES)
    except zlib.error as error:
        raise ProtocolError(f"a deflated message that cannot be inflated: {error}", Reason.MALFORMED) from error
    if not inflate.eof or inflate.unused_data:
        raise ProtocolError(f"a deflated message of more than {MAX_FRAME_BYTES} bytes, or cut", Reason.MALFORMED)
    return message


def is_deeper(value: Any, levels: int) -> bool:
    """Say whether objects and lists are nested in each other more than so many levels deep; 3 and {} are 0 and 1."""
    inside = [value]
    for _ in range(levels):
        containers = [one for one in inside if isinstance(one, dict | list | tuple)]
        inside = [inner for one in containers for inner in (one.values() if isinstance(one, dict) else one)]
    return any(isinstance(one, dict | list | tuple) for one in inside)


def next_chain(chain: bytes, body: bytes) -> bytes:
    """Return chain(n) = BLAKE2b-128(chain(n-1) ‖ body(n)); body is the frame's bytes as cut."""
    return blake2b(chain + body, digest_size=CHAIN_BYTES).digest()


# --- device → hub -----------------------------------------------------------------------------


class Earlier(Frozen):
    """An older stream of the same device: frames ≤ ``acked`` = ``next`` - 1 were acked (in `Hello`).

    In `Welcome`, what the hub holds of it now: ``acked`` is its stored. A hub restored from a backup holds less.
    """

    stream: str
    acked: int
    next: int
    chain: str


class Hello(Frozen):
    """First message of a device: who it is, which stream it continues, what it knows.

    ``stream`` and ``run``: 16 hex digits. ``chain``: chain(next - 1) in hex; empty, or left out, of a device that keeps
    none, whose copied card nobody notices.
    ``acked`` ≤ ``next`` - 1; frames acked + 1 … next - 1 are cut and unacked.
    ``seen``: the hub's last ``pos`` this spool stored, or None.
    """

    device: str
    stream: str
    boot: str
    run: str
    acked: int
    next: int
    chain: str
    sdk: str = "unknown"
    proto: int = PROTOCOL_VERSION
    seen: str | None = None
    earlier: tuple[Earlier, ...] = ()
    mono_ns: int = 0
    wall_ns: int = 0
    clock: str = "unknown"
    link: str = "normal"


class Schema(Frozen):
    """Declares channels (all, or those added since); sent before the first batch that uses them.

    ``commands``: all commands of the device, by name: ``args`` (name → ``type`` int, float, bool, str, dict or list,
    ``required``, ``nullable``, ``default``, ``choices``) and ``doc``. None: nothing is said of them. A hub sends a
    command only on a connection on which it was declared: what waits for a device comes after its schema.
    """

    channels: tuple[Channel, ...]
    commands: dict[str, Any] | None = None


class Gap(Frozen):
    """A declared loss: an ordinary numbered frame. ``count`` None = unknown."""

    seq: int
    count: int | None  # type: ignore[assignment]  # hides tuple.count, which nobody needs of a message
    reason: str
    ranges: dict[str, tuple[int, int]]


class Bye(Frozen):
    """The sender goes away; ``retry_ms`` (hub only) says when to come back.

    To one device behind a gateway: ``code`` as of a close, ``reason`` in a word, and a ``message`` for people.
    """

    retry_ms: int | None = None
    code: int | None = None
    reason: str = ""
    message: str = ""


# --- hub → device -----------------------------------------------------------------------------


class Welcome(Frozen):
    """The hub continues the stream after ``stored``; ``chain`` is the hub's chain(stored) in hex."""

    stored: int
    chain: str
    pos: str
    time_ns: int
    window: int = MAX_WINDOW
    ping_s: int = PING_S
    channels: int = MAX_CHANNELS
    earlier: tuple[Earlier, ...] = ()


class NewStream(Frozen):
    """The stream cannot continue; cut frames ≤ ``stored`` whose chain is equal count as acked."""

    stored: int
    chain: str
    why: str
    pos: str


class Rejection(Frozen):
    """One reading refused for good: index into the column of ``channel`` in frame ``seq``."""

    seq: int
    channel: str
    index: int  # type: ignore[assignment]  # hides tuple.index
    reason: str


class Ack(Frozen):
    """All frames ≤ ``stored`` are durable. Cumulative, so a lost ack costs nothing.

    ``rejected`` names what was refused since the last ack; a device that keeps no chain is only told how much in all.
    """

    stored: int
    chain: str
    pos: str
    rejected_total: int = 0
    rejected: tuple[Rejection, ...] = ()


class Error(Frozen):
    """The last frame was not taken; send again from ``stored`` + 1."""

    reason: str
    stored: int
    message: str = ""


class Slow(Frozen):
    """The hub cannot store now; keep the frames, try again after ``retry_ms``."""

    why: str
    retry_ms: int


# --- control: what is not a reading, beside the numbered frames ---------------------------------


class Command(Frozen):
    """The hub asks the device to do something once. ``id`` is the same each time it is sent, until a reply came.

    ``args``: names → JSON values. After ``expires_ns`` (wall time) it must not take effect any more.
    """

    id: str
    name: str
    args: dict[str, Any]
    expires_ns: int


class Reply(Frozen):
    """The device's answer to the command ``id``: a JSON ``value``, or why not in ``error``."""

    id: str
    ok: bool
    value: Any = None
    error: str = ""


class Desired(Frozen):
    """The state that the device should have, whole; ``version`` rises with each change.

    ``mark`` tells this version from one of the same number by a hub that was restored since; a device says it again
    in `Reported`.
    """

    version: int
    state: dict[str, Any]
    mark: str = ""


class Reported(Frozen):
    """The state that the device has, whole; ``version`` and ``mark`` of the desired state it has taken in (0: none).

    A device that says 0 is sent the desired state again.
    """

    version: int
    state: dict[str, Any]
    mark: str = ""


DeviceMessage = Hello | Schema | Gap | Bye | Reply | Reported
HubMessage = Welcome | NewStream | Ack | Error | Slow | Bye | Command | Desired


def encode(message: DeviceMessage | HubMessage) -> bytes:
    """Return the message as UTF-8 JSON, keys in protocol order, no spaces."""
    return to_json(_to_object(message))


def decode_hub_message(data: bytes | str) -> HubMessage:
    """Return what the hub said.

    Raises:
        ProtocolError: not JSON, an unknown ``op``, a missing or wrong field.
    """
    try:
        obj = from_json(data)
        message: HubMessage = _HUB_OPS[obj["op"]](obj)
        return message
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ProtocolError(f"the hub sent a message this SDK cannot read: {error!r}") from error


def channel_to_object(channel: Channel) -> dict[str, Any]:
    """Return a channel as it stands inside `Schema`, without its name and without absent fields."""
    out: dict[str, Any] = {}
    if channel.unit is not None:
        out["unit"] = channel.unit
    if channel.type is not None:
        out["type"] = channel.type.value
    if channel.every_s is not None:
        out["every_s"] = channel.every_s
    if channel.low is not None and channel.high is not None:
        out["range"] = [channel.low, channel.high]
    if channel.label is not None:
        out["label"] = channel.label
    return out


def channel_from_object(name: str, obj: dict[str, Any]) -> Channel:
    """Return the channel that `channel_to_object` wrote."""
    low, high = obj.get("range") or (None, None)
    kind = None if obj.get("type") is None else ValueType(obj["type"])
    return Channel(name, obj.get("unit"), kind, obj.get("every_s"), low, high, obj.get("label"))


def _to_object(message: DeviceMessage | HubMessage) -> dict[str, Any]:
    match message:
        case Hello():
            return _hello_object(message)
        case Schema(channels, commands):
            found = {"op": "schema", "channels": {c.name: channel_to_object(c) for c in channels}}
            return found if commands is None else {**found, "commands": commands}
        case Gap(seq, count, reason, ranges):
            spans = {name: [str(first), str(last)] for name, (first, last) in ranges.items()}
            return {"op": "gap", "seq": seq, "count": count, "reason": reason, "ranges": spans}
        case Bye(retry_ms, code, reason, text):
            told = {"retry_ms": retry_ms, "code": code, "reason": reason, "message": text}
            return {"op": "bye", **{name: value for name, value in told.items() if value not in (None, "")}}
        case Welcome():
            return _welcome_object(message)
        case NewStream(stored, chain, why, pos):
            return {"op": "new_stream", "stored": stored, "chain": chain, "why": why, "pos": pos}
        case Ack():
            return _ack_object(message)
        case Error(reason, stored, text):
            return {"op": "error", "reason": reason, "stored": stored, "message": text}
        case Slow(why, retry_ms):
            return {"op": "slow", "why": why, "retry_ms": retry_ms}
        case _:
            return _control_object(message)


def _control_object(message: Command | Reply | Desired | Reported) -> dict[str, Any]:
    match message:
        case Command(id_, name, args, expires_ns):
            return {"op": "command", "id": id_, "name": name, "args": args, "expires_ns": str(expires_ns)}
        case Reply(id_, ok, value, error):
            return {"op": "reply", "id": id_, "ok": ok, **({"value": value} if ok else {"error": error})}
        case Desired(version, state, mark):
            return {"op": "desired", "version": version, "state": state, **({"mark": mark} if mark else {})}
        case Reported(version, state, mark):
            return {"op": "reported", "version": version, "state": state, **({"mark": mark} if mark else {})}


def _hello_object(hello: Hello) -> dict[str, Any]:
    earlier = [{"stream": e.stream, "acked": e.acked, "next": e.next, "chain": e.chain} for e in hello.earlier]
    return {
        "op": "hello", "device": hello.device, "stream": hello.stream, "boot": hello.boot, "run": hello.run,
        "sdk": hello.sdk, "proto": hello.proto, "acked": hello.acked, "next": hello.next, "chain": hello.chain,
        "seen": hello.seen, "earlier": earlier, "mono_ns": str(hello.mono_ns), "wall_ns": str(hello.wall_ns),
        "clock": hello.clock, "link": hello.link,
    }  # fmt: skip


def _welcome_object(welcome: Welcome) -> dict[str, Any]:
    out = {
        "op": "welcome", "stored": welcome.stored, "chain": welcome.chain, "pos": welcome.pos,
        "time_ns": str(welcome.time_ns), "window": welcome.window, "ping_s": welcome.ping_s,
        "limits": {"channels": welcome.channels},
    }  # fmt: skip
    if welcome.earlier:
        out["earlier"] = [{"stream": e.stream, "stored": e.acked, "chain": e.chain} for e in welcome.earlier]
    return out


def _ack_object(ack: Ack) -> dict[str, Any]:
    out: dict[str, Any] = {"op": "ack", "stored": ack.stored, "chain": ack.chain, "pos": ack.pos}
    if ack.rejected_total:
        out["rejected_total"] = ack.rejected_total
    if ack.rejected:
        out["rejected"] = [
            {"seq": r.seq, "channel": r.channel, "index": r.index, "reason": r.reason} for r in ack.rejected
        ]
    return out


def _welcome(obj: dict[str, Any]) -> Welcome:
    limits = obj.get("limits", {})
    window = max(1, min(int(obj["window"]), MAX_WINDOW))
    earlier = tuple(
        Earlier(str(e["stream"]), int(e["stored"]), int(e["stored"]) + 1, str(e["chain"]))
        for e in obj.get("earlier", ())[:MAX_EARLIER]
    )
    return Welcome(
        int(obj["stored"]), str(obj["chain"]), str(obj["pos"]), int(obj["time_ns"]), window,
        max(1, int(obj["ping_s"])), int(limits.get("channels", MAX_CHANNELS)), earlier,
    )  # fmt: skip


def _ack(obj: dict[str, Any]) -> Ack:
    rejected = tuple(
        Rejection(int(r["seq"]), str(r["channel"]), int(r["index"]), str(r["reason"])) for r in obj.get("rejected", ())
    )
    return Ack(int(obj["stored"]), str(obj["chain"]), str(obj["pos"]), int(obj.get("rejected_total", 0)), rejected)


def _bye(obj: dict[str, Any]) -> Bye:
    retry, code = obj.get("retry_ms"), obj.get("code")
    return Bye(
        None if retry is None else int(retry), None if code is None else int(code),
        str(obj.get("reason", "")), str(obj.get("message", "")),
    )  # fmt: skip


_HUB_OPS: dict[str, Any] = {
    "welcome": _welcome,
    "new_stream": lambda o: NewStream(int(o["stored"]), str(o["chain"]), str(o["why"]), str(o["pos"])),
    "ack": _ack,
    "error": lambda o: Error(str(o.get("reason", Reason.MALFORMED)), int(o["stored"]), str(o.get("message", ""))),
    "slow": lambda o: Slow(str(o["why"]), int(o["retry_ms"])),
    "bye": _bye,
    "command": lambda o: Command(str(o["id"]), str(o["name"]), dict(o["args"]), int(o["expires_ns"])),
    "desired": lambda o: Desired(int(o["version"]), dict(o["state"]), str(o.get("mark", ""))),
}
