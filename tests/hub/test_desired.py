"""`hub.desired`: versions that only rise, durable changes, and how far apart two states are."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from device_sdk.wire import MAX_CONTROL_BYTES, MAX_CONTROL_DEPTH, Desired, Reported
from hub import desired as module
from hub.desired import States, StatesError
from hub.errors import BadRequestError, ConflictError

FILE = "states.sqlite3"
KEY = ("default", "fan-1")


@pytest.fixture
def states(tmp_path: Path) -> Iterator[States]:
    """An empty file."""
    with closing(States(tmp_path / FILE, clock=lambda: 1000)) as states:
        yield states


def set_(states: States, patch: dict[str, object], device: str = "fan-1") -> int:
    """Change one device; return its version."""
    (outcome,) = states.change("default", [device], patch, "ann")
    assert outcome.error is None
    return outcome.version


def told(states: States) -> Desired:
    """Return what would be sent to fan-1."""
    return states.not_taken([KEY])[KEY]


def test_version_rises_with_each_effective_change_alone(states: States, tmp_path: Path) -> None:
    """What changes nothing keeps the version; null removes; a file opened anew has the same, fsynced."""
    patches: list[dict[str, object]] = [{"a": 1, "b": {"c": 2}}, {"b": {"c": 2}}, {"b": {"c": None}}, {}]
    versions = [set_(states, patch) for patch in patches]

    assert versions == [1, 1, 2, 2]
    with closing(States(tmp_path / FILE)) as again:
        twin = again.twin("default", "fan-1")
    assert (json.loads(twin.desired.state), twin.desired.version) == ({"a": 1, "b": {}}, 2)
    assert (twin.desired.who, twin.desired.time_ns) == ("ann", 1000)
    assert states._database.execute("PRAGMA synchronous").fetchone() == (2,)
    assert states.twin("other", "fan-1").desired.version == 0


def test_true_is_not_one(states: States) -> None:
    """For JSON a switch is no number, though it is for Python."""
    assert [set_(states, {"on": True}), set_(states, {"on": 1})] == [1, 2]


def test_refused_device_keeps_no_other_from_its_change(states: States) -> None:
    """A moved version is a conflict, a state that grows too large is named; the rest is changed."""
    set_(states, {"text": "x" * (MAX_CONTROL_BYTES - 20)}, "full")
    set_(states, {"a": 1}, "moved")
    set_(states, {"a": 1}, "moved")

    outcomes = states.change("default", ["full", "fan-1"], {"more": "y" * 20}, "ann")
    (conflict,) = states.change("default", ["moved"], {"a": 2}, "ann", expected_version=0)

    assert [type(o.error) for o in outcomes] == [BadRequestError, type(None)]
    assert [o.version for o in outcomes] == [1, 1]
    assert isinstance(conflict.error, ConflictError)
    assert json.loads(states.twin("default", "moved").desired.state) == {"a": 1}
    assert states.change("default", ["moved"], {"a": 2}, "ann", expected_version=1)[0].version == 2


def test_impossible_patch_is_refused_in_words(states: States) -> None:
    """Too large, too deep, or for too many: nothing is changed."""
    deep: dict[str, object] = {}
    for _ in range(MAX_CONTROL_DEPTH):
        deep = {"a": deep}

    with pytest.raises(BadRequestError, match="limit"):
        states.change("default", ["fan-1"], {"a": "x" * MAX_CONTROL_BYTES}, "ann")
    with pytest.raises(BadRequestError, match="limit"):
        states.change("default", ["d"] * (module.MAX_ROLLOUT + 1), {"a": 1}, "ann")
    assert isinstance(states.change("default", ["fan-1"], deep, "ann")[0].error, BadRequestError)
    assert states.devices("default") == []


def test_history_keeps_the_last_changes(states: States) -> None:
    """Who changed what when, newest first, at most so many of each device."""
    for n in range(module.MAX_CHANGES_EACH + 3):
        set_(states, {"n": n})

    history = states.history("default", "fan-1")

    assert len(history) == module.MAX_CHANGES_EACH
    assert history[0] == module.Change(module.MAX_CHANGES_EACH + 3, "ann", 1000, {"n": module.MAX_CHANGES_EACH + 2})
    assert [c.version for c in history] == sorted((c.version for c in history), reverse=True)


def test_state_is_to_send_until_the_device_has_taken_it(states: States) -> None:
    """Only the version with its mark counts as taken; a device that says no mark is believed its number."""
    set_(states, {"a": 1})
    first = told(states)
    set_(states, {"a": 2})
    second = told(states)

    states.take_reports({KEY: Reported(1, {}, first.mark)})
    assert told(states) == second == Desired(2, {"a": 2}, second.mark)
    states.take_reports({KEY: Reported(2, {"a": 2}, second.mark)})
    assert states.not_taken([KEY, ("default", "nobody")]) == {}
    states.take_reports({KEY: Reported(2, {"a": 2})})
    assert states.not_taken([KEY]) == {}


@pytest.mark.parametrize(("version", "mark", "next_"), [(9, "", 10), (9, "feed", 10), (1, "feed", 2)], ids=str)
def test_version_goes_on_above_one_from_before_a_restore(states: States, version: int, mark: str, next_: int) -> None:
    """A version that this file never gave out is passed, so that the device takes the state in again."""
    set_(states, {"a": 1})

    states.take_reports({KEY: Reported(version, {"a": 7}, mark)})

    assert (told(states).version, told(states).state) == (next_, {"a": 1})
    assert states.history("default", "fan-1")[0].patch is None
    assert states.twin("default", "fan-1").reported.version == version


def test_absurd_version_does_not_push_ours(states: States) -> None:
    """A device cannot drive the version to where it is exact no more."""
    set_(states, {"a": 1})

    states.take_reports({KEY: Reported(2**63 - 1, {})})

    assert told(states).version == 1


def test_differing_names_the_keys(states: States) -> None:
    """Dotted keys of the desired state that are reported otherwise or not at all; what is only reported is no drift."""
    set_(states, {"a": 1, "fan": {"speed": 3, "on": True}, "list": [1], "empty": {}, "f": 2})
    states.take_reports({KEY: Reported(1, {"a": 1, "fan": {"speed": 4, "on": 1}, "list": [1], "f": 2.0, "x": 1})})

    assert states.twin("default", "fan-1").differing() == ["fan.speed", "fan.on", "empty"]


def test_devices_are_bounded(states: States) -> None:
    """The device too many is refused with the limit; those that have a state can be changed on."""
    assert module.MAX_DEVICES >= module.MAX_ROLLOUT
    states._database.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO desired "
        "SELECT 'default', 'd' || i, 1, '', '{}', '', 0 FROM n", (module.MAX_DEVICES - 1,),
    )  # fmt: skip

    outcomes = states.change("default", ["fan-1", "fan-2", "d7"], {"a": 1}, "ann")

    assert [o.error is None for o in outcomes] == [True, False, True]
    assert str(module.MAX_DEVICES) in str(outcomes[1].error)


def test_another_file_is_an_error(tmp_path: Path) -> None:
    """What is no states file is not touched."""
    (tmp_path / FILE).write_bytes(b"no database at all" * 100)

    with pytest.raises(StatesError):
        States(tmp_path / FILE)


def test_erasing_forgets_a_device_to_the_last_byte(states: States, tmp_path: Path) -> None:
    """What was wanted, what was reported, who changed it; other devices keep theirs."""
    for text in ("my-secret", "my-secret-too"):
        set_(states, {"text": text}, "fan-1")
    set_(states, {"text": "others"}, "fan-2")

    states.erase("default", "fan-1")

    assert states.devices("default") == ["fan-2"]
    assert states.history("default", "fan-1") == []
    assert not any(b"my-secret" in path.read_bytes() for path in tmp_path.iterdir())
