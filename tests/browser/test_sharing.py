"""Tabs of one browser over one connection: each has every reading once, whatever becomes of the tab that holds it."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from playwright.sync_api import CDPSession, Error, Page

from tests.browser.conftest import NewTab, Tab, World
from tests.browser.tabs import CHANNEL, check, collect, connections, token_of, wait_for_connections, wait_for_more
from tests.browser.test_hub_client import call

# Holds the group's lock: whether this tab is the one with the connection.
LEADS = """
  async () => {
    const { held } = await navigator.locks.query();
    const mine = await new Promise((done) => navigator.locks.request(crypto.randomUUID(), async ({ name }) => {
      const now = (await navigator.locks.query()).held;
      done(now.find((lock) => lock.name === name).clientId);
    }));
    return held.some((lock) => lock.name.startsWith('hub-client') && lock.clientId === mine);
  }
"""


def leader_first(tabs: list[Tab]) -> list[Tab]:
    """Return the tabs with the one that holds the connection in front."""
    return sorted(tabs, key=lambda tab: not tab.page.evaluate(LEADS))


def test_tabs_have_one_connection(new_tab: NewTab, world: World) -> None:
    """Each its own patterns, as subscriptions of the one; when the last has gone, so has the connection."""
    tabs = [(new_tab(), match) for match in (CHANNEL, "pump-1/temperature", "oven-1/*", "greenhouse-1/*")]
    for tab, match in tabs:
        collect(tab, match)

    (one,) = connections(world)
    for tab, match in tabs[:2]:
        check(tab, world, match)
    for tab, _ in tabs[2:]:
        wait_for_more(tab)

    assert sorted(s["match"] for s in one["subscriptions"]) == sorted([match] for _, match in tabs)
    assert [tab.page.evaluate(LEADS) for tab, _ in tabs].count(True) == 1


def _close(page: Page) -> None:
    page.close()


def _crash(page: Page) -> None:
    with suppress(Error):
        page.goto("chrome://crash", wait_until="commit", timeout=1000)


def _freeze(page: Page) -> CDPSession:
    """Let nothing of a page run, as a browser does with those that nobody looks at; what comes for it waits."""
    session = page.context.new_cdp_session(page)
    session.send("Debugger.enable")
    session.send("Debugger.pause")
    return session


def _navigate(page: Page) -> None:
    page.goto("about:blank")


@pytest.mark.parametrize("end", [_close, _navigate, _crash, _freeze], ids=["closed", "left", "crashed", "frozen"])
def test_tab_with_the_connection_ends(new_tab: NewTab, world: World, end: Callable[[Page], object]) -> None:
    """Twice in the middle of a stream: another takes over, and no tab misses a reading or has one twice."""
    tabs = [new_tab() for _ in range(4)]
    for tab in tabs:
        collect(tab)

    for _ in range(2):
        leader, *tabs = leader_first(tabs)
        assert leader.page.evaluate(LEADS)
        end(leader.page)
        for tab in tabs:
            tab.page.wait_for_function("() => states.at(-1) === 'live'")
            wait_for_more(tab, 30)
    # A frozen tab's own is let go when it wakes, or when the hub sees that nobody reads.
    if end is not _freeze:
        wait_for_connections(world, 1)

    for tab in tabs:
        check(tab, world)


def test_tab_that_takes_over_gives_the_lock_back_when_it_leaves(new_tab: NewTab, world: World) -> None:
    """After a crash the next one has the lock at once: it leaves, comes back, and waits for nobody who has gone."""
    script = """
      window.steals = 0;
      const { request } = LockManager.prototype;
      LockManager.prototype.request = function (name, ...rest) {
        if (rest[0].steal) window.steals++;
        return request.call(this, name, ...rest);
      };
    """
    tabs = [new_tab(script) for _ in range(3)]
    for tab in tabs:
        collect(tab)
    leader, *others = leader_first(tabs)

    _crash(leader.page)
    for tab in others:
        tab.page.wait_for_function("() => states.length > 2 && states.at(-1) === 'live'")

    assert [tab.page.evaluate("() => steals") for tab in others] == [0, 0]


def test_frozen_tab_comes_back_by_its_cursor(new_tab: NewTab, world: World) -> None:
    """Others go on meanwhile; the one that held the connection finds another in its place, and misses nothing."""
    tabs = [new_tab() for _ in range(3)]
    for tab in tabs:
        collect(tab)
    leader, follower, other = leader_first(tabs)

    sessions = [_freeze(tab.page) for tab in (leader, follower)]
    wait_for_more(other, 150)
    for session in sessions:
        session.send("Debugger.resume")
    for tab in tabs:
        wait_for_more(tab)
    wait_for_connections(world, 1)

    for tab in tabs:
        check(tab, world)


def test_another_watch_in_the_tab_that_holds_the_connection(new_tab: NewTab, world: World) -> None:
    """It finds the connection open, and has its own subscription there; so does one that comes back."""
    tab = new_tab()
    collect(tab)
    body = """
      window.lives = 0;
      window.hub = m.connect();
      hub.watch({ match: 'oven-1/*', since: 'last', onReading() {}, onLive: () => lives++ });
    """
    call(tab, body)
    tab.page.wait_for_function("() => lives === 1")
    tab.page.evaluate("() => hub._connection.drop('as one that was silent')")
    tab.page.wait_for_function("() => lives === 2")

    (one,) = connections(world)

    assert sorted(s["match"] for s in one["subscriptions"]) == [["oven-1/*"], [CHANNEL]]
    check(tab, world)


def test_tab_that_ends_before_it_was_taken_in_leaves_nothing(new_tab: NewTab, world: World) -> None:
    """It asks to join and thinks better of it in the same turn: the last tab that leaves still ends the connection."""
    first, second = new_tab(), new_tab()
    collect(first)
    body = """
      const post = BroadcastChannel.prototype.postMessage;
      BroadcastChannel.prototype.postMessage = function (message) {
        post.call(this, message);
        if (message.said?.what === 'join') queueMicrotask(() => (watched.close(), (window.left = true)));
      };
      window.watched = m.watch(undefined, { match: 'pump-1/*', onReading() {} });
    """
    call(second, body)
    second.page.wait_for_function("() => window.left")
    wait_for_more(first)

    first.page.evaluate("() => watched.close()")

    wait_for_connections(world, 0)


def test_busy_tab_holds_up_nobody(new_tab: NewTab, world: World) -> None:
    """One whose loop stands still for longer than others wait for a word: it is taken for frozen, and goes on later."""
    tabs = [new_tab() for _ in range(3)]
    for tab in tabs:
        collect(tab)
    leader, *others = leader_first(tabs)

    leader.page.evaluate("() => void setTimeout(() => { const end = Date.now() + 12000; while (Date.now() < end); })")
    for tab in others:
        wait_for_more(tab, 100)

    for tab in tabs:
        check(tab, world)


def test_who_has_another_credential_never_shares(new_tab: NewTab, world: World) -> None:
    """Other tokens, none, functions that nobody vouches for: each has a connection that is its own."""
    same, other = token_of(world), token_of(world)
    body = """
      window.watched = m.watch(undefined, { match: 'pump-1/*', since: 'last', share: a.share,
        token: a.asked ? () => a.token : a.token, onReading() {}, onLive: () => (window.live = 1) });
    """
    asked: list[dict[str, Any]] = [
        {"token": same}, {"token": same}, {"token": other}, {}, {}, {"token": same, "asked": True},
        {"token": same, "share": False}, {"token": same, "asked": True, "share": "ann"},
        {"token": other, "asked": True, "share": "ben"}, {"token": same, "asked": True, "share": "ann"},
    ]  # fmt: skip
    for options in asked:
        tab = new_tab()
        call(tab, body, options)
        tab.page.wait_for_function("() => window.live")

    found = connections(world)

    ids = {same.partition(".")[0]: "same", other.partition(".")[0]: "other"}
    assert sorted((ids.get(c["identity_id"], c["identity_id"]), len(c["subscriptions"])) for c in found) == [
        ("local", 2), ("other", 1), ("other", 1), ("same", 1), ("same", 1), ("same", 2), ("same", 2),
    ]  # fmt: skip


def test_words_that_begin_alike_are_different_users(new_tab: NewTab, world: World) -> None:
    """`ann leader` hears nothing of what the tabs of `ann` say to the one that holds their connection."""
    body = """
      window.states = []; window.seen = []; window.errors = []; window.live = 0;
      addEventListener('error', ({ message }) => errors.push(message));
      window.watched = m.watch(undefined, { match: 'pump-1/temperature', since: 'last', share: a.share,
        token: () => a.token, onReading: ({ value }) => seen.push(value), onLive: () => live++,
        onState: (state) => states.push(state) });
    """
    tabs = [new_tab() for _ in range(4)]
    for tab, share in zip(tabs, ("ann", "ann leader", "ann", "ann leader"), strict=True):
        call(tab, body, {"share": share, "token": token_of(world)})
        tab.page.wait_for_function("() => window.live")
    # Longer than two beats of a link.
    wait_for_more(tabs[-1], 50)

    found = [tab.page.evaluate("() => [states, errors]") for tab in tabs]

    assert found == [[["live"], []]] * 4
    assert len(connections(world)) == 2


def test_more_subscriptions_than_one_connection_may_have(new_tab: NewTab, world: World) -> None:
    """64 are of the shared one; the tab whose next one does not fit gets one of its own, and misses nothing."""
    body = """
      window.hub = m.connect(); window.live = 0;
      const options = { match: 'oven-1/*', since: 'last', onReading() {}, onLive: () => live++ };
      for (let i = 0; i < 30; i++) hub.watch(options);
    """
    tabs = [new_tab() for _ in range(3)]
    for tab in tabs[:2]:
        call(tab, body)
        tab.page.wait_for_function("() => live >= 30")
    collect(tabs[2])
    call(tabs[2], body)
    tabs[2].page.wait_for_function("() => live >= 30")

    found = connections(world)

    assert sorted(len(c["subscriptions"]) for c in found) in ([30, 61], [31, 60])
    check(tabs[2], world)


@pytest.mark.parametrize(
    "script",
    [
        "Object.defineProperty(Navigator.prototype, 'locks', { value: undefined })",
        "delete window.BroadcastChannel",
        "LockManager.prototype.request = async () => { throw new DOMException('no', 'SecurityError'); }",
    ],
    ids=["no locks", "no channels", "locks refused"],
)
def test_browser_that_cannot_has_one_for_each_tab(new_tab: NewTab, world: World, script: str) -> None:
    """As a page without https, or storage that is shut off."""
    tabs = [new_tab(script) for _ in range(2)]
    for tab in tabs:
        collect(tab)

    assert len(connections(world)) == 2
    for tab in tabs:
        check(tab, world)


# --- the relay alone ---------------------------------------------------------------------------------------------

RELAY = """
  const { Relay, MOST_OWED } = await import('/client/v1/relay.js');
  const sent = [], told = {}, said = {}; let on, closed = 0;
  const token = a?.fails ? () => { throw new Error('away'); } : '';
  const relay = new Relay({ token, credential: a?.credential ?? null, emptied: () => (told.emptied = true),
    open: (token, events) => { on = events; return () => closed++; } });
  const far = (link) => () => ({ isLocal: false, close() {}, post: (message) => (told[link] ??= []).push(message) });
  const say = (link, what) => relay.hear(link, said[link] = (said[link] ?? -1) + 1, what, far(link));
  const join = (link) => { say(link, { what: 'join' }); };
  const sub = (link, name) => say(link, { what: 'say', message: { op: 'sub', sub: name, match: ['a'] } });
  const opened = () => new Promise((done) => setTimeout(done)).then(() => on.open((message) => sent.push(message)));
  const data = (name, text = '') => on.text(`{"op":"data","sub":"${name}","x":"${text}"}`);
"""


def test_messages_go_to_whose_they_are(new_tab: NewTab) -> None:
    """Names are numbers on the socket, none used twice; each tab has its own back."""
    body = """
      join('A'); join('B'); await opened(); sub('A', 's1'); sub('B', 's1');
      say('A', { what: 'say', message: { op: 'unsub', sub: 's1' } }); sub('A', 's2');
      data('s1'); data('s2'); data('s3'); on.text('{"id":7,"op":"ok","sub":"s3"}'); on.text('{"op":"bye"}');
      relay.close('over');
      const heard = (link) => told[link].map(({ what, sub }) => [what, sub ?? null]);
      return [sent.map(({ op, sub }) => [op, sub]), [heard('A'), heard('B')], closed];
    """

    sent, (a, b), closed = call(new_tab(), RELAY + body)

    assert sent == [["sub", "s1"], ["sub", "s2"], ["unsub", "s1"], ["sub", "s3"]]
    begin: list[Any] = [["joined", None], ["open", None]]
    assert a == [*begin, ["text", "s2"], ["text", "s2"], ["text", None], ["end", None]]
    assert b == [*begin, ["text", "s1"], ["text", None], ["end", None]]
    assert closed == 1


def test_tab_that_reads_nothing_is_left_and_what_it_owes_is_bounded(new_tab: NewTab) -> None:
    """Others have each message; the slow one's subscriptions end, and it is told to come back."""
    body = """
      join('A'); join('B'); await opened(); sub('A', 's1'); sub('B', 's1');
      const text = 'x'.repeat(100_000);
      for (let i = 0; i < 300; i++) {
        data('s1', text); data('s2', text);
        say('B', { what: 'read', size: text.length + 40 });
      }
      const owed = told.A.reduce((sum, { text }) => sum + (text?.length ?? 0), 0);
      return { owed, most: MOST_OWED, last: told.A.at(-1), b: told.B.length, sent: sent.slice(2) };
    """

    found = call(new_tab(), RELAY + body)

    assert found["most"] < found["owed"] < found["most"] + 200_000
    assert found["last"]["what"] == "end"
    assert found["last"]["code"] == 4008
    assert found["b"] == 302
    assert found["sent"] == [{"op": "unsub", "sub": "s1"}]


def test_message_that_was_lost_between_tabs_is_noticed(new_tab: NewTab) -> None:
    """The tab is told to come back by its cursor, and what it may have asked for is asked for again."""
    body = """
      join('A'); await opened(); sub('A', 's1');
      said.A++;
      say('A', { what: 'ping' });
      return [told.A.at(-1).what, sent.map(({ op }) => op)];
    """

    assert call(new_tab(), RELAY + body) == ["end", ["sub", "unsub"]]


def test_token_that_cannot_be_had_is_asked_for_again(new_tab: NewTab) -> None:
    """It says nothing of the way: no tab goes on by event streams for it."""
    body = """
      join('A');
      await new Promise((done) => setTimeout(done));
      return [told.A.at(-1).what, told.A.at(-1).then];
    """

    assert call(new_tab(), RELAY + body, {"fails": True}) == ["end", "again"]


@pytest.mark.parametrize(("was_open", "then"), [(True, "again"), (False, "")])
def test_who_joins_what_ends_just_then_tries_the_same_way(new_tab: NewTab, was_open: bool, then: str) -> None:
    """A dead line that was open is no reason to go on by event streams; one that never opened is."""
    body = """
      join('A'); await opened(); say('A', { what: 'say', message: { op: 'hello' } });
      if (a.open) on.text('{"op":"welcome","limits":{"subs":64}}');
      join('B'); on.close(1006, '');
      return ['A', 'B'].map((link) => told[link].at(-1).then);
    """

    assert call(new_tab(), RELAY + body, {"open": was_open}) == [then, then]


def test_hub_that_says_anything_is_not_silent(new_tab: NewTab) -> None:
    """A hello that waits for hooks ends nothing while other things are said; 10 s without a word do."""
    body = """
      join('A'); await opened(); say('A', { what: 'say', message: { op: 'hello' } }); sub('A', 's1');
      const now = performance.now.bind(performance);
      let passed = 0;
      performance.now = () => now() + passed;
      passed = 8000; data('s1');
      passed = 12_000; relay._check();
      const early = closed;
      passed = 19_000; relay._check();
      return [early, closed];
    """

    assert call(new_tab(), RELAY + body) == [0, 1]


def test_connection_of_somebody_else_is_given_up(new_tab: NewTab) -> None:
    """Who signed in between the question and the upgrade is another user: what would come is not for these tabs."""
    body = """
      join('A'); await opened(); say('A', { what: 'say', message: { op: 'hello' } }); sub('A', 's1');
      on.text('{"op":"welcome","credential":"u2","limits":{"subs":64}}');
      return [told.A.at(-1).what, told.A.at(-1).then ?? null, closed];
    """

    assert call(new_tab(), RELAY + body, {"credential": "u1"}) == ["end", "alone", 1]
    assert call(new_tab(), RELAY + body, {"credential": "u2"}) == ["text", None, 0]
