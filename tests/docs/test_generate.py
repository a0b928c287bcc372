"""Generated reference pages say what the code says today."""

from pathlib import Path

import pytest

from docs.generate import FILES


@pytest.mark.parametrize("path", sorted(FILES), ids=lambda path: path.name)
def test_generated_page_is_up_to_date(path: Path) -> None:
    """Run ``python -m docs.generate`` when this fails."""
    assert path.read_text(encoding="utf-8") == FILES[path]()
