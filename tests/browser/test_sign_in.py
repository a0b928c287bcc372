"""Signing in, in Chromium: a hub that other machines could reach asks who somebody is."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from hub.change_log import CHANGES, ChangeLog, Entry
from hub.roles import Role
from hub.users import USERS, Users
from tests.support.hub_process import HubProcess

PASSWORD = "ten letters"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    """A hub with one invited admin; behind a name that is not loopback's, so that nothing is free."""
    with HubProcess(tmp_path / "data") as hub:
        yield hub


def invite(hub: HubProcess) -> str:
    """Add an admin and return the code of the invitation."""
    users = Users(hub.data / USERS)
    users.add("anna", Role.ADMIN)
    code = users.invite("anna")
    users.close()
    return code


@pytest.fixture(params=["dark", "light"])
def page(chromium: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page in a fresh profile that the hub takes for another machine's: it comes by way of a proxy."""
    context = chromium.new_context(color_scheme=request.param, extra_http_headers={"X-Forwarded-For": "192.0.2.7"})
    page = context.new_page()
    yield page
    context.close()


def test_invitation_sign_out_and_sign_in(page: Page, hub: HubProcess, tmp_path: Path) -> None:
    """By keyboard: the link sets the password; signed out, a wrong one is said, the right one opens."""
    code = invite(hub)
    log = ChangeLog(hub.data / CHANGES)
    log.record(Entry("POST /v1/devices", "pump-1", who="berta", role="admin", peer="192.0.2.9"))
    log.close()

    page.goto(f"{hub.url}/#invite={code}")
    expect(page.get_by_role("heading", name="Set your password")).to_be_visible()
    expect(page.get_by_role("textbox", name="Password")).to_be_focused()
    assert code not in page.url
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("#sign-out")).to_have_text("Sign out anna")
    page.get_by_role("button", name="Log").click()
    expect(page.locator("#log-rows")).to_contain_text("POST /v1/devices · pump-1")
    expect(page.locator("#log-rows")).to_contain_text("accept invitation")
    page.screenshot(path=tmp_path / "log.png")
    page.get_by_role("button", name="Close").click()
    page.locator("#sign-out").click()

    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.get_by_role("textbox", name="Name")).to_be_focused()
    page.keyboard.type("anna")
    page.keyboard.press("Tab")
    page.keyboard.type("wrong guess")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert").filter(has_text="no user has this name and password")).to_be_visible()
    page.screenshot(path=tmp_path / "sign-in.png")
    page.get_by_role("textbox", name="Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("#sign-out")).to_be_visible()


def test_removed_user_is_asked_again(page: Page, hub: HubProcess) -> None:
    """A session that ends while the page is open leads back to the form."""
    page.goto(f"{hub.url}/#invite={invite(hub)}")
    page.get_by_role("textbox", name="Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("#sign-out")).to_be_visible()

    users = Users(hub.data / USERS)
    users.remove("anna")
    users.close()

    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_session_that_ends_under_a_dialog_is_asked_for_again(page: Page, hub: HubProcess) -> None:
    """The form is not shut in below an open dialog: the dialog goes, and the keyboard is in the form."""
    page.goto(f"{hub.url}/#invite={invite(hub)}")
    page.get_by_role("textbox", name="Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Fleet…").click()
    expect(page.locator("#fleet")).to_be_visible()

    users = Users(hub.data / USERS)
    users.remove("anna")
    users.close()

    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.locator("#fleet")).to_be_hidden()
    expect(page.get_by_role("textbox", name="Name")).to_be_focused()
