"""Foreign names → names of devices and channels, by a template, so that no two become one.

Owns: templates such as ``{host}`` and ``{measurement}.{field}``, and which foreign name has which of ours. Place:
before `line_protocol`. Pure.
"""

import re
from collections.abc import Mapping

from device_sdk.reading import MAX_CHANNEL_NAME, MAX_DEVICE_NAME, is_channel_name, is_device_name
from hub.decode.naming import slug
from hub.errors import BadRequestError
from hub.importing.row import RowError

# Names that were made, 200 bytes each: a file with more has a tag that is no name of anything.
MAX_NAMES = 200_000
_PLACE = re.compile(r"\{([^{}]+)\}")


class Template:
    """Text with places for tags, ``{measurement}``, ``{field}``; of several the first that can be filled holds.

    Raises:
        BadRequestError: a brace without its partner.
    """

    def __init__(self, *texts: str) -> None:
        self._texts = texts
        for text in texts:
            if set(_PLACE.sub("", text)) & set("{}"):
                raise BadRequestError(f"template {text!r}: a brace without its partner; use e.g. {{host}}")
        self._places = [tuple(_PLACE.findall(text)) for text in texts]

    def fill(self, known: Mapping[str, str]) -> str:
        """Return the text; raise `RowError` when nothing is known for a place."""
        for text, places in zip(self._texts, self._places, strict=True):
            if all(place in known for place in places):
                return _PLACE.sub(lambda place: known[place[1]], text)
        raise RowError(f"it has no {' or '.join(self._places[0])} to make {' or '.join(self._texts)} of")


class Names:
    """Which foreign name has which of ours: other characters become ``-``, and what another one has is refused."""

    def __init__(self) -> None:
        self._foreign: dict[tuple[str, str], str] = {}

    def device(self, text: str) -> str:
        """Return the name of a device; raise `RowError` when another text has it already."""
        return self._own("", text, text if is_device_name(text) else slug(text, MAX_DEVICE_NAME))

    def channel(self, device: str, text: str) -> str:
        """Return the name of a channel of a device; raises as `device`."""
        return self._own(device, text, text if is_channel_name(text) else slug(text, MAX_CHANNEL_NAME))

    def _own(self, device: str, text: str, name: str) -> str:
        known = self._foreign.get((device, name))
        if known is None:
            if len(self._foreign) >= MAX_NAMES:
                raise RowError(f"more than {MAX_NAMES} names of devices and channels")
            known = self._foreign[device, name] = text
        if known != text:
            raise RowError(f"{text[:80]!r} and {known[:80]!r} would both be called {name!r}")
        return name
