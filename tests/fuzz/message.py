"""Messages that a hostile peer sends: junk, and valid messages of both protocols with something wrong in them.

Owns: payloads; how they are framed is `tests.fuzz.frame`. Everything is drawn from the `Random` passed in.
"""

import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

from device_sdk import wire
from device_sdk.columns import Batch, Column, encode_binary, encode_json
from device_sdk.reading import Channel, Value, ValueType

T0 = 1_790_000_000_000_000_000
CHANNELS = (
    Channel("temperature", "Cel", ValueType.FLOAT, 1.0, 10.0, 30.0, "Temperature"),
    Channel("count", None, ValueType.INT),
    Channel("door", None, ValueType.BOOL),
    Channel("state", None, ValueType.STR),
    Channel("later"),
)
# Raw JSON, not values: some of these no encoder writes.
_ODD_JSON = (
    "null", "true", "-1", "0", "1e308", "-0.0", "1e999", "NaN", "-Infinity", str(2**31), str(2**53 + 1), str(2**63),
    str(2**64), "9" * 400, "1." + "1" * 400, '""', '"\\ud800"', '"\\u0000"', '"' + "x" * 70_000 + '"', '"../../etc"',
    '"' + "9" * 30 + '"', '"-"', "[]", "{}", "[[]]", '{"":{}}', "[" * 500 + "]" * 500, '{"a":' * 300 + "1" + "}" * 300,
    '"1795376000000000000"', '"7f3a0001.99999999999999999999"', "[null,null]", '["a",1,true,null,[],{}]',
    '"\N{GRINNING FACE}"', '"\\u202e"', '"**"', '"' + "*a" * 90 + '"',
)  # fmt: skip
_MARK = '"@odd@"'
# Of the words of the protocols, and of things that parsers stumble over.
_WORDS = ("op", "seq", "c", "v", "dt", "step", "tick", "__proto__", "constructor", "", "a" * 300, "sub", "id", "\x00")
_MAX_BATCH = 40


def device_message(random: Random, seq: int) -> bytes:
    """Return one message of a device; the frame numbers in it are around ``seq``."""
    kinds: tuple[Callable[[Random, int], bytes], ...] = (
        valid_batch, valid_batch, _mutated_batch, _mutated_batch, _mutated_other, _binary_lie, _binary_lie,
        _broken_text, junk,
    )  # fmt: skip
    return random.choice(kinds)(random, seq)


def watcher_message(random: Random, number: int) -> bytes:
    """Return one message of a watcher."""
    objects: tuple[dict[str, Any], ...] = (
        {"op": "hello", "id": number, "client": "fuzz/1.0"},
        {"op": "sub", "id": number, "sub": f"s{number % 5}", "match": ["healthy-0/*", "fuzz-*/count"], "since": "last"},
        {"op": "sub", "sub": f"s{number % 5}", "match": ["**"], "not": ["*/door"], "mode": "latest", "max_hz": 5},
        {"op": "sub", "sub": "h", "match": ["healthy-1/**"], "since": "-15m", "mode": "lossless"},
        {"op": "sub", "sub": "c", "match": ["healthy-1/**"], "since": f"{random.getrandbits(32):08x}.{number}"},
        {"op": "sub", "sub": "m", "match": ["**"], "since": "last", "mode": "latest", "max_hz": 2, "agg": "minmax"},
        {"op": "sub", "sub": "n", "match": ["**"], "mode": "sample", "every": 1 + number % 7},
        {
            "op": "sub",
            "sub": "t",
            "match": ["**"],
            "selector": random.choice(["site:north", "tag:a healthy-*", "x:y", " "]),
        },
        {"op": "set", "sub": f"s{number % 5}", "max_hz": 2.5},
        {"op": "unsub", "sub": f"s{number % 5}"},
    )
    message = random.choice(objects)
    choice = random.random()
    if choice < 0.4:
        return json.dumps(message).encode()
    if choice < 0.8:
        return mutated(random, message)
    return _broken(random, json.dumps(message).encode()) if choice < 0.9 else junk(random, number)


def hello(random: Random, device: str) -> bytes:
    """Return the hello of a new stream."""
    stream = f"{random.getrandbits(64):016x}"
    return wire.encode(wire.Hello(device, stream, "boot", "run", 0, 1, wire.CHAIN_START.hex()))


def schema() -> bytes:
    """Return the declaration of the channels that batches use."""
    return wire.encode(wire.Schema(CHANNELS))


def valid_batch(random: Random, seq: int) -> bytes:
    """Return a batch that a hub must take, as JSON or binary."""
    batch = _batch(random, seq)
    return (encode_binary(batch) if random.random() < 0.5 else None) or encode_json(batch)


def mutated(random: Random, message: dict[str, Any]) -> bytes:
    """Return a JSON message with one to three things wrong in it."""
    message = json.loads(json.dumps(message))
    for _ in range(random.randint(1, 3)):
        _spoil(random, message)
    text = json.dumps(message)
    while _MARK in text:
        text = text.replace(_MARK, random.choice(_ODD_JSON), 1)
    return text.encode("utf-8", "surrogatepass")


def junk(random: Random, _: int) -> bytes:
    """Return what is no message at all."""
    depth = random.choice((10, 1000, 100_000))
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: random.randbytes(random.randrange(200)),
        lambda: random.choice((b"[", b'{"a":', b'{"op":{"op":')) * depth,
        lambda: random.choice(_ODD_JSON).encode(),
        lambda: b'{"op":"batch"' + random.randbytes(20),
        lambda: b'{"op":' + random.choice(_ODD_JSON).encode() + b"}",
        lambda: b'{"op":"batch","seq":1,"count":1,"c":' + b"[" * depth,
        lambda: b"",
        lambda: b" " * random.randrange(5000),
        lambda: bytes((1, random.randrange(256))) + random.randbytes(random.randrange(60)),
    )
    return random.choice(kinds)()[: wire.MAX_FRAME_BYTES]


def _batch(random: Random, seq: int) -> Batch:
    columns = []
    for channel in random.sample(CHANNELS, random.randint(1, len(CHANNELS))):
        count = random.randint(1, _MAX_BATCH)
        values = [_value(random, channel.type) for _ in range(count)]
        columns.append(Column(channel.name, sorted(random.sample(range(10**6), count)), values))
    return Batch(seq, sum(len(c.values) for c in columns), T0 + seq * 10**9, 1000, tuple(columns))


def _value(random: Random, kind: ValueType | None) -> Value:
    match kind:
        case ValueType.INT:
            return random.randint(-(2**60), 2**60)
        case ValueType.BOOL:
            return random.random() < 0.5
        case ValueType.STR:
            return random.choice(("on", "off", "ä", "x" * 200))
        case _:
            return random.uniform(-50, 50)


def _mutated_batch(random: Random, seq: int) -> bytes:
    return mutated(random, json.loads(encode_json(_batch(random, seq))))


def _mutated_other(random: Random, seq: int) -> bytes:
    gap = wire.Gap(seq, random.choice((0, 7, 2**62, None)), "spool_full", {"temperature": (T0, T0 + 1)})
    earlier = (wire.Earlier("9f3a000000000001", 3, 5, "ab" * 16),)
    others = (
        wire.Hello("fuzz-0", f"{random.getrandbits(64):016x}", "b", "r", 0, 1, wire.CHAIN_START.hex(), earlier=earlier),
        wire.Schema(CHANNELS),
        gap,
        wire.Bye(),
    )
    found = wire.encode(random.choice(others))
    return found if random.random() < 0.2 else mutated(random, json.loads(found))


def _broken_text(random: Random, seq: int) -> bytes:
    return _broken(random, encode_json(_batch(random, seq)))


def _broken(random: Random, message: bytes) -> bytes:
    """Return a message whose bytes are cut, flipped, doubled or joined."""
    at = random.randrange(len(message))
    flipped = bytes((message[at] ^ 1 << random.randrange(8),))
    return random.choice(
        (
            message[:at],
            message[:at] + flipped + message[at + 1 :],
            message[:at] + message,
            message + message,
            message[at:],
        )
    )


def _binary_lie(random: Random, seq: int) -> bytes:
    """Return a binary batch with a header, a length, a name or a type that lies."""
    values = [random.uniform(-50, 50) for _ in range(20)]
    columns = (Column("temperature", range(20), values), Column("count", range(20), list(range(20))))
    body = bytearray(encode_binary(Batch(seq, 40, T0, 1000, columns)) or b"")
    for _ in range(random.randint(1, 3)):
        at = random.choice((random.randrange(26), random.randrange(26, 60), random.randrange(len(body))))
        if random.random() < 0.3 and at + 4 <= len(body):
            struct.pack_into("<I", body, at, random.choice((0, 1, 2**31, 2**32 - 1, len(body))))
        else:
            body[at] = random.randrange(256)
    return bytes(body[: random.randrange(len(body))] if random.random() < 0.2 else body)


def _spoil(random: Random, message: dict[str, Any]) -> None:
    """Change one place of a JSON object: a value, a key, or what is missing."""
    place: Any = message
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = random.choice(keys)
        if isinstance(place[key], dict | list) and random.random() < 0.7:
            place = place[key]
            continue
        break
    kind = random.random()
    if kind < 0.6:
        place[key] = "@odd@"
    elif kind < 0.75:
        del place[key]
    elif isinstance(place, dict):
        place[random.choice(_WORDS)] = place.pop(key) if kind < 0.9 else "@odd@"
    else:
        place.insert(key, "@odd@")
