"""How the C library keeps what was freed: little, so that a hub does not stay as large as it once was.

Owns: three settings of glibc's malloc, and how often Python looks for garbage in cycles. Place: leftmost, set by
`server` before any thread starts, and by ``hub serve``.

By default glibc gives each thread a heap of its own, eight a core, and takes the size of the largest block that was
ever freed as a reason to keep blocks of that size. A burst (an audit, all devices back at once) then leaves holes in
many heaps, and the process grows a little with each larger one. `docs/explanation/memory.md` has what that makes.

Source: mallopt(3), "M_ARENA_MAX", "M_MMAP_THRESHOLD", "M_TRIM_THRESHOLD".
"""

import gc
import os
import sys

# Enough for the threads that work at the same time on two cores: Python's own lock is held by one of them.
HEAPS = 2
# Blocks from this size on are given back when they are freed; so is the end of a heap of this size. What malloc has
# before it adapts itself, but for that: setting a value is what ends that.
GIVEN_BACK_BYTES = 128 * 1024
# Objects made before the youngest are looked through for cycles. 50 publications make 700, Python's own figure, and
# nearly none of them is garbage: at 1,000 clients a third of the hub's time went there, 85 µs a publication instead of
# 50. So many objects are 7 MB at most (`python -m tests.bench.bench_mqtt`).
COLLECTED_OBJECTS = 50_000
# From malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# glibc's own variables for the same; whoever sets one has reasons.
_VARIABLES = ("MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def keep_little() -> bool:
    """Let the C library give freed memory back; False where it is not glibc, or the environment says how.

    Call it before threads start: a heap that is there stays.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _VARIABLES):
        return False
    try:
        import ctypes

        mallopt = ctypes.CDLL(None).mallopt
    except (ImportError, AttributeError, OSError):  # a Python without ctypes, musl, a static one
        return False
    settings = (
        (_M_ARENA_MAX, HEAPS), (_M_MMAP_THRESHOLD, GIVEN_BACK_BYTES), (_M_TRIM_THRESHOLD, GIVEN_BACK_BYTES),
    )  # fmt: skip
    return all(mallopt(option, value) for option, value in settings)


def collect_seldom() -> None:
    """Look for garbage in cycles less often, and never through what is there now: modules, which stay.

    Call it when all is imported. It holds for the process, so a program that runs a hub as a part decides for itself.
    """
    gc.collect()
    gc.freeze()
    _, middle, oldest = gc.get_threshold()
    gc.set_threshold(COLLECTED_OBJECTS, middle, oldest)
