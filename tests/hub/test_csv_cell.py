"""`hub.csv_cell`: no cell is a formula, and what was written is read again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.csv_cell import as_meant, defused


@pytest.mark.parametrize("sign", list("=+-@\t\r"))
def test_what_begins_like_a_formula_is_text(sign: str) -> None:
    """Also when it looks as if it had been written before."""
    assert defused(f"{sign}1+1") == f"'{sign}1+1"
    assert defused(f"'{sign}1+1") == f"''{sign}1+1"


@given(text=st.text(st.sampled_from("'=+-@\t\ra 1"), max_size=6))
def test_it_comes_back_as_it_was(text: str) -> None:
    """Any text, and no cell begins a formula."""
    assert as_meant(defused(text)) == text
    assert not defused(text).startswith(tuple("=+-@\t\r"))


@pytest.mark.parametrize("cell", ["", "'", "'tis", "a=b", "Küche"])
def test_other_cells_are_as_they_are(cell: str) -> None:
    """Nothing is added to what no spreadsheet takes for a formula, and nothing is taken away."""
    assert defused(cell) == as_meant(cell) == cell
