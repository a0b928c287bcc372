"""Files of readings: their names, which of them stand, and thinned copies."""

import errno
from pathlib import Path

import pytest

from device_sdk.outbox import Entry
from device_sdk.reading_file import FileName, Segment, Thinned, choose_standing, list_files, rewrite
from device_sdk.segment import ReadingDecoder, Scan, encode_header, encode_reading, encode_record, seed_of

T = 1_795_376_000_000_000_000
OLD, NEXT = FileName(0), FileName(100)
ONCE, TWICE = FileName(0, 200, 1), FileName(0, 400, 2)


def write(
    directory: Path, base: int, entries: list[Entry], *, future: tuple[int, ...] = (), tail: bytes = b""
) -> Segment:
    """Write a file of readings; ``future``: places of those that were beyond now; ``tail``: a payload at its end."""
    seed = seed_of(base)
    data = encode_header(seed, T - 1)
    for at, (channel, time_ns, value) in enumerate(entries):
        data += encode_reading(seed, channel.encode(), time_ns, value, at in future)
    if tail:
        data += encode_record(seed, tail)
    path = FileName(base).path_in(directory)
    path.write_bytes(data)
    return Segment(path, base, base + len(data), len(entries))


def thin(directory: Path, *sources: Segment) -> Thinned:
    made = rewrite(directory, sources, lambda fd: None)
    assert made is not None
    return made


def read(segment: Segment) -> tuple[list[Entry], ReadingDecoder]:
    decoder = ReadingDecoder()
    scan = Scan(segment.path.read_bytes(), segment.seed)
    entries = [entry for payload, _ in scan if (entry := decoder.decode(payload)) is not None]
    assert scan.damaged == 0
    return entries, decoder


def test_names_say_where_a_file_lies_and_how_often_it_was_thinned(tmp_path: Path) -> None:
    """They sort by position; foreign names are left alone."""
    for name in (TWICE, NEXT, OLD):
        name.path_in(tmp_path).write_text("")
    (tmp_path / "readings-1-2.log").write_text("mine")
    (tmp_path / "readings-x-2-3.log").write_text("mine")

    assert [name for _, name in list_files(tmp_path)] == [TWICE, OLD, NEXT]
    assert TWICE.path_in(tmp_path).name == "readings-00000000000000000000-00000000000000000400-2.log"


@pytest.mark.parametrize(
    ("there", "known", "standing"),
    [
        ([OLD, NEXT], [], [OLD, NEXT]),
        ([OLD, NEXT, ONCE], [], [OLD, NEXT]),
        ([OLD, NEXT, ONCE], [ONCE], [ONCE]),
        ([NEXT, ONCE], [ONCE], [ONCE]),
        ([ONCE], [], [ONCE]),
        ([ONCE, TWICE, FileName(400)], [TWICE], [TWICE, FileName(400)]),
        ([ONCE, TWICE, FileName(400)], [ONCE], [ONCE, FileName(400)]),
        ([OLD, NEXT], [ONCE], [OLD, NEXT]),
    ],
    ids=[
        "as recorded",
        "killed before",
        "killed after",
        "killed while deleting",
        "state lost",
        "twice",
        "once",
        "gone",
    ],
)
def test_either_a_thinned_file_stands_or_what_it_was_made_of(
    there: list[FileName], known: list[FileName], standing: list[FileName]
) -> None:
    """At every instant of the change, exactly one of the two."""
    assert choose_standing(there, known) == set(standing)


def test_rewrite_joins_files_and_leaves_every_second_reading_out(tmp_path: Path) -> None:
    """The copy stands for both ranges of positions; the readings keep time, type and order."""
    first = write(tmp_path, 0, [("t", T + n, float(n)) for n in range(5)])
    second = write(tmp_path, first.end, [("door", T + 5, True), ("state", T + 6, "öpen"), ("t", T + 7, 7)])

    made = thin(tmp_path, first, second)

    entries, decoder = read(made.segment)
    assert entries == [
        ("t", T + 1, 1.0), ("t", T + 3, 3.0), ("door", T + 5, True), ("state", T + 6, "öpen"), ("t", T + 7, 7),
    ]  # fmt: skip
    assert made.dropped == [("t", T, 0.0), ("t", T + 2, 2.0), ("t", T + 4, 4.0)]
    assert (made.segment.base, made.segment.end, made.segment.level, made.segment.left) == (0, second.end, 1, 5)
    assert made.segment.size == made.segment.path.stat().st_size
    assert (made.segment.first_ns, made.missing, decoder.last_ns) == (T + 1, 0, T + 7)


def test_rewrite_remembers_the_last_instant_and_what_was_in_the_future(tmp_path: Path) -> None:
    """No instant is given twice after a restart, and a wrong date does not count as one."""
    source = write(tmp_path, 0, [("t", T + 10**18, 1.0), ("u", T + 9, 1.0), ("u", T + 5, 2.0)], future=(0,))

    _, decoder = read(thin(tmp_path, source).segment)

    assert decoder.last_ns == T + 9


def test_rewrite_keeps_given_times_marked(tmp_path: Path) -> None:
    """Readings with ``time=`` stay in order among themselves, thinned or not."""
    source = write(tmp_path, 0, [("t", T + n, 1.0) for n in range(4)])
    source.given_to = source.end

    made = thin(tmp_path, source)

    assert made.segment.given_to == made.segment.end
    assert read(made.segment)[1].is_explicit


def test_rewrite_keeps_records_of_a_later_version(tmp_path: Path) -> None:
    """What this SDK does not know it does not throw away."""
    source = write(tmp_path, 0, [("t", T + n, 1.0) for n in range(4)], tail=b"\xf0later")

    made = thin(tmp_path, source)

    payloads = [payload for payload, _ in Scan(made.segment.path.read_bytes(), made.segment.seed)]
    assert payloads[-1] == b"\xf0later"
    assert len(payloads) == 1 + 2 + 1


def test_rewrite_counts_what_it_cannot_read(tmp_path: Path) -> None:
    """A damaged reading is neither kept nor said to be left out."""
    source = write(tmp_path, 0, [("t", T + n, 1.0) for n in range(6)])
    data = bytearray(source.path.read_bytes())
    data[60] ^= 0xFF
    source.path.write_bytes(data)

    made = thin(tmp_path, source)

    assert (made.missing, len(made.dropped), made.segment.left) == (1, 2, 3)


def test_rewrite_of_single_readings_is_nothing(tmp_path: Path) -> None:
    """One reading of each channel is the least there can be."""
    source = write(tmp_path, 0, [("t", T, 1.0), ("u", T, 1.0)])

    assert rewrite(tmp_path, [source], lambda fd: None) is None
    assert list(tmp_path.iterdir()) == [source.path]


def test_rewrite_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """Not even a file that was written but is not durable; the next attempt begins anew."""
    source = write(tmp_path, 0, [("t", T + n, 1.0) for n in range(4)])

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input"):
        rewrite(tmp_path, [source], fail)

    assert list(tmp_path.iterdir()) == [source.path]
    assert thin(tmp_path, source).segment.left == 2
