"""Devices behind a gateway: a real hub, real sockets, decisions made by another process meanwhile."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from device_sdk import Gateway, wire
from device_sdk.columns import encode_batch, to_columns
from device_sdk.envelope import unwrap, wrap
from device_sdk.reading import Channel
from hub.auth import Identities
from hub.children import CHILDREN, Children
from hub.roles import Role
from simulators.faults import Effect, Fault, Way
from simulators.proxy import FaultProxy
from tests.end_to_end.conftest import admin_token, enrol
from tests.support.hub_process import HubProcess

LIMIT_S = 20.0
# What the README promises of every credential.
ENDS_WITHIN_S = 1.0
T0 = 1_795_376_000_000_000_000


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """One hub for all tests; each uses a gateway of its own."""
    with HubProcess(tmp_path_factory.mktemp("gateways") / "data") as hub:
        yield hub


@contextmanager
def files(hub: HubProcess) -> Iterator[tuple[Identities, Children]]:
    """The hub's files, as the command line opens them beside it."""
    with (
        closing(Identities(hub.data / "identities.sqlite3")) as identities,
        closing(Children(hub.data / CHILDREN, identities)) as children,
    ):
        yield identities, children


def make_gateway(hub: HubProcess, name: str, *auto_accept: str, quota: int = 10) -> tuple[str, str]:
    """Return (id, token) of a gateway for devices whose names begin with its own."""
    with files(hub) as (identities, children):
        children.set_rules(name, quota=quota, auto_accept=auto_accept)
        return identities.add_token(Role.GATEWAY, [f"{name}-*"], name)


class RawGateway:
    """A gateway spoken by hand."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._last = 100

    def say(self, number: int, message: bytes) -> None:
        """Send a device's message."""
        data = wrap(number, message)
        self._socket.send(data, text=data[:1] == b"{")

    def greet(self, number: int, device: str) -> dict[str, Any]:
        """Say hello for a device; return what the hub answers."""
        stream = f"{number:08x}" + device.encode().hex()[-8:].rjust(8, "f")
        self.say(number, wire.encode(wire.Hello(device, stream, "boot", "run", 0, 1, wire.CHAIN_START.hex())))
        return self.answer(number)

    def enter(self, device: str) -> int:
        """Say hello until the hub has seen that the device may speak; return its number."""
        limit = time.monotonic() + LIMIT_S
        while time.monotonic() < limit:
            self._last += 1
            if self.greet(self._last, device)["op"] == "welcome":
                return self._last
            time.sleep(0.02)
        raise AssertionError(f"{device} is not let in")

    def answer(self, number: int) -> dict[str, Any]:
        """Return the next message for a device, reading over those for others."""
        limit = time.monotonic() + LIMIT_S
        while True:
            data = self._socket.recv(max(0.0, limit - time.monotonic()), decode=False)
            found, message = unwrap(data)
            if found == number:
                return dict(json.loads(message))


@contextmanager
def connected(hub: HubProcess, token: str) -> Iterator[RawGateway]:
    """Open a gateway's connection."""
    with connect(
        hub.ws_url + wire.DEVICE_PATH, subprotocols=[Subprotocol(wire.DEVICE_SUBPROTOCOL)], compression=None,
        additional_headers={"Authorization": f"Bearer {token}"}, max_size=wire.MAX_FRAME_BYTES, proxy=None,
    ) as socket:  # fmt: skip
        yield RawGateway(socket)


def frame(seq: int) -> bytes:
    """Return a frame of one reading."""
    return encode_batch(to_columns(seq, [("level", T0 + seq, float(seq))]))


SCHEMA = wire.encode(wire.Schema((Channel("level"),)))


def test_devices_behind_a_gateway_deliver(hub: HubProcess) -> None:
    """Several on one connection, each acked for itself; their readings are those of any device."""
    _, token = make_gateway(hub, "side", "side-*")
    with connected(hub, token) as gateway:
        for count in (1, 2, 3):
            number = gateway.enter(f"side-{count}")
            gateway.say(number, SCHEMA)
            for seq in range(1, count + 1):
                gateway.say(number, frame(seq))
            while (answer := gateway.answer(number))["stored"] < count:
                assert answer["op"] == "ack"
            assert answer["stored"] == count

    latest = hub.get("/v1/latest?match=side-*", admin_token(hub))
    assert "side-3" in str(latest)


def test_pending_child_speaks_once_it_is_accepted(hub: HubProcess) -> None:
    """It is told that it waits and when to ask again; accepted by another process, its next hello is welcomed."""
    _, token = make_gateway(hub, "wait")
    with connected(hub, token) as gateway:
        refused = gateway.greet(1, "wait-1")
        with files(hub) as (_, children):
            children.accept("wait", "wait-1")
        begun = time.monotonic()
        gateway.enter("wait-1")

    assert refused["reason"] == "child_pending"
    assert refused["retry_ms"] <= 5000
    assert time.monotonic() - begun < ENDS_WITHIN_S


@pytest.mark.parametrize("way", ["ignored", "forgotten", "enrolled"])
def test_child_is_ended_within_a_second(hub: HubProcess, way: str) -> None:
    """By another process; the other children of the connection go on."""
    name = f"end-{way}"
    _, token = make_gateway(hub, name)
    first, second = f"{name}-1", f"{name}-2"
    with files(hub) as (_, children):
        children.accept(name, first)
        children.accept(name, second)
    with connected(hub, token) as gateway:
        ended, other = gateway.enter(first), gateway.enter(second)
        with files(hub) as (_, children):
            if way == "enrolled":
                enrol(hub, first)
            else:
                (children.ignore if way == "ignored" else children.forget)(name, first)
        begun = time.monotonic()
        bye = gateway.answer(ended)
        took_s = time.monotonic() - begun
        gateway.say(other, SCHEMA)
        gateway.say(other, frame(1))
        ack = gateway.answer(other)

    words = {"ignored": "child_ignored", "forgotten": "child_pending", "enrolled": "child_taken"}
    assert (bye["op"], bye["reason"]) == ("bye", words[way])
    assert took_s < ENDS_WITHIN_S
    assert (ack["op"], ack["stored"]) == ("ack", 1)


def test_revoked_gateway_ends_with_all_its_children(hub: HubProcess) -> None:
    """Within a second, with 4401; a second token of the same gateway has the same children."""
    id_, token = make_gateway(hub, "gone", "gone-*")
    _, further = make_gateway(hub, "gone", "gone-*")
    with connected(hub, token) as gateway:
        gateway.enter("gone-1")
        gateway.enter("gone-2")
        with files(hub) as (identities, _):
            identities.remove_token(id_)
        begun = time.monotonic()
        with pytest.raises(ConnectionClosed) as caught:
            gateway.answer(9)
        took_s = time.monotonic() - begun

    assert took_s < ENDS_WITHIN_S
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == wire.Close.UNAUTHENTICATED
    with connected(hub, further) as gateway:
        gateway.enter("gone-1")


def test_two_gateways_with_one_prefix_do_not_share(hub: HubProcess) -> None:
    """Whose child it became first, it is; the other gateway is told, and the child's line stays."""
    with files(hub) as (identities, children):
        tokens = {}
        for name in ("twin-a", "twin-b"):
            children.set_rules(name, auto_accept=["twin-*"])
            _, tokens[name] = identities.add_token(Role.GATEWAY, ["twin-*"], name)
    with connected(hub, tokens["twin-a"]) as first, connected(hub, tokens["twin-b"]) as second:
        number = first.enter("twin-1")
        assert second.greet(1, "twin-1")["reason"] == "child_taken"
        first.say(number, SCHEMA)
        first.say(number, frame(1))
        assert first.answer(number)["stored"] == 1


def everything_once(hub: HubProcess, prefix: str, count: int, each: int) -> None:
    """Check that every device's readings are stored, each once, and that the books balance."""
    token = admin_token(hub)
    answer = hub.get(f"/v1/readings?match={prefix}-*&from=0&limit=10000", token)
    at = {name: answer["columns"].index(name) for name in ("series", "time_ns")}
    found = [(answer["series"][row[at["series"]]]["device"], int(row[at["time_ns"]]) - T0) for row in answer["rows"]]
    assert sorted(found) == sorted((f"{prefix}-{n}", step) for n in range(count) for step in range(each))
    for number in (0, count - 1):
        (audit,) = hub.get(f"/v1/audit?device={prefix}-{number}", token)["devices"]
        assert audit["balanced"], audit


def test_two_hundred_devices_arrive_once_over_cut_lines(tmp_path: Path) -> None:
    """One connection, cut at random bytes again and again, and the hub killed in the middle: each reading once."""
    count, each = 200, 10
    # The hellos of all take some 80 KB; one fault for each connection.
    cuts = [Fault(Effect.RESET, Way.UP, 30_000), Fault(Effect.CUT, Way.DOWN, 9_000), Fault(Effect.CUT, Way.UP, 60_000)]
    with HubProcess(tmp_path / "data") as hub:
        _, token = make_gateway(hub, "many", "many-*", quota=count)
        # What holds for the gateway is seen by the hub within half a second; who comes before that waits five.
        hub.kill()
        hub.start()
        with (
            FaultProxy(("127.0.0.1", hub.port), cuts) as proxy,
            Gateway(f"ws://127.0.0.1:{proxy.port}", token=token, spool=tmp_path / "spools") as gateway,
        ):
            devices = [gateway.device(f"many-{number}") for number in range(count)]
            for step in range(each):
                for device in devices:
                    device.record(level=float(step), time=T0 + step)
                if step == 6:
                    devices[0].flush(LIMIT_S)
                    hub.kill()
                    hub.start()
            for device in devices:
                device.flush(60.0)
            struck = proxy.statistics().struck

        everything_once(hub, "many", count, each)
    assert struck == len(cuts)


def test_gateway_program_waits_for_a_person(hub: HubProcess) -> None:
    """A new device records at once, says why it waits, and delivers once it is accepted; one ignored is shut out."""
    _, token = make_gateway(hub, "sdk")
    with Gateway(hub.ws_url, token=token, spool=":memory:") as gateway:
        device, other = gateway.device("sdk-1"), gateway.device("sdk-2")
        for each in (device, other):
            each.record(level=1.0)
        waits_until(lambda: "child_pending" in str(device.status.last_error))
        with files(hub) as (_, children):
            children.accept("sdk", "sdk-1")
            children.ignore("sdk", "sdk-2")
        device.flush(LIMIT_S)
        waits_until(lambda: "child_ignored" in str(other.status.last_error))
        assert (device.status.online, other.status.pending) == (True, 1)

        with files(hub) as (_, children):
            children.ignore("sdk", "sdk-1")
        begun = time.monotonic()
        waits_until(lambda: not device.status.online)
        assert time.monotonic() - begun < ENDS_WITHIN_S


def test_command_finds_a_device_behind_a_gateway(hub: HubProcess) -> None:
    """As any other: declared, called, answered."""
    _, token = make_gateway(hub, "act", "act-*")
    with Gateway(hub.ws_url, token=token, spool=":memory:") as gateway:
        for number in (1, 2):
            device = gateway.device(f"act-{number}")

            @device.command
            def fan(speed: int, number: int = number) -> int:
                return 10 * number + speed

            device.record(level=1.0)
            device.flush(LIMIT_S)
        body = {"match": "act-*", "name": "fan", "args": {"speed": 3}, "timeout": "10s"}
        _, given = hub.request("POST", "/v1/commands", body, admin_token(hub))
        results: dict[str, Any] = {}

        def is_done() -> bool:
            results.update(hub.get(f"/v1/commands/{given['id']}", admin_token(hub)))
            return all(row["state"] == "done" for row in results["results"])

        waits_until(is_done)

    assert {row["device"]: row["value"] for row in results["results"]} == {"act-1": 13, "act-2": 23}


def waits_until(condition: Callable[[], bool]) -> None:
    """Wait until it is true."""
    limit = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.01)
