"""The audit of a running hub, asked for while devices send: it balances to the reading at every moment."""

import threading
import time
from contextlib import ExitStack

from device_sdk import Device
from tests.end_to_end.conftest import enrol
from tests.support.hub_process import HubProcess

DEVICES, SECONDS = 4, 3.0


def test_audit_balances_while_devices_send(hub: HubProcess) -> None:
    """New devices begin, readings pour in, some of them late: no audit ever says that a reading is missing."""
    tokens = enrol(hub, *(f"pump-{n}" for n in range(DEVICES)))
    ends = threading.Event()
    recorded = dict.fromkeys(tokens, 0)

    def send(stack: ExitStack) -> None:
        for name, token in tokens.items():
            device = stack.enter_context(Device(name, hub.ws_url, token=token, spool=":memory:"))
            limit = time.monotonic() + SECONDS / DEVICES
            while time.monotonic() < limit:
                for n in range(50):
                    device.record({"flow": float(n), "level": n}, time=time.time_ns() - n % 7 * 10**9)
                    recorded[name] += 2
                time.sleep(0.002)
            device.flush(20)
        ends.set()

    with ExitStack() as stack:
        thread = threading.Thread(target=send, args=(stack,))
        thread.start()
        audits = []
        while not ends.is_set():
            audits.append(hub.get("/v1/audit"))
        thread.join()
        last = hub.get("/v1/audit")

    assert [(a["behind"], a["devices"]) for a in audits if a["balanced"] is False] == []
    assert sum(a["balanced"] is True and bool(a["devices"]) for a in audits) >= 5
    assert (last["balanced"], last["behind"]) == (True, 0)
    assert {d["device"]: d["accepted"] for d in last["devices"]} == recorded
