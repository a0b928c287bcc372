"""What became of a file: readings read, stored, there already, refused.

Owns: the counts and the refused lines. Place: after `row`. Pure but for the file of refusals.
"""

import csv
from dataclasses import dataclass, field
from typing import TextIO

from hub.csv_cell import defused
from hub.importing.row import Refused

# Shown; the others are counted, and in the file of refusals if one was asked for.
MOST_SHOWN = 20
REFUSED_COLUMNS = ("file", "line", "reason", "text")


def begin_refused(out: TextIO) -> None:
    """Write the header of a CSV file of refused lines."""
    csv.writer(out, lineterminator="\n").writerow(REFUSED_COLUMNS)


@dataclass(slots=True)
class Report:
    """The counts of one file.

    ``read = stored + already + refused`` at the end; ``blank`` are places without a reading. ``already``: stored by an
    earlier run; ``refused_before``: those that an earlier run, or an answer that was lost, could have named.
    ``is_changed``: the file was written while it was read, so it may hold other readings than were read.
    ``units``: by channel the unit that it has, and the other one that the file says; as many as are shown.
    """

    read: int = 0
    stored: int = 0
    already: int = 0
    refused: int = 0
    refused_before: int = 0
    blank: int = 0
    shown: list[Refused] = field(default_factory=list)
    is_changed: bool = False
    units: dict[str, tuple[str, str]] = field(default_factory=dict)
    _out: TextIO | None = None
    _name: str = ""

    def write_to(self, out: TextIO, name: str) -> None:
        """Write every refused line to an open CSV file as well, with the name of the file that it is of."""
        self._out, self._name = out, name

    def keep_unit(self, channel: str, unit: str, told: str) -> None:
        """Note that a channel keeps its unit, while there is room."""
        if len(self.units) < MOST_SHOWN:
            self.units[channel] = (unit, told)

    def refuse(self, refused: Refused) -> None:
        """Count what is refused, and keep it while there is room."""
        self.refused += 1
        if len(self.shown) < MOST_SHOWN:
            self.shown.append(refused)
        if self._out is not None:
            row = (defused(self._name), refused.line, defused(refused.reason), defused(refused.text))
            csv.writer(self._out, lineterminator="\n").writerow(row)
