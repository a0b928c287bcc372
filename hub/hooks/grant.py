"""What hooks leave of somebody's scopes for one request or subscription.

Owns: which actions `authorize` hooks are asked about, and the order: scopes first, then each hook within what the one
before left. Place: after `answer` and `live.patterns`; the gateway asks before it answers. Must not: widen anything.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol

from hub.errors import ForbiddenError
from hub.hooks.answer import Context, HookError, Reject, name_of, narrowed
from hub.live.patterns import MAX_PATTERNS, Pattern, parse_pattern
from hub.roles import Identity, Verb

_log = logging.getLogger("hub.hooks")

AuthorizeHook = Callable[[Context, str, str], object]
# What people and programs do with devices. To send is for `ingest`; who manages the hub could not be locked out of it.
ACTIONS = frozenset({Verb.READ, Verb.COMMAND, Verb.EDIT})


class Ask(Protocol):
    """Calls a hook apart (`hub.hooks.runner.Runner.ask`)."""

    def __call__(self, hook: Callable[..., object], /, *arguments: object) -> Awaitable[object]:
        """Return what it answers; raise `HookError` when it does not."""


class Grants:
    """Narrows identities. Without hooks it gives them back as they are.

    Args:
        hooks: in the order in which they are asked.
    """

    def __init__(self, hooks: Sequence[AuthorizeHook], ask: Ask) -> None:
        self.has_hooks = bool(hooks)
        self._hooks = tuple(hooks)
        self._ask = ask

    async def narrow(self, identity: Identity, verb: Verb, asked: Sequence[str]) -> Identity:
        """Return the identity with what is left of its scope for ``verb``.

        Args:
            asked: patterns of the subscription or request; empty: all.

        Raises:
            ForbiddenError: nothing is left; says the hook's reason.
            HookError: a hook failed, so nothing is known to be left.
        """
        if not self._hooks or verb not in ACTIONS:
            return identity
        context = Context(identity.namespace, identity.name, identity.role.value, tuple(asked), time.time_ns())
        left = [parse_pattern(text) for text in identity.patterns(verb)]
        for hook in self._hooks:
            left = await self._left_by(hook, context, verb, left)
        return replace(identity, scopes={**identity.scopes, verb: tuple(map(str, left))})

    async def _left_by(
        self, hook: AuthorizeHook, context: Context, verb: Verb, granted: Sequence[Pattern]
    ) -> list[Pattern]:
        left: dict[Pattern, None] = {}
        reasons: dict[str, None] = {}
        try:
            for pattern in granted:
                answer = await self._ask(hook, context, verb.value, str(pattern))
                left.update(dict.fromkeys(narrowed(answer, pattern)))
                if isinstance(answer, Reject):
                    reasons[answer.word()] = None
            if len(left) > MAX_PATTERNS:
                raise HookError(f"{len(left)} patterns are left: use at most {MAX_PATTERNS}")
        except HookError as error:
            _log.error("authorize hook failed hook=%s name=%s action=%s: %s", name_of(hook), context.name, verb, error)
            raise HookError(
                f"a hook of this hub failed, so {verb} is not allowed now; the hub's log says why"
            ) from error
        if not left:
            raise ForbiddenError("; ".join(reasons) or f"a hook of this hub does not allow {context.name!r} to {verb}")
        return list(left)
