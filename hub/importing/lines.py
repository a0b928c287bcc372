"""A text file as lines, in bounded memory, whatever is in it.

Owns: line numbers, how far the file is read, lines that are none. Place: before the readers of text.
"""

import codecs
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from hub.importing.row import Refused, quoted

# The longest reading is a text of 1 KiB; a row of a table may hold some hundred.
MAX_LINE_BYTES = 1024 * 1024


class Lines:
    """Iterates over the lines of a file, with their ends.

    A line that is too long or no UTF-8 is handed on as an empty one, and is in `take_faults`.

    Args:
        limit: read so many bytes at most: what is appended meanwhile belongs to no digest.

    ``number``: of the line handed on last, from 1. ``position``: bytes read. ``taken``: the lines handed on since
    `mark`, for a reader that finds out too late that they do not belong together: it gives them back.
    """

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self.number = 0
        self.position = 0
        self.taken: list[str] = []
        self._file = file
        self._limit = limit
        self._again: deque[str] = deque()
        self._faults: list[Refused] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """Return the next line."""
        line = self._again.popleft() if self._again else self._read()
        self.number += 1
        self.taken.append(line)
        return line

    def mark(self) -> None:
        """Begin ``taken`` anew."""
        self.taken = []

    def give_back(self, count: int) -> None:
        """Hand on the last ``count`` lines of ``taken`` once more."""
        back = self.taken[len(self.taken) - count :]
        self._again.extendleft(reversed(back))
        del self.taken[len(self.taken) - count :]
        self.number -= count

    @property
    def has_faults(self) -> bool:
        """Whether a line could not be read since `take_faults`."""
        return bool(self._faults)

    def take_faults(self) -> list[Refused]:
        """Return and forget which lines could not be read."""
        faults, self._faults = self._faults, []
        return faults

    def _read(self) -> str:
        number = self.number + 1
        line = self._file.readline(min(MAX_LINE_BYTES, self._limit - self.position))
        if not line:
            raise StopIteration
        is_first = self.position == 0
        self.position += len(line)
        if not line.endswith(b"\n") and len(line) == MAX_LINE_BYTES:
            self._skip_to_end()
            self._faults.append(Refused(number, f"a line of more than {MAX_LINE_BYTES} bytes"))
            return ""
        if is_first:
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            return line.decode()
        except UnicodeDecodeError:
            self._faults.append(Refused(number, "it is not UTF-8", quoted(line.decode(errors="replace"))))
            return ""

    def _skip_to_end(self) -> None:
        while True:
            rest = self._file.readline(min(MAX_LINE_BYTES, self._limit - self.position))
            self.position += len(rest)
            if not rest or rest.endswith(b"\n"):
                return
