"""Choosing devices by name, site and tag, in the words of the page's filter.

Owns: the grammar and the choice. Place: after `metadata` and `live.patterns`. Pure but for asking what is described.

``greenhouse-* site:north tag:tomatoes``: words are joined by "and", except names, of which one must fit.
"""

from collections.abc import Callable, Collection, Iterable, Sequence

from hub.description import DeviceDescription
from hub.devices import natural_key
from hub.errors import BadRequestError
from hub.live.patterns import PatternSet
from hub.metadata import Metadata

# The longest pattern list and all the tags that a device may have fit in; more is no selector a person wrote.
MAX_SELECTOR_CHARS = 2000


def devices_matching(
    selector: str, namespace: str, metadata: Metadata, names: Iterable[str], granted: Sequence[str] = ("**",)
) -> list[str]:
    """Return those of ``names`` that a selector chooses, in natural order.

    Args:
        selector: e.g. ``site:north tag:tomatoes``, ``greenhouse-1 greenhouse-2``, ``*``.
        names: the devices there are, of one namespace.
        granted: patterns of the caller; a device counts when all of its channels do.

    Raises:
        BadRequestError: an empty selector, an unknown word before ``:``, a name that cannot be read.
    """
    chooses, allowed = DeviceSelector(selector, metadata.device), _patterns(granted)
    return sorted(
        (name for name in set(names) if chooses(namespace, name) and allowed.matches(name, "*")), key=natural_key
    )


class DeviceSelector:
    """A selector that was read once, to be asked for one device after another, and again when one is described.

    Args:
        selector: as of `devices_matching`, which says what it raises.
        described: (namespace, device) → what people said of the device.
    """

    def __init__(self, selector: str, described: Callable[[str, str], DeviceDescription]) -> None:
        patterns, self._sites, self._tags = _parsed(selector)
        self._patterns = _patterns(patterns or ["**"])
        self._described = described

    def __call__(self, namespace: str, device: str) -> bool:
        """Return whether the device is chosen, as it is described now."""
        if not self._patterns.matches(device, "*"):
            return False
        description = self._described(namespace, device)
        return all(is_chosen(description, site, self._tags) for site in self._sites or [None])


def exact_names(selector: str) -> set[str] | None:
    """Return the only names that a selector can choose; None: it has to be held against all devices.

    Raises:
        BadRequestError: as `devices_matching`.
    """
    patterns = _patterns(_parsed(selector)[0]).match
    if not patterns or any(pattern.device.suffix is not None for pattern in patterns):
        return None
    return {pattern.device.text for pattern in patterns}


def is_chosen(device: DeviceDescription, site: str | None, tags: Collection[str]) -> bool:
    """Return whether a device is at the site (None: any) and has all the tags."""
    return site in (None, device.site) and set(tags) <= set(device.tags)


def _parsed(selector: str) -> tuple[list[str], list[str | None], list[str]]:
    if len(selector) > MAX_SELECTOR_CHARS:
        raise BadRequestError(f"a selector of {len(selector)} characters; the limit is {MAX_SELECTOR_CHARS}")
    patterns: list[str] = []
    sites: list[str | None] = []
    tags: list[str] = []
    for word in selector.split():
        key, colon, value = word.partition(":")
        if not colon:
            patterns.append(word)
        elif key == "site" and value:
            sites.append(value)
        elif key == "tag" and value:
            tags.append(value)
        else:
            raise BadRequestError(f"{word[:40]!r}: use a name such as greenhouse-*, site:NAME or tag:NAME")
    if not (patterns or sites or tags):
        raise BadRequestError("no device is named: use a name such as greenhouse-*, site:NAME or tag:NAME; * is all")
    return patterns, sites, tags


def _patterns(texts: Sequence[str]) -> PatternSet:
    try:
        return PatternSet(texts)
    except ValueError as error:
        raise BadRequestError(str(error)) from error
