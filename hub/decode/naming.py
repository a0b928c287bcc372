"""Foreign names → names of devices and channels: always the same for the same text, and never one for two.

Owns: how a name is made valid, and which foreign name has which of ours. Place: after `base`. Pure.

Runs of other characters become ``-``. Where letters were lost by that (``客厅 1``), or the name was too long, four
digits of a hash follow at once: such names are alike often, and what depends on who comes first would be another name
after a restart. Where only signs were lost (``living room``) they follow only if another text has the name, or had it:
a name with digits that the hub knows from an earlier life stays its text's, whoever comes first now.

What people read may be less than what a thing is: two points with other keys, a dot in a key. The rest stands behind
`APART` in the text. The first of those that read alike has the name of what is read, each other one digits of its own.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2s
from itertools import chain

from device_sdk.reading import MAX_CHANNEL_NAME, MAX_DEVICE_NAME, is_channel_name, is_device_name

# Of the texts and names that a sender of many devices has: 1,000 devices with 20 channels. What comes when it is full
# has the hash at once, and needs no memory. A sender that is one device has 200 channels at most.
MAX_NAME_BYTES = 4 * 1024 * 1024
MAX_OWN_NAME_BYTES = 96 * 1024
# What a name costs beside its characters (measured: 90 for one that is its text, 160 for another), and a device.
_ENTRY_BYTES, _CHANGED_BYTES, _BOOK_BYTES = 150, 100, 400
MAX_LABEL_CHARS = 128
# Of a text that a name is made of; the digits behind it are of all of it.
_MAX_LIKE = 4096
# In front of what no name and no label is made of. A name in a line holds no line's end, a topic no NUL.
APART = "\n\0"
_OTHER = re.compile(r"[^A-Za-z0-9_.-]+")


# Says whether the hub has a device, or a channel of it; see `Names.know`.
Has = Callable[[str, str], bool]


def slug(text: str, most: int) -> str:
    """Return the text with ``-`` for runs of what no name may have; empty when nothing is left."""
    return _OTHER.sub("-", text).strip("-_.")[:most]


def label_of(text: str) -> str:
    """Return a foreign name as a label may be: on one line, not too long."""
    return "".join(c if c.isprintable() else " " for c in text[:MAX_LABEL_CHARS]).strip()


def shown(text: str) -> str:
    """Return what people read of a text."""
    return text.partition(APART)[0] if APART in text else text


class _Book:
    """The names of devices, or of the channels of one: whose each is, and what texts have that are no names.

    Where a name is what is shown of its text, ``texts`` has only what is behind that, if anything is: it is as many
    bytes as without. ``names`` has all other texts.
    """

    __slots__ = ("names", "texts")

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.names: dict[str, str] = {}

    def find(self, text: str) -> str | None:
        if self.texts.get(text) == text:
            return text
        if APART in text:
            name, sign, rest = text.partition(APART)
            if self.texts.get(name) == sign + rest:
                return name
        return self.names.get(text)

    def text_of(self, name: str) -> str | None:
        """Return whose a name is."""
        text = self.texts.get(name)
        return name + text if text is not None and text.startswith(APART) else text

    def free(self, text: str, said: str, names: Iterable[str]) -> str | None:
        """Return the first of the names that a text may have; None: there is none, or one has it that reads alike."""
        for name in filter(None, names):
            owner = self.text_of(name)
            if owner is None or owner == text:
                return name
            if said and shown(owner) == said:
                return None
        return None

    def keep(self, text: str, name: str) -> int:
        """Remember a name; return in how many bytes."""
        size = _ENTRY_BYTES + len(name)
        if name == shown(text):
            kept = self.texts[name] = text[len(name) :] or text
            return size + (len(kept) if kept is not text else 0)
        self.texts[name] = text
        self.names[text] = name
        return size + _CHANGED_BYTES + len(text) * (1 if text.isascii() else 4)


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
            text: which one it is, for its sender; people read what is in front of `APART`.
            like: what the name is made of, when the text is none that people know.
        """
        book = self._devices
        return book.find(text) or self._named(
            book, text, like, MAX_DEVICE_NAME, is_device_name, lambda name: self._has(name, "")
        )

    def channel(self, device: str, text: str, like: str = "") -> str:
        """Return the name of a channel, as `device`; names of two devices have nothing to do with each other."""
        book = self._channels.get(device) or self._book(device)
        return book.find(text) or self._named(
            book, text, like, MAX_CHANNEL_NAME, is_channel_name, lambda name: self._has(device, name)
        )

    def label(self, device: str, channel: str) -> str | None:
        """Return what a channel is called by its sender, where its name is made of that; None: as its name."""
        book = self._channels.get(device)
        text = (None if book is None else book.text_of(channel)) or channel
        said = shown(text)
        made = (
            _plain_name(said, MAX_CHANNEL_NAME),
            _hashed(said, said, MAX_CHANNEL_NAME, 4),
            _hashed(said, _whole(text), MAX_CHANNEL_NAME, 4),
        )
        return label_of(said) or None if said != channel and channel in made else None

    def _book(self, device: str) -> _Book:
        book = _Book()
        if self._bytes < self._max_bytes:
            self._channels[device] = book
            self._bytes += _BOOK_BYTES
        return book

    def _named(
        self, book: _Book, text: str, like: str, most: int, is_name: Callable[[str], bool], has: Callable[[str], bool]
    ) -> str:
        said, whole = like or shown(text), text if like else _whole(text)
        is_full = self._bytes >= self._max_bytes
        # Without memory, what is made of something else than the text could be another one's.
        is_first = said == text if is_full else not has(_hashed(said, whole, most, 4))
        name: str | None = None
        if is_first:
            had = not is_full and not like and has(_hashed(said, said, most, 4))
            plain = "" if had else said if is_name(said) else "" if is_full else _plain_name(said, most)
            # As if all that read alike were one.
            name = book.free(text, said, chain([plain], () if like else _with_digits(said, said, most)))
        if name is None:
            name = book.free(text, "", _with_digits(said, whole, most)) or _hashed(said, whole, most, 16)
        if not is_full:
            self._bytes += book.keep(text, name)
        return name


def _with_digits(like: str, text: str, most: int) -> Iterator[str]:
    return (_hashed(like, text, most, digits) for digits in (4, 8, 16))


def _whole(text: str) -> str:
    """Return what tells a text apart from all that read alike, as it is hashed: never what one of them reads."""
    return text if APART in text else text + APART


def _plain_name(text: str, most: int) -> str:
    """Return the name when no letter is lost by making it, else nothing."""
    if len(text) > _MAX_LIKE:
        return ""
    folded = _without_accents(text)
    if any(c.isalnum() and not c.isascii() for c in folded):
        return ""
    name = slug(folded, most + 1)
    return name if len(name) <= most else ""


def _hashed(like: str, text: str, most: int, digits: int) -> str:
    start = slug(_without_accents(like[:_MAX_LIKE]), most - digits - 1).rstrip("-_.")
    tail = blake2s(text.encode("utf-8", "surrogatepass"), digest_size=digits // 2).hexdigest()
    return f"{start}-{tail}" if start else tail


def _without_accents(text: str) -> str:
    """Return ``Küche`` as ``Kuche``."""
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _has_nothing(device: str, channel: str) -> bool:
    return False
