"""Devices that wait behind a gateway, in the page: an admin sees how many, accepts one and ignores another."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from hub.auth import Identities
from hub.child_book import Asked, ChildState
from hub.children import CHILDREN, Children
from hub.roles import Role
from hub.users import USERS, Users
from tests.support.hub_process import HubProcess

PASSWORD = "correct horse battery"


@contextmanager
def opened(hub: HubProcess) -> Iterator[Children]:
    """Open the hub's file beside it."""
    with (
        closing(Identities(hub.data / "identities.sqlite3")) as identities,
        closing(Children(hub.data / CHILDREN, identities)) as children,
    ):
        yield children


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    """A hub with a gateway behind which three devices wait, for one of which there is no room."""
    with HubProcess(tmp_path / "data") as hub:
        with opened(hub) as children:
            children.set_rules("barn", quota=1)
            for device in ("barn-1", "barn-2", "barn-3"):
                children.admit(Asked("default", "barn", ("barn-*",), device))
        yield hub


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page in a fresh profile that the hub takes for another machine's: it comes by way of a proxy."""
    context = chromium.new_context(extra_http_headers={"X-Forwarded-For": "192.0.2.7"})
    page = context.new_page()
    page.set_default_timeout(15_000)
    yield page
    context.close()


def signed_in(page: Page, hub: HubProcess, role: Role) -> None:
    """Open the page as a user of the role."""
    with closing(Users(hub.data / USERS)) as users:
        users.add("anna", role)
        code = users.invite("anna")
    page.goto(f"{hub.url}/#invite={code}")
    page.get_by_role("textbox", name="Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("#sign-out")).to_be_visible()


def test_admin_decides_over_waiting_devices(page: Page, hub: HubProcess, tmp_path: Path) -> None:
    """The button counts them; each decision is said, taken, and refused in the hub's words where it cannot be."""
    signed_in(page, hub, Role.ADMIN)
    expect(page.locator("#open-children")).to_have_text("3 waiting")
    page.locator("#open-children").click()
    page.get_by_role("button", name="Accept barn-1").click()
    expect(page.locator("#children-note")).to_have_text("barn-1 is accepted")
    page.get_by_role("button", name="Ignore barn-2").click()
    expect(page.locator("#children-note")).to_have_text("barn-2 is ignored")
    page.get_by_role("button", name="Accept barn-3").click()
    expect(page.locator("#children-note")).to_contain_text("its quota is 1")
    page.screenshot(path=tmp_path / "children.png")
    page.get_by_role("button", name="Close").click()
    expect(page.locator("#open-children")).to_have_text("1 waiting")

    with opened(hub) as children:
        found = {child.device: child.state for child in children.listed()}
    assert found == {"barn-1": ChildState.ACCEPTED, "barn-2": ChildState.IGNORED, "barn-3": ChildState.PENDING}


def test_others_are_not_asked(page: Page, hub: HubProcess) -> None:
    """Who may not decide sees nothing of it."""
    signed_in(page, hub, Role.OPERATOR)

    expect(page.locator("#open-children")).to_be_hidden()


def wait_behind(hub: HubProcess, *gateways: str, count: int) -> None:
    """Let devices wait behind gateways, g-0, g-1, … behind g."""
    with opened(hub) as children:
        for gateway in gateways:
            children.set_rules(gateway, quota=count)
            for n in range(count):
                children.admit(Asked("default", gateway, (f"{gateway}-*",), f"{gateway}-{n}"))


def test_many_that_wait_are_few_rows(page: Page, hub: HubProcess) -> None:
    """All are counted, a hundred are rows, and it is said how to see the others."""
    wait_behind(hub, "mill", "quay", count=80)
    signed_in(page, hub, Role.ADMIN)
    expect(page.locator("#open-children")).to_have_text("163 waiting")
    page.locator("#open-children").click()

    expect(page.locator("#children-rows tr")).to_have_count(100)
    expect(page.locator("#children-more")).to_contain_text("63 more; decide over these first, or: hub children list")


def test_one_that_comes_is_put_below(page: Page, hub: HubProcess) -> None:
    """A device that comes while somebody decides moves no row; the button that has the focus keeps it."""
    signed_in(page, hub, Role.ADMIN)
    page.locator("#open-children").click()
    button = page.get_by_role("button", name="Accept barn-1")
    button.focus()
    before = page.locator("#children-rows tr").all_inner_texts()
    wait_behind(hub, "mill", count=1)
    expect(page.locator("#children-rows")).to_contain_text("mill-0")

    assert page.locator("#children-rows tr").all_inner_texts()[:3] == before
    expect(button).to_be_focused()


def test_last_decision_is_still_said(page: Page, hub: HubProcess) -> None:
    """What was decided over the last one stays to be read, and the keyboard is in the dialog, on no other button."""
    with opened(hub) as children:
        for device in ("barn-2", "barn-3"):
            children.ignore("barn", device)
    signed_in(page, hub, Role.ADMIN)
    page.locator("#open-children").click()
    page.get_by_role("button", name="Accept barn-1").press("Enter")
    expect(page.locator("#children-rows tr")).to_have_count(0)

    expect(page.locator("#children-note")).to_have_text("barn-1 is accepted")
    expect(page.locator("#children-table")).to_be_focused()


def test_dead_line_gathers_no_questions(page: Page, hub: HubProcess) -> None:
    """One question at a time, each given up after 15 s: not one more each 5 s, which would take the browser's lines."""
    signed_in(page, hub, Role.ADMIN)
    expect(page.locator("#open-children")).to_be_visible()
    asked: list[str] = []
    page.clock.install()
    page.route("**/v1/children*", lambda route: asked.append(route.request.url))
    page.reload()
    expect(page.locator("#sign-out")).to_be_visible()
    page.clock.run_for(14_000)
    page.wait_for_timeout(200)

    assert len(asked) == 1
