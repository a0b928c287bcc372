"""The delivery panel and the badge of a wrong clock: what the hub's audit says of the device being watched."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import expect
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from device_sdk import wire
from device_sdk.reading import Channel, ValueType
from device_sdk.wire import CHAIN_START
from tests.browser.conftest import PHONE, OpenTab, Tab, World
from tests.browser.test_page import SIDEWAYS

S = 10**9


@contextmanager
def leaky(world: World, name: str) -> Iterator[ClientConnection]:
    """A device by hand whose clock is 3.2 s ahead: 3 readings, one late, one refused, 70 lost before."""
    token = world.enrol(name)[name]
    url, protocol = world.hub.ws_url + wire.DEVICE_PATH, Subprotocol(wire.DEVICE_SUBPROTOCOL)
    headers = {"Authorization": f"Bearer {token}"}
    with connect(url, subprotocols=[protocol], additional_headers=headers, compression=None) as socket:
        now = time.time_ns()
        hello = wire.Hello(name, "00000000000000d1", "boot", "run", 0, 1, CHAIN_START.hex(), wall_ns=now + 32 * S // 10)
        say(socket, wire.encode(hello))
        channels = (Channel("flow", "L/min", ValueType.FLOAT, label="Flow"), Channel("open", type=ValueType.BOOL))
        socket.send(wire.encode(wire.Schema(channels)).decode())
        say(socket, batch(1, now, {"flow": ([0, 1000], [1.5, 2.5]), "open": ([0], [7])}))
        say(socket, wire.encode(wire.Gap(2, 70, "spool_full", {"flow": (now - 90 * S, now - 20 * S)})))
        say(socket, batch(3, now - 10 * S, {"flow": ([0], [0.5])}))
        yield socket


def say(socket: ClientConnection, message: bytes) -> dict[str, Any]:
    """Send one message; return the answer."""
    socket.send(message.decode())
    answer: dict[str, Any] = json.loads(socket.recv(10))
    return answer


def batch(seq: int, t0: int, columns: dict[str, Any]) -> bytes:
    """Return a batch by hand, in ms."""
    count = sum(len(values) for _, values in columns.values())
    parts = {name: {"dt": dt, "v": values} for name, (dt, values) in columns.items()}
    return json.dumps(
        {"op": "batch", "seq": seq, "count": count, "t0": str(t0), "tick": 10**6, "c": parts}
    ).encode()  # fmt: skip


def words(tab: Tab) -> str:
    """Return the whole panel as read from top to bottom."""
    return " ".join(tab.page.locator("#delivery").inner_text().split())


def test_delivery_says_that_all_is_there(open_tab: OpenTab) -> None:
    """Closed it takes no place; opened it says how much arrived and that nothing is missing; d closes it again."""
    tab = open_tab("#device=greenhouse-1").live()
    expect(tab.page.locator("#delivery")).to_be_hidden()

    tab.page.locator("#open-delivery").click()

    expect(tab.page.locator("#delivery-verdict")).to_contain_text("readings accounted for")
    expect(tab.page.locator("#open-delivery")).to_have_attribute("aria-expanded", "true")
    assert "complete" in words(tab)
    assert "Lost before the hub" not in words(tab)
    tab.page.keyboard.press("d")
    expect(tab.page.locator("#delivery")).to_be_hidden()


def test_delivery_names_every_loss_and_follows(open_tab: OpenTab, world: World) -> None:
    """How much, when and why; refused and late readings; a loss told meanwhile appears by itself."""
    with leaky(world, "leaky-1") as socket:
        tab = open_tab("#device=leaky-1").live()
        tab.page.keyboard.press("d")

        expect(tab.page.locator("#delivery-verdict")).to_have_text("◐ 71 readings missing, each accounted for")
        text = words(tab)
        assert "1…3 with losses" in text
        assert "70 readings spool_full the device's spool was full while it could not send · flow " in text
        assert "1 reading type_conflict open · the channel has values of another type · last " in text
        assert "3 rows 1 series 3 readings accepted · 1 came late" in text
        expect(tab.page.locator("#skew")).to_have_text("clock +3.2 s")

        say(socket, wire.encode(wire.Gap(4, None, "power_cut", {})))
        expect(tab.page.locator("#delivery")).to_contain_text("Unknown number")
        expect(tab.page.locator("#delivery")).to_contain_text("the device lost power before")


def test_delivery_follows_the_device(open_tab: OpenTab, world: World) -> None:
    """Another device's figures never stay; a device with a right clock has no badge."""
    with leaky(world, "leaky-2"):
        tab = open_tab("#device=leaky-2").live()
        tab.page.locator("#open-delivery").click()
        expect(tab.page.locator("#delivery-verdict")).to_contain_text("missing")

        tab.page.locator("#device-greenhouse-1").click()

        expect(tab.page.locator("#delivery-verdict")).to_contain_text("accounted for")
        expect(tab.page.locator("#delivery")).not_to_contain_text("spool_full")
        expect(tab.page.locator("#skew")).to_be_hidden()


def test_delivery_on_a_phone(open_tab: OpenTab, world: World) -> None:
    """The panel fits, its button is large enough, nothing scrolls sideways."""
    with leaky(world, "leaky-3"):
        tab = open_tab("#device=leaky-3", viewport=PHONE, has_touch=True, is_mobile=True).live()
        tab.page.locator("#open-delivery").tap()

        expect(tab.page.locator("#delivery-verdict")).to_contain_text("missing")
        box = tab.page.locator("#open-delivery").bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 44
        assert not tab.page.evaluate(SIDEWAYS)
        tab.page.set_viewport_size({"width": 320, "height": 640})
        assert not tab.page.evaluate(SIDEWAYS)


def test_late_rows_reach_whoever_asks(open_tab: OpenTab) -> None:
    """The page's half of watch.v1 hands each row on with its mark."""
    body = """
      const session = new m.Session(), seen = [];
      session.opened(() => {});
      session.subscribe({ match: ['**'], mode: 'lossless', since: '-15m' },
        { series() {}, reading: (id, time, value, isLate) => seen.push([value, isLate]) });
      session.receive({ op: 'data', sub: 's1', o: 'r.1', t0: '1700000000000000000', tick: 1,
        late: [[0, 1], [2, 3]], u: [[1, 0, 1], [1, 1, 2], [1, 2, 3]] });
      return seen;
    """
    tab = open_tab()

    seen = tab.page.evaluate(f"async () => {{ const m = await import('/client/v1/hub-client.js'); {body} }}")

    assert seen == [[1, True], [2, False], [3, True]]
