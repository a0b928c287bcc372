"""Which options mean what for which file, without a hub."""

from pathlib import Path

import pytest

from hub.cli.exit_code import CliError
from hub.cli.import_plan import FileFormat, Precision, Reading, make_plan
from hub.importing.row import Item, Refused, Row

T0 = 1_704_067_200 * 10**9


def items(path: Path, how: Reading) -> list[Item]:
    """Return what a file holds."""
    plan = make_plan(path, how)
    with plan.open(path.stat().st_size) as source:
        return list(source.items)


@pytest.mark.parametrize(
    ("name", "text", "how"),
    [
        ("a.csv", "time,c\n2024-01-01 01:00:00,1\n", Reading(device="d", tz="+01:00")),
        ("d.tsv", "when\tc\n2024-01-01 00:00:00\t1\n", Reading(time="when", tz="UTC")),
        ("a.csv", "time,who,c\n1704067200,d,1\n", Reading(device_column="who")),
        ("a.txt", "device;channel;time;value\nd;c;1704067200000;1\n", Reading(format=FileFormat.CSV)),
        ("a.csv", "time;c\n1704067200;1,0\n", Reading(device="d", decimal_comma=True)),
        ("a.jsonl", '{"device":"d","channel":"c","time":1704067200,"value":1.0}\n', Reading()),
        ("a.lp", "m,host=d c=1 1704067200\n", Reading(channel="{field}", precision=Precision.S)),
        ("a.lp", "c,room=d value=1 1704067200000000000\n", Reading(device="{room}", channel="{measurement}")),
    ],
)
def test_options_say_how_a_file_is_read(tmp_path: Path, name: str, text: str, how: Reading) -> None:
    """The same reading, in every way that it may be written."""
    path = tmp_path / name
    path.write_text(text)

    (item,) = items(path, how)

    assert isinstance(item, Row)
    assert (item.device, item.channel, item.time_ns, item.value) == ("d", "c", T0, 1.0)


def test_what_decides_the_readings_is_in_the_name_of_the_import(tmp_path: Path) -> None:
    """Another zone, device, column or precision is another import."""
    path = tmp_path / "a.csv"
    path.write_text("time,when,c\n1,2,3\n")
    (tmp_path / "a.lp").touch()
    hows = [Reading(), Reading(tz="UTC"), Reading(device="x"), Reading(time="when"), Reading(device_column="c")]
    hows.append(Reading(decimal_comma=True))

    said = [str(make_plan(path, how).said) for how in hows]
    said += [str(make_plan(tmp_path / "a.lp", how).said) for how in (Reading(), Reading(precision=Precision.S))]

    assert len(set(said)) == len(said)


def test_export_that_a_spreadsheet_saved_again_is_asked_about(tmp_path: Path) -> None:
    """Its numbers have commas then; a hub's own export has texts that look the same."""
    own, saved = tmp_path / "own.csv", tmp_path / "saved.csv"
    header = ["device", "channel", "time", "time_unix_ms", "value", "unit"]
    own.write_text(",".join(header) + f'\nd,c,{T0},0,"20,5",\n')
    saved.write_text(";".join(header) + f"\nd;c;{T0};0;20,5;\n")

    (text,) = items(own, Reading())
    (asked,) = items(saved, Reading())
    (number,) = items(saved, Reading(decimal_comma=True))

    assert isinstance(asked, Refused)
    assert isinstance(text, Row)
    assert isinstance(number, Row)
    assert (text.value, number.value) == ("20,5", 20.5)


def test_map_knows_the_decimal_comma(tmp_path: Path) -> None:
    """Of its numbers, not of its texts."""
    path, columns = tmp_path / "a.csv", tmp_path / "map.toml"
    path.write_text("time;a;b\n1704067200;-20,5;1,5\n")
    columns.write_text(
        "".join(
            f'[[column]]\nname = "{name}"\ndevice = "d"\nchannel = "{name}"\ntype = "{type_}"\n'
            for name, type_ in (("a", "float"), ("b", "str"))
        )
    )

    found = items(path, Reading(map=columns, decimal_comma=True))

    assert [item.value for item in found if isinstance(item, Row)] == [-20.5, "1,5"]


def test_format_that_nobody_knows_is_asked_for(tmp_path: Path) -> None:
    """The end of the name says it, or an option."""
    with pytest.raises(CliError, match="--format"):
        make_plan(tmp_path / "a.dat", Reading())
