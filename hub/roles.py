"""Roles and scopes: what a credential may do, and with which devices and channels.

Owns: the verbs, which of them each role has, and `Identity`, what the rest of the hub knows of an asker. Place: after
`errors`, before `auth`, which reads identities from their file. Pure.

A **scope** is a verb with patterns over ``device/channel`` inside one namespace. A role is the most that a credential
may have; its scopes may be narrower, never wider. What no scope names is denied.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from hub.errors import BadRequestError

DEFAULT_NAMESPACE = "default"
EVERYTHING = ("**",)


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
    WATCHER = "watcher"
    OPERATOR = "operator"
    ADMIN = "admin"


VERBS: Mapping[Role, tuple[Verb, ...]] = {
    Role.DEVICE: (Verb.WRITE,),
    Role.WATCHER: (Verb.READ,),
    Role.OPERATOR: (Verb.READ, Verb.COMMAND, Verb.EDIT),
    Role.ADMIN: (Verb.READ, Verb.COMMAND, Verb.EDIT, Verb.MANAGE),
}

Scopes = Mapping[Verb, tuple[str, ...]]


def scopes_of(
    role: Role, match: Sequence[str] = EVERYTHING, narrowed: Mapping[Verb, Sequence[str]] | None = None
) -> Scopes:
    """Return each verb of the role with its patterns: ``match``, or what ``narrowed`` says of the verb.

    Raises:
        BadRequestError: ``narrowed`` has a verb that the role has not, or a verb has no pattern.
    """
    narrowed = narrowed or {}
    for verb in narrowed:
        if verb not in VERBS[role]:
            raise BadRequestError(f"the role {role} has no verb {verb}: it may {', '.join(VERBS[role])}")
    scopes = {verb: tuple(narrowed.get(verb, match)) for verb in VERBS[role]}
    for verb, patterns in scopes.items():
        if not patterns and verb not in narrowed:
            raise BadRequestError("a token needs at least one pattern, e.g. --match 'greenhouse-*/**'")
    return {verb: patterns for verb, patterns in scopes.items() if patterns}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a credential speaks for; a device's ``name`` is that of the device."""

    id: str
    name: str
    role: Role
    namespace: str = DEFAULT_NAMESPACE
    scopes: Scopes = field(default_factory=dict)

    def patterns(self, verb: Verb) -> tuple[str, ...]:
        """Return what the credential may do ``verb`` with; empty: nothing."""
        return self.scopes.get(verb, ())


# On its own machine, without TLS, the hub is opened without a login: anyone there can read its files as well.
LOCAL = Identity("local", "this machine", Role.WATCHER, scopes=scopes_of(Role.WATCHER))
