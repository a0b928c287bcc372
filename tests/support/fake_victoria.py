"""A VictoriaMetrics in memory, as unfriendly as the real one: what it acknowledged it may forget, and of two values of
one instant it keeps the one that suits it.

Owns: `FakeVictoria`, which passes the same contract suite as the real one does.
"""

import json
import random
import re
from collections.abc import Callable, Mapping

from hub.errors import StoreError
from hub.store.victoria_client import TooMuchError

_LINE = re.compile(r"hub,hub=(?P<hub>[0-9a-f]+),series=(?P<series>\d+),.* value=(?P<value>\S+) (?P<ms>\d+)")
_SELECTOR = re.compile(r'\{__name__="hub_value",hub="(?P<hub>[0-9a-f]+)",series=~"(?P<series>[0-9|]+)"\}')
_COUNT = re.compile(r"count_over_time\((?P<selector>.*)\[(?P<window>\d+)ms\]\)")
_RANGE = re.compile(r"(?P<function>[a-z]+)_over_time\((?P<selector>.*)\[(?P<window>\d+)ms\]\)")
_OVER_TIME: dict[str, Callable[[list[float]], float]] = {
    "avg": lambda values: sum(values) / len(values),
    "min": min,
    "max": max,
    "count": len,
    "sum": sum,
    "first": lambda values: values[0],
    "last": lambda values: values[-1],
}
# What the real one keeps of a number.
_DIGITS, _LEAST = 12, 1e-300

_Point = tuple[str, int, int]


class FakeVictoria:
    """A `Server`.

    ``is_down``: no request is answered. ``is_read_only``: no line is taken. ``fails_to_delete``: nothing is deleted.
    ``refused``: lines that it left out, as it says. ``started``: what it says of its start. ``posts``: bodies that were
    acknowledged. ``most_samples``: of one series that a question may have to do with.
    """

    def __init__(self) -> None:
        self.is_down = self.is_read_only = self.fails_to_delete = False
        self.refused = self.started = 0
        self.flags = '-dedup.minScrapeInterval="1ms"\n-search.latencyOffset="0s"\n-retentionPeriod="100y"'
        self.posts: list[str] = []
        self.most_samples = 10**9
        self._source = random.Random(1)
        self._lines = 0
        self._points: dict[_Point, float] = {}
        self._unseen: list[tuple[_Point, float]] = []
        # Before each write what there was, so that a restart can forget it.
        self._before: list[dict[_Point, float]] = []

    def restart(self, lost: int) -> None:
        """Start anew without the last ``lost`` writes."""
        self._flush()
        if lost:
            self._points = self._before[-lost]
            del self._before[-lost:]
        self.started += 1
        self._lines = 0

    def get(self, path: str) -> bytes:
        """Answer figures and flags; make writes visible."""
        self._check()
        match path:
            case "/metrics":
                return (
                    f"vm_app_start_timestamp {self.started}\n"
                    f'vm_rows_inserted_total{{type="influx"}} {self._lines}\n'
                    f'vm_rows_invalid_total{{type="influx"}} {self.refused}\n'
                ).encode()
            case "/flags":
                return self.flags.encode()
        assert path == "/internal/force_flush"
        self._flush()
        return b"OK"

    def ask(self, path: str, form: Mapping[str, str]) -> bytes:
        """Answer an export or a count, or delete."""
        self._check()
        if path == "/api/v1/query":
            match = _COUNT.fullmatch(form["query"])
            assert match is not None, form
            last = _ms(form["time"])
            first = last - int(match["window"]) + 1
            assert first > 0, "the real one finds nothing then"
            found = self._looked_at(match["selector"], first, last)
            result = [{"metric": {"series": str(s)}, "value": [0, str(len(p))]} for s, p in found.items()]
            return json.dumps({"data": {"result": result}}).encode()
        if path == "/api/v1/query_range":
            return self._buckets(form)
        if path == "/api/v1/export":
            found = self._find(form["match[]"], _ms(form["start"]), _ms(form["end"]))
            lines = [
                {"metric": {"series": str(s)}, "values": list(p.values()), "timestamps": list(p)}
                for s, p in found.items()
            ]
            return "\n".join(map(json.dumps, lines)).encode()
        assert path == "/api/v1/admin/tsdb/delete_series"
        if self.fails_to_delete:
            raise StoreError("fake: not deleted")
        self._flush()
        for number, points in self._find(form["match[]"], 0, 2**62).items():
            for ms in points:
                del self._points[self._hub_of(form["match[]"]), number, ms]
        return b""

    def post(self, path: str, body: bytes) -> None:
        """Take lines."""
        self._check()
        if self.is_read_only:
            raise StoreError("fake: the disk is full")
        assert path == "/api/v2/write?precision=ms"
        self._flush()
        self._before.append(dict(self._points))
        self.posts.append(body.decode())
        for text in body.decode().splitlines():
            match = _LINE.fullmatch(text)
            assert match is not None, text
            self._unseen.append(((match["hub"], int(match["series"]), int(match["ms"])), float(match["value"])))
            self._lines += 1

    def close(self) -> None:
        """Nothing to close."""

    def _buckets(self, form: Mapping[str, str]) -> bytes:
        match = _RANGE.fullmatch(form["query"])
        assert match is not None, form
        window, step, first = int(match["window"]), _ms(form["step"]), _ms(form["start"])
        found = self._looked_at(match["selector"], first - window + 1, _ms(form["end"]))
        result = []
        for number, points in found.items():
            # At the end of its window, which does not hold its beginning.
            windows: dict[int, list[float]] = {}
            for ms, value in points.items():
                windows.setdefault(first + -(-(ms - first) // step) * step, []).append(value)
            values = [[at / 1000, str(_OVER_TIME[match["function"]](some))] for at, some in windows.items()]
            result.append({"metric": {"series": str(number)}, "values": values})
        return json.dumps({"data": {"result": result}}).encode()

    def _check(self) -> None:
        if self.is_down:
            raise StoreError("fake: down")

    def _flush(self) -> None:
        for key, value in self._unseen:
            if key not in self._points or self._source.random() < 0.5:
                self._points[key] = float(f"{value:.{_DIGITS}g}") if abs(value) > _LEAST else 0.0
        self._unseen.clear()

    def _looked_at(self, selector: str, first: int, last: int) -> dict[int, dict[int, float]]:
        found = self._find(selector, first, last)
        if any(len(points) > self.most_samples for points in found.values()):
            raise TooMuchError("fake: 422")
        return found

    def _find(self, selector: str, first: int, last: int) -> dict[int, dict[int, float]]:
        match = _SELECTOR.fullmatch(selector)
        assert match is not None, selector
        wanted = set(map(int, match["series"].split("|")))
        found: dict[int, dict[int, float]] = {}
        for (hub, number, ms), value in sorted(self._points.items()):
            if hub == match["hub"] and number in wanted and first <= ms <= last:
                found.setdefault(number, {})[ms] = value
        return found

    def _hub_of(self, selector: str) -> str:
        match = _SELECTOR.fullmatch(selector)
        assert match is not None, selector
        return match["hub"]


def _ms(seconds: str) -> int:
    return round(float(seconds) * 1000)
