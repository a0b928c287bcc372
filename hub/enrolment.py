"""Enrolling a list of names, each for itself: what becomes of one touches no other.

Owns: the result of each name. Place: above `claims` and `device_tokens`, below `auth`, which gives the transaction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from hub import device_tokens
from hub.claims import put_single
from hub.credential import Change
from hub.errors import BadRequestError


class Result(StrEnum):
    """What became of one name."""

    ENROLLED = "enrolled"  # with a token
    CLAIMABLE = "claimable"  # with a claim code; enrolled once the device has used it
    EXISTS = "exists"  # left as it is
    DUPLICATE = "duplicate"  # the same name stands earlier in the list
    BAD_NAME = "bad_name"
    FORBIDDEN = "forbidden"  # the credential may not manage a device of that name


@dataclass(frozen=True, slots=True)
class Row:
    """One name of the list, at the same place as it was given; a token or code is shown this once."""

    device: str
    result: Result
    token: str | None = None
    code: str | None = None
    why: str | None = None


def enrol_each(
    change: Change,
    namespace: str,
    names: Sequence[str],
    *,
    claim_s: float | None = None,
    is_allowed: Callable[[str], bool] = lambda _: True,
) -> list[Row]:
    """Enrol what can be enrolled and return a row for each name, in their order.

    Args:
        claim_s: make a claim code that lives so long for each, instead of a token.
        is_allowed: says whether the asker may manage a device of that name.
    """
    seen: set[str] = set()
    rows: list[Row] = []
    for name in names:
        if name in seen:
            rows.append(Row(name, Result.DUPLICATE, why="the same name stands further up"))
        else:
            seen.add(name)
            rows.append(_enrol(change, namespace, name, claim_s, is_allowed))
    return rows


def _enrol(change: Change, namespace: str, name: str, claim_s: float | None, is_allowed: Callable[[str], bool]) -> Row:
    try:
        device_tokens.check_enrolled_name(name)
    except BadRequestError as error:
        return Row(name, Result.BAD_NAME, why=str(error))
    if not is_allowed(name):
        return Row(name, Result.FORBIDDEN, why="the credential's patterns do not hold for it")
    if device_tokens.is_enrolled(change.database, namespace, name):
        return Row(name, Result.EXISTS)
    if claim_s is None:
        return Row(name, Result.ENROLLED, token=device_tokens.enrol(change, namespace, name))
    return Row(name, Result.CLAIMABLE, code=put_single(change, namespace, name, claim_s)[1])
