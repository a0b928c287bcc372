"""Foreign names → names of devices and channels: always the same for the same text, and never one for two.

Owns: how a name is made valid, and which foreign name has which of ours. Place: after `base`. Pure.

Runs of other characters become ``-``. Where letters were lost by that (``客厅 1``), or the name was too long, four
digits of a hash follow at once: such names are alike often, and what depends on who comes first would be another name
after a restart. Where only signs were lost (``living room``) they follow only if another text has the name, or had it:
a name with digits that the hub knows from an earlier life stays its text's, whoever comes first now.
"""

import re
import unicodedata
from collections.abc import Callable
from hashlib import blake2s

from device_sdk.reading import MAX_CHANNEL_NAME, MAX_DEVICE_NAME, is_channel_name, is_device_name

# Of the texts and names that a sender of many devices has: 1,000 devices with 20 channels. What comes when it is full
# has the hash at once, and needs no memory. A sender that is one device has 200 channels at most.
MAX_NAME_BYTES = 4 * 1024 * 1024
MAX_OWN_NAME_BYTES = 96 * 1024
# What a name costs beside its characters (measured: 90 for one that is its text, 160 for another), and a device.
_ENTRY_BYTES, _CHANGED_BYTES, _BOOK_BYTES = 150, 100, 400
MAX_LABEL_CHARS = 128
_OTHER = re.compile(r"[^A-Za-z0-9_.-]+")


# Says whether the hub has a device, or a channel of it; see `Names.know`.
Has = Callable[[str, str], bool]


def slug(text: str, most: int) -> str:
    """Return the text with ``-`` for runs of what no name may have; empty when nothing is left."""
    return _OTHER.sub("-", text).strip("-_.")[:most]


def label_of(text: str) -> str:
    """Return a foreign name as a label may be: on one line, not too long."""
    return "".join(c if c.isprintable() else " " for c in text[:MAX_LABEL_CHARS]).strip()


class _Book:
    """The names of devices, or of the channels of one: whose each is, and what texts have that are no names."""

    __slots__ = ("names", "texts")

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.names: dict[str, str] = {}

    def find(self, text: str) -> str | None:
        return text if self.texts.get(text) == text else self.names.get(text)


class Names:
    """Which foreign name has which of ours, for one sender, in so many bytes of memory."""

    __slots__ = ("_bytes", "_channels", "_devices", "_has", "_max_bytes")

    def __init__(self, max_bytes: int = MAX_NAME_BYTES) -> None:
        self._has: Has = _has_nothing
        self._max_bytes = max_bytes
        self._devices = _Book()
        self._channels: dict[str, _Book] = {}
        self._bytes = 0

    def know(self, has: Has) -> None:
        """Take what says whether the hub has a device (no channel named), or a channel of it."""
        self._has = has

    def device(self, text: str, like: str = "") -> str:
        """Return the name of a device.

        Args:
            text: which one it is, for its sender.
            like: what the name is made of, when the text is none that people know.
        """
        book = self._devices
        return book.find(text) or self._named(
            book, text, like or text, MAX_DEVICE_NAME, is_device_name, lambda name: self._has(name, "")
        )

    def channel(self, device: str, text: str, like: str = "") -> str:
        """Return the name of a channel, as `device`; names of two devices have nothing to do with each other."""
        book = self._channels.get(device) or self._book(device)
        return book.find(text) or self._named(
            book, text, like or text, MAX_CHANNEL_NAME, is_channel_name, lambda name: self._has(device, name)
        )

    def label(self, device: str, channel: str) -> str | None:
        """Return what a channel is called by its sender, where its name is made of that; None: as its name."""
        book = self._channels.get(device)
        text = channel if book is None else book.texts.get(channel, channel)
        made = (_plain_name(text, MAX_CHANNEL_NAME), _hashed(text, text, MAX_CHANNEL_NAME, 4))
        return label_of(text) or None if text != channel and channel in made else None

    def _book(self, device: str) -> _Book:
        book = _Book()
        if self._bytes < self._max_bytes:
            self._channels[device] = book
            self._bytes += _BOOK_BYTES
        return book

    def _named(
        self, book: _Book, text: str, like: str, most: int, is_name: Callable[[str], bool], has: Callable[[str], bool]
    ) -> str:
        is_full = self._bytes >= self._max_bytes
        # Without memory, what is made of something else than the text could be another one's.
        name = "" if is_full and like != text else like if is_name(like) else "" if is_full else _plain_name(like, most)
        had = not is_full and has(_hashed(like, text, most, 4))
        for digits in (4, 8, 16) if had else (0, 4, 8, 16):
            if digits:
                name = _hashed(like, text, most, digits)
            if name and book.texts.get(name, text) == text:
                break
        if not is_full:
            book.texts[name] = text
            self._bytes += _ENTRY_BYTES + len(name)
            if name != text:
                book.names[text] = name
                self._bytes += _CHANGED_BYTES + 4 * len(text)
        return name


def _plain_name(text: str, most: int) -> str:
    """Return the name when no letter is lost by making it, else nothing."""
    folded = _without_accents(text)
    if any(c.isalnum() and not c.isascii() for c in folded):
        return ""
    name = slug(folded, most + 1)
    return name if len(name) <= most else ""


def _hashed(like: str, text: str, most: int, digits: int) -> str:
    start = slug(_without_accents(like), most - digits - 1).rstrip("-_.")
    tail = blake2s(text.encode("utf-8", "surrogatepass"), digest_size=digits // 2).hexdigest()
    return f"{start}-{tail}" if start else tail


def _without_accents(text: str) -> str:
    """Return ``Küche`` as ``Kuche``."""
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _has_nothing(device: str, channel: str) -> bool:
    return False
