"""Who watches, in the page: an operator of everything sees each connection, the worst first; others do not."""

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from device_sdk import Device
from hub.auth import Identities
from hub.roles import Role
from hub.users import USERS, Users
from tests.browser.conftest import PHONE, enrol
from tests.browser.test_page import SIDEWAYS
from tests.support.hub_process import HubProcess
from tests.support.raw_socket import connected, frame, upgrade

PASSWORD = "correct horse battery"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    """A hub with a device."""
    with HubProcess(tmp_path / "data") as hub:
        yield hub


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page in a fresh profile that the hub takes for another machine's: it comes by way of a proxy."""
    context = chromium.new_context(extra_http_headers={"X-Forwarded-For": "192.0.2.7"})
    page = context.new_page()
    page.set_default_timeout(15_000)
    yield page
    context.close()


def signed_in(page: Page, hub: HubProcess, role: Role, match: Sequence[str] = ("**",)) -> None:
    """Open the page as a user of the role."""
    with closing(Users(hub.data / USERS)) as users:
        users.add("anna", role, match)
        code = users.invite("anna")
    page.goto(f"{hub.url}/#invite={code}")
    page.get_by_role("textbox", name="Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("#sign-out")).to_be_visible()


def stalled(hub: HubProcess, name: str) -> socket.socket:
    """Return a watcher of everything that reads nothing: a WebSocket by hand, or a library would read ahead."""
    with closing(Identities(hub.data / "identities.sqlite3")) as identities:
        _, token = identities.add_token(Role.WATCHER, name=name)
    found = connected(hub.port, receive_buffer=4096)
    found.settimeout(20)
    found.sendall(upgrade("/v1/watch", "watch.v1", token=token))
    told = found.recv(4096)
    found.sendall(frame(json.dumps({"op": "sub", "sub": "s", "match": ["**"]}).encode()))
    while b'"op":"live"' not in told:
        told += found.recv(4096)
    return found


def flood(hub: HubProcess, token: str, folder: Path) -> None:
    """Record more text than a connection may hold unsent."""
    with Device("log", hub.ws_url, token=token, spool=folder / "spool") as device:
        for k in range(3000):
            device.record({"line": f"{k} " + "x" * 900})
        device.flush(60)


def test_operator_sees_who_is_behind(page: Page, hub: HubProcess, tmp_path: Path) -> None:
    """One that reads nothing is on top, with what it is owed and has not taken; the page itself is live."""
    token = enrol(hub, "log")["log"]
    signed_in(page, hub, Role.OPERATOR)
    with closing(stalled(hub, "wall-screen")):
        flood(hub, token, tmp_path)
        page.locator("#open-watchers").click()
        first = page.locator("#watchers-rows tr").first

        expect(first.locator("td").nth(0)).to_contain_text("wall-screen · c-")
        expect(first.locator("td").nth(1)).to_have_text("WebSocket")
        expect(first.locator("td").nth(2)).to_contain_text("127.0.0.1:")
        expect(first.locator("td").nth(3)).to_contain_text("frames")
        expect(first.locator("td").nth(6)).to_contain_text("KiB")
        expect(page.locator("#watchers-note")).to_contain_text("1 behind")
        expect(page.locator("#watchers-rows")).to_contain_text("● live")
        page.screenshot(path=tmp_path / "watchers.png")
    expect(page.locator("#watchers-rows")).not_to_contain_text("wall-screen")


def test_it_is_opened_and_left_by_keyboard_and_fits_a_phone(page: Page, hub: HubProcess) -> None:
    """Enter opens it, the focus is in it, Escape gives it back; on a phone nothing scrolls sideways but the table."""
    signed_in(page, hub, Role.ADMIN)
    page.set_viewport_size({"width": PHONE["width"], "height": PHONE["height"]})
    button = page.locator("#open-watchers")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#watchers-note")).to_contain_text("watching")

    expect(page.locator("#close-watchers")).to_be_focused()
    for width in (PHONE["width"], 360):
        page.set_viewport_size({"width": width, "height": PHONE["height"]})
        assert not page.evaluate(SIDEWAYS)
    box = button.bounding_box()
    assert box is not None
    assert box["height"] >= 44
    assert page.evaluate(
        "document.querySelector('#watchers').scrollWidth <= document.querySelector('#watchers').clientWidth"
    )
    page.keyboard.press("Escape")
    expect(page.locator("#watchers")).to_be_hidden()
    expect(button).to_be_focused()


@pytest.mark.parametrize("role", [Role.WATCHER, Role.OPERATOR], ids=["watcher", "operator of a part"])
def test_others_are_not_asked(page: Page, hub: HubProcess, role: Role) -> None:
    """Who may not see it is not offered it: names and addresses are not for every screen."""
    signed_in(page, hub, role, ["pump-*/**"])

    expect(page.locator("#open-watchers")).to_be_hidden()
