"""docs/reference/rest.md names everything a client may meet: routes, parameters, errors, close codes, ops."""

import re

import pytest

from device_sdk.errors import Reason
from device_sdk.wire import Close
from docs.rest_page import hub_errors, rest
from hub.gateway.endpoint import Endpoint
from hub.gateway.rest import ENDPOINTS
from hub.roles import VERBS, Role, Verb
from hub.session import ALLOWED

PAGE = rest()


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: f"{e.method} {e.path}")
def test_every_route_has_its_section(endpoint: Endpoint) -> None:
    """A route stands there with its verb and every parameter it takes."""
    section = PAGE.split(f"### `{endpoint.method} {endpoint.path}`\n", 1)[1].split("\n### ", 1)[0]

    assert ("open to all" if endpoint.verb is None else f"verb `{endpoint.verb}`") in section
    assert ("for the whole namespace" in section) == endpoint.whole
    for name, field in endpoint.takes.model_fields.items():
        assert f"| `{field.alias or name}` |" in section


def test_every_reason_and_close_code_is_explained() -> None:
    """Words of the wire and numbers of WebSocket closes have a row with a meaning."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("|")]
    explained = {row[0] for row in rows if row[-1]}

    assert {f"`{reason}`" for reason in Reason} <= explained
    assert {str(code) for name, code in vars(Close).items() if name.isupper()} <= explained


def test_every_error_of_the_hub_is_listed() -> None:
    """Each reason word an error class of the hub can answer with is in the table with its status."""
    found = {(error.reason, error.status) for error in hub_errors()}

    missing = [(reason, status) for reason, status in found if f"| `{reason}` | {status} |" not in PAGE]

    assert len(found) > 10
    assert missing == []


def test_roles_have_the_verbs_of_the_table() -> None:
    """The table roles × verbs says what `hub.roles.VERBS` says."""
    for role in Role:
        cells = ["yes" if verb in VERBS[role] else "–" for verb in Verb]
        assert f"| {role} | {' | '.join(cells)} |" in PAGE


def test_every_op_is_listed() -> None:
    """Each op of devices has its states, each op of watchers its fields."""
    devices, watchers = PAGE.split("## Ops of devices")[1].split("## Ops of watchers")

    assert set(re.findall(r"^\| `(\w+)` \|", devices, re.MULTILINE)) == set(ALLOWED)
    assert re.findall(r"^### (\w+)$", watchers, re.MULTILINE) == ["hello", "sub", "unsub", "set", "auth"]
