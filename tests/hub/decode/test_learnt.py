"""What is said of a channel is handed on with its first reading, put together, and once."""

from collections.abc import Generator

import pytest

from device_sdk.reading import Channel
from hub.decode.base import ForeignReading, Said
from hub.decode.learnt import Learnt
from hub.decode.naming import Names

X = (ForeignReading("x", 1),)


def _news(learnt: Learnt, *said: Said) -> list[tuple[Channel, ...]]:
    return [learnt.take(one, Names()).channels for one in said]


def test_channel_is_told_with_its_first_reading() -> None:
    """What has none is no channel of the device yet."""
    learnt = Learnt(10)
    announced = Said("d", (), (Channel("x", "W"), Channel("y")))

    assert _news(learnt, announced, Said("e", X), Said("d", X), Said("d", X)) == [
        (), (Channel("x"),), (Channel("x", "W"),), ()
    ]  # fmt: skip
    assert (learnt.told_of("d"), learnt.known_of("d")) == ((Channel("x", "W"),), announced.channels)


def test_channel_is_told_again_when_it_changes() -> None:
    """At once, by an announcement or beside a reading."""
    first, second = Channel("x", "W"), Channel("x", "kW")
    said = [Said("d", X, (first,)), Said("d", (), (first,)), Said("d", (), (second,)), Said("d", X, (first,))]

    assert _news(Learnt(10), *said) == [(first,), (), (second,), (first,)]


def test_what_is_said_is_put_together() -> None:
    """A message says the unit, another the label: both hold."""
    said = [Said("d", X, (Channel("x", "W"),)), Said("d", X, (Channel("x", label="power"),)), Said("d", X)]

    assert _news(Learnt(10), *said) == [(Channel("x", "W"),), (Channel("x", "W", label="power"),), ()]


def test_label_is_what_the_sender_calls_it() -> None:
    """Unless it said another."""
    names = Names()
    name = names.channel("d", "in °C")
    reading = (ForeignReading(name, 1),)

    for said, label in [(Said("d", reading), "in °C"), (Said("d", reading, (Channel(name, label="flow"),)), "flow")]:
        assert Learnt(10).take(said, names).channels == (Channel(name, label=label),)


@pytest.mark.parametrize(("most", "unit"), [(300, "W"), (10, None)])
def test_much_is_learnt_with_pauses(most: int, unit: str | None) -> None:
    """Each channel is told, whatever another message says meanwhile, which may push out what was said of it."""
    names = [f"c{at}" for at in range(250)]
    said = Said("d", tuple(ForeignReading(name, 1) for name in names), tuple(Channel(name, "W") for name in names))
    learnt = Learnt(most)
    found: list[Said] = []

    def to_its_end() -> Generator[None, None, None]:
        found.append((yield from learnt.taking(said, Names())))

    pauses = [learnt.take(Said("e", (), (Channel(f"c{at}"),)), Names()) for at, _ in enumerate(to_its_end())]

    assert (len(pauses), [channel.name for channel in found[0].channels]) == (9, names)
    assert {channel.unit for channel in found[0].channels} == {unit}
    assert len(learnt.known_of("d")) + len(learnt.known_of("e")) <= most


@pytest.mark.parametrize(
    ("said", "is_news"),
    [
        (Said("d"), False),
        (Said("d", X), False),
        (Said("e", X), True),
        (Said("d", (), (Channel("x"),)), False),
        (Said("d", (), (Channel("x", "W"),)), True),
        (Said("d", (), (Channel("y"),)), True),
    ],
)
def test_most_messages_have_no_news(said: Said, is_news: bool) -> None:
    """That is known without making anything."""
    learnt = Learnt(10)
    learnt.take(Said("d", X), Names())

    assert learnt.has_news(said) is is_news


def test_what_is_known_is_bounded() -> None:
    """The oldest is forgotten, and said again with its next reading."""
    learnt = Learnt(3)
    for name in "abcd":
        learnt.take(Said("d", (ForeignReading(name, 1),)), Names())

    assert [channel.name for channel in learnt.told_of("d")] == ["b", "c", "d"]
    assert _news(learnt, Said("d", (ForeignReading("a", 1),))) == [(Channel("a"),)]
