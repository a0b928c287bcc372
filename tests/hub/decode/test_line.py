"""Points of Telegraf and of InfluxDB's clients are readings, none of which takes the place of another."""

from typing import Any

import pytest

from device_sdk.wire import MAX_FRAME_BYTES
from hub.decode.base import TOO_LARGE, DecodeError, Publication
from hub.decode.line import DEVICE_TAGS, MAX_FIELDS, MAX_LINES, Line, LineReader
from hub.decode.naming import Names
from hub.decode.rows import Row
from hub.decode.scope import Scope
from tests.support.foreign_messages import cases, check

S = 1_700_000_000
T0 = S * 10**9


def read(text: str, device: str = "", *, precision: str = "ns", fallback: str = "") -> LineReader:
    """Return the reader of a text that was fed line by line."""
    reader = LineReader(Scope(device), precision, fallback)
    for line in text.split("\n"):
        reader.feed(line)
    reader.end()
    return reader


def places(text: str, device: str = "", fallback: str = "") -> list[tuple[str | None, str]]:
    """Return device and channel of each reading."""
    return [(row.device, row.channel) for row in read(text, device, fallback=fallback).rows.rows]


@pytest.mark.parametrize("tag", DEVICE_TAGS)
def test_tag_names_the_device(tag: str) -> None:
    """The channel is measurement, other tags by name, field; a name is made fit."""
    assert places(f"cpu,cpu=cpu0,{tag}=pi\\ 4 usage_idle=98.1,usage_user=1") == [
        ("pi-4", "cpu.cpu0.usage_idle"), ("pi-4", "cpu.cpu0.usage_user"),
    ]  # fmt: skip


def test_disk_of_telegraf_is_no_device() -> None:
    """It has a tag ``device``, and beside it ``host``, which goes before; cores are told apart by their tag."""
    assert places(
        "disk,device=sda1,fstype=ext4,host=pi,mode=rw,path=/ used=1\ncpu,cpu=cpu0,host=pi i=1\ncpu,cpu=cpu1,host=pi i=1"
    ) == [("pi", "disk.sda1.ext4.rw.-.used"), ("pi", "cpu.cpu0.i"), ("pi", "cpu.cpu1.i")]


def test_without_a_name_measurement_and_tags_are_the_device() -> None:
    """Unless whoever sends it says another one."""
    point = "weather,location=us-midwest,season=summer temperature=82"

    assert places(point) == [("weather-us-midwest-summer", "temperature")]
    assert places(point, fallback="roof") == [("roof", "weather.us-midwest.summer.temperature")]


KEYS_APART = "m,a=x v=1\nm,b=x v=2\nm,a=x v=3"


@pytest.mark.parametrize(
    ("text", "device"),
    [
        (KEYS_APART, ""),
        (KEYS_APART, "pump"),
        (KEYS_APART.replace("m,", "m,host=pi,"), ""),
        ("m,a=x,b=y-z v=1\nm,a=x-y,b=z v=2\nm,a=x,b=y-z v=3", ""),
        ("m,a=x,b=y.z v=1\nm,a=x.y,b=z v=2\nm,a=x,b=y.z v=3", "pump"),
        ("m,a=x v=1\nm-x v=2\nm,a=x v=3", ""),
        ("m-x v=1\nm,a=x v=2\nm-x v=3", ""),
        ("m,a=x v=1\nm x.v=2\nm,a=x v=3", "pump"),
        ("a.b c=1\na b.c=2\na.b c=3", "pump"),
        ("m,a\\ b=x v=1\nm,a\\ =x v=2\nm,a\\ b=x v=3", ""),
        ("m,a=1,b=2 v=1\nm,a\\=1=1,b=2 v=2\nm,a=1,b=2 v=3", "pump"),
    ],
)
def test_points_that_read_alike_are_two_series(text: str, device: str) -> None:
    """What differs in the keys of its tags, or in where a value ends, is another thing; over a restart too."""
    scope, later = Scope(device), Scope(device)
    first, second, again = fed(scope, text)
    stored = {(first[0], ""), (second[0], ""), first, second}
    later.names.know(lambda name, channel: (name, channel) in stored)

    assert (first, first == second) == (again, False)
    assert fed(later, "\n".join(text.split("\n")[1:])) == [second, first]


@pytest.mark.parametrize("device", ["", "pump"])
@pytest.mark.parametrize("text", ["living\\ room", "k/1", "客厅", "Küche", "x" * 200])
def test_name_of_a_series_is_made_of_what_people_read(text: str, device: str) -> None:
    """Where nothing else reads so it is the name of that text, whatever the keys are; the label says the text."""
    scope, names = Scope(device), Names()
    ((found, channel),) = fed(scope, f"m,key={text} v=1")
    said = text.replace("\\", "")

    assert found == (device or names.device(f"m-{said}"))
    assert channel == (names.channel("pump", f"m.{said}.v") if device else "v")
    assert scope.names.label(found, channel) == (names.label("pump", channel) if device else None)


def test_long_keys_are_no_part_of_the_work() -> None:
    """Of 64 KiB; two of them are two series all the same."""
    scope, names = Scope(), Measured()
    scope.names, key = names, "k" * 60_000

    first, second, again = fed(scope, f"m,host=a,{key}1=x v=1\nm,host=a,{key}2=x v=2\nm,host=a,{key}1=x v=3")
    assert (first, first == second, names.longest < 100) == (again, False, True)


def fed(scope: Scope, text: str) -> list[tuple[str, str]]:
    """Return device and channel of each reading of lines."""
    reader = LineReader(scope)
    for line in text.split("\n"):
        reader.feed(line)
    return [(row.device or "", row.channel) for row in reader.rows.rows]


def test_sender_that_is_one_device_is_the_device_of_all() -> None:
    """Its host says nothing; a name that is another's is a part of the channel's, so nothing is stored in its place."""
    assert places("m,host=raspberrypi f=1\nm,device=pump f=1\nm,device=other f=1\nm f=1", "pump") == [
        ("pump", "m.f"), ("pump", "m.f"), ("pump", "m.other.f"), ("pump", "m.f"),
    ]  # fmt: skip


@pytest.mark.parametrize(("precision", "time"), [("ns", T0), ("us", S * 10**6), ("ms", S * 1000), ("s", S)])
def test_times_have_the_precision_that_is_said(precision: str, time: int) -> None:
    """A point without a time has none."""
    assert read(f'm,host=a f=1i,g=t,h="x" {time}\nm,host=a f=2u', precision=precision).rows.rows == [
        Row(1, "a", "m.f", 1, T0), Row(1, "a", "m.g", True, T0), Row(1, "a", "m.h", "x", T0), Row(2, "a", "m.f", 2),
    ]  # fmt: skip


def test_bad_lines_and_values_lose_nothing_else() -> None:
    """Each is named by its line; comments and blank lines are counted and hold nothing."""
    found = read(f"# c\n\nm f=1,g=18446744073709551615u {T0}\nrubbish\nm f=1 5\r\nm f=1e999,g=2\nm f=3\r", "a").rows

    assert [(row.at, row.channel) for row in found.rows] == [(3, "m.f"), (6, "m.g"), (7, "m.f")]
    assert [(fault.at, fault.reason) for fault in found.faults] == [
        (3, "out_of_range"), (4, "malformed"), (5, "time_out_of_range"), (6, "not_finite"),
    ]  # fmt: skip


def test_text_goes_over_lines() -> None:
    """One that has lost its quote takes no other line with it."""
    found = read('m a="one\n two",b=1\nm a="open\nm c=1\nm d="x" \nm e=1', "a").rows

    assert [(row.at, row.channel, row.value) for row in found.rows] == [
        (1, "m.a", "one\n two"), (1, "m.b", 1.0), (4, "m.c", 1.0), (5, "m.d", "x"), (6, "m.e", 1.0),
    ]  # fmt: skip
    assert [fault.at for fault in found.faults] == [3]
    assert [fault.at for fault in read('m a="open\n' * 3 + "m f=1\n" * 60, "a").rows.faults] == [1, 2, 3]
    assert len(read('m a="' + "x" * 5000 + "\n" + "y" * 5000 + "\nm f=1", "a").rows.rows) == 1


def test_point_has_so_many_fields() -> None:
    """One with more is a line that cannot be read, and takes no other with it."""
    wide = "m " + ",".join(f"f{i}=1" for i in range(MAX_FIELDS + 1))
    found = read(f"m f=1\n{wide}\nm f=2", "a").rows

    assert ([row.at for row in found.rows], [fault.at for fault in found.faults]) == ([1, 3], [2])


@pytest.mark.parametrize(("sign", "what"), [(" ", "fields"), (",", "tags")])
def test_point_with_more_is_read_no_further(sign: str, what: str) -> None:
    """It is line protocol all the same, whatever stands behind; the reason says what is too many, and where."""
    wide = f"# many\nm{sign}" + ",".join(f"f{i}=1" for i in range(MAX_FIELDS + 1)) + "?"
    with pytest.raises(DecodeError, match=f"line 2: more than {MAX_FIELDS} {what} in one point"):
        Line(Scope("a")).decode(Publication("t", wide.encode()))


def test_lines_of_more_than_a_frame_are_not_read() -> None:
    """No reading of them could be stored; the first says that they are lines."""
    payload = b"m f=1\nm f=2" + b" " * MAX_FRAME_BYTES
    with pytest.raises(DecodeError, match=TOO_LARGE):
        next(Line(Scope("a")).reading(Publication("t", payload)))


def test_long_names_are_cut_and_stay_apart() -> None:
    """What is made into a name for each field is short; a hash of all keeps two series two, always the same."""
    tail = "x" * 5000
    found = read(f"m,host=a,t={tail}1 f=1,g=2\nm,host=a,t={tail}2 f=3\nm,host=a,t={tail}1 f=4", "").rows
    (first, _, second, again), names = found.rows, {row.channel for row in found.rows}

    assert (len(names), first.channel, first.device) == (3, again.channel, "a")
    assert second.channel != first.channel
    assert all(len(name) <= 128 for name in names)


def test_work_of_a_point_does_not_grow_by_name_times_fields() -> None:
    """A line of 64 KiB that is one name and a thousand fields took more than a second of the loop."""
    scope, names = Scope(), Measured()
    scope.names = names
    reader = LineReader(scope)
    reader.feed("m" * 55_000 + ",host=a " + ",".join(f"f{i}=1" for i in range(1000)))

    assert (len(reader.rows.rows), names.longest < 600) == (1000, True)


class Measured(Names):
    """Names that note the longest text that one was made of."""

    longest = 0

    def channel(self, device: str, text: str, like: str = "") -> str:
        """Return the name of a channel."""
        self.longest = max(self.longest, len(text))
        return super().channel(device, text, like)


def test_rows_are_taken_block_by_block() -> None:
    """Line numbers go on, an open text too; a line that is no text is counted."""
    reader = LineReader(Scope("a"))
    reader.feed("m f=1")
    reader.feed('m t="x')
    assert [row.at for row in reader.take_rows().rows] == [1]
    reader.feed('y"')
    reader.refuse("it is not UTF-8")
    reader.feed("m f=2")

    rows = reader.take_rows()
    assert [(row.at, row.value) for row in rows.rows] == [(2, "x\ny"), (5, 2.0)]
    assert [fault.at for fault in rows.faults] == [4]


@pytest.mark.parametrize(
    "payload", [b"", b"21.5", b"ON", b'{"a":"b=c"}', b'["a=1"]', b"a = b", b"\xff=1", b"# m f=1", b"m f=x"]
)
def test_other_messages_are_left_to_others(payload: bytes) -> None:
    """What is no point in its first line is of another kind."""
    assert Line(Scope()).decode(Publication("t", payload)) is None


def test_message_of_points_is_read() -> None:
    """By device, in order."""
    decoded = Line(Scope()).decode(Publication("telegraf/pi/cpu", b"\ncpu,host=pi a=1 \ncpu,host=nas a=2,b=3\n"))

    assert decoded is not None
    assert [(said.device, [r.channel for r in said.readings]) for said in decoded.said] == [
        ("pi", ["cpu.a"]), ("nas", ["cpu.a", "cpu.b"]),
    ]  # fmt: skip


def test_message_with_a_bad_line_is_put_aside_as_a_whole() -> None:
    """Nothing of it is lost: the quarantine has it, and the line's number."""
    with pytest.raises(DecodeError, match="line 2: "):
        Line(Scope("a")).decode(Publication("t", b"m f=1\nrubbish"))
    with pytest.raises(DecodeError, match="5001 lines"):
        Line(Scope("a")).decode(Publication("t", b"m f=1\n" * MAX_LINES))


@pytest.mark.parametrize("case", cases("line"))
def test_message_is_read(case: dict[str, Any]) -> None:
    """Each message of tests/vectors/decode/line.json says what stands there."""
    check(case)
