"""Freed memory goes back to the machine: measured in processes of their own, as a setting cannot be undone."""

import os
import subprocess
import sys

import pytest

# A block of 8 MiB is freed once, after which glibc keeps blocks up to that size in its heaps. Then 100 blocks of
# 512 KiB, freed with a smaller one behind them that stays: their place in the heap cannot be given back.
PROGRAM = """
import sys
from hub.allocator import keep_little

def resident() -> float:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))

print(keep_little() if sys.argv[1] == "ours" else None)
bytearray(8 << 20)
before = resident()
blocks = [bytearray(512 << 10) for _ in range(101)]
for block in blocks:
    block[::4096] = bytes(128)
stays = blocks.pop()
blocks.clear()
print(resident() - before)
"""


def left_mib(whose: str, **environment: str) -> tuple[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, whose],
        capture_output=True, text=True, check=True, timeout=30, env={**os.environ, **environment},
    )  # fmt: skip
    said, mib = done.stdout.split()
    return said, float(mib)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_what_was_freed_is_given_back() -> None:
    """Not so by default, or these settings could go."""
    assert left_mib("theirs")[1] > 30
    said, mib = left_mib("ours")
    assert said == "True"
    assert mib < 5


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_the_environment_wins() -> None:
    """Whoever tunes glibc by its own variables is not overruled."""
    assert left_mib("ours", MALLOC_ARENA_MAX="8")[0] == "False"


def test_what_is_imported_is_never_looked_through_for_garbage() -> None:
    """Nor is much else, until it is many objects; what is garbage in a cycle by then goes all the same."""
    program = """
import gc, weakref
from hub.allocator import COLLECTED_OBJECTS, collect_seldom

class Ring:
    pass

collect_seldom()
assert gc.get_freeze_count() > 1000
ring = Ring()
ring.itself = ring
gone = weakref.ref(ring)
del ring
kept = [[] for _ in range(COLLECTED_OBJECTS - 1000)]
print(gone() is None)
kept += [[] for _ in range(2000)]
print(gone() is None)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)

    assert done.stdout.split() == ["False", "True"]
