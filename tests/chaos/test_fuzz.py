"""Hostile frames crash nothing, fill nothing and slow nobody down; `python -m tests.fuzz` is the same by hand."""

from pathlib import Path

import pytest

from tests.fuzz.mqtt import fuzz
from tests.fuzz.run import run_fuzz
from tests.fuzz.script import make_script


@pytest.mark.timeout(120)
def test_fuzz(tmp_path: Path) -> None:
    """15,000 frames: no crash, no traceback, little memory; the healthy devices are acked as before."""
    fuzzed = run_fuzz(tmp_path, 15_000, seed=1)
    print(fuzzed)

    assert fuzzed.faults == []


@pytest.mark.nightly
@pytest.mark.timeout(3000)
def test_fuzz_a_million(tmp_path: Path) -> None:
    """A million frames, of another seed."""
    fuzzed = run_fuzz(tmp_path, 1_000_000, seed=2)
    print(fuzzed)

    assert fuzzed.faults == []


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_fuzz_a_million_packets_of_mqtt() -> None:
    """No exception, no answer that a server does not give, a bystander who notices nothing."""
    fuzzed = fuzz(1_000_000, seed=2)
    print(fuzzed)

    assert fuzzed.faults == []


def test_fuzz_replays_exactly() -> None:
    """A script depends on seed and number alone, so that a failure can be played again."""
    tokens = {"fuzz-0": "a", "fuzz-1": "b"}
    scripts = [[make_script(seed, number, tokens) for number in range(50)] for seed in (7, 7, 8)]

    assert scripts[0] == scripts[1]
    assert scripts[0] != scripts[2]
