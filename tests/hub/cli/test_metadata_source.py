"""`hub.cli.metadata_source`: both sources give the same answers, and what one writes the other sees."""

import json
from pathlib import Path

import pytest

from hub.cli.exit_code import CliError
from hub.cli.metadata_source import FilesMetadata, RestMetadata, open_metadata
from hub.cli.rest import RestClient
from hub.errors import BadRequestError
from hub.metadata_table import TableRow
from tests.support.hub_process import HubProcess


def test_hub_and_its_files_answer_alike(hub: HubProcess, admin: str, recorded: str) -> None:
    """Listing, changes and history of a running hub are those of its file; a switch refuses a scale in both."""
    client = RestClient(hub.url, admin)
    with open_metadata(client, None) as rest, open_metadata(None, hub.data) as files:
        assert isinstance(rest, RestMetadata)
        assert isinstance(files, FilesMetadata)
        rest.change(recorded, None, {"label": "One", "add_tags": ["x"]})
        rows = [TableRow(recorded, "temperature", {"unit": "K"}), TableRow(recorded, "state", {"scale": 2})]

        outcomes = [source.change_all(rows, is_trial=True) for source in (rest, files)]
        made = rest.change_all(rows, is_trial=False)

        assert [[(o["changed"], o["error"]) for o in of] for of in outcomes] == [
            [(o["changed"], o["error"]) for o in made]
        ] * 2
        assert [bool(o["error"]) for o in made] == [False, True]
    with open_metadata(client, None) as rest, open_metadata(None, hub.data) as files:
        assert json.dumps(rest.listing([recorded])) == json.dumps(files.listing([recorded]))
        assert json.dumps(rest.history(recorded, None, 10, "now")) == json.dumps(
            files.history(recorded, None, 10, "now")
        )
        with pytest.raises(BadRequestError):
            files.listing(["a/b/c"])


def test_many_rows_go_in_several_requests(hub: HubProcess, admin: str, name: str) -> None:
    """More rows than one request takes have an outcome each, in order."""
    rows = [TableRow(f"{name}-{n}", None, {"label": f"Number {n}"} if n != 150 else {"size": 1}) for n in range(250)]

    with open_metadata(RestClient(hub.url, admin), None) as rest:
        outcomes = rest.change_all(rows, is_trial=True)

    assert [n for n, outcome in enumerate(outcomes) if outcome["error"]] == [150]
    assert len(outcomes) == 250


def test_folder_that_is_none_is_not_made(tmp_path: Path) -> None:
    """A mistyped folder is an error that says so."""
    with pytest.raises(CliError, match="no folder"), open_metadata(None, tmp_path / "typo"):
        pass

    assert not (tmp_path / "typo").exists()
