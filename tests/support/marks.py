"""A journal's marks that are a dictionary, for tests of what asks for them."""

from collections.abc import Mapping, Sequence

from hub.model import Mark, StreamKey
from hub.streams import FindMarks


def marks_of(known: Mapping[StreamKey, Mark]) -> FindMarks:
    """Return the look-up in a dictionary, which may change afterwards."""

    def find(keys: Sequence[StreamKey]) -> dict[StreamKey, Mark]:
        return {key: known[key] for key in keys if key in known}

    return find
