"""Commands, and desired and reported state, from the page: real devices answer, and what they say is only text."""

import threading
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, Route, expect

from device_sdk import Device
from hub.auth import Identities
from hub.desired import States
from hub.gateway.access import SESSION_COOKIE
from hub.roles import Role
from tests.browser.conftest import PHONE, OpenTab, Tab, World
from tests.browser.test_page import SIDEWAYS

EVIL = '<img src="x" onerror="document.title=\'evil\'">'


@pytest.fixture
def operator(world: World) -> dict[str, Any]:
    """What opens a tab as an operator."""
    return session(world, Role.OPERATOR)


class Fan:
    """A device that has a fan: notes what it was told, reports what it applied."""

    def __init__(self, world: World, name: str, token: str) -> None:
        self.calls: list[dict[str, Any]] = []
        self.device = Device(name, world.hub.ws_url, token=token, spool=":memory:", close_timeout_s=0.2)
        self.release = threading.Event()

        @self.device.command
        def fan(speed: int, mode: Literal["eco", "full"] = "eco", on: bool = True, note: str = "") -> dict[str, Any]:
            """Turn the fan."""
            self.calls.append({"speed": speed, "mode": mode, "on": on, "note": note})
            if speed > 9:
                raise ValueError(f"{EVIL} too fast")
            return {"speed": speed, "said": EVIL}

        @self.device.command
        def slow() -> int:
            """Answer when asked to."""
            self.release.wait(30)
            return 1

        @self.device.on_desired
        def apply(state: dict[str, Any]) -> None:
            self.device.report(speed=state.get("speed", 0) if state.get("speed", 0) < 5 else 5, name=EVIL)

    def __enter__(self) -> "Fan":
        self.device.__enter__()
        self.device.record(level=1.0)
        self.device.flush(20)
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self.device.__exit__(None, None, None)


@pytest.fixture(scope="module")
def fan(world: World) -> Iterator[Fan]:
    """fan-1 of the hub, online; fan-2, fan-3 are enrolled and were never seen."""
    tokens = world.enrol("fan-1", "fan-2", "fan-3")
    with Fan(world, "fan-1", tokens["fan-1"]) as fan:
        yield fan


def session(world: World, role: Role) -> dict[str, Any]:
    """Return a browser's context in which somebody is signed in."""
    identities = Identities(world.hub.data / "identities.sqlite3")
    cookie = {"name": SESSION_COOKIE, "value": identities.add_session(role, 3600), "url": world.hub.url}
    identities.close()
    return {"storage_state": {"cookies": [cookie], "origins": []}}


def control(open_tab: OpenTab, device: str = "fan-1", **context: Any) -> Page:
    """Open a device's control panel."""
    tab: Tab = open_tab(f"#device={device}", **context)
    tab.wait(f"page.device() === '{device}'")
    tab.page.locator("#open-control").click()
    return tab.page


def filled(page: Page, speed: int) -> None:
    """Choose the fan and its speed."""
    form = page.locator("#control-form")
    expect(form.get_by_role("button", name="Send")).not_to_have_attribute("aria-disabled", "true")
    form.locator("select").first.select_option("fan")
    form.get_by_label("speed int").fill(str(speed))


def test_a_command_is_a_typed_form_and_its_answer_is_text(
    open_tab: OpenTab, fan: Fan, operator: dict[str, Any]
) -> None:
    """Fields by declaration; the value comes back by itself, also as a row; what a device says is never markup."""
    page = control(open_tab, **operator)
    expect(page.locator("#control-form")).to_contain_text("Turn the fan.")
    filled(page, 3)
    expect(page.get_by_label("speed int")).to_have_attribute("type", "number")
    page.get_by_label("mode str, optional").select_option("full")
    page.get_by_label("on bool, optional").select_option("no")
    page.get_by_role("button", name="Send").click()

    expect(page.locator("#control-said")).to_contain_text("● fan done")
    expect(page.locator("#control-said")).to_contain_text("onerror")
    expect(page.locator("#control-recent li").first).to_contain_text("speed=3 mode=full on=false")
    expect(page.locator("#control-recent li").first).to_contain_text("done")
    assert fan.calls[-1] == {"speed": 3, "mode": "full", "on": False, "note": ""}
    filled(page, 12)
    page.get_by_label("speed int").press("Enter")
    expect(page.locator("#control-said")).to_contain_text("▲ fan failed")
    expect(page.locator("#control-said")).to_contain_text("too fast")
    assert page.locator(".watch img").count() == 0
    assert page.title() != "evil"


def test_a_double_click_and_a_lost_answer_are_one_command(
    open_tab: OpenTab, fan: Fan, operator: dict[str, Any]
) -> None:
    """The second click does nothing; a request whose answer was lost comes again with the same id."""
    page = control(open_tab, expect_errors=True, **operator)
    filled(page, 4)
    before = len(fan.calls)
    ids: list[str] = []

    def lose_first(route: Route) -> None:
        ids.append((route.request.post_data_json or {})["id"])
        if len(ids) > 1:
            return route.continue_()
        route.fetch()
        return route.abort()

    page.route("**/v1/commands", lose_first)
    page.get_by_role("button", name="Send").dblclick()

    expect(page.locator("#control-said")).to_contain_text("● fan done")
    assert len(ids) == 2
    assert len(set(ids)) == 1
    assert len(fan.calls) == before + 1


def test_a_command_under_way_does_not_keep_the_next_device_waiting(
    open_tab: OpenTab, fan: Fan, operator: dict[str, Any], world: World
) -> None:
    """Its answer may be half a minute away; the form of another device takes a press at once, for that device alone."""
    with Fan(world, "fan-4", world.enrol("fan-4")["fan-4"]) as other:
        page = control(open_tab, expect_errors=True, **operator)
        filled(page, 4)

        def lose_the_first_device(route: Route) -> None:
            is_lost = (route.request.post_data_json or {})["match"] == "fan-1"
            route.abort() if is_lost else route.continue_()

        page.route("**/v1/commands", lose_the_first_device)
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_role("button", name="Send")).to_have_attribute("aria-disabled", "true")
        page.evaluate("location.hash = '#device=fan-4'")
        filled(page, 7)
        page.get_by_role("button", name="Send").click()

        expect(page.locator("#control-said")).to_contain_text("● fan done")
        assert [call["speed"] for call in other.calls] == [7]


def test_number_that_a_browser_cannot_hold_is_not_sent_as_another(
    open_tab: OpenTab, fan: Fan, operator: dict[str, Any]
) -> None:
    """9007199254740993 would become …992, and 1e400 nothing at all: both are refused with the way out."""
    page = control(open_tab, **operator)
    for text in ("9007199254740993", '{"a": [1e400]}'):
        page.locator("#desired-key").fill("serial")
        page.locator("#desired-value").fill(text)
        page.locator("#desired-form").get_by_role("button").first.click()
        expect(page.locator("#desired-said")).to_contain_text("hub state set")
    assert page.locator("#state-rows").get_by_text("serial").count() == 0


def test_offline_devices_are_waited_for_only_when_ticked(
    open_tab: OpenTab, fan: Fan, world: World, operator: dict[str, Any]
) -> None:
    """A device that is away refuses with its reason; ticked, the command waits, and says so."""
    token = world.enrol("fan-9")["fan-9"]
    with Fan(world, "fan-9", token):
        pass
    page = control(open_tab, "fan-9", **operator)
    filled(page, 2)
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#control-said")).to_contain_text("▲ fan refused · offline")

    page.locator("#control-form").get_by_label("Wait while offline").check()
    expect(page.get_by_role("button", name="Send")).to_have_attribute("aria-disabled", "false")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#control-said")).to_contain_text("◌ fan waiting · sent when the device connects")

    with Fan(world, "fan-9", token) as back:
        expect(page.locator("#control-said")).to_contain_text("● fan done")
        assert [call["speed"] for call in back.calls] == [2]


def test_desired_state_is_set_and_removed(open_tab: OpenTab, fan: Fan, operator: dict[str, Any]) -> None:
    """Both sides and the hub's word for how they stand; one key is set, drifts, and is removed."""
    page = control(open_tab, **operator)
    page.locator("#desired-key").fill("speed")
    page.locator("#desired-value").fill("3")
    page.get_by_role("button", name="Set").click()

    expect(page.locator("#desired-said")).to_contain_text("speed = 3")
    expect(page.locator("#state-rows")).to_contain_text("onerror")
    assert page.locator(".watch img").count() == 0
    expect(page.locator("#state-drift")).to_have_text("● in sync")
    page.get_by_role("button", name="Edit speed").click()
    expect(page.locator("#desired-value")).to_have_value("3")
    page.keyboard.type("9")
    page.keyboard.press("Enter")
    expect(page.locator("#state-drift")).to_have_text("▲ drifted")
    expect(page.locator("#state-rows tr").first).to_contain_text("differs")
    page.get_by_role("button", name="Remove speed").click()
    expect(page.locator("#desired-said")).to_contain_text("speed removed")
    expect(page.locator("#state-drift")).to_have_text("● in sync")


def test_two_operators_do_not_overwrite_each_other(
    open_tab: OpenTab, fan: Fan, operator: dict[str, Any], world: World
) -> None:
    """A change of what moved since it was looked at is refused in words; the second try is made knowing it."""
    page = control(open_tab, "fan-2", expect_errors=True, **operator)
    page.locator("#desired-key").fill("pace.day")
    page.locator("#desired-value").fill("1")
    page.get_by_role("button", name="Set").click()
    expect(page.locator("#desired-said")).to_contain_text("pace.day = 1")

    expect(page.locator("#state-rows")).to_contain_text("pace.day")
    page.get_by_role("button", name="Edit pace.day").click()
    states = States(world.hub.data / "states.sqlite3")
    states.change("default", ["fan-2"], {"pace": {"day": 7}}, "berta")
    states.close()
    page.locator("#desired-value").fill("2")
    page.get_by_role("button", name="Set").click()

    expect(page.locator("#desired-said")).to_contain_text("Not changed: berta made version")
    expect(page.locator("#state-rows")).to_contain_text("7")
    expect(page.locator("#desired-value")).to_have_value("2")
    page.get_by_role("button", name="Set").click()
    expect(page.locator("#desired-said")).to_contain_text("pace.day = 2")


def test_who_may_not_command_sees_no_command(open_tab: OpenTab, fan: Fan, world: World) -> None:
    """A watcher sees the states and nothing to change them with."""
    page = control(open_tab, **session(world, Role.WATCHER))

    expect(page.locator("#state-versions")).not_to_be_empty()
    expect(page.locator("#control-commands")).to_be_hidden()
    expect(page.locator("#desired-form")).to_be_hidden()
    page.get_by_role("button", name="Fleet…").click()
    page.locator("#fleet-drifts").get_by_role("button", name="in sync").click()
    expect(page.locator("#fleet-drifts")).to_contain_text("greenhouse-1")
    expect(page.locator("#fleet-commands")).to_be_hidden()


def test_hub_that_cannot_say_who_this_is_is_asked_again(
    open_tab: OpenTab, fan: Fan, operator: dict[str, Any], world: World
) -> None:
    """A hub that had no answer once, as while it starts, does not take the commands away until a reload."""
    page = open_tab(expect_errors=True, **operator).page
    page.route("**/v1/me", lambda route: route.fulfill(status=503, body="{}"), times=1)
    page.goto(f"{world.hub.url}/#device=fan-1")
    page.reload()
    page.locator("#open-control").click()

    expect(page.locator("#control-form")).to_be_visible()
    expect(page.get_by_role("button", name="Fleet…")).to_be_visible()


def test_arrows_in_the_table_scroll_it(open_tab: OpenTab, fan: Fan, operator: dict[str, Any]) -> None:
    """Reached by keyboard, the table of states keeps its keys: the device stays, and so does what was typed."""
    page = control(open_tab, "fan-3", **operator)
    page.locator("#desired-key").fill("pace")
    page.locator("#desired-value").fill("1")
    page.get_by_role("button", name="Set").click()
    expect(page.locator("#state-rows tr").first).to_be_visible()
    page.locator("#desired-key").fill("half a w")
    page.locator("#state-table").focus()
    page.keyboard.press("ArrowDown")

    expect(page.locator("#device")).to_have_text("fan-3")
    expect(page.locator("#desired-key")).to_have_value("half a w")


def test_one_command_to_many(open_tab: OpenTab, fan: Fan, operator: dict[str, Any]) -> None:
    """By selector; a result for each device; a count shows only those; a name leads to its device."""
    page = open_tab(**operator).page
    page.get_by_role("button", name="Fleet…").click()
    page.locator("#fleet-selector").fill("fan-*")
    expect(page.locator("#fleet-fit")).to_contain_text("devices fit")
    page.locator("#fleet-form select").first.select_option(index=0)
    page.get_by_label("speed int").fill("1")
    page.get_by_role("button", name="Send to").click()

    expect(page.locator("#fleet-said")).to_contain_text("fan speed=1: ended at")
    expect(page.locator("#fleet-results")).to_contain_text("● done 1")
    expect(page.locator("#fleet-results li").first).to_contain_text("fan-1● done")
    page.locator("#fleet-results").get_by_role("button", name="refused").click()
    expect(page.locator("#fleet-results")).not_to_contain_text("fan-1")
    page.locator("#fleet-results").get_by_role("button", name="done").click()
    page.locator("#fleet-results").get_by_role("button", name="fan-1").click()
    expect(page.locator("#fleet")).to_be_hidden()
    expect(page.locator("#control-recent")).to_contain_text("speed=1")


def test_a_large_fleet_keeps_the_document_small(open_tab: OpenTab, fan: Fan, operator: dict[str, Any]) -> None:
    """3,000 results and 3,000 states: each is counted, a hundred rows of each are there, one press finds the few."""
    results = [
        {"device": f"d-{n}", "state": "failed" if n >= 2990 else "done", "value": n, "error": ""} for n in range(3000)
    ]  # fmt: skip
    page = open_tab(**operator).page
    page.evaluate(
        """async (results) => {
          const { CountedList } = await import('/page/counted-list.js');
          const { outcomeOf, detailOf } = await import('/page/orders.js');
          const root = document.createElement('div');
          root.id = 'many';
          document.body.append(root);
          const list = new CountedList(root, outcomeOf, () => null, (id) => `hub commands show ${id}`);
          list.show('k', results.map((r) => ({ device: r.device, state: r.state, text: () => detailOf(r) })));
        }""",
        results,
    )

    expect(page.locator("#many li")).to_have_count(100)
    expect(page.locator("#many")).to_contain_text("done 2,990")
    expect(page.locator("#many")).to_contain_text("2,900 more")
    page.locator("#many").get_by_role("button", name="failed 10").click()
    expect(page.locator("#many li")).to_have_count(10)


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_control_on_a_phone(open_tab: OpenTab, fan: Fan, operator: dict[str, Any], scheme: str) -> None:
    """Panel and dialog fit 390 and 360 px, buttons are large enough, nothing scrolls sideways."""
    page = control(open_tab, viewport=PHONE, has_touch=True, is_mobile=True, color_scheme=scheme, **operator)
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    for width in (390, 360):
        page.set_viewport_size({"width": width, "height": 844})
        assert not page.evaluate(SIDEWAYS)
    box = page.get_by_role("button", name="Send").bounding_box()
    assert box is not None
    assert box["height"] >= 44
    page.get_by_label("speed int").focus()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_label("speed int")).to_have_value("1")
    page.locator("#back").tap()
    page.get_by_role("button", name="Fleet…").tap()
    expect(page.locator("#fleet")).to_be_visible()
    assert not page.evaluate(SIDEWAYS)


def test_a_lost_answer_and_then_a_refusal_are_no_refusal(open_tab: OpenTab, fan: Fan, operator: dict[str, Any]) -> None:
    """The first request may have been the command, whatever the hub says to the second: nobody is told otherwise."""
    page = control(open_tab, expect_errors=True, **operator)
    filled(page, 4)
    before = len(fan.calls)
    refuse(page)

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/v1/commands", lose, times=1)
    page.get_by_role("button", name="Send").click()

    expect(page.locator("#control-said")).to_contain_text("It is not known whether the hub has fan: the hub has enough")
    expect(page.locator("#control-said")).to_contain_text("before you send it again")
    assert len(fan.calls) == before + 1


@pytest.fixture(scope="module")
def away(world: World) -> str:
    """A device that has a fan and is not there now: what is kept for it stays open."""
    with Fan(world, "fan-8", world.enrol("fan-8")["fan-8"]):
        pass
    return "fan-8"


def refuse(page: Page) -> None:
    """From now on let the hub refuse every command."""
    body = '{"error": {"reason": "bad_request", "message": "the hub has enough"}}'
    page.route("**/v1/commands", lambda route: route.fulfill(status=400, content_type="application/json", body=body))


def test_what_became_of_a_command_is_not_said_of_the_next(
    open_tab: OpenTab, away: str, operator: dict[str, Any]
) -> None:
    """One still waits, the next is refused by the hub: that stays to be read, whatever the hub is asked meanwhile."""
    page = control(open_tab, away, expect_errors=True, **operator)
    filled(page, 2)
    page.locator("#control-form").get_by_label("Wait while offline").check()
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#control-said")).to_contain_text("◌ fan waiting")
    refuse(page)
    filled(page, 3)
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#control-said")).to_have_text("fan was not given: the hub has enough")
    for _ in range(2):
        with page.expect_response("**/v1/devices/*/commands*"):
            pass

    expect(page.locator("#control-said")).to_have_text("fan was not given: the hub has enough")


def test_answer_is_found_behind_many_later_commands(open_tab: OpenTab, world: World, operator: dict[str, Any]) -> None:
    """What became of the command that was given here is said, however many others were given to the device since."""
    token = world.enrol("fan-7")["fan-7"]
    with Fan(world, "fan-7", token):
        pass
    page = control(open_tab, "fan-7", **operator)
    filled(page, 2)
    page.locator("#control-form").get_by_label("Wait while offline").check()
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#control-said")).to_contain_text("◌ fan waiting")
    for _ in range(7):
        page.evaluate(
            """async () => {
              const { giveCommand } = await import('/page/api.js');
              await giveCommand({ match: 'fan-7', name: 'fan', args: { speed: 1 } });
            }"""
        )

    with Fan(world, "fan-7", token):
        expect(page.locator("#control-said")).to_contain_text("● fan done")


def test_dead_line_does_not_stop_the_panel(open_tab: OpenTab, fan: Fan, operator: dict[str, Any]) -> None:
    """A question that gets no answer is given up, said in words, and asked again."""
    page = open_tab("#device=fan-1", expect_errors=True, **operator).page
    expect(page.locator("#device")).to_have_text("fan-1")
    page.route("**/v1/devices/*/state", lambda route: None, times=1)
    page.clock.install()
    with page.expect_request("**/v1/devices/*/state"):
        page.locator("#open-control").click()
    page.clock.run_for(16_000)
    expect(page.locator("#state-versions")).to_contain_text("The hub does not answer; the page asks again")
    page.clock.run_for(5_000)

    expect(page.locator("#state-versions")).to_contain_text("reported")


def test_results_of_one_command_to_many_are_not_those_of_the_next(
    open_tab: OpenTab, away: str, operator: dict[str, Any]
) -> None:
    """A command that was not given has no results, and no button that would cancel the one before it."""
    page = open_tab(expect_errors=True, **operator).page
    page.get_by_role("button", name="Fleet…").click()
    page.locator("#fleet-selector").fill(away)
    form = page.locator("#fleet-form")
    form.locator("select").first.select_option(index=0)
    form.get_by_label("speed int").fill("1")
    form.get_by_label("Wait while offline").check()
    form.get_by_role("button", name="Send to").click()
    expect(page.locator("#fleet-results li")).to_have_count(1)
    expect(page.locator("#fleet-cancel")).to_be_visible()
    expect(form.get_by_role("button", name="Send to")).to_have_attribute("aria-disabled", "false")
    refuse(page)
    form.get_by_role("button", name="Send to").click()

    expect(page.locator("#fleet-said")).to_have_text("fan was not given: the hub has enough")
    with page.expect_response("**/v1/states"):
        pass
    expect(page.locator("#fleet-said")).to_have_text("fan was not given: the hub has enough")
    expect(page.locator("#fleet-results li")).to_have_count(0)
    expect(page.locator("#fleet-cancel")).to_be_hidden()
