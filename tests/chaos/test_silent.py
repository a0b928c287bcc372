"""Peers that begin and never go on hold nothing for long."""

from pathlib import Path

import pytest

from tests.chaos.silent import CONNECTIONS, run_silent


@pytest.mark.timeout(90)
def test_silent_connections_are_ended(tmp_path: Path) -> None:
    """500 half handshakes and 500 silent connections: gone in 15 s, memory and file handles back, others served."""
    silence = run_silent(tmp_path, CONNECTIONS)
    print(silence)

    assert silence.faults == []
