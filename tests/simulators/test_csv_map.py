"""Maps: which column is which channel, and every way to write that wrongly."""

from pathlib import Path

import pytest

from device_sdk.reading import Value
from simulators.csv_map import ColumnMap, ColumnType, MapError, guess_map, load_map, parse_value, slug

HEADER = ["date", "T1", "RH 1", "door"]
GOOD = """
time = "date"
[[column]]
name = "T1"
device = "kitchen"
channel = "temperature"
unit = "Cel"
[[column]]
name = "door"
device = "kitchen"
channel = "door"
type = "bool"
"""


def write(tmp_path: Path, text: str) -> Path:
    """Write a map and return its path."""
    path = tmp_path / "map.toml"
    path.write_text(text)
    return path


def test_map_names_devices_channels_units(tmp_path: Path) -> None:
    """Columns that are not named are left out."""
    csv_map = load_map(write(tmp_path, GOOD), HEADER)

    assert csv_map.time == "date"
    assert csv_map.columns == (
        ColumnMap("T1", "kitchen", "temperature", "Cel", "float"),
        ColumnMap("door", "kitchen", "door", None, "bool"),
    )
    assert csv_map.devices == ["kitchen"]


def test_map_may_name_a_time_that_nobody_would_guess(tmp_path: Path) -> None:
    """The header is searched only when the map says nothing."""
    text = GOOD.replace('"date"', '"when"')

    assert load_map(write(tmp_path, text), ["when", "T1", "door"]).time == "when"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(("T1", "T9"), "no column 'T9'; it has: date, T1, RH 1, door", id="unknown column"),
        pytest.param(('device = "kitchen"', 'device = "my kitchen"'), "no device name", id="device name"),
        pytest.param(('channel = "temperature"', 'channel = "°C"'), "no channel name", id="channel name"),
        pytest.param(('channel = "temperature"', 'channel = "door"'), "mapped twice", id="two columns, one channel"),
        pytest.param(("unit", "units"), "units: not known", id="unknown key"),
        pytest.param(("time =", "clock ="), "clock: not known", id="unknown table"),
        pytest.param(('"bool"', '"boolean"'), "type 'boolean'; use float, int, bool, str", id="type"),
        pytest.param(('device = "kitchen"\n', ""), "number 1 needs name, device and channel", id="missing key"),
        pytest.param(("[[column]]", "[[column]"), "map.toml", id="syntax"),
        pytest.param((GOOD, 'time = "date"'), "no .*column", id="no columns"),
    ],
)
def test_wrong_map_says_what_it_may_be(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    """The message names the entry and the choice."""
    with pytest.raises(MapError, match=says):
        load_map(write(tmp_path, GOOD.replace(change[0], change[1], 1)), HEADER)


def test_guessed_map_makes_channels_of_all_columns() -> None:
    """Without a map every column but the time is a channel of one device, with a valid name."""
    csv_map = guess_map(HEADER, "logger")

    assert csv_map.time == "date"
    assert [(c.device, c.channel) for c in csv_map.columns] == [
        ("logger", "T1"), ("logger", "RH-1"), ("logger", "door"),
    ]  # fmt: skip


def test_guess_without_a_time_asks_for_it() -> None:
    """A file without a column named like a time needs to be told."""
    with pytest.raises(MapError, match="--time COLUMN"):
        guess_map(["a", "b"], "logger")


@pytest.mark.parametrize(
    ("text", "type_", "expected"),
    [
        ("  50", "float", 50.0),
        (" 6.433333333333330017", "float", 6.43333333333333),
        ("19.890000000000001", "float", 19.89),
        (" 6.2500000000000000e+00", "float", 6.25),
        ("-7", "int", -7),
        ("9007199254740993", "int", 9_007_199_254_740_993),
        ("Yes", "bool", True),
        ("0", "bool", False),
        (" idle ", "str", "idle"),
        ("", "float", None),
        ("  ", "int", None),
        ("NaN", "float", None),
        ("null", "str", None),
    ],
)
def test_value_is_trimmed_and_typed(text: str, type_: ColumnType, expected: Value | None) -> None:
    """Padding goes, blanks are no value, numbers are exact."""
    value = parse_value(text, type_)

    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(("text", "type_"), [("1_000", "float"), ("inf", "float"), ("1.5", "int"), ("maybe", "bool")])
def test_other_text_is_no_value(text: str, type_: ColumnType) -> None:
    """What is not plainly a value of the type is refused, not read somehow."""
    with pytest.raises(ValueError, match=r"number|base 10|true"):
        parse_value(text, type_)


@pytest.mark.parametrize(("name", "expected"), [("T out (°C)", "T-out-C"), ("___", "value"), ("a/b", "a-b")])
def test_slug_is_a_channel_name(name: str, expected: str) -> None:
    """Any header becomes a valid name."""
    assert slug(name) == expected


class Counted(str):
    """A name that counts how often it is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_map_of_many_columns_is_made_in_one_pass() -> None:
    """Not each name against each other: 100,000 columns took two minutes."""
    header = [Counted("time"), *(Counted(f"c{at}") for at in range(1000))]

    made = guess_map(header, "d")

    assert len(made.columns) == 1000
    assert Counted.compared < 10_000
