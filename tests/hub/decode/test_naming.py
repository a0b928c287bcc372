"""The same text has the same name, no two texts have one, and every name is valid."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.reading import is_channel_name, is_device_name
from hub.decode.naming import Names, label_of


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


def test_names_are_bounded() -> None:
    """When the memory is full a name is made by the text alone."""
    names = Names(100_000)
    made = [names.device(f"d {at}") for at in range(1000)]

    assert made[:2] == ["d-0", "d-1"]
    assert made[999] == "d-999-66c6" == names.device("d 999")
    assert names.device("d9") == "d9"
    assert names.device("0x17", "lamp") == "lamp-78d7"


@given(texts=st.lists(st.text(max_size=80)))
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
