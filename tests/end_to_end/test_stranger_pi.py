"""A stranger's Raspberry Pi gets from a claim code to readings, and the how-to page shows what it printed."""

import shutil

import pytest

from tests.end_to_end.stranger_pi import PAGE, page_with, run_stranger


@pytest.mark.privileged
@pytest.mark.timeout(300)
def test_a_stranger_gets_from_a_code_to_readings() -> None:
    """In a namespace with only Python and the SDK's wheel; the page holds that very transcript, secrets replaced.

    Run ``python -m tests.end_to_end.stranger_pi --write`` when only the page differs.
    """
    if shutil.which("ip") is None:
        pytest.skip("needs ip, for a network namespace")

    transcript = run_stranger()

    assert PAGE.read_text(encoding="utf-8") == page_with(transcript)
