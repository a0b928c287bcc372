"""Foreign names become ours, and never two the same."""

import pytest

from hub.errors import BadRequestError
from hub.importing import naming
from hub.importing.naming import Names, Template
from hub.importing.row import RowError


def test_template_takes_the_first_that_can_be_filled() -> None:
    """Tags, text around them; what is missing is named."""
    template = Template("{room}-{host}", "{host}")

    assert template.fill({"room": "attic", "host": "pi"}) == "attic-pi"
    assert template.fill({"host": "pi"}) == "pi"
    with pytest.raises(RowError, match="room or host"):
        template.fill({"rack": "7"})


@pytest.mark.parametrize("text", ["{host", "host}", "{}", "{a{b}"])
def test_template_with_half_a_brace_is_refused(text: str) -> None:
    """Before anything is read."""
    with pytest.raises(BadRequestError, match="brace"):
        Template(text)


def test_no_two_names_become_one() -> None:
    """The second of two that would is refused, also when it needs no change; channels are apart by device."""
    names = Names()

    assert (names.device("living room"), names.device("living room")) == ("living-room", "living-room")
    with pytest.raises(RowError, match="living room"):
        names.device("living-room")
    assert names.channel("a", "in %") == names.channel("b", "in ") == "in"
    assert names.channel("a", "é") == ""


def test_names_are_bounded() -> None:
    """A tag that is different on each line fills no memory."""
    names = Names()
    for at in range(naming.MAX_NAMES):
        names.device(f"d{at}")

    with pytest.raises(RowError, match="200000"):
        names.device("one-more")
    assert names.device("d7") == "d7"
