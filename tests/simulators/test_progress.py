"""Progress: a bar on a terminal, and no control characters anywhere else."""

import pytest

from simulators.progress import NoProgress, PlainProgress, TerminalProgress, show_progress


def test_without_a_terminal_progress_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    """A log file gets no bar, and nothing at all from work that is over at once."""
    with show_progress("replay", 10) as progress:
        progress.update(10, "done")

    assert isinstance(progress, PlainProgress)
    assert capsys.readouterr().err == ""


def test_plain_line_comes_when_it_is_due(capsys: pytest.CaptureFixture[str]) -> None:
    """A line says how far it is, and the next one waits."""
    progress = PlainProgress("replay", 200, every_s=0.0)

    progress.update(100, "100 rows")

    assert capsys.readouterr().err == "replay: 50 % 100 rows\n"


def test_terminal_bar_opens_and_closes(capsys: pytest.CaptureFixture[str]) -> None:
    """The bar is drawn on stderr, so stdout stays the result."""
    with TerminalProgress("replay", 10) as bar:
        bar.update(5, "5 rows")

    assert capsys.readouterr().out == ""


def test_no_progress_takes_updates() -> None:
    """Library use without a person costs nothing and needs no special case."""
    NoProgress().update(1.0)
