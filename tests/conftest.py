"""What every test runs under: marks by folder, no silent skips in CI, and what `privileged` needs.

`CI=true` turns each skip into a failure: there, everything that tests need is installed, so a skip hides something.
pytest-randomly prints the seed of the order and of `random` in the header; `-p no:randomly` or `-p randomly
--randomly-seed=N` repeats a run.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

IS_CI = os.environ.get("CI", "").lower() == "true"
_HERE = Path(__file__).parent
_MARK_OF_FOLDER = {"end_to_end": "end_to_end", "browser": "browser", "chaos": "chaos", "bench": "bench"}

# A slow machine must not turn a property into a failure; the failing example is printed so that it can be pasted.
hypothesis.settings.register_profile("ours", deadline=None, print_blob=True)
hypothesis.settings.load_profile("ours")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the folder they lie in, and skip what needs root when there is none."""
    for item in items:
        mark = _MARK_OF_FOLDER.get(item.path.relative_to(_HERE).parts[0])
        if mark is not None:
            item.add_marker(mark)
        if item.get_closest_marker("privileged") is not None and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root; run `sudo make test`"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test into a failed one in CI."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a skipped module into a failed one in CI."""
    report = yield
    _refuse_skip(report)
    return report


def _refuse_skip(report: Any) -> None:
    if IS_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {reason}"
