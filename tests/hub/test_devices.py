"""The registry knows every series once, the newest value by event time, and who is silent."""

from device_sdk.columns import Column
from device_sdk.reading import Channel, ValueType
from device_sdk.wire import MAX_CHANNELS
from hub.description import NO_CHANNEL_DESCRIPTION, ChannelDescription
from hub.devices import Carrier, Presence, Registry, natural_key
from hub.model import Frame, Kind, SeriesColumn, SeriesKey, StreamKey

S = 10**9
T0 = 1_795_376_000 * S


def frame(registry: Registry, times_s: list[float], values: list[float], received_s: float = 0.0) -> Frame:
    """Return a committed frame of device d, channel x."""
    series = registry.devices[("default", "d")].channels["x"]
    column = Column("x", [int(t * S) for t in times_s], values)
    key = StreamKey("default", "d", "9f3a0000000000aa")
    return Frame(
        key, 1, Kind.BATCH, T0 + int(received_s * S), b"", b"", T0, 1, (SeriesColumn(series, column),), len(values)
    )


def registry_with_x(every_s: float | None = None, low: float | None = None, high: float | None = None) -> Registry:
    registry = Registry(())
    registry.declare("default", "d", [Channel("x", "Cel", ValueType.FLOAT, every_s, low, high)])
    return registry


def test_declare_gives_each_channel_one_id_and_reports_changes_once() -> None:
    """A series is committed when it is new or when something of it changed, and only then."""
    registry = registry_with_x()
    assert [s.id for s in registry.take_changes()] == [1]

    registry.declare("default", "d", [Channel("x", "Cel", ValueType.FLOAT)])
    assert registry.take_changes() == []
    registry.declare("default", "d", [Channel("x", "K"), Channel("y")])
    assert [(s.id, s.unit) for s in registry.take_changes()] == [(1, "K"), (2, None)]


def test_registry_continues_ids_after_a_restart() -> None:
    """Ids are never given twice."""
    again = Registry(registry_with_x().take_changes())
    again.declare("default", "e", [Channel("x")])

    assert [s.id for s in again.take_changes()] == [2]


def test_declare_refuses_bad_names_and_more_than_the_limit() -> None:
    """The first 200 channels of a device exist; invented ones beyond are named back."""
    registry = Registry(())

    refused = registry.declare("default", "d", [Channel("../x"), *(Channel(f"c{i}") for i in range(MAX_CHANNELS + 2))])

    assert refused == ["../x", "c200", "c201"]


def test_series_of_devices_that_were_described() -> None:
    """Of a subject that is a device all its series; a channel, and a device that never came, have none."""
    registry = registry_with_x()
    registry.declare("default", "d", [Channel("y")])
    registry.declare("default", "e", [Channel("x")])

    found = registry.series_of([SeriesKey("default", "d", ""), SeriesKey("default", "e", "x"), SeriesKey("n", "d", "")])

    assert [(s.device, s.channel) for s in found] == [("d", "x"), ("d", "y")]


def test_latest_is_the_newest_by_event_time() -> None:
    """A late reading never replaces a newer one, whatever the order within or between frames."""
    registry = registry_with_x()
    registry.apply([frame(registry, [5, 9, 7], [1.0, 2.0, 3.0])])
    registry.apply([frame(registry, [8], [4.0])])

    latest = registry.latest[1]
    assert (latest.time_ns, latest.value) == (T0 + 9 * S, 2.0)


def test_older_than_the_newest_on_its_way_is_late() -> None:
    """Late is judged against all frames before, stored or on their way; within a frame and by 10 ms nothing is late."""
    registry = registry_with_x()
    times: list[list[float]] = [[100, 90], [99.995], [99.98, 101], [50, 40], [101, 102]]
    frames = [frame(registry, seconds, [1.0] * len(seconds)) for seconds in times]

    registry.mark_late(frames[:2])
    registry.mark_late(frames[2:])
    registry.apply(frames)

    tolerated = 10**7
    assert [f.late for f in frames] == [
        (), (), ((0, T0 + 100 * S - tolerated),), ((0, T0 + 101 * S - tolerated),), (),
    ]  # fmt: skip
    assert registry.device("default", "d").late == 3


def test_frames_that_were_not_stored_do_not_make_their_repetition_late() -> None:
    """After a full disk devices send the same frames again: they are late against what is stored, nothing else."""
    registry = registry_with_x()
    stored = frame(registry, [10], [1.0])
    registry.mark_late([stored])
    registry.apply([stored])
    registry.mark_late([frame(registry, [20], [1.0]), frame(registry, [30], [1.0])])

    registry.forget_arriving()
    again, older = frame(registry, [20], [1.0]), frame(registry, [5], [1.0])
    registry.mark_late([again, older])

    assert again.late == ()
    assert older.late == ((0, T0 + 20 * S - 10**7),)


def test_presence_follows_the_declared_interval() -> None:
    """Stale after three intervals, offline after ten and a minute; an hourly device stays online for hours."""
    for every_s, silent_s, connected, expected in [
        (1.0, 4, 1, Presence.ONLINE),
        (1.0, 6, 1, Presence.STALE),
        (1.0, 6, 0, Presence.STALE),
        (1.0, 61, 0, Presence.OFFLINE),
        (1.0, 3600, 1, Presence.STALE),
        (3600.0, 3 * 3600, 0, Presence.ONLINE),
        (3600.0, 4 * 3600, 0, Presence.STALE),
    ]:
        registry = registry_with_x(every_s)
        registry.apply([frame(registry, [0], [1.0])])
        state = registry.device("default", "d")
        state.connections = connected

        assert state.presence(T0 + silent_s * S) is expected, (every_s, silent_s, connected)


def test_presence_of_who_speaks_by_a_gateway() -> None:
    """As that of who is connected, while the gateway is, for a day; also before what it has said is stored."""
    registry = registry_with_x(1.0)
    state = registry.device("default", "d")
    state.carrier = Carrier(connections=2)
    assert state.presence(T0) is Presence.STALE

    registry.apply([frame(registry, [0], [1.0])])
    silences = (1, 3600, 24 * 3600, 26 * 3600)
    assert [state.presence(T0 + s * S) for s in silences] == [
        Presence.ONLINE, Presence.STALE, Presence.STALE, Presence.OFFLINE,
    ]  # fmt: skip
    state.carrier.connections = 0
    assert [state.presence(T0 + s * S) for s in (1, 3600)] == [Presence.ONLINE, Presence.OFFLINE]


def test_device_with_a_connection_of_its_own_is_carried_by_nobody() -> None:
    """Once that has ended it is offline soon, also where the gateway is there by which it spoke before."""
    registry = registry_with_x(1.0)
    registry.apply([frame(registry, [0], [1.0])])
    state = registry.device("default", "d")
    state.carrier = Carrier(connections=1)
    state.arrived()
    assert state.presence(T0 + 3600 * S) is Presence.STALE

    state.connections -= 1
    assert state.presence(T0 + 3600 * S) is Presence.OFFLINE


def test_presence_takes_the_interval_of_a_person_first() -> None:
    """Set by a person > declared > learnt: an hourly device is online after an hour, stale after four, then offline."""
    described: dict[SeriesKey, ChannelDescription] = {}
    registry = Registry((), described=lambda key: described.get(key, NO_CHANNEL_DESCRIPTION))
    registry.declare("default", "d", [Channel("x", every_s=1.0)])
    registry.apply([frame(registry, [0], [1.0], received_s=0)])
    state = registry.device("default", "d")
    assert state.presence(T0 + 10 * S) is Presence.STALE

    described[SeriesKey("default", "d", "x")] = ChannelDescription(every_s=3600)
    (series,) = registry.describe(list(described))

    hours = [state.presence(T0 + round(hours * 3600) * S) for hours in (0.01, 1, 2.9, 4, 9, 11)]
    assert hours == [*[Presence.ONLINE] * 3, *[Presence.STALE] * 2, Presence.OFFLINE]
    assert registry.take_changes() == [series]
    described.clear()
    registry.describe([SeriesKey("default", "d", "x"), SeriesKey("default", "d", "none")])
    assert state.presence(T0 + 10 * S) is Presence.STALE


def test_interval_of_one_channel_counts_for_its_device() -> None:
    """The shortest of its channels says when a device is late, whoever told it."""
    described = {SeriesKey("default", "d", "x"): ChannelDescription(every_s=600)}
    registry = Registry((), described=lambda key: described.get(key, NO_CHANNEL_DESCRIPTION))
    registry.declare("default", "d", [Channel("x", every_s=1.0), Channel("y", every_s=3600.0)])
    registry.apply([frame(registry, [0], [1.0])])

    state = registry.device("default", "d")

    assert state.expected_interval_s() == 600
    assert [state.presence(T0 + s * S) for s in (1800, 1801)] == [Presence.ONLINE, Presence.STALE]


def test_declared_range_is_of_stored_values() -> None:
    """A device knows its own values: its range is scaled with them, whatever the sign; a person's is of shown ones."""
    described = {SeriesKey("default", "d", "x"): ChannelDescription(scale=-10)}
    registry = Registry((), described=lambda key: described.get(key, NO_CHANNEL_DESCRIPTION))
    registry.declare("default", "d", [Channel("x", "Cel", ValueType.FLOAT, None, 0.0, 2.0)])
    series = registry.by_id[1]
    registry.apply([frame(registry, [0], [1.5])])
    assert (series.effective().low, series.effective().high, registry.is_alert(series)) == (-20.0, 0.0, False)

    described[SeriesKey("default", "d", "x")] = ChannelDescription(scale=-10, low=-12)
    registry.describe(list(described))

    assert (series.effective().low, series.effective().high, registry.is_alert(series)) == (-12, 0.0, True)


def test_alert_is_a_value_outside_the_declared_range() -> None:
    """The border belongs to the range."""
    registry = registry_with_x(low=10.0, high=27.5)
    series = registry.by_id[1]
    assert not registry.is_alert(series)
    registry.apply([frame(registry, [0], [27.5])])
    assert not registry.is_alert(series)
    registry.apply([frame(registry, [1], [27.6])])
    assert registry.is_alert(series)


def test_rate_settles_at_the_readings_per_second() -> None:
    """Ten readings a second show as about ten after half a minute."""
    registry = registry_with_x()
    for second in range(60):
        registry.apply([frame(registry, [second + i / 10 for i in range(10)], [1.0] * 10, received_s=second)])

    assert 8.0 < registry.device("default", "d").rate_hz < 11.0


def test_natural_key_orders_numbers_as_numbers() -> None:
    """pump-2 stands before pump-10."""
    assert sorted(["pump-10", "pump-2", "a"], key=natural_key) == ["a", "pump-2", "pump-10"]
