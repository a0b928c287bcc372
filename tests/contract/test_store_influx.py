"""What a real InfluxDB refuses, and what it is asked to hold: nothing is in the way of the rest, or lost silently."""

import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

import pytest

from device_sdk.reading import MAX_CHANNEL_NAME, MAX_DEVICE_NAME, Value
from device_sdk.wire import MAX_TIME_NS, MIN_TIME_NS
from hub.errors import StoreError
from hub.store.accumulator import aggregate_rows
from hub.store.base import Row, SeriesCounters
from hub.store.influx import InfluxEngine, parse_address
from hub.store.remote import RemoteStore
from hub.store.sidecar import Sidecar
from tests.support.frames import T0, FrameMaker, numbered
from tests.support.influxdb import Influxd

pytestmark = pytest.mark.end_to_end
FOREVER = (-(2**63), 2**63 - 1)
Open = Callable[[str], RemoteStore]
_numbers = count(1)


@pytest.fixture
def database() -> str:
    """A name that no other test uses."""
    return f"refusing{next(_numbers)}"


@pytest.fixture
def open_store(influxd: Influxd, tmp_path: Path) -> Iterator[Open]:
    """Opens the store of a database; the last one is the one that is used."""
    with ExitStack() as stack:

        def open_one(name: str) -> RemoteStore:
            engine = InfluxEngine(parse_address(f"influxdb+{influxd.url}/{name}"))
            store = RemoteStore(engine, Sidecar(tmp_path / "readings.sqlite3"))
            stack.enter_context(closing(store))
            return store

        yield open_one


def test_database_that_is_missing_is_waited_for(influxd: Influxd, open_store: Open, database: str) -> None:
    """Nothing is refused or lost for it: the same write is right when somebody has made it."""
    store, frames = open_store(database), numbered([FrameMaker().one("pump", 1.0)])
    with pytest.raises(StoreError, match="404: database not found"):
        store.write(frames)

    influxd.ask(f"CREATE DATABASE {database}")
    store.write(frames)

    assert store.counters([1]) == [SeriesCounters(1, 1, 0, 1)]
    assert store.refusals() == []


def test_time_beyond_the_database_is_refused_alone(influxd: Influxd, open_store: Open, database: str) -> None:
    """A partial write: what is older than the database keeps is set aside with its words, the rest is stored."""
    influxd.ask(f"CREATE DATABASE {database} WITH DURATION 520w NAME short")
    store, maker = open_store(database), FrameMaker()
    pairs = [("t", T0 + n * 10**9, float(n)) for n in range(100)]
    pairs[37] = ("t", 5, 37.0)
    store.write(numbered([maker.batch("pump", pairs), maker.one("pump", 70.0, -(2**63))]))

    refused = {one.value: one.reason for one in store.refusals()}
    assert set(refused) == {37.0, 70.0}
    assert "beyond retention policy" in refused[37.0]
    assert "outside range" in refused[70.0]
    assert store.counters([1]) == [SeriesCounters(1, 101, 0, 99, late=1, refused=2)]
    assert len(store.read([1], *FOREVER, 1000)) == 99


def test_type_conflict_loses_only_what_conflicts(influxd: Influxd, open_store: Open, database: str) -> None:
    """Somebody else wrote text where floats go: floats of that time are set aside, all other types are stored."""
    influxd.ask(f"CREATE DATABASE {database}")
    foreign = f'reading,channel=t,device=other,namespace=x value="text" {T0}'.encode()
    urllib.request.urlopen(f"http://127.0.0.1:{influxd.port}/write?db={database}", foreign, timeout=10).close()
    store, maker = open_store(database), FrameMaker()
    store.write(
        numbered(
            [
                maker.batch("pump", [("n", T0 + n, n) for n in range(20)]),
                maker.batch("pump", [("t", T0 + 1, 1.5)]),
                maker.batch("pump", [("open", T0 + 1, True), ("state", T0 + 1, "on")]),
            ]
        )
    )

    (refused,) = store.refusals()
    assert (refused.value, "field type conflict" in refused.reason) == (1.5, True)
    assert [c.rows for c in store.counters([1, 2, 3, 4])] == [20, 0, 1, 1]
    assert store.applied == 3


@pytest.mark.parametrize("step_ns", [2**60, 2**61, 2**62, 2**63 - 1])
@pytest.mark.parametrize("origin_ns", [0, -777, T0 + 12_345])
def test_buckets_of_centuries(influxd: Influxd, open_store: Open, database: str, step_ns: int, origin_ns: int) -> None:
    """The server's own windows overflow then."""
    influxd.ask(f"CREATE DATABASE {database}")
    store, maker = open_store(database), FrameMaker()
    times = (MIN_TIME_NS, T0, T0 + 1, MAX_TIME_NS)
    store.write(numbered([maker.batch("pump", [("t", time_ns, time_ns / 2**40) for time_ns in times])]))
    asked = ([1], *FOREVER, step_ns, ["count", "min", "max"])

    expected = aggregate_rows(store, *asked, origin_ns=origin_ns)

    assert store.aggregate(*asked, origin_ns=origin_ns) == expected


def test_correction_of_another_type_counts_once(influxd: Influxd, open_store: Open, database: str) -> None:
    """One instant is one row, whatever types it had; the last one shows."""
    influxd.ask(f"CREATE DATABASE {database}")
    store, maker = open_store(database), FrameMaker()
    values: list[Value] = [1, 2.5, True, "x", 7]
    for at, value in enumerate(values):
        store.write(numbered([maker.one("pump", value)], at + 1))

    assert store.counters([1]) == [SeriesCounters(1, 5, 4, 1)]
    assert store.read([1], *FOREVER, 9) == [Row(1, T0, 7)]


def test_longest_and_oddest_names(influxd: Influxd, open_store: Open, database: str) -> None:
    """Every name that a device or channel may have, and any that a later hub may allow, finds its own readings."""
    influxd.ask(f"CREATE DATABASE {database}")
    store, maker = open_store(database), FrameMaker("a b,c=d'e\"f\\")
    names = [
        ("d" * MAX_DEVICE_NAME, "c" * MAX_CHANNEL_NAME), ("$sys", "a.b-c_d"), ("1", "2"), ("pump 1", "t,x=y"),
        ("it's", 'a "b"'), ("back\\slash", "end\\"), ("温室", "тест 🌱"), ("a=b", "a,b"), ("a", "b=a,b"),
    ]  # fmt: skip
    for at, (device, channel) in enumerate(names):
        store.write(numbered([maker.one(device, float(at), T0 + at, channel)], at + 1))

    for at in range(len(names)):
        assert store.read([at + 1], *FOREVER, 9) == [Row(at + 1, T0 + at, float(at))], names[at]
    assert [c.rows for c in store.counters(list(range(1, len(names) + 1)))] == [1] * len(names)
    assert store.refusals() == []
    assert store.erase([4]) == 1
    assert [c.rows for c in store.counters(list(range(1, len(names) + 1)))].count(0) == 1
