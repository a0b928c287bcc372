"""The same text has the same name, no two texts have one, and every name is valid."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.reading import is_channel_name, is_device_name
from hub.decode.naming import APART, Names, label_of


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("pump-7", "pump-7"),
        ("living room", "living-room"),
        ("home/attic", "home-attic"),
        ("_hidden.", "hidden"),
        ("Küche", "Kuche"),
        ("客厅 1", "1-f6a6"),
        ("卧室 1", "1-c848"),
        ("客厅", "b7d7"),
        ("", "8f38"),
        ("x" * 65, "x" * 59 + "-e1bf"),
    ],
)
def test_name_is_made_of_the_text(text: str, name: str) -> None:
    """What loses letters, or is cut, has a hash at once: it does not depend on who came first."""
    assert Names().device(text) == name


def test_name_is_made_of_the_beginning_of_a_long_text() -> None:
    """Its digits are of all of it, so that two which begin alike are two."""
    first, second = (f"{'x/' * 100_000}{end}" for end in "ab")

    assert Names().device(first) == "x-" * 29 + "x-05c2"
    assert Names().device(first) != Names().device(second)
    assert len(Names().channel("d", "/" * 100_000 + "end")) == 4


def test_no_two_texts_have_one_name() -> None:
    """Who comes second has the hash, also when its text is a name; each keeps what it has."""
    names = Names()

    assert [names.device(text) for text in ("a b", "a-b", "a/b", "a b")] == ["a-b", "a-b-8558", "a-b-2830", "a-b"]
    assert names.channel("d", "a/b") == "a-b"


def test_name_may_be_made_of_what_people_say() -> None:
    """Two lamps are two, and each stays the one it was."""
    names = Names()

    assert [names.device(at, "lamp") for at in ("0x17", "0x18", "0x17")] == ["lamp", "lamp-6e43", "lamp"]
    assert names.channel("lamp", "0x17_t", "Temperature") == "Temperature"


def test_label_is_what_the_sender_calls_it() -> None:
    """Where the name is made of that, and is not the same."""
    names = Names()
    made = [names.channel("d", "in °C"), names.channel("d", "x"), names.channel("d", "0x17_t", "my temperature")]

    assert [names.label("d", name) for name in (*made, "unknown")] == ["in °C", None, None, None]


@pytest.mark.parametrize(("texts", "like"), [(("0x17", "0x18"), "lamp"), (("living room", "living-room"), "")])
def test_names_stay_over_a_restart_whoever_comes_first(texts: tuple[str, str], like: str) -> None:
    """Else the readings of two sensors that are called alike would change places in the store."""
    names, later = Names(), Names()
    devices = {text: names.device(text, like) for text in texts}
    channels = {text: names.channel("d", text, like) for text in texts}
    stored = {(device, "") for device in devices.values()} | {("d", channel) for channel in channels.values()}
    later.know(lambda device, channel: (device, channel) in stored)

    assert len(set(devices.values())) == len(set(channels.values())) == 2
    assert {text: later.device(text, like) for text in texts[::-1]} == devices
    assert {text: later.channel("d", text, like) for text in texts[::-1]} == channels


@pytest.mark.parametrize("read", ["lamp", "my lamp", "客厅", "x" * 200])
def test_texts_that_read_alike_are_told_apart(read: str) -> None:
    """The first has the name of what people read; each keeps what it has over a restart, whoever comes first."""
    texts = (read, f"{read}{APART}a", f"{read}{APART}b")
    for order in permutations(texts):
        names = Names()
        made = {text: names.channel("d", text) for text in order}
        stored = {("d", name) for name in made.values()}

        assert (made[order[0]], len(stored)) == (Names().channel("d", read), 3)
        assert {text: names.channel("d", text) for text in texts} == made
        for later_order in permutations(texts):
            later = Names()
            later.know(lambda device, channel, stored=stored: (device, channel) in stored)  # type: ignore[misc]
            assert {text: later.channel("d", text) for text in later_order} == made


def test_text_keeps_the_name_of_what_is_read() -> None:
    """Which a hub gave it before it looked at what is behind that; here two names that are alike without signs."""
    before, now = Names(), Names()
    names = {text: before.device(text) for text in ("living room", "living-room", "a-b", "a b")}
    now.know(lambda device, channel: device in names.values())

    assert {text: now.device(f"{text}{APART}1") for text in reversed(names)} == names


def test_label_is_what_people_read() -> None:
    """Nothing of what tells it apart, whichever name it has."""
    names = Names()
    made = [names.channel("d", text) for text in ("a b", f"a b{APART}1", f"c{APART}1", f"c{APART}2", "c")]

    assert [names.label("d", name) for name in made] == ["a b", "a b", None, "c", "c"]


def test_text_that_is_told_apart_needs_no_more_memory() -> None:
    """Where its name is what is read; when the memory is full it has its digits at once."""
    names, plain = Names(100_000), Names(100_000)
    made = [names.device(f"d{at}{APART}{at}") for at in range(1000)]
    kept = [name for at, name in enumerate(made) if name == f"d{at}"]

    assert 600 < len(kept) < 1000
    assert (names.device(f"d999{APART}999"), len(made[999]), len(set(made))) == (made[999], 9, 1000)
    assert all(plain.device(f"d{at}") == f"d{at}" for at in range(1000))


def test_names_are_bounded() -> None:
    """When the memory is full a name is made by the text alone."""
    names = Names(100_000)
    made = [names.device(f"d {at}") for at in range(1000)]

    assert made[:2] == ["d-0", "d-1"]
    assert made[999] == "d-999-66c6" == names.device("d 999")
    assert names.device("d9") == "d9"
    assert names.device("0x17", "lamp") == "lamp-78d7"


@given(texts=st.lists(st.text(max_size=80) | st.text("ab .\0\n1", max_size=12)))
def test_every_name_is_valid_and_its_own(texts: list[str]) -> None:
    """Whatever the text."""
    names = Names()
    devices = {text: names.device(text) for text in texts}
    channels = {text: names.channel("d", text) for text in texts}

    assert all(map(is_device_name, devices.values()))
    assert all(map(is_channel_name, channels.values()))
    assert len(set(devices.values())) == len(devices)
    assert len(set(channels.values())) == len(channels)


def test_label_is_one_short_line() -> None:
    """Whatever a device calls itself."""
    assert label_of("a\nb\x1b" + "c" * 200) == "a b " + "c" * 124
