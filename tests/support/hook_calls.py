"""Hooks called when the test says so: the `Call` and the `Ask` of `hub.hooks`, without threads."""

import inspect
from collections import deque
from collections.abc import Callable

from hub.hooks.answer import HookError
from hub.hooks.ingest import Answered


class HookCalls:
    """Holds calls until `run` or `fail`; the oldest first."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Callable[..., object], tuple[object, ...], Answered]] = deque()

    def __call__(self, hook: Callable[..., object], arguments: tuple[object, ...], answered: Answered, /) -> None:
        """Take a call; see `hub.hooks.ingest.Call`."""
        self.waiting.append((hook, arguments, answered))

    def run(self, at: int = 0) -> None:
        """Make the call at a place among those that wait."""
        hook, arguments, answered = self.waiting[at]
        del self.waiting[at]
        try:
            answer = hook(*arguments)
        except Exception as error:
            answered(None, HookError(repr(error)))
        else:
            answered(answer, None)

    def run_all(self) -> None:
        """Make calls until none waits."""
        while self.waiting:
            self.run()

    def fail(self, at: int = 0) -> None:
        """Let a call run into its limit."""
        _, _, answered = self.waiting[at]
        del self.waiting[at]
        answered(None, HookError("no answer within 1 s"))


async def ask_now(hook: Callable[..., object], /, *arguments: object) -> object:
    """Call a hook here and now; see `hub.hooks.grant.Ask`."""
    try:
        answer = hook(*arguments)
        return await answer if inspect.isawaitable(answer) else answer
    except Exception as error:
        raise HookError(repr(error)) from error
