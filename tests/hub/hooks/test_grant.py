"""Scopes are the outer bound: hooks leave less of them or nothing, and a hook that fails leaves nothing."""

import pytest

from hub.errors import ForbiddenError
from hub.hooks.answer import Context, HookError, Reject
from hub.hooks.grant import AuthorizeHook, Grants
from hub.roles import Identity, Role, Verb, scopes_of
from tests.support.hook_calls import ask_now

pytestmark = pytest.mark.asyncio
OPERATOR = Identity("t1", "ops", Role.OPERATOR, "acme", scopes_of(Role.OPERATOR, ["lab-*/**", "pump/**"]))


async def left(*hooks: AuthorizeHook, verb: Verb = Verb.READ) -> tuple[str, ...]:
    return (await Grants(hooks, ask_now).narrow(OPERATOR, verb, ())).patterns(verb)


async def test_without_hooks_the_identity_is_given_back() -> None:
    """Nothing is made anew for hubs without hooks."""
    assert await Grants((), ask_now).narrow(OPERATOR, Verb.READ, ()) is OPERATOR


async def test_each_granted_pattern_is_asked_for() -> None:
    """With who asks and what was asked for."""
    seen: list[tuple[Context, str, str]] = []

    async def hook(context: Context, action: str, pattern: str) -> bool:
        seen.append((context, action, pattern))
        return pattern.startswith("lab")

    narrowed = await Grants((hook,), ask_now).narrow(OPERATOR, Verb.READ, ["lab-1"])

    assert narrowed.patterns(Verb.READ) == ("lab-*/*",)
    assert narrowed.patterns(Verb.COMMAND) == OPERATOR.patterns(Verb.COMMAND)
    assert [(action, pattern) for _, action, pattern in seen] == [("read", "lab-*/*"), ("read", "pump/*")]
    context = seen[0][0]
    assert (context.namespace, context.name, context.role, context.asked) == ("acme", "ops", "operator", ("lab-1",))
    assert context.time_ns > 1_700_000_000_000_000_000


async def test_hooks_follow_each_other() -> None:
    """The second is asked for what the first left."""
    assert await left(
        lambda context, action, pattern: ["lab-1/**", "lab-2/**"], lambda context, action, pattern: ["*/t", "lab-2"]
    ) == ("lab-1/t", "lab-2/t", "lab-2/*")


async def test_denied_says_the_hooks_reason() -> None:
    """Nothing left is 403."""
    with pytest.raises(ForbiddenError, match="hook: not on Sundays"):
        await left(lambda context, action, pattern: Reject("not on Sundays"))
    with pytest.raises(ForbiddenError, match="'ops' to command"):
        await left(lambda context, action, pattern: action == "read", verb=Verb.COMMAND)


@pytest.mark.parametrize(
    "hook",
    [
        pytest.param(lambda context, action, pattern: None, id="forgotten return"),
        pytest.param(lambda context, action, pattern: 1 / 0, id="raises"),
        pytest.param(lambda context, action, pattern: [f"lab-{n}-{pattern[0]}" for n in range(20)], id="too many"),
    ],
)
async def test_failing_hook_leaves_nothing(hook: AuthorizeHook, caplog: pytest.LogCaptureFixture) -> None:
    """The asker is told to try again and no more; the log says what it was."""
    everything = Identity("t", "all", Role.WATCHER, scopes=scopes_of(Role.WATCHER, ["lab-*", "l*", "**", "pump-*"]))

    with pytest.raises(HookError, match="log says why") as raised:
        await Grants((hook,), ask_now).narrow(everything, Verb.READ, ())

    assert raised.value.status == 503
    assert "test_grant" in caplog.text


async def test_managing_and_sending_are_not_asked_for() -> None:
    """A hook that fails cannot lock out who must mend it."""
    admin = Identity("t", "root", Role.ADMIN, scopes=scopes_of(Role.ADMIN))

    assert await Grants((lambda context, action, pattern: False,), ask_now).narrow(admin, Verb.MANAGE, ()) is admin
