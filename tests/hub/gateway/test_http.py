"""`hub.gateway.http`: access by role for every route, errors as JSON, limits of requests, one real socket."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from device_sdk.reading import Channel
from hub.errors import BadRequestError
from hub.gateway.endpoint import Endpoint
from hub.gateway.http import MAX_BODY_BYTES, make_app
from hub.gateway.rest import ENDPOINTS
from hub.gateway.websocket import Refuse, make_protocol
from hub.hooks.answer import Context, Reject
from hub.hooks.grant import Grants
from hub.roles import VERBS, Role, scopes_of
from tests.support.gateway import serving
from tests.support.hook_calls import ask_now
from tests.support.hub_parts import FixedSettings, HubParts, http_client, hub_parts


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubParts]:
    """An empty hub that listens for everybody, so that a credential is needed."""
    with hub_parts(tmp_path) as parts:
        parts.config = FixedSettings(tmp_path, is_loopback=False)
        yield parts


T0 = 1_795_376_000_000_000_000
# Path → the body of a request that a device's name belongs into; `{}` when the body names none.
BODIES: dict[str, Callable[[str], dict[str, Any]]] = {
    "/v1/devices": lambda device: {"device": device},
    "/v1/devices/bulk": lambda device: {"devices": [device]},
    "/v1/metadata": lambda _: {"edits": []},
    "/v1/devices/{device}/metadata": lambda _: {"label": "Mine"},
    "/v1/devices/{device}/channels/{channel}/metadata": lambda _: {"unit": "W"},
    "/v1/devices/{device}/rotate": lambda _: {"keep_s": 60},
    "/v1/devices/{device}/claim": lambda _: {"expires_s": 60},
    "/v1/devices/{device}/erase": lambda device: {"confirm": device},
    "/v1/claims": lambda _: {"match": "mine-*", "quota": 1},
    "/v1/claim": lambda device: {"code": "c0.unknown", "device": device},
    "/v1/commands": lambda _: {"match": "*", "name": "fan"},
    "/v1/commands/{id}/cancel": lambda _: {},
    "/v1/desired": lambda _: {"selector": "*", "patch": {"speed": 3}},
    "/v1/devices/{device}/desired": lambda _: {"patch": {"speed": 3}},
    "/v1/certificates/revoked": lambda _: {"fingerprint": "ab" * 32},
    "/v1/tokens": lambda _: {"role": "watcher"},
    "/v1/gateways/{gateway}/children/{device}": lambda _: {"state": "accepted"},
    "/v1/gateways/{gateway}": lambda _: {"quota": 3},
    "/v1/imports": lambda _: {"name": "old.csv", "id": "ab" * 16},
    "/v1/imports/{id}/frames": lambda device: {"frames": [{"device": device, "body": ""}]},
    "/v1/users": lambda _: {"name": "anna", "role": "watcher"},
    "/v1/users/{user}": lambda _: {"role": "watcher"},
    "/v1/users/{user}/password": lambda _: {"password": "ten letters"},
    "/v1/login": lambda _: {"name": "anna", "password": "ten letters"},
    "/v1/invite": lambda _: {"code": "none", "password": "ten letters"},
}
# Who asks: a role, and what its scopes hold for.
ASKERS = [(None, "**"), *((role, "**") for role in Role), *((role, "mine-*") for role in Role)]
DEVICES = ("mine-1", "theirs-1")


@pytest.fixture
def two_namespaces(hub: HubParts) -> HubParts:
    """The hub with the same devices in two namespaces; channels of the other one are called `secret`."""
    for namespace, channel in (("default", "level"), ("other", "secret")):
        for at, device in enumerate(DEVICES):
            session = hub.connect(device, stream=f"{at:016x}".replace("0", "b"), namespace=namespace)
            hub.feed(session, (channel, T0, 1.0), channels=(Channel(channel),))
    return hub


def token_of(hub: HubParts, role: Role | None, match: str) -> str | None:
    """A token of the default namespace."""
    if role is None:
        return None
    return (
        hub.identities.add_device("mine-0")
        if role is Role.DEVICE
        else hub.identities.add_token(role, [match], "gate")[1]
    )


def expected(endpoint: Endpoint, role: Role | None, match: str, device: str) -> set[int]:
    """The statuses that an asker may get, by the table of roles alone."""
    names_device = "{device}" in endpoint.path or device in str(BODIES.get(endpoint.path, str)(device))
    if endpoint.path == "/v1/claim":
        return {403}  # what opens it is in the body, and no credential helps
    if endpoint.verb is None:
        return {200} if endpoint.path == "/healthz" else {200, 204, 401, 429}
    if role is None:
        return {401}
    if endpoint.verb not in VERBS[role] or (endpoint.whole and match != "**"):
        return {403}
    if endpoint.bodies:
        # A device is itself alone; of a gateway no child is accepted, and these are connected by themselves.
        return {400} if role is Role.DEVICE else {403}
    if names_device and endpoint.method != "GET" and match != "**" and not device.startswith("mine-"):
        return {403}
    return {200, 201, 204, 400, 404, 409}


async def ask(client: httpx.AsyncClient, endpoint: Endpoint, device: str) -> httpx.Response:
    """Call an endpoint for a device; ids exist nowhere."""
    path = endpoint.path.replace("{device}", device).replace("{id}", "t0").replace("{channel}", "volume")
    path = path.replace("{gateway}", "barn")
    path = path.replace("{user}", "berta").replace("{fingerprint}", "cd" * 32)
    assert "{" not in path, "a new path parameter: say above what to put there"
    body: dict[str, Any] = {}
    if endpoint.bodies:
        body = {"json": {"level": 1.0}, "params": {"device": device}}
    elif endpoint.method in ("POST", "PATCH") and endpoint.takes.model_fields:
        body = {"json": BODIES[endpoint.path](device)}
    return await client.request(endpoint.method, path, **body)


@pytest.mark.asyncio
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("role", "match"), ASKERS, ids=str)
async def test_every_route_asks_for_its_scope(
    two_namespaces: HubParts, role: Role | None, match: str, device: str
) -> None:
    """Every endpoint × role × own and other devices: 401, 403 or an answer, as the tables of roles and routes say.

    No answer and no error shows what another namespace has, or the token.
    """
    token = token_of(two_namespaces, role, match)

    async with http_client(make_app(two_namespaces), token=token) as client:
        for endpoint in ENDPOINTS:
            response = await ask(client, endpoint, device)

            told = (endpoint.method, endpoint.path, response.text[:500])
            assert response.status_code in expected(endpoint, role, match, device), told
            assert endpoint.media == ("application/x-tar",) or "secret" not in response.text, told
            assert token is None or token not in response.text, told
            if response.status_code >= 400:
                assert set(response.json()["error"]) == {"reason", "message"}
            if response.status_code == 401:
                assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.asyncio
@pytest.mark.parametrize(("role", "match"), ASKERS[1:], ids=str)
async def test_who_may_be_granted_the_logs_readings_may_read_the_log(hub: HubParts, role: Role, match: str) -> None:
    """One rule for `/v1/log` and for a scope that names `$sys`, over all roles."""
    may = True
    try:
        scopes_of(role, [match, "$sys/audit"])
    except BadRequestError:
        may = False

    async with http_client(make_app(hub), token=token_of(hub, role, match)) as client:
        answer = await client.get("/v1/log")

    assert may is (answer.status_code == 200)


@pytest.mark.asyncio
async def test_no_route_takes_the_reserved_name_for_a_device(two_namespaces: HubParts) -> None:
    """Enrolled, claimed, described, commanded, set: nothing can be called `$sys`, whoever asks."""
    hub = two_namespaces
    _, token = hub.identities.add_token(Role.ADMIN, ["**", "$sys"])
    _, code = hub.identities.claims.add_group("*", 9, 600.0, namespace="default")

    async with http_client(make_app(hub), token=token) as client:
        answers = {}
        for endpoint in ENDPOINTS:
            names = (
                endpoint.method != "GET" and endpoint.path in BODIES and "$sys" in str(BODIES[endpoint.path]("$sys"))
            )
            if names or "{device}" in endpoint.path:
                answers[endpoint.method, endpoint.path] = await ask(client, endpoint, "$sys")
        claimed = await client.post("/v1/claim", json={"code": code, "device": "$sys"})
        command = await client.post("/v1/commands", json={"match": "$sys", "name": "fan"})
        desired = await client.post("/v1/desired", json={"selector": "$sys", "patch": {"speed": 3}})
        edits = await client.post("/v1/metadata", json={"edits": [{"device": "$sys", "fields": {"label": "x"}}]})

    refused = {route: answer.status_code for route, answer in answers.items()}
    assert refused.pop(("POST", "/v1/claim")) == 403  # its code is unknown
    assert len(refused) > 10
    assert set(refused.values()) <= {400, 404}, refused
    assert (claimed.status_code, command.status_code, edits.status_code) == (400, 404, 200)
    assert desired.json()["devices"] == []
    assert "$sys" in edits.json()["outcomes"][0]["error"]
    assert "$sys" not in {device.name for device in hub.identities.devices()}


@pytest.mark.asyncio
async def test_another_namespace_has_its_own_everything(two_namespaces: HubParts) -> None:
    """An admin of one namespace sees nothing of the other, manages nothing there, and gets no backup of the hub."""
    _, token = two_namespaces.identities.add_token(Role.ADMIN, namespace="other")
    two_namespaces.identities.add_device("mine-1")

    async with http_client(make_app(two_namespaces), token=token) as client:
        answers = [await ask(client, endpoint, "mine-1") for endpoint in ENDPOINTS]
        removed = await client.delete("/v1/devices/mine-1")

    assert not any("level" in answer.text for answer in answers)
    assert [d.name for d in two_namespaces.identities.devices()] == ["mine-1"]
    assert removed.status_code == 404
    assert {e.path for e, a in zip(ENDPOINTS, answers, strict=True) if a.status_code == 403} == {
        "/metrics",
        "/v1/backup",
        "/v1/batches",
        "/v1/claim",
        "/v1/status",
    }


@pytest.mark.asyncio
async def test_loopback_reads_without_login_and_manages_never(hub: HubParts) -> None:
    """The free access of this machine is a watcher's; what changes something asks for an admin with 401."""
    hub.config = FixedSettings(is_loopback=True)

    async with http_client(make_app(hub)) as client:
        read = await client.get("/v1/devices")
        manage = await client.post("/v1/devices", json={"device": "x"})
        rebound = await client.get("/v1/devices", headers={"Host": "evil.example:8000"})

    assert (read.status_code, manage.status_code, rebound.status_code) == (200, 401, 401)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("mach=a", "mach"), ("limit=0", "limit"), ("limit=1e9", "limit"), ("order=up", "order"),
        ("limit=1&limit=2", "twice"),
        ("match=a/b/c", "pattern"), ("match=" + "x" * 500, "match"), ("from=yesterday", "yesterday"),
        ("page=zz", "page"),
        ("last=1h&from=0", "last"), ("bucket=1&agg=avg", "bucket"), ("bucket=1m&agg=median", "median"),
        ("from=2026-01-01T00:00:00", "zone"), ("from=2&to=1", "before"), ("bucket=0ms&from=0", "bucket"),
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
async def test_bad_parameter_is_400_and_named(hub: HubParts, query: str, word: str) -> None:
    """A parameter that is unknown or wrong is refused with its name, never ignored."""
    _, token = hub.identities.add_token(Role.WATCHER)
    hub.feed(hub.connect("pump-1"), ("x", 1_795_376_000_000_000_000, 1.0), channels=(Channel("x"),))

    async with http_client(make_app(hub), token=token) as client:
        response = await client.get(f"/v1/readings?{query}")

    assert response.status_code == 400, response.text
    assert word in response.json()["error"]["message"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"device":1}', b'{"device":"a","admin":true}', b"\xff", b"[" * 100_000],
    ids=["empty", "torn", "list", "null", "number", "extra", "not-utf8", "deep"],
)
async def test_bad_body_is_400(hub: HubParts, body: bytes) -> None:
    """Whatever is posted, the answer is an error in words."""
    _, token = hub.identities.add_token(Role.ADMIN)

    async with http_client(make_app(hub), token=token) as client:
        response = await client.post("/v1/devices", content=body)

    assert (response.status_code, response.json()["error"]["reason"]) == (400, "bad_request")


@pytest.mark.asyncio
async def test_large_body_is_413(hub: HubParts) -> None:
    """A body over 1 MiB is refused while it is read."""
    _, token = hub.identities.add_token(Role.ADMIN)

    async with http_client(make_app(hub), token=token) as client:
        response = await client.post("/v1/devices", content=b" " * (MAX_BODY_BYTES + 1))

    assert (response.status_code, response.json()["error"]["reason"]) == (413, "too_large")


@pytest.mark.asyncio
async def test_unknown_path_and_method_answer_as_json(hub: HubParts) -> None:
    """404 and 405 have the same shape as every other error."""
    async with http_client(make_app(hub)) as client:
        missing, method = await client.get("/v1/nothing"), await client.put("/v1/devices")

    assert (missing.status_code, missing.json()["error"]["reason"]) == (404, "not_found")
    assert (method.status_code, method.json()["error"]["reason"]) == (405, "method_not_allowed")


@pytest.mark.asyncio
async def test_bug_is_500_without_details(hub: HubParts) -> None:
    """An unexpected error tells nothing of the inside, and keeps the security headers."""
    _, token = hub.identities.add_token(Role.WATCHER)
    hub.store.close()
    hub.registry.latest[999] = None  # type: ignore[assignment]
    hub.registry.by_id[999] = None  # type: ignore[assignment]

    async with http_client(make_app(hub), token=token) as client:
        response = await client.get("/v1/latest")

    assert response.status_code == 500
    assert response.json() == {"error": {"reason": "internal", "message": "the hub failed; its log says why"}}
    assert "content-security-policy" in response.headers


@pytest.mark.asyncio
async def test_device_path_without_websocket_is_426(hub: HubParts) -> None:
    """Whoever opens the devices' address with plain HTTP is told what it speaks."""
    async with http_client(make_app(hub)) as client:
        response = await client.get("/v1/device")

    assert (response.status_code, response.headers["upgrade"]) == (426, "websocket")


@pytest.mark.asyncio
async def test_hooks_narrow_what_rest_reads_commands_and_edits(hub: HubParts) -> None:
    """Asked with what the request is about; what they leave holds as a scope would; managing is not asked for."""
    asked: list[tuple[str, str, tuple[str, ...]]] = []

    def hook(context: Context, action: str, pattern: str) -> object:
        asked.append((action, pattern, context.asked))
        return Reject("read only") if action == "command" else ["*/temperature"]

    hub.feed(
        hub.connect("d"),
        ("temperature", T0, 1.5),
        ("secret", T0, 2.5),
        channels=(Channel("temperature"), Channel("secret")),
    )
    hub.grants = Grants((hook,), ask_now)
    _, token = hub.identities.add_token(Role.ADMIN)
    async with http_client(make_app(hub), token=token) as client:
        latest = await client.get("/v1/latest", params={"match": ["d", "e"]})
        of_device = await client.get("/v1/devices/d/commands")
        command = await client.post("/v1/commands", json={"match": "d", "name": "stop"})
        managed = await client.get("/v1/tokens")

    assert [r["channel"] for r in latest.json()["readings"]] == ["temperature"]
    assert of_device.status_code == 403
    assert (command.status_code, command.json()["error"]["message"]) == (403, "hook: read only")
    assert managed.status_code == 200
    assert asked == [("read", "*/*", ("d", "e")), ("command", "*/*", ("d/**",)), ("command", "*/*", ("d",))]


@pytest.mark.asyncio
async def test_hook_that_fails_opens_nothing(hub: HubParts) -> None:
    """503, for REST and for a stream of events."""
    hub.grants = Grants((lambda *_: None,), ask_now)
    _, token = hub.identities.add_token(Role.WATCHER)
    async with http_client(make_app(hub), token=token) as client:
        for path in ("/v1/latest", "/v1/watch"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["error"]["reason"]) == (503, "hook_failed"), path


@pytest.mark.asyncio
@pytest.mark.parametrize("query", ["", "?wait=0s"], ids=["events", "poll"])
async def test_credential_that_ends_while_hooks_are_asked_watches_nothing(hub: HubParts, query: str) -> None:
    """It was in no list of watchers when its end was told, and would watch on for ever."""
    id_, token = hub.identities.add_token(Role.WATCHER)

    def hook(context: Context, action: str, pattern: str) -> object:
        hub.identities.remove_token(id_)
        hub.live.end_identities(hub.identities.refresh())
        return True

    hub.grants = Grants((hook,), ask_now)
    async with http_client(make_app(hub), token=token) as client, asyncio.timeout(10):
        answer = await client.get(f"/v1/watch{query}")

    assert (answer.status_code, hub.live.statistics().watchers) == (401, 0)


@pytest.mark.asyncio
async def test_watching_by_events_needs_a_watcher(hub: HubParts) -> None:
    """The event stream is guarded like every other reading route."""
    async with http_client(make_app(hub)) as client:
        response = await client.get("/v1/watch")

    assert response.status_code == 401


@pytest.mark.asyncio
async def test_pages_of_allowed_origins_may_ask(hub: HubParts) -> None:
    """Their browsers are told so, before a request with a token and with the answer; those of others are not."""
    hub.config = FixedSettings(is_loopback=False, allow_origin=["https://panel.example"])
    _, token = hub.identities.add_token(Role.WATCHER)
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    seen = []

    async with http_client(make_app(hub)) as client:
        for origin in ("https://panel.example", "https://evil.example"):
            before = await client.options("/v1/watch", headers={"Origin": origin, **asked})
            answer = await client.get("/v1/devices", headers={"Origin": origin, "Authorization": f"Bearer {token}"})
            allowed = [r.headers.get("access-control-allow-origin") for r in (before, answer)]
            seen.append((before.status_code, allowed, "access-control-allow-credentials" in answer.headers))
            assert answer.headers["x-content-type-options"] == before.headers["x-content-type-options"] == "nosniff"

    assert seen == [(200, ["https://panel.example"] * 2, False), (400, [None, None], False)]


@pytest.mark.asyncio
async def test_application_and_websocket_on_one_real_port(hub: HubParts) -> None:
    """Over a socket: REST answers, and an upgrade goes to the WebSocket class."""
    hub.config = FixedSettings(is_loopback=True)
    protocol = make_protocol(lambda request: Refuse(404, "not_found", request.path))

    async with serving(make_app(hub), ws=protocol) as port, httpx.AsyncClient(trust_env=False) as client:
        response = await client.get(f"http://127.0.0.1:{port}/v1/devices")
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"ws://127.0.0.1:{port}/v1/elsewhere", proxy=None)

    assert response.json()["devices"] == []
    assert json.loads(caught.value.response.body)["error"]["message"] == "/v1/elsewhere"


@pytest.mark.asyncio
async def test_what_passes_by_itself_does_not_fill_the_log(hub: HubParts, caplog: pytest.LogCaptureFixture) -> None:
    """A thousand devices that are told to come again are no thousand errors of the hub."""
    hub.has_room = False
    async with http_client(make_app(hub), token=hub.identities.add_device("pi")) as client:
        answer = await client.post("/v1/batches", json={"t": 1})

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
