"""Generated reference pages say what the code says today."""

import pytest

from docs.generate import FILES, REFERENCE


@pytest.mark.parametrize("name", sorted(FILES))
def test_reference_page_is_up_to_date(name: str) -> None:
    """Run ``python -m docs.generate`` when this fails."""
    assert (REFERENCE / name).read_text(encoding="utf-8") == FILES[name]()
