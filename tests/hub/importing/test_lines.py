"""Lines of any file: counted, bounded, readable."""

from io import BytesIO

from hub.importing.lines import MAX_LINE_BYTES, Lines
from hub.importing.row import Refused


def test_lines_that_are_none_are_empty_and_said() -> None:
    """Too long or no UTF-8: the others keep their numbers; a mark of byte order and other ends of lines are no text."""
    data = b"\xef\xbb\xbfone\r\n" + b"x" * (2 * MAX_LINE_BYTES + 5) + b"\n\xff\xfe\nfour"

    lines = Lines(BytesIO(data), len(data))

    assert list(lines) == ["one\r\n", "", "", "four"]
    assert lines.take_faults() == [
        Refused(2, "a line of more than 1048576 bytes"), Refused(3, "it is not UTF-8", "\ufffd\ufffd"),
    ]  # fmt: skip
    assert lines.take_faults() == []
    assert (lines.number, lines.position) == (4, len(data))


def test_what_is_appended_later_is_not_read() -> None:
    """A digest is of so many bytes; the next import has another one."""
    lines = Lines(BytesIO(b"one\ntwo\nthree\n"), 8)

    assert list(lines) == ["one\n", "two\n"]


def test_lines_are_given_back_in_their_order() -> None:
    """A reader that took too many gets them again, with their numbers, and then those behind them."""
    lines = Lines(BytesIO(b"1\n2\n3\n4\n"), 8)
    for _ in range(3):
        next(lines)

    lines.give_back(2)

    assert (lines.number, lines.taken) == (1, ["1\n"])
    assert list(lines) == ["2\n", "3\n", "4\n"]
