"""Roles and scopes: what is not named is denied, and a scope only narrows."""

import itertools

import pytest

from hub.errors import BadRequestError
from hub.roles import LOCAL, VERBS, Identity, Role, Verb, scopes_of


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
