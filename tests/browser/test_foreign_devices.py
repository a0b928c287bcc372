"""Devices that nobody here wrote, in the page: a sensor behind Zigbee2MQTT waits, is accepted, and is read with units.

Its client is Eclipse Paho and says what Zigbee2MQTT says, at the hub's own port and through mosquitto.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from playwright.sync_api import Browser, Page, expect

from hub.auth import Identities
from hub.roles import Role
from hub.users import USERS, Users
from tests.browser.test_children import PASSWORD
from tests.support.hub_process import HubProcess, free_port
from tests.support.mosquitto import Mosquitto

LIMIT_S = 15.0
EXPOSES = [
    {"type": "numeric", "name": "temperature", "property": "temperature", "unit": "°C", "access": 1},
    {"type": "numeric", "name": "humidity", "property": "humidity", "unit": "%", "access": 1},
]
ANNOUNCED = [
    {"ieee_address": "0x00124b0018e27922", "type": "Coordinator", "friendly_name": "Coordinator"},
    {
        "ieee_address": "0x00158d0001dc126a",
        "type": "EndDevice",
        "friendly_name": "office",
        "definition": {"model": "WSDCGQ11LM", "vendor": "Aqara", "exposes": EXPOSES},
    },
]
# Name of the gateway behind which it waits, the hub, and a client that may publish.
Site = tuple[str, HubProcess, paho.Client]


@contextmanager
def directly(folder: Path) -> Iterator[Site]:
    """Zigbee2MQTT speaks to the hub, with a gateway's token."""
    port = free_port()
    with HubProcess(folder / "data", "--mqtt-port", str(port)) as hub, ExitStack() as stack:
        with closing(Identities(hub.data / "identities.sqlite3")) as identities:
            _, token = identities.add_token(Role.GATEWAY, ["*"], "z2m")
        yield "z2m", hub, stack.enter_context(connected(port, "z2m", token))


@contextmanager
def through_mosquitto(folder: Path) -> Iterator[Site]:
    """Zigbee2MQTT speaks to its broker, as it always did; the hub is another client of that."""
    with Mosquitto(folder, free_port()) as broker:
        url = f"mqtt://127.0.0.1:{broker.port}"
        with HubProcess(folder / "data", "--mqtt-url", url) as hub, connected(broker.port) as client:
            yield "mqtt-bridge", hub, client


@contextmanager
def connected(
    port: int, name: str | None = None, token: str | None = None, client_id: str = "zigbee2mqtt"
) -> Iterator[paho.Client]:
    """Return a client that runs in a thread of its own."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id)
    client.username_pw_set(name, token)
    client.connect("127.0.0.1", port)
    client.loop_start()
    yield client
    client.disconnect()
    client.loop_stop()


def say(client: paho.Client, topic: str, told: object, *, retain: bool = False) -> None:
    """Publish as Zigbee2MQTT does, and wait for the PUBACK."""
    message = client.publish(topic, json.dumps(told), qos=1, retain=retain)
    message.wait_for_publish(LIMIT_S)
    assert message.is_published()


def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page in a fresh profile that the hub takes for another machine's: it comes by way of a proxy."""
    context = chromium.new_context(extra_http_headers={"X-Forwarded-For": "192.0.2.7"})
    page = context.new_page()
    page.set_default_timeout(15_000)
    yield page
    context.close()


def sign_in(page: Page, hub: HubProcess) -> None:
    """Open the page as a person who was invited."""
    with closing(Users(hub.data / USERS)) as users:
        users.add("anna", Role.ADMIN)
        code = users.invite("anna")
    page.goto(f"{hub.url}/#invite={code}")
    page.get_by_role("textbox", name="Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("#sign-out")).to_be_visible()


@pytest.mark.parametrize("reached", [directly, through_mosquitto])
def test_sensor_behind_zigbee2mqtt_is_accepted_and_read(
    reached: Callable[[Path], AbstractContextManager[Site]], page: Page, tmp_path: Path
) -> None:
    """Nothing of it is stored before; afterwards its temperature stands in the page with °C, its humidity with %."""
    with reached(tmp_path) as (gateway, hub, client):
        sign_in(page, hub)

        say(client, "zigbee2mqtt/bridge/devices", ANNOUNCED, retain=True)
        say(client, "zigbee2mqtt/office", {"temperature": 27.34, "humidity": 44.72, "linkquality": 128})
        expect(page.locator("#open-children")).to_have_text("1 waiting")
        page.locator("#open-children").click()
        expect(page.locator("#children-rows")).to_contain_text(gateway)
        page.get_by_role("button", name="Accept office").click()
        expect(page.locator("#children-note")).to_have_text("office is accepted")
        page.get_by_role("button", name="Close").click()

        say(client, "zigbee2mqtt/office", {"temperature": 27.5, "humidity": 44.5, "linkquality": 128})
        until(lambda: len(hub.get("/v1/latest?match=office")["readings"]) == 3)
        page.reload()
        expect(page.locator("main")).to_contain_text("27.5")
        expect(page.locator("main")).to_contain_text("°C")
        page.screenshot(path=tmp_path / "office.png")
        rows = hub.get("/v1/readings?match=office/temperature&last=1h")["rows"]
    assert [row[2] for row in rows] == [27.5]


def test_sensor_that_has_spoken_is_online_before_anything_is_live(page: Page, tmp_path: Path) -> None:
    """The hub's first answer says that it is there; on a slow line the page has nothing else for a while."""
    port = free_port()
    with HubProcess(tmp_path / "data", "--mqtt-port", str(port)) as hub:
        with closing(Identities(hub.data / "identities.sqlite3")) as identities:
            token = identities.add_device("shed")
        with connected(port, "shed", token, "shed") as client:
            say(client, "shed/air", {"temperature": 21.5})
            until(lambda: bool(hub.get("/v1/latest?match=shed")["readings"]))
            # Neither a socket nor an event stream is ever answered.
            page.route_web_socket("**/v1/watch", lambda route: None)
            page.route("**/v1/watch?*", lambda route: None)
            sign_in(page, hub)

            expect(page.locator("#badge-text")).to_contain_text("as of")
            expect(page.locator("#badge-text")).to_contain_text("Online")
            expect(page.locator("#count-online")).to_have_text("1")
            page.screenshot(path=tmp_path / "shed.png")
        # What waits for its answer is let go before the page is closed.
        page.unroute_all(behavior="ignoreErrors")
