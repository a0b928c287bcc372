"""Refused lines are counted, some shown, all written."""

import io

from hub.importing.report import MOST_SHOWN, Report, begin_refused
from hub.importing.row import Refused


def test_a_few_are_kept_and_all_are_written() -> None:
    """Memory is bounded; a cell that a spreadsheet would run is defused."""
    report, out = Report(), io.StringIO()
    begin_refused(out)
    report.write_to(out, "log.csv")

    for line in range(1, 1001):
        report.refuse(Refused(line, "no time", "=cmd()"))

    assert (report.refused, len(report.shown)) == (1000, MOST_SHOWN)
    lines = out.getvalue().splitlines()
    assert (len(lines), lines[0], lines[1000]) == (
        1001, "file,line,reason,text", "log.csv,1000,no time,'=cmd()",
    )  # fmt: skip
