"""Roles and scopes: what a credential may do, and with which devices and channels.

Owns: the verbs, which of them each role has, and `Identity`, what the rest of the hub knows of an asker. Place: after
`errors`, before `auth`, which reads identities from their file. Pure.

A **scope** is a verb with patterns over ``device/channel`` inside one namespace. A role is the most that a credential
may have; its scopes may be narrower, never wider. What no scope names is denied.

`SYSTEM_DEVICE` is no device: its channels are what the hub tells of itself, among them the log of changes. No wildcard
means it. A scope that names it holds for reading alone, and only for who `may_read_log`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from hub.errors import BadRequestError

DEFAULT_NAMESPACE = "default"
EVERYTHING = ("**",)
# What the hub tells of itself are readings of this name, which no device can have.
SYSTEM_DEVICE = "$sys"
_STARS = re.compile(r"\*+")


class Verb(StrEnum):
    """What can be done with devices and channels."""

    WRITE = "write"  # send readings, and what else a device says of itself
    READ = "read"  # watch, query, export, audit
    COMMAND = "command"  # send commands, set desired state
    EDIT = "edit"  # labels, units, tags and other metadata
    MANAGE = "manage"  # identities, quarantine, backups


class Role(StrEnum):
    """What a credential is for."""

    DEVICE = "device"
    GATEWAY = "gateway"
    WATCHER = "watcher"
    OPERATOR = "operator"
    ADMIN = "admin"


VERBS: Mapping[Role, tuple[Verb, ...]] = {
    Role.DEVICE: (Verb.WRITE,),
    Role.GATEWAY: (Verb.WRITE,),  # for the devices behind it; its patterns are those of their names
    Role.WATCHER: (Verb.READ,),
    Role.OPERATOR: (Verb.READ, Verb.COMMAND, Verb.EDIT),
    Role.ADMIN: (Verb.READ, Verb.COMMAND, Verb.EDIT, Verb.MANAGE),
}

# Roles of programs that send: no person signs in with one of them.
SENDERS = (Role.DEVICE, Role.GATEWAY)

Scopes = Mapping[Verb, tuple[str, ...]]


def scopes_of(
    role: Role, match: Sequence[str] = EVERYTHING, narrowed: Mapping[Verb, Sequence[str]] | None = None
) -> Scopes:
    """Return each verb of the role with its patterns: ``match``, or what ``narrowed`` says of the verb.

    Raises:
        BadRequestError: ``narrowed`` has a verb that the role has not, a verb has no pattern, or `SYSTEM_DEVICE` is
            named for who may not read the log.
    """
    narrowed = narrowed or {}
    for verb in narrowed:
        if verb not in VERBS[role]:
            raise BadRequestError(f"the role {role} has no verb {verb}: it may {', '.join(VERBS[role])}")
    scopes = {verb: tuple(narrowed.get(verb, match)) for verb in VERBS[role]}
    for verb, patterns in scopes.items():
        if not patterns and verb not in narrowed:
            raise BadRequestError("a token needs at least one pattern, e.g. --match 'greenhouse-*/**'")
    for pattern in (pattern for patterns in scopes.values() for pattern in patterns if pattern.startswith("$")):
        _check_reserved(pattern, scopes)
    return {verb: patterns for verb, patterns in scopes.items() if patterns}


def covers_all(granted: Sequence[str]) -> bool:
    """Return whether one of the patterns selects every series of every device (but none of `SYSTEM_DEVICE`)."""
    return any(_STARS.sub("*", text) in ("*", "*/*") for text in granted)


def may_read_log(scopes: Scopes) -> bool:
    """Return whether who has these scopes may read the log of changes: who manages the whole namespace."""
    return covers_all(scopes.get(Verb.MANAGE, ()))


def _check_reserved(pattern: str, scopes: Scopes) -> None:
    if pattern.partition("/")[0] != SYSTEM_DEVICE:
        raise BadRequestError(f"{pattern[:40]!r}: the only reserved name is {SYSTEM_DEVICE}, and it has no wildcards")
    if not may_read_log(scopes):
        raise BadRequestError(
            f"{pattern[:40]!r} holds the log of changes, for who may manage everything: --role admin --match '**' "
            f"--match '{SYSTEM_DEVICE}'"
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a credential speaks for; a device's ``name`` is that of the device.

    ``ends_ns``: when it ends by itself, None: never. Two that differ in it alone are the same.
    """

    id: str
    name: str
    role: Role
    namespace: str = DEFAULT_NAMESPACE
    scopes: Scopes = field(default_factory=dict)
    ends_ns: int | None = field(default=None, compare=False)

    def patterns(self, verb: Verb) -> tuple[str, ...]:
        """Return what the credential may do ``verb`` with; empty: nothing."""
        found = self.scopes.get(verb, ())
        if not any(pattern.startswith("$") for pattern in found):
            return found
        # Checked here as well: a credential may be older than the reserved name.
        reads_log = verb is Verb.READ and may_read_log(self.scopes)
        return tuple(p for p in found if p[:1] != "$" or (reads_log and p.partition("/")[0] == SYSTEM_DEVICE))


# On its own machine, without TLS, the hub is opened without a login: anyone there can read its files as well.
LOCAL = Identity("local", "this machine", Role.WATCHER, scopes=scopes_of(Role.WATCHER))
