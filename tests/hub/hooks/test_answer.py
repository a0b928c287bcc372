"""What a hook answers is taken exactly, or it is an error: nothing is added, nothing widened, nothing guessed."""

from collections.abc import Iterator

import pytest

from device_sdk.columns import Batch, Column
from device_sdk.reading import Value
from hub.hooks.answer import MAX_REASON_CHARS, Columns, HookError, Refused, Reject, left_by, name_of, narrowed
from hub.live.patterns import parse_pattern

BATCH = Batch(1, 3, 100, 10, (Column("x", range(2), (1.0, 2.0)), Column("door", [5], [True])))


def test_columns_are_copies() -> None:
    """A hook that writes into what it was given, or goes on after its time, changes nothing."""
    columns = Columns(BATCH)
    columns["x"].values[0] = 99.0

    assert (list(columns), len(columns)) == (["x", "door"], 2)
    assert columns["x"].times_ns == [100, 110]
    assert Columns(BATCH)["x"].values == [1.0, 2.0]


def test_none_leaves_the_very_batch() -> None:
    """So the body stays as it came; a mapping that names nothing says the same."""
    assert left_by({}, BATCH, {}) is BATCH
    assert left_by(None, BATCH, {}) is BATCH


def test_channels_that_are_not_named_stay() -> None:
    """A mapping names what changes."""
    left = left_by({"x": (3.0, 4.0)}, BATCH, {})

    assert [(c.channel, list(c.values)) for c in left.columns] == [("x", [3.0, 4.0]), ("door", [True])]


class Array:
    """What arrays of other libraries have in common."""

    def tolist(self) -> list[float]:
        return [5.0, 6.0]


def test_arrays_and_columns_are_values_too() -> None:
    """A hook may answer an array, or a column that it wrote into."""
    columns = Columns(BATCH)
    columns["x"].values[1] = 7.0

    assert list(left_by({"x": Array()}, BATCH, {}).columns[0].values) == [5.0, 6.0]
    assert list(left_by(columns, BATCH, {}).columns[0].values) == [1.0, 7.0]


class Scalar(float):
    """What scalars of numpy are: a float of another type, that knows how to be a plain one."""

    def item(self) -> float:
        return float(self)


class Number(float):
    """A float of another type."""


class Count(int):
    """An int of another type."""


class Word(str):
    """A text of another type."""


@pytest.mark.parametrize("value", [Scalar(2.5), Number(2.5), Count(3), Word("a")], ids=repr)
def test_values_are_of_plain_types(value: Value) -> None:
    """What watchers are told is written as JSON, which takes no others: one such reading would end all watching."""
    (column, _) = left_by({"x": [value, True]}, BATCH, {}).columns

    assert list(column.values) == [value, True]
    assert [type(v) for v in column.values] == [type(value).__mro__[1], bool]


def test_list_that_a_hook_uses_again_changes_nothing() -> None:
    """What watchers see stays what was stored."""
    mine = [5.0, 6.0]
    left = left_by({"x": mine}, BATCH, {})
    mine[:] = [0.0, 0.0]

    assert list(left.columns[0].values) == [5.0, 6.0]


def test_refused_readings_keep_their_first_reason() -> None:
    """Who refuses first says why."""
    refused: Refused = {}

    left_by({"x": [Reject("one"), 2.0]}, BATCH, refused)
    left_by({"x": Reject("two")}, BATCH, refused)

    assert refused == {"x": {0: "hook: one", 1: "hook: two"}}


@pytest.mark.parametrize(
    "answer",
    [
        True, "x", ["x"], {"x": 5}, {"x": [1.0]}, {"x": "ab"}, {"x": None}, {"y": [1.0]}, {None: [1.0]},
    ],
    ids=repr,
)  # fmt: skip
def test_answers_that_mean_nothing_are_errors(answer: object) -> None:
    """And nothing is refused by half of one."""
    refused: Refused = {}

    with pytest.raises(HookError):
        left_by(answer, BATCH, refused)
    assert refused == {}


def test_reason_is_one_short_line() -> None:
    """It goes to devices, ledgers and logs."""
    assert Reject("too\nfar  off").word() == "hook: too far off"
    assert len(Reject("x" * 500).word()) == len("hook: ") + MAX_REASON_CHARS
    assert Reject(" ").word() == "hook"
    # Half a character, as names of files have them, is in no ack and in no file.
    assert Reject("no \udcff").word() == "hook: no ?"


@pytest.mark.parametrize(
    ("granted", "answer", "left"),
    [
        pytest.param("lab-*/**", True, ["lab-*/*"], id="allow"),
        pytest.param("**", False, [], id="deny"),
        pytest.param("**", Reject("no"), [], id="deny with a reason"),
        pytest.param("**", ["lab-1/**", "*/battery"], ["lab-1/*", "*/battery"], id="narrow"),
        pytest.param("lab-*/**", ["*/battery"], ["lab-*/battery"], id="each part by itself"),
        pytest.param("lab-1/**", ["**"], ["lab-1/*"], id="wider is no more than granted"),
        pytest.param("lab-1/**", ["lab-2", "lab-1/t"], ["lab-1/t"], id="outside is nothing"),
        pytest.param("**", ["$sys/audit"], [], id="no star is $sys"),
        pytest.param("$sys/**", ["**"], [], id="nor the other way"),
        pytest.param("$sys/**", ["$sys/audit"], ["$sys/audit"], id="$sys by name"),
        pytest.param("**", [], [], id="nothing"),
        pytest.param("**", {"lab-1"}, ["lab-1/*"], id="a set"),
    ],
)
def test_answers_narrow_what_is_granted(granted: str, answer: object, left: list[str]) -> None:
    """The result lies in both, whatever the hook says."""
    assert [str(pattern) for pattern in narrowed(answer, parse_pattern(granted))] == left


class Unreadable(list[str]):
    """A list that fails when it is read."""

    def __iter__(self) -> Iterator[str]:
        raise KeyError("lost")


@pytest.mark.parametrize(
    "answer",
    [
        None, 1, "**", ["a/b/c"], [5], ["lab-*"] * 33, {"a": 1}, ["*-7/x"], [("lab-1", "t")], [["lab-1"]], [{}],
        Unreadable(["lab-1"]),
    ],
    ids=repr,
)  # fmt: skip
def test_answers_that_open_by_mistake_are_errors(answer: object) -> None:
    """A forgotten return, a string for a list, a pattern that cannot be cut: nothing is granted."""
    with pytest.raises(HookError):
        narrowed(answer, parse_pattern("lab-*/**"))


def test_hooks_have_names() -> None:
    """Functions, methods, objects: logs say which hook it was."""
    assert name_of(name_of) == "hub.hooks.answer:name_of"
    assert name_of(Array().tolist) == f"{__name__}:Array.tolist"
    assert name_of(Array()) == f"{__name__}:Array"
