"""Text in a cell of a CSV file that a spreadsheet may open: never a formula.

Owns: how such text is written and read again. Place: leftmost, beside `errors`. Pure.

What begins like a formula gets a ``'`` in front, which spreadsheets take for "this is text"; so does what has such a
``'`` already. Reading takes one away: what was written comes back as it was.
"""

import re

# Signs that begin a formula, and the white space that some spreadsheets drop in front of one.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def defused(text: str) -> str:
    """Return text as it is written to a cell."""
    return f"'{text}" if _FORMULA.match(text) else text


def as_meant(cell: str) -> str:
    """Return the text of a cell that `defused` wrote; any other as it is."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
