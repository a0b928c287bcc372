"""Secrets are random, recognised by their hash alone, and whatever is sent has a hash."""

from hub.credential import device_identity, hash_secret, is_secret_of, new_code, new_token
from hub.roles import Role, Verb


def test_code_has_128_random_bits_that_can_be_typed() -> None:
    """26 characters of base32 behind an id; no two are alike."""
    id_, code = new_code()

    assert code.startswith(f"{id_}.")
    assert len(code) - len(id_) == 27
    assert code == code.lower()
    assert new_code()[1] != code


def test_token_is_recognised_by_its_hash() -> None:
    """The very text and no other."""
    _, token = new_token("d")

    assert is_secret_of(token, hash_secret(token))
    assert not is_secret_of(token + "A", hash_secret(token))
    assert not is_secret_of("\udcff", hash_secret(token))


def test_device_speaks_for_its_own_channels_only() -> None:
    """A device's scope is to write what is below its name."""
    identity = device_identity("d1", "other", "pump-1")

    assert (identity.role, identity.namespace, identity.scopes) == (Role.DEVICE, "other", {Verb.WRITE: ("pump-1/**",)})
