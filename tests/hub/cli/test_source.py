"""Sources: a hub and its files give the same answers."""

from pathlib import Path

import pytest

from hub.cli.exit_code import CliError, ExitCode
from hub.cli.rest import RestClient
from hub.cli.source import FilesSource, RestSource
from tests.hub.cli.conftest import T0
from tests.support.hub_process import HubProcess


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_export_is_the_same_from_both(hub: HubProcess, recorded: str, form: str) -> None:
    """Byte for byte."""
    parameters: dict[str, str | int | list[str] | None] = {"match": [recorded], "format": form}
    files = FilesSource(hub.data)
    try:
        with RestSource(RestClient(hub.url)).export(parameters) as by_rest, files.export(parameters) as from_files:
            assert b"".join(from_files) == b"".join(by_rest) != b""
    finally:
        files.close()


@pytest.mark.parametrize("bucket", [None, "5s"])
def test_readings_are_the_same_from_both(hub: HubProcess, recorded: str, bucket: str | None) -> None:
    """Rows and buckets, but for how JSON writes times."""
    parameters = {
        "match": [f"{recorded}/temperature"], "from": str(T0), "limit": "100", "bucket": bucket,
        "agg": "avg,count" if bucket else None,
    }  # fmt: skip
    by_rest = RestSource(RestClient(hub.url)).readings(parameters)
    files = FilesSource(hub.data)
    try:
        from_files = files.readings(parameters)
    finally:
        files.close()

    assert list(from_files["columns"]) == by_rest["columns"]
    assert [[str(row[0]), *row[1:]] for row in from_files["rows"]] == by_rest["rows"] != []


def test_audit_is_the_same_from_both(hub: HubProcess, recorded: str) -> None:
    """The ledgers do not depend on who reads them."""
    by_rest = RestSource(RestClient(hub.url)).audit(recorded)
    files = FilesSource(hub.data)
    try:
        from_files = files.audit(recorded)
    finally:
        files.close()

    assert from_files == by_rest
    assert by_rest["streams"][0]["accepted"] == 11


def test_folder_without_a_hub_is_refused(tmp_path: Path) -> None:
    """A mistyped --data is said to be no hub's; nothing is made in it."""
    with pytest.raises(CliError, match="must be the folder of a hub") as refused:
        FilesSource(tmp_path)

    assert refused.value.code is ExitCode.NOT_FOUND
    assert list(tmp_path.iterdir()) == []
