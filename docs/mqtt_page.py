"""The page docs/reference/mqtt.md: what of MQTT the hub's endpoint speaks, what it refuses, its limits.

Place: beside `docs.generate`, which writes it. A test says each thing of `REFUSALS` to the endpoint and compares.
"""

import inspect
from typing import NamedTuple

from hub.gateway import mqtt_socket
from hub.mqtt import alias, conversation, field, opening, outgoing, packet, recent
from hub.mqtt.conversation import ALLOWED
from hub.mqtt.handler import Code


class Refusal(NamedTuple):
    """What a client may ask for and does not get; what 3.1.1 and 5 are answered."""

    what: str
    old: str
    new: str


REFUSALS = (
    Refusal("a publication of QoS 2", "the connection ends", "Maximum QoS 1 in CONNACK; DISCONNECT 0x9B"),
    Refusal("a will of QoS 2", "taken as QoS 1", "CONNACK 0x9B"),
    Refusal("a subscription with QoS 2", "SUBACK 1", "SUBACK 1"),
    Refusal("a topic filter that is not the client's own", "SUBACK 0x80", "SUBACK 0x87"),
    Refusal("a shared subscription (`$share/…`)", "SUBACK 0x80", "SUBACK 0x9E"),
    Refusal("a subscription identifier", "", "Available 0 in CONNACK; DISCONNECT 0xA1"),
    Refusal("a session that stays", "session present 0", "Session Expiry Interval 0 in CONNACK, session present 0"),
    Refusal("authentication by a method (AUTH)", "", "CONNACK 0x8C"),
    Refusal("MQTT 3.1 (`MQIsdp`)", "CONNACK 1", ""),
    Refusal("a session without a client identifier", "CONNACK 2", "an assigned one in CONNACK"),
    Refusal("publications beyond Receive Maximum", "not read until there is room", "DISCONNECT 0x93"),
    Refusal("a topic alias beyond the maximum", "", "DISCONNECT 0x94"),
    Refusal("a packet that is too large", "the connection ends", "DISCONNECT 0x95"),
    Refusal("silence for 1.5 × keep alive", "the connection ends", "DISCONNECT 0x8D"),
)

# What is of interest to who writes a client.
_LIMITS = (
    (packet, ("MAX_PACKET_BYTES", "MAX_GATEWAY_PACKET_BYTES", "MAX_CONNECT_BYTES", "MAX_FILTERS_PER_PACKET")),
    (field, ("MAX_PROPERTIES_BYTES",)),
    (opening, ("MAX_UNACKED", "MAX_CLIENT_ID_CHARS")),
    (conversation, ("MAX_UNACKED_BYTES", "FIRST_PACKET_S", "KEEP_ALIVE_FACTOR", "IDLE_LIMIT_S", "MAX_TURN")),
    (alias, ("MAX_ALIASES", "MAX_CHARS")),
    (outgoing, ("MAX_FILTERS", "MAX_IN_FLIGHT", "MAX_WAITING", "MAX_WAITING_BYTES")),
    (recent, ("MARKS", "MAX_MARKS", "WINDOW_S")),
    (mqtt_socket, ("HIGH_WATER_BYTES", "MAX_BUFFER_BYTES", "STALL_S")),
)


def mqtt() -> str:
    """Return docs/reference/mqtt.md."""
    theory = inspect.cleandoc(conversation.__doc__ or "").split("Theory of operation. ", 1)[1]
    again = inspect.cleandoc(recent.__doc__ or "").split("\n\n", 2)[2]
    return "\n".join([
        "# MQTT at the hub's endpoint\n",
        "*Generated from `hub/mqtt` by `python -m docs.generate`.*\n",
        "3.1.1 and 5 over TCP, TLS and WebSocket (path `/mqtt`, subprotocol `mqtt`, binary messages), QoS 0 and 1. It "
        "is an endpoint, not a broker: nobody is sent what another client published, and nothing is retained for "
        "anybody. The retain flag of a publication is taken, and means nothing.\n",
        theory + "\n",
        "## What is refused\n",
        _refusals(),
        "Whatever the standard calls malformed ends the connection; MQTT 5 is told by DISCONNECT 0x81 or 0x82. A "
        "publication that its sender may not make is acknowledged with a reason code in MQTT 5; 3.1.1 has no word for "
        "that, so its connection ends.\n",
        "## What is sent again\n",
        again + "\n",
        "## What is allowed when\n",
        _states(),
        "## Limits\n",
        _limits(),
        "## Reason codes\n",
        _codes(),
    ])  # fmt: skip


def _refusals() -> str:
    rows = ["| asked for | 3.1.1 is answered | 5 is answered |", "| --- | --- | --- |"]
    rows += [f"| {what} | {old or '–'} | {new or '–'} |" for what, old, new in REFUSALS]
    return "\n".join(rows) + "\n"


def _states() -> str:
    rows = ["| packet | allowed in |", "| --- | --- |"]
    for kind, states in ALLOWED.items():
        rows.append(f"| {kind.name} | {', '.join(sorted(state.value for state in states)) or 'never'} |")
    return "\n".join(rows) + "\n"


def _limits() -> str:
    rows = ["| limit | value | why |", "| --- | --- | --- |"]
    for module, names in _LIMITS:
        lines = inspect.getsource(module).splitlines()
        for name in names:
            (at,) = (number for number, line in enumerate(lines) if line.startswith(f"{name} = "))
            first = at
            while lines[first - 1].startswith("# "):
                first -= 1
            why = " ".join(line.removeprefix("# ") for line in lines[first:at])
            rows.append(f"| `{name}` | {getattr(module, name)} | {why} |")
    return "\n".join(rows) + "\n"


def _codes() -> str:
    rows = ["| code | name |", "| --- | --- |"]
    rows += [f"| 0x{code:02X} | {code.name.lower()} |" for code in Code]
    return "\n".join(rows) + "\n"
