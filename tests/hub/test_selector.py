"""`hub.selector`: devices by name, site and tag."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hub.errors import BadRequestError
from hub.metadata import Edit, Metadata
from hub.model import SeriesKey
from hub.selector import DeviceSelector, devices_matching, exact_names

NAMES = ("pump-10", "pump-2", "oven-1")


@pytest.fixture
def metadata(tmp_path: Path) -> Iterator[Metadata]:
    """Two pumps at two sites, one device of another namespace."""
    with closing(Metadata(tmp_path / "metadata.sqlite3")) as metadata:
        for namespace, device, fields in (
            ("default", "pump-2", {"site": "north", "tags": ["water", "old"]}),
            ("default", "pump-10", {"site": "south", "tags": ["water"]}),
            ("other", "oven-1", {"site": "north", "tags": ["water"]}),
        ):
            metadata.change(Edit(SeriesKey(namespace, device, ""), fields), "test")
        yield metadata


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        ("*", ["oven-1", "pump-2", "pump-10"]), ("tag:water", ["pump-2", "pump-10"]), ("site:north", ["pump-2"]),
        ("tag:water tag:old", ["pump-2"]), ("pump-* site:south", ["pump-10"]), ("oven-1 pump-2", ["oven-1", "pump-2"]),
        ("oven-1 tag:water", []), ("site:north site:south", []), ("tag:wat", []),
    ],
    ids=str,
)  # fmt: skip
def test_selector_chooses(metadata: Metadata, selector: str, chosen: list[str]) -> None:
    """Words are joined by "and", names by "or"; the order is natural; other namespaces do not count."""
    assert devices_matching(selector, "default", metadata, NAMES) == chosen


def test_selector_is_asked_again_after_an_edit(metadata: Metadata) -> None:
    """Read once, it answers as a device is described at the moment."""
    chooses = DeviceSelector("tag:water site:north", metadata.device)
    before = [chooses("default", name) for name in NAMES]

    metadata.change(Edit(SeriesKey("default", "pump-10", ""), {"site": "north"}), "test")

    assert before == [False, True, False]
    assert [chooses("default", name) for name in NAMES] == [True, True, False]
    assert chooses("other", "oven-1")


def test_only_granted_devices_are_chosen(metadata: Metadata) -> None:
    """A grant for one channel of a device is no grant for the device."""
    assert devices_matching("*", "default", metadata, NAMES, ("pump-*/**", "oven-1/t")) == ["pump-2", "pump-10"]


@pytest.mark.parametrize("selector", ["", "  ", "colour:red", "site:", "a/b/c", "x" * 3000], ids=lambda s: s[:10])
def test_selector_that_says_nothing_is_refused(metadata: Metadata, selector: str) -> None:
    """Nothing is never everything."""
    with pytest.raises(BadRequestError):
        devices_matching(selector, "default", metadata, NAMES)


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("pump-2", {"pump-2"}), ("pump-2 oven-1 site:north", {"pump-2", "oven-1"}), ("pump-2/t", {"pump-2"}),
        ("pump-*", None), ("pump-2 *", None), ("tag:water", None), ("pump-2/**", {"pump-2"}),
    ],
    ids=lambda given: given if isinstance(given, str) else "",  # a set has no order of its own
)  # fmt: skip
def test_exact_names_are_all_that_can_be_chosen(metadata: Metadata, selector: str, names: set[str] | None) -> None:
    """Who names devices is spared a look at all others, and chooses the same ones."""
    assert exact_names(selector) == names
    among = NAMES if names is None else names & set(NAMES)
    assert devices_matching(selector, "default", metadata, among) == devices_matching(
        selector, "default", metadata, NAMES
    )
