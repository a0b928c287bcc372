"""What stands in buckets that hold no reading: nothing, null, a number, or what their neighbours say.

Owns: the words of ``fill``. Place: beside `grid`, after `aggregate`, below `bucket_page`. Pure.
A count of no readings is 0, and a line that goes through a bucket has its value there: neither is filled.
"""

import math
import re
from collections.abc import Iterator, Sequence

from hub.aggregate import Finished, Number
from hub.errors import BadRequestError

FILLS = ("none", "null", "previous", "linear")
# A word of FILLS, or a number.
Fill = str | float


def parse_fill(text: str) -> Fill | None:
    """Return what to fill with; None for ``none``: such buckets are left out.

    Raises:
        BadRequestError: it is neither a word nor a number.
    """
    if text in FILLS:
        return None if text == "none" else text
    # As programs write floats: with up to 17 digits, and small ones with an exponent.
    number = float(text) if re.fullmatch(r"[+-]?\d{1,20}(\.\d{1,20})?([eE][+-]?\d{1,3})?", text) else math.inf
    if not math.isfinite(number):
        raise BadRequestError(f"fill {text[:40]!r}: use {', '.join(FILLS)} or a number, e.g. 0")
    return number


def filled(
    done: Sequence[Finished],
    edges: Sequence[int],
    functions: Sequence[str],
    fill: Fill,
    *,
    previous: Finished | None = None,
    following: Finished | None = None,
) -> Iterator[Finished]:
    """Yield a bucket for each edge but the last.

    Args:
        previous, following: the nearest buckets outside that hold readings, if they are known.
    """
    known = {bucket.start_ns: bucket for bucket in done}
    ahead = [bucket for bucket in done if bucket.has_readings]
    if following is not None:
        ahead.append(following)
    ahead.reverse()
    nothing = tuple(0 if name == "count" else None for name in functions)
    for start_ns in edges[:-1]:
        bucket = known.get(start_ns, Finished(start_ns, False, nothing))
        if bucket.has_readings:
            previous = ahead.pop()
        else:
            other = _values(fill, start_ns, previous, ahead[-1] if ahead else None, len(functions))
            values = tuple(b if a is None else a for a, b in zip(bucket.values, other, strict=True))
            bucket = bucket._replace(values=values)
        yield bucket


def _values(
    fill: Fill, start_ns: int, before: Finished | None, after: Finished | None, width: int
) -> Sequence[Number | None]:
    if isinstance(fill, float):
        return (fill,) * width
    if fill == "previous" and before is not None:
        return before.values
    if fill == "linear" and before is not None and after is not None:
        # A range within one bucket cuts it in two: both neighbours then begin where the bucket does.
        length_ns = after.start_ns - before.start_ns
        share = (start_ns - before.start_ns) / length_ns if length_ns else 0.0
        return [
            None if a is None or b is None else a + (b - a) * share
            for a, b in zip(before.values, after.values, strict=True)
        ]
    return (None,) * width
