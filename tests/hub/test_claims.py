"""A claim code opens once, for whom it was made, until it expires; nobody learns from a refusal."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hub.auth import Identities
from hub.claims import MAX_CLAIMS, MAX_EXPIRES_S, MAX_QUOTA
from hub.errors import BadRequestError, ConflictError, ForbiddenError, NotFoundError
from tests.support.wall_clock import WallClock

RETRY = "a secret of the device"


@pytest.fixture
def clock() -> WallClock:
    """Return a clock the test moves."""
    return WallClock()


@pytest.fixture
def identities(tmp_path: Path, clock: WallClock) -> Iterator[Identities]:
    """Return an empty file of identities."""
    with closing(Identities(tmp_path / "identities.sqlite3", clock=clock)) as opened:
        yield opened


def test_a_code_gives_its_device_a_token_once(identities: Identities) -> None:
    """The name comes with the code; a second use opens nothing."""
    _, code = identities.add_claim("pump-1")

    claimed = identities.claims.redeem(f" {code.upper()}\n")

    assert (claimed.device, claimed.namespace) == ("pump-1", "default")
    identity = identities.authenticate(claimed.token)
    assert identity is not None
    assert identity.name == "pump-1"
    with pytest.raises(ForbiddenError, match="unknown, used or expired"):
        identities.claims.redeem(code)


def test_the_token_is_on_disk_before_the_answer(identities: Identities, tmp_path: Path) -> None:
    """Another process that reads the file knows it as soon as `redeem` has returned."""
    token = identities.claims.redeem(identities.add_claim("pump-1")[1]).token

    with closing(Identities(tmp_path / "identities.sqlite3")) as other:
        assert other.authenticate(token) is not None


def test_refusals_are_alike(identities: Identities, clock: WallClock) -> None:
    """Unknown, wrong, huge, used, expired, ended: one and the same error, also with a name that is none."""
    used = identities.add_claim("used")[1]
    identities.claims.redeem(used)
    group = identities.claims.add_group("*", 1, 600, namespace="default")[1]
    identities.claims.redeem(group, "x")
    id_, ended = identities.add_claim("ended")
    identities.claims.remove(id_, namespace="default")
    expired = identities.add_claim("expired", expires_s=60)[1]
    clock.advance(60)
    taken = identities.add_claim("taken")[1]
    identities.add_device("taken")

    texts = set()
    for code in (
        "",
        "x",
        used[:-1],
        used + "a",
        "." * 10_000,
        "\udcff",
        "\udcff.\udcff",
        used,
        group,
        ended,
        expired,
        taken,
    ):
        with pytest.raises(ForbiddenError) as refused:
            identities.claims.redeem(code, None if code == taken else "y")
        texts.add(str(refused.value))

    assert len(texts) == 1


def test_a_wrong_name_uses_nothing_up(identities: Identities) -> None:
    """The right device can still claim, and the error does not say which it is."""
    _, code = identities.add_claim("pump-1")

    with pytest.raises(ForbiddenError, match="another device") as refused:
        identities.claims.redeem(code, "pump-2")

    assert "pump-1" not in str(refused.value)
    assert identities.claims.redeem(code, "pump-1").device == "pump-1"


def test_a_group_has_pattern_and_quota(identities: Identities) -> None:
    """Names that match, as many as were allowed, each once; what fails uses nothing up."""
    _, code = identities.claims.add_group("greenhouse-*", 2, 600, namespace="default")
    redeem = identities.claims.redeem

    with pytest.raises(BadRequestError, match="name of this one"):
        redeem(code)
    with pytest.raises(BadRequestError, match="letters, digits"):
        redeem(code, "greenhouse- 1")
    with pytest.raises(ForbiddenError, match=r"greenhouse-\*"):
        redeem(code, "pump-1")
    assert redeem(code, "greenhouse-1").device == "greenhouse-1"
    with pytest.raises(ConflictError):
        redeem(code, "greenhouse-1")
    assert redeem(code, "greenhouse-2").device == "greenhouse-2"
    with pytest.raises(ForbiddenError, match="used"):
        redeem(code, "greenhouse-3")
    (listed,) = identities.claims.listed(namespace="default")
    assert (listed.used, listed.quota, listed.match) == (2, 2, "greenhouse-*")


def test_a_lost_answer_is_given_again_to_whom_it_was_lost(identities: Identities) -> None:
    """With the same retry secret the device gets a new token in place of the lost one; the quota counts it once."""
    _, code = identities.claims.add_group("*", 1, 600, namespace="default")
    lost = identities.claims.redeem(code, "pump-1", RETRY)

    again = identities.claims.redeem(code, "pump-1", RETRY)

    assert identities.authenticate(lost.token) is None
    assert identities.authenticate(again.token) is not None
    assert identities.claims.listed(namespace="default")[0].used == 1
    assert identities.refresh() == {lost.token.split(".")[0]}


@pytest.mark.parametrize("retry", [None, "another secret, a guess"])
def test_whoever_finds_a_used_code_gets_nothing(identities: Identities, retry: str | None) -> None:
    """Without the secret of the device that used it a code is used up, and the device keeps its token."""
    _, code = identities.add_claim("pump-1")
    token = identities.claims.redeem(code, retry=RETRY).token

    with pytest.raises(ForbiddenError, match="used"):
        identities.claims.redeem(code, retry=retry)

    assert identities.authenticate(token) is not None


@pytest.mark.parametrize("change", ["rotate", "remove", "expire"])
def test_a_lost_answer_is_not_given_again_after(identities: Identities, clock: WallClock, change: str) -> None:
    """Once the device was given another token or removed, or the code expired, the code is used up for everybody."""
    _, code = identities.add_claim("pump-1", expires_s=60)
    identities.claims.redeem(code, retry=RETRY)
    if change == "rotate":
        identities.rotate_device("pump-1")
    elif change == "remove":
        identities.remove_device("pump-1")
    else:
        clock.advance(60)

    with pytest.raises(ForbiddenError, match="used"):
        identities.claims.redeem(code, retry=RETRY)


def test_a_new_code_for_a_device_ends_the_older_one(identities: Identities) -> None:
    """A printed code that got lost is replaced by printing another."""
    first, second = identities.add_claim("pump-1")[1], identities.add_claim("pump-1")[1]

    with pytest.raises(ForbiddenError):
        identities.claims.redeem(first)

    assert identities.claims.redeem(second).device == "pump-1"


def test_an_enrolled_device_gets_no_code(identities: Identities) -> None:
    """The error says how it gets a new token."""
    identities.add_device("pump-1")

    with pytest.raises(ConflictError, match="hub devices rotate pump-1"):
        identities.add_claim("pump-1")


@pytest.mark.parametrize(
    ("match", "quota", "expires_s", "word"),
    [
        ("a b", 1, 60, "greenhouse-"), ("", 1, 60, "greenhouse-"), ("[ab]*", 1, 60, "greenhouse-"),
        ("*", 0, 60, "quota"), ("*", MAX_QUOTA + 1, 60, "quota"),
        ("*", 1, 0, "90 d"), ("*", 1, MAX_EXPIRES_S + 1, "90 d"), ("*", 1, float("nan"), "90 d"),
    ],
)  # fmt: skip
def test_claims_have_limits(identities: Identities, match: str, quota: int, expires_s: float, word: str) -> None:
    """Pattern, quota and time out of range are refused, and the error names what is allowed."""
    with pytest.raises(BadRequestError, match=word):
        identities.claims.add_group(match, quota, expires_s, namespace="default")


def test_open_claims_are_bounded(identities: Identities, clock: WallClock, tmp_path: Path) -> None:
    """Beyond the limit a new one is refused; those that expired make room."""
    ends_ns = clock.now_ns + 60 * 10**9
    rows = [(f"c{n}", b"", "default", f"d{n}", None, 1, 0, clock.now_ns, ends_ns) for n in range(MAX_CLAIMS)]
    with closing(sqlite3.connect(tmp_path / "identities.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN")
        other.executemany("INSERT INTO claim VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        other.execute("COMMIT")
    with pytest.raises(ConflictError, match="hub claims rm"):
        identities.add_claim("c")

    clock.advance(60)
    identities.add_claim("c")

    assert [c.device for c in identities.claims.listed(namespace="default")] == ["c"]


def test_ended_and_expired_claims_are_not_there(identities: Identities, clock: WallClock) -> None:
    """They are not listed, and cannot be ended again."""
    id_, _ = identities.add_claim("a", expires_s=60)
    clock.advance(60)

    assert identities.claims.listed(namespace="default") == []
    with pytest.raises(NotFoundError, match="hub claims ls"):
        identities.claims.remove(id_, namespace="default")


def test_the_file_holds_no_code(identities: Identities, tmp_path: Path) -> None:
    """Only the hash is stored, of the code and of the device's retry secret."""
    _, code = identities.add_claim("pump-1")
    identities.claims.redeem(code, retry=RETRY)

    for path in tmp_path.iterdir():
        assert code.split(".")[1].encode() not in path.read_bytes()
        assert RETRY.encode() not in path.read_bytes()
