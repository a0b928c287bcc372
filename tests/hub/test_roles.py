"""Roles and scopes: what is not named is denied, and a scope only narrows."""

import itertools

import pytest

from hub.errors import BadRequestError
from hub.roles import LOCAL, VERBS, Identity, Role, Verb, covers_all, may_read_log, scopes_of


def test_each_role_has_all_of_the_one_below() -> None:
    """A person who may do more loses nothing; what a device does is no person's."""
    people = [Role.WATCHER, Role.OPERATOR, Role.ADMIN]

    assert all(set(VERBS[less]) < set(VERBS[more]) for less, more in itertools.pairwise(people))
    assert not set(VERBS[Role.DEVICE]) & set(VERBS[Role.ADMIN])


def test_identity_without_scopes_may_do_nothing() -> None:
    """Default deny."""
    nobody = Identity("x", "x", Role.ADMIN)

    assert [nobody.patterns(verb) for verb in Verb] == [()] * len(Verb)


def test_scopes_hold_for_the_patterns_given() -> None:
    """One list for all verbs, another for those named; an empty one takes the verb away."""
    scopes = scopes_of(Role.OPERATOR, ["a", "b"], {Verb.COMMAND: ["a"], Verb.EDIT: []})

    assert scopes == {Verb.READ: ("a", "b"), Verb.COMMAND: ("a",)}


def test_a_scope_cannot_widen_a_role() -> None:
    """The role is the most there is."""
    with pytest.raises(BadRequestError, match="watcher has no verb manage"):
        scopes_of(Role.WATCHER, ["**"], {Verb.MANAGE: ["**"]})


def test_a_credential_for_nothing_is_an_error() -> None:
    """No pattern at all is a mistake of the one who makes it."""
    with pytest.raises(BadRequestError, match="pattern"):
        scopes_of(Role.WATCHER, [])


def test_this_machine_may_read() -> None:
    """Without a login the hub's own machine watches, and changes nothing."""
    assert LOCAL.scopes == {Verb.READ: ("**",)}


@pytest.mark.parametrize(
    ("granted", "all_of_it"),
    [(["**"], True), (["a", "*"], True), (["*/**"], True), (["a-*"], False), (["*/temperature"], False), ([], False)],
    ids=str,
)
def test_only_a_pattern_for_everything_covers_all(granted: list[str], all_of_it: bool) -> None:
    """Several narrow patterns are never taken for the whole."""
    assert covers_all(granted) is all_of_it


@pytest.mark.parametrize(
    ("role", "match", "narrowed"),
    [
        (Role.WATCHER, ["**", "$sys"], None),
        (Role.OPERATOR, ["**", "$sys/audit"], None),
        (Role.ADMIN, ["north-*", "$sys"], None),
        (Role.ADMIN, ["**", "$sys"], {Verb.MANAGE: ["north-*"]}),
        (Role.ADMIN, ["**"], {Verb.READ: ["$sys"], Verb.MANAGE: []}),
    ],
    ids=["watcher", "operator", "admin of a part", "manages a part", "manages nothing"],
)
def test_log_is_granted_only_to_who_manages_everything(
    role: Role, match: list[str], narrowed: dict[Verb, list[str]] | None
) -> None:
    """Whoever else names the hub's own readings in a scope is told what it takes."""
    with pytest.raises(BadRequestError, match="manage everything"):
        scopes_of(role, match, narrowed)


@pytest.mark.parametrize("pattern", ["$*", "$s*/audit", "$SYS", "$other", "$"])
def test_reserved_name_is_written_out(pattern: str) -> None:
    """There is one, and no wildcard means it."""
    with pytest.raises(BadRequestError, match="reserved name"):
        scopes_of(Role.ADMIN, ["**", pattern])


def test_log_is_read_by_who_was_granted_it_and_nothing_else_is_done_with_it() -> None:
    """An admin does not have it by `**`, and one who names it may read it: no command, no label."""
    admin = Identity("t1", "anna", Role.ADMIN, scopes=scopes_of(Role.ADMIN))
    auditor = Identity("t2", "berta", Role.ADMIN, scopes=scopes_of(Role.ADMIN, ["**", "$sys/audit"]))

    assert may_read_log(admin.scopes)
    assert admin.patterns(Verb.READ) == ("**",)
    assert auditor.patterns(Verb.READ) == ("**", "$sys/audit")
    assert {auditor.patterns(verb) for verb in (Verb.COMMAND, Verb.EDIT, Verb.MANAGE)} == {("**",)}


def test_scope_older_than_the_reserved_name_grants_nothing() -> None:
    """A pattern that once meant nothing does not come to life in a watcher's token, nor a wildcard in an admin's."""
    watcher = Identity("t1", "old", Role.WATCHER, scopes={Verb.READ: ("a", "$sys")})
    admin = Identity("t2", "old", Role.ADMIN, scopes=dict.fromkeys(VERBS[Role.ADMIN], ("**", "$*")))

    assert watcher.patterns(Verb.READ) == ("a",)
    assert admin.patterns(Verb.READ) == ("**",)
