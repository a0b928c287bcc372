"""Which reader reads a file, and by which name its import is known."""

import os
from pathlib import Path

import pytest

from hub.errors import BadRequestError
from hub.importing.row import Row
from hub.importing.source import has_changed, import_id, open_csv, read_header
from hub.importing.table import exact_value, exported_layout

T0 = 1_700_000_000 * 10**9


def test_name_is_of_content_and_options(tmp_path: Path) -> None:
    """Not of the file's own name: a copy is the same import; another content, or another reading of it, is not."""
    one, copy, other = (tmp_path / name for name in ("one", "copy", "other"))
    one.write_bytes(b"a" * 3_000_000)
    copy.write_bytes(b"a" * 3_000_000)
    other.write_bytes(b"a" * 3_000_001)
    told: list[int] = []

    ids = [import_id(path, {"tz": tz}, told.append)[0] for path, tz in ((one, 1), (copy, 1), (one, 2), (other, 1))]

    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert len(ids[0]) == 32
    assert told[2] == 3_000_000


def test_file_that_is_written_over_has_changed(tmp_path: Path) -> None:
    """Cut short, edited, replaced or removed; what is appended is not read."""
    path, other = tmp_path / "x", tmp_path / "y"
    path.write_bytes(b"abc")
    before = path.stat()
    assert not has_changed(path, before)
    path.write_bytes(b"abcd")
    assert not has_changed(path, before)
    path.write_bytes(b"ab")
    assert has_changed(path, before)
    path.write_bytes(b"abd")
    os.utime(path, ns=(0, before.st_mtime_ns + 1))
    assert has_changed(path, before)
    other.write_bytes(b"abcdef")
    other.replace(path)
    assert has_changed(path, before)
    path.unlink()
    assert has_changed(path, before)


@pytest.mark.parametrize(("header", "delimiter"), [("time;a,b;c", ";"), ("time,a", ","), ("\ufefftime\ta", "\t")])
def test_delimiter_is_found_in_the_header(tmp_path: Path, header: str, delimiter: str) -> None:
    """The one it has most of."""
    path = tmp_path / "x.csv"
    path.write_text(f"{header}\n1\n")

    names, found = read_header(path)

    assert (names[0], found) == ("time", delimiter)


def test_file_without_a_header_is_said(tmp_path: Path) -> None:
    """Nothing can be guessed of an empty file."""
    path = tmp_path / "x.csv"
    path.touch()

    with pytest.raises(BadRequestError, match="columns"):
        read_header(path)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("time,température\n".encode("latin-1"), "UTF-8"), ("time,a\n".encode("utf-16"), "UTF-8"),
        (b"time,a\r1,2\r", "CR LF"), (b"x," * 600_000, "1048576 bytes"),
    ],
    ids=["latin-1", "utf-16", "cr alone", "too long"],
)  # fmt: skip
def test_header_that_cannot_be_read_says_why(tmp_path: Path, content: bytes, word: str) -> None:
    """Not that there is none, and no traceback."""
    path = tmp_path / "x.csv"
    path.write_bytes(content)

    with pytest.raises(BadRequestError, match=rf"x\.csv: line 1: .*{word}"):
        read_header(path)


@pytest.mark.parametrize("delimiter", ["", ";;", '"', "\n"])
def test_delimiter_is_one_character(tmp_path: Path, delimiter: str) -> None:
    """Anything else is said."""
    path = tmp_path / "x.csv"
    path.write_text("time,a\n")

    with pytest.raises(BadRequestError, match="one character"):
        read_header(path, delimiter)


def test_csv_is_read_behind_its_header(tmp_path: Path) -> None:
    """Up to the size that the name is of, with how far that is."""
    path = tmp_path / "x.csv"
    header = "device,channel,time,time_unix_ms,value,unit"
    path.write_text(f"{header}\nd,c,{T0},0,{exact_value('7')},\nd,c,{T0 + 1},0,8,\n")
    layout = exported_layout(header.split(","))
    assert layout is not None

    with open_csv(path, path.stat().st_size - 10, layout, int, header.split(","), ",") as source:
        first = next(source.items)

        assert first == Row(2, "d", "c", T0, 7)
        assert 0 < source.position() < source.total == path.stat().st_size - 10
