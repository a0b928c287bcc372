"""A claim's QR code holds its address, and is nowhere where others read it."""

import stat
from pathlib import Path

import pytest
import segno

from hub.cli import qr
from hub.cli.exit_code import CliError

ADDRESS = "https://hub.local:8000/#claim=c0123456789ab.abcdefghijklmnopqrstuvwxyz"


def test_the_code_stands_behind_the_fragment_sign() -> None:
    """No server and no proxy is sent what stands there."""
    assert qr.claim_address("https://hub.local:8000/", "c0123456789ab.abcdefghijklmnopqrstuvwxyz") == ADDRESS


@pytest.mark.parametrize(("url", "expected"), [("http://127.0.0.1:8000", True), ("https://hub.local:8000", False)])
def test_an_address_of_this_machine_is_known(url: str, expected: bool) -> None:
    """A QR code with it is of no use to a device elsewhere, which is said."""
    assert qr.is_of_this_machine(url) == expected


def test_the_drawing_is_the_code() -> None:
    """Each module of the code is drawn, two rows a line."""
    code = segno.make_qr(ADDRESS)
    lines = qr.draw(ADDRESS).splitlines()

    assert len(lines) >= code.symbol_size()[1] // 2
    assert {len(line) for line in lines if line.strip()} == {code.symbol_size()[0]}


@pytest.mark.parametrize(("name", "begin"), [("claim.png", b"\x89PNG"), ("claim.SVG", b"<?xml")])
def test_a_file_is_private_and_of_its_kind(tmp_path: Path, name: str, begin: bytes) -> None:
    """PNG or SVG by the name, mode 0600."""
    path = qr.check_file(tmp_path / name)
    qr.save(ADDRESS, path)

    assert path.read_bytes().startswith(begin)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "words"), [("x.jpg", ".png or .svg"), ("there.png", "exists"), ("no/x.png", "folder")]
)
def test_a_file_that_cannot_be_written_is_said_before(tmp_path: Path, name: str, words: str) -> None:
    """No code is made for nothing, and none is overwritten."""
    (tmp_path / "there.png").touch()

    with pytest.raises(CliError, match=words):
        qr.check_file(tmp_path / name)
