"""A decoder of somebody else is found by its name, and whatever it does stays within the message."""

from pathlib import Path

import pytest

from device_sdk.reading import Channel
from hub.decode.base import Decoded, DecodeError, ForeignReading, Publication, Said
from hub.decode.dispatch import Decoders, decoders_of
from hub.decode.plugin import GROUP, Guarded, load
from hub.errors import ConfigError

ROOT = Path(__file__).parents[3]
MODULE = """
from hub.decode.base import Decoded, Said, ForeignReading

def decode(publication):
    return None

class Counting:
    def __init__(self):
        self.count = 0

    def decode(self, publication):
        self.count += 1
        return Decoded("counting", (Said("d", (ForeignReading("count", self.count),)),))

made = Counting()

class Needs:
    def __init__(self, argument):
        pass

class Other:
    def __call__(self):
        pass

other = 7
"""


@pytest.fixture
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of decoders with an entry point."""
    package = tmp_path / "site" / "my_decoders-1.0.dist-info"
    package.mkdir(parents=True)
    (package.parent / "my_decoders.py").write_text(MODULE)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: my-decoders\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[{GROUP}]\ncounting = my_decoders:Counting\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.chdir(tmp_path)


def _counted(decoders: Decoders) -> object:
    decoded = decoders.decode(Publication("a/b", b"1"))
    return decoded.said[0].readings[0].value if decoded.decoder != "plain" else "plain"


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        pytest.param("my_decoders:decode", ["plain", "plain", "plain"], id="function"),
        pytest.param("my_decoders:made", [1, 2, 3], id="object, one for all"),
        pytest.param("my_decoders:Counting", [1, 2, 1], id="class, one for each sender"),
        pytest.param("counting", [1, 2, 1], id="entry point"),
    ],
)
@pytest.mark.usefixtures("_module")
def test_name_leads_to_a_decoder(name: str, counts: list[object]) -> None:
    """Two messages of one sender, one of another."""
    make = decoders_of([name], "Europe/Berlin")
    one, other = make(""), make("pump")

    assert [_counted(one), _counted(one), _counted(other)] == counts


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("my_decoders:other", "neither a function"), ("my_decoders:Other", "neither a function"),
        ("my_decoders:Needs", "cannot be made"), ("my_decoders:nothing", "decoder .* cannot be loaded"),
        ("nobody", "there: counting"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("_module")
def test_wrong_name_is_a_setting_that_is_wrong(name: str, says: str) -> None:
    """The hub does not start without a decoder that it was told to have."""
    with pytest.raises(ConfigError, match=says):
        load([name])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (7, "decoder mine gave a int"),
        (Decoded("x", (Said("a b"),)), "decoder mine: device name 'a b'"),
        (Decoded("x", (Said("d", (ForeignReading("a b", 1),)),)), "channel name"),
        (Decoded("x", (Said("d", (ForeignReading("x", b"1"),)),)), "cannot record a bytes"),  # type: ignore[arg-type]
        (Decoded("x", (Said("d", (ForeignReading("x", 1, 7),)),)), "2000"),
        (Decoded("x", (Said("d", (ForeignReading("x", 1, 1.7e18),)),)), "its time is a float"),  # type: ignore[arg-type]
        (Decoded("x", (Said("d", (), (Channel("x", "u" * 33),)),)), "unit"),
        (Decoded("x", (7,)), "failed: AttributeError"),  # type: ignore[arg-type]
    ],
)
def test_what_no_hub_takes_is_a_reason(given: object, says: str) -> None:
    """It names the decoder, for who must mend it."""
    with pytest.raises(DecodeError, match=says):
        Guarded("mine", lambda publication: given).decode(Publication("a/b", b"1"))


def test_what_it_says_is_taken() -> None:
    """Under its name; no value is none."""
    said = Said("d", (ForeignReading("x", 1.5), ForeignReading("y", float("nan"))), (Channel("x", "W", label="a\nb"),))

    decoded = Guarded("mine", lambda publication: Decoded("x", (said,))).decode(Publication("a/b", b"1"))

    assert decoded == Decoded("mine", (Said("d", (ForeignReading("x", 1.5),), (Channel("x", "W", label="a b"),)),))


def test_example_of_the_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/examples/heat_pump.py reads what it says, leaves the rest to us, and fails with a reason."""
    monkeypatch.chdir(ROOT / "docs" / "examples")
    decoders = decoders_of(["heat_pump:decode"], None)("")

    said = decoders.decode(Publication("heatpump/2", b"35.2;1480;1")).said[0]
    assert said.device == "heatpump-2"
    assert said.readings == (
        ForeignReading("flow", 35.2), ForeignReading("power", 1480), ForeignReading("running", True)
    )  # fmt: skip
    assert [channel.unit for channel in said.channels] == ["Cel", "W", None]
    assert decoders.decode(Publication("a/b", b"1")).decoder == "plain"
    with pytest.raises(DecodeError, match="decoder heat_pump:decode failed: ValueError"):
        decoders.decode(Publication("heatpump/2", b"x"))
