"""A code, a real hub, a real device, and a network that loses the answer."""

from contextlib import closing

import pytest

from device_sdk import Device
from device_sdk.claim import claim
from hub.auth import Identities
from simulators.faults import Effect, Fault, Way
from simulators.proxy import FaultProxy
from tests.support.hub_process import HubProcess

# Places in the exchange: before a byte of the question, within it, before a byte of the answer, within head and body.
CUTS = [
    *(Fault(Effect.RESET, Way.UP, byte) for byte in (0, 1, 60, 150)),
    *(Fault(Effect.CUT, Way.DOWN, byte) for byte in (0, 1, 40, 200, 540, 600)),
]


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_a_code_is_worth_one_working_token_wherever_the_exchange_breaks(hub: HubProcess, cut: Fault) -> None:
    """The claim ends with a token that works; the hub has one device with one token; the code is used up."""
    with closing(Identities(hub.data / "identities.sqlite3")) as identities:
        code = identities.add_claim("pi-1")[1]
    with FaultProxy(("127.0.0.1", hub.port), [cut]) as proxy:
        claimed = claim(f"http://127.0.0.1:{proxy.port}", code, timeout_s=20)
        struck = proxy.statistics().struck

    with Device("pi-1", hub.ws_url, token=claimed.token, spool=":memory:") as device:
        device.record(t=1.0)
        device.flush(20)
    status, _ = hub.request("POST", "/v1/claim", {"code": code})
    with closing(Identities(hub.data / "identities.sqlite3")) as identities:
        devices = [(device.name, device.tokens) for device in identities.devices()]

    assert struck
    assert devices == [("pi-1", 1)]
    assert status == 403
