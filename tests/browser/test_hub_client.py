"""`/client/v1/hub-client.js` in a real browser: its pure parts, and gapless watching of a real hub on each way."""

import re
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import WebSocketRoute

from device_sdk import Device
from hub.auth import Identities
from hub.roles import Role
from tests.browser.conftest import OpenTab, Tab, World
from tests.support.hub_process import HubProcess
from tests.support.sensors import Sensors

S = 10**9


@pytest.fixture
def tab(open_tab: OpenTab) -> Tab:
    """A tab of the hub's origin without its page, in which modules can be imported."""
    return open_tab("healthz", bypass_csp=True, expect_errors=True)


def call(tab: Tab, body: str, argument: Any = None) -> Any:
    """Import the module as ``m`` and return the value of ``body``, in which ``a`` is the argument."""
    return tab.page.evaluate(f"async (a) => {{ const m = await import('/client/v1/hub-client.js'); {body} }}", argument)


# Collects a channel as [time, value]; a gap or a double shows in the list.
COLLECT = """
  window.seen = []; window.states = [];
  window.watched = m.watch(undefined, { match: a.match, since: a.since ?? '-1h', transports: a.transports,
    onReading: ({ time, value }) => seen.push([String(time), value]), onState: (state) => states.push(state),
    onError: (error) => (window.failed = error), onLive: () => (window.liveFrom ??= seen.length) });
"""


def by_time(seen: list[list[Any]]) -> list[list[Any]]:
    """Return readings once each and ordered: history is to be put by time, also what was left in the middle."""
    return [list(pair) for pair in sorted(dict(map(tuple, seen)).items())]


def stored(world: World, tab: Tab, channel: str) -> list[list[Any]]:
    """Return all readings of a channel from the store, as `COLLECT` has them."""
    body = f"""
      const rows = [];
      for (let page = ''; page !== null; ) {{
        const answer = await (await fetch(`/v1/readings?match={channel}&from=-1h&limit=5000${{page}}`)).json();
        rows.push(...answer.rows.map((row) => [String(row[0]), row[2]]));
        page = answer.next ? `&page=${{answer.next}}` : null;
      }}
      return rows;
    """
    world.sensors.flush()
    return list(call(tab, body))


# --- pure parts ------------------------------------------------------------------------------------------------


def test_times_and_whole_numbers_are_exact(tab: Tab) -> None:
    """Nanoseconds and integers beyond 2**53 are bigint; relative times are numbers for who says an origin."""
    body = """
      const told = [];
      for (const origin of [null, 1700000000000000000n]) {
        const session = new m.Session({ origin });
        session.opened(() => {});
        const reading = (id, time, value) => told.push([typeof time, String(time), String(m.exactValue(value, 'int'))]);
        session.subscribe({ match: ['**'] }, { series() {}, reading });
        session.receive({ op: 'data', sub: 's1', o: 'r.1', t0: '1700000000000000001', tick: 1,
          u: [[1, 2, '9007199254740993'], [1, '4503599627370495', 5]] });
      }
      return told;
    """

    assert call(tab, body) == [
        ["bigint", "1700000000000000003", "9007199254740993"], ["bigint", "1704503599627370496", "5"],
        ["number", "3", "9007199254740993"], ["number", "4503599627370496", "5"],
    ]  # fmt: skip


def test_cursor_moves_behind_what_was_applied(tab: Tab) -> None:
    """A new link resumes each subscription behind its last frame; one that fails in the middle of it is not taken."""
    body = """
      const session = new m.Session(), said = [];
      const send = (message) => message.op === 'sub' && said.push([message.sub, message.since ?? null]);
      let isBad = false;
      const sink = { series() {}, reading: () => { if (isBad) throw new Error('bad'); } };
      const data = (sub, o) => ({ op: 'data', sub, o, t0: '0', tick: 1, u: [[1, 0, 1]] });
      session.opened(send);
      session.subscribe({ match: ['a'], mode: 'lossless', since: '-1m' }, sink);
      session.subscribe({ match: ['a'], mode: 'lossless' }, sink);
      session.subscribe({ match: ['a'], mode: 'latest', since: 'last' }, sink);
      session.receive({ op: 'ok', sub: 's2', from: 'r.7' });
      session.receive(data('s1', 'r.1')); session.receive(data('s3', 'r.1'));
      isBad = true;
      try { session.receive(data('s1', 'r.2')); } catch {}
      session.closed();
      session.opened(send);
      return said;
    """

    assert call(tab, body) == [
        ["s1", "-1m"], ["s2", None], ["s3", "last"], ["s1", "r.1"], ["s2", "r.7"], ["s3", "last"],
    ]  # fmt: skip


def test_reset_goes_on_or_starts_over(tab: Tab) -> None:
    """By default behind the hub's head; where asked for, from the first request under a new name."""
    body = """
      return [false, true].map((startsOver) => {
        const session = new m.Session({ startsOver }), said = [];
        session.opened((message) => message.op !== 'hello' && said.push([message.op, message.sub, message.since]));
        const sink = { series() {}, reading() {}, reset: (why) => said.push(why) };
        const kept = session.subscribe({ match: ['a'], since: '-1m' }, sink);
        session.receive({ op: 'reset', sub: 's1', why: 'run', head: 'q.9' });
        return [said, kept.cursor];
      });
    """

    went_on, started_over = call(tab, body)

    assert went_on == [[["sub", "s1", "-1m"], "run"], "q.9"]
    assert started_over == [[["sub", "s1", "-1m"], ["unsub", "s1", None], "run", ["sub", "s2", "-1m"]], None]


def test_waits_have_full_jitter_and_codes_a_policy(tab: Tab) -> None:
    """Doubling up to 5 s, for nobody who looks up to 30 s, all of it random; 44xx says not to come back."""
    body = """
      const most = new m.Backoff(() => 1), least = new m.Backoff(() => 0);
      const waits = [...Array(6)].map(() => most.next(false));
      const hidden = most.next(true);
      most.reset();
      const final = [1006, 4000, 4029, 4100, 4400, 4401, 4429, 4500].map(m.isFinal);
      return [waits, hidden, most.next(false), least.next(true), final];
    """

    waits, hidden, again, least, final = call(tab, body)

    assert (waits, hidden, again, least) == ([500, 1000, 2000, 4000, 5000, 5000], 30_000, 500, 0)
    assert final == [False] * 4 + [True] * 3 + [False]


def test_event_stream_may_be_cut_anywhere(tab: Tab) -> None:
    """Events come out the same whether the text comes whole or by characters, with any line end."""
    body = r"""
      const text = 'retry: 2000\n\nid: r.1\nevent: data\ndata: {"o":1}\n\n'
        + ': ping\n\r\nevent:live\r\ndata:a\ndata: b\r\n\r\n';
      const whole = new m.EventParser().feed(text), parser = new m.EventParser();
      return [whole, [...text].flatMap((letter) => parser.feed(letter))];
    """

    whole, by_letters = call(tab, body)

    assert whole == by_letters == [{"event": "data", "data": '{"o":1}'}, {"event": "live", "data": "a\nb"}]


# --- a real hub ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["ws", "sse", "poll"])
def test_what_is_seen_is_what_is_stored(tab: Tab, world: World, transport: str) -> None:
    """History and live, each reading once and in order, over breaks of the connection, on each way."""
    call(tab, COLLECT, {"match": "pump-1/temperature", "transports": [transport]})
    tab.page.wait_for_function("() => watched.isLive && seen.length > 20")

    for _ in range(3):
        before = tab.page.evaluate("() => seen.length")
        tab.page.evaluate("() => dispatchEvent(new Event('offline'))")
        tab.page.wait_for_function("() => states.at(-1) === 'reconnecting'")
        tab.page.evaluate("() => dispatchEvent(new Event('online'))")
        tab.page.wait_for_function("(before) => states.at(-1) === 'live' && seen.length > before + 3", arg=before)
    tab.page.evaluate("() => watched.close()")

    seen = tab.page.evaluate("() => seen")
    live = seen[tab.page.evaluate("() => window.liveFrom") :]
    kept = stored(world, tab, "pump-1/temperature")
    assert len(seen) > 900
    assert by_time(seen) == kept[: len(by_time(seen))]
    assert live == by_time(live)


def test_a_slow_loop_is_waited_for(tab: Tab, world: World) -> None:
    """What waits for it is bounded: the subscription is left and goes on behind its cursor; nothing is missed."""
    body = """
      const watched = m.watch(undefined, { match: '*/*', since: '-1h' }), seen = [];
      let most = 0, pauses = 0;
      const session = watched._session, leave = session.unsubscribe.bind(session);
      session.unsubscribe = (subscription) => (pauses++, leave(subscription));
      for await (const { device, channel, value, time } of watched) {
        if (device === 'pump-1' && channel === 'temperature') seen.push([String(time), value]);
        most = Math.max(most, watched._waiting);
        // The loop rests until what waits has come to its limit, and ends when it has caught up.
        while (!pauses) await new Promise((done) => setTimeout(done, 5));
        if (watched.isLive) break;
      }
      return { most, pauses, seen };
    """

    found = call(tab, body)

    assert 10_000 <= found["most"] < 11_000
    assert found["pauses"] >= 1
    seen = by_time(found["seen"])
    assert seen == stored(world, tab, "pump-1/temperature")[: len(seen)]
    assert len(seen) > 900


def test_loop_ends_by_signal_and_cursor_goes_on(tab: Tab, world: World) -> None:
    """A loop that was left says where: the next one begins behind the last reading that was used."""
    body = """
      const stop = new AbortController(), seen = [];
      const first = m.watch(undefined, { match: 'pump-1/temperature', since: '-1h', signal: stop.signal });
      for await (const { time, value } of first) if (seen.push([String(time), value]) === 700) stop.abort();
      const used = seen.length, second = m.watch(undefined, { match: 'pump-1/temperature', since: first.cursor });
      for await (const { time, value } of second) if (seen.push([String(time), value]) > used + 300) break;
      return { seen, used, closed: [first.isClosed, second.isClosed] };
    """

    found = call(tab, body)

    assert found["closed"] == [True, True]
    seen = by_time(found["seen"])
    assert found["used"] == 700
    assert seen == stored(world, tab, "pump-1/temperature")[: len(seen)]
    assert len(found["seen"]) < len(seen) + 500, "at most the message that was cut comes again"


@pytest.mark.parametrize("way", ["sse", "poll"])
def test_without_websockets_it_falls_back_and_remembers(open_tab: OpenTab, way: str) -> None:
    """A proxy that lets none pass, or no event stream either, costs one try; the next page begins with what worked."""
    tab = open_tab("healthz", bypass_csp=True, expect_errors=True)
    tries: list[str] = []

    def refuse(route: WebSocketRoute) -> None:
        tries.append(route.url)
        route.close()

    tab.page.route_web_socket("**/v1/watch", refuse)
    if way == "poll":
        tab.page.route(re.compile(r"/v1/watch\?(?!.*wait=)"), lambda route: route.abort())
    for expected in (1, 1):
        call(tab, COLLECT, {"match": "pump-1/temperature"})
        tab.page.wait_for_function("() => watched.isLive && seen.length > 10")
        assert len(tries) == expected
        tab.page.reload()
    assert f'"{way}"' in tab.page.evaluate("() => localStorage.getItem(`hub-client ${location.host}`)")


@pytest.mark.parametrize("transport", ["sse", "poll"])
def test_more_subscriptions_than_a_browser_has_connections(tab: Tab, transport: str) -> None:
    """By HTTP/1.1 it has six: each of nine charts goes on, and what else the page asks is answered."""
    body = """
      const hub = m.connect(undefined, { transports: [a] }), counts = Array(9).fill(0);
      const count = (at) => hub.watch({ match: 'pump-1/temperature', since: '-5s', onReading: () => counts[at]++ });
      for (const at of counts.keys()) count(at);
      const until = async (isTrue) => {
        for (let left = 100; left && !isTrue(); left--) await new Promise((done) => setTimeout(done, 100));
      };
      await until(() => counts.every((count) => count > 0));
      const before = [...counts];
      await until(() => counts.every((count, at) => count > before[at] + 10));
      const signal = AbortSignal.timeout(3000);
      const status = await fetch('/healthz', { signal }).then((answer) => answer.status, (error) => error.name);
      hub.close();
      return [status, counts.map((count, at) => count > before[at] + 10)];
    """

    assert call(tab, body, transport) == [200, [True] * 9]


def test_refused_subscription_says_why(tab: Tab) -> None:
    """What the hub cannot read ends the loop with its reason, on each way; others on the connection go on."""
    body = """
      const hub = m.connect(undefined, { transports: [a] });
      const good = hub.watch({ match: 'pump-1/temperature' });
      let told = null;
      try { for await (const _ of hub.watch({ match: 'pump-1/temperature', since: 'yesterday-ish' })); }
      catch (error) { told = [error.name, error.reason, error.message.includes('yesterday-ish')]; }
      for await (const { value } of good) { hub.close(); return [told, typeof value, hub.state]; }
    """

    for transport in ("ws", "sse", "poll"):
        assert call(tab, body, transport) == [["WatchError", "bad_request", True], "number", "closed"]


def test_wrong_token_ends_it_and_a_right_one_counts(tab: Tab, world: World) -> None:
    """A token counts alone, on each way; one that the hub does not know is final, a function may give another."""
    identities = Identities(world.hub.data / "identities.sqlite3")
    try:
        _, right = identities.add_token(Role.WATCHER)
    finally:
        identities.close()
    body = """
      const first = async (token, transports) => {
        const watched = m.watch(undefined, { match: 'pump-1/temperature', since: 'last', token, transports });
        try { for await (const { device } of watched) return device; }
        catch (error) { return `${error.reason} ${error.code}`; }
      };
      let asked = 0;
      const renewing = () => (asked++ ? a.right : 'nobody.nothing');
      return [await first(a.right, ['ws']), await first(a.right, ['sse']), await first('nobody.nothing'),
        await first(renewing, ['sse']), asked];
    """

    found = call(tab, body, {"right": right})

    assert found == ["pump-1", "pump-1", "refused 4401", "pump-1", 2]


@pytest.fixture
def own_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A hub that this test may kill."""
    hub = HubProcess(tmp_path_factory.mktemp("hub") / "data")
    identities_of = hub.data / "identities.sqlite3"
    with hub:
        identities = Identities(identities_of)
        tokens = {"pump-1": identities.add_device("pump-1")}
        identities.close()
        with Sensors(hub.ws_url, tokens) as sensors:
            yield World(hub, sensors)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[str]:
    """The origin of a web server that knows nothing of the hub."""
    (tmp_path / "index.html").write_text("<!doctype html><title>panel</title>")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="panel")
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("is_allowed", [True, False])
def test_page_of_another_origin(
    open_tab: OpenTab, tmp_path_factory: pytest.TempPathFactory, elsewhere: str, is_allowed: bool
) -> None:
    """With --allow-origin it imports the module from the hub and watches it on each way; without, it sees nothing."""
    options = ["--allow-origin", elsewhere if is_allowed else "https://panel.example"]
    body = """
      async ({ hub, token }) => {
        const { watch } = await import(`${hub}/client/v1/hub-client.js`);
        const first = async (transports, token) => {
          const stop = new AbortController();
          setTimeout(() => stop.abort(), 8000);
          const watched = watch(undefined, { since: 'last', transports, token, signal: stop.signal });
          try { for await (const { value } of watched) return value; } catch (error) { return error.reason; }
          return null;
        };
        return Promise.all([first(['ws'], token), first(['sse'], token), first(['ws']), first(['sse'])]);
      }
    """
    with HubProcess(tmp_path_factory.mktemp("hub") / "data", *options) as hub:
        identities = Identities(hub.data / "identities.sqlite3")
        device = identities.add_device("pump-1")
        _, token = identities.add_token(Role.WATCHER)
        identities.close()
        with Device("pump-1", hub.ws_url, token=device, spool=tmp_path_factory.mktemp("spool")) as pump:
            pump.record({"level": 7})
            pump.flush(20)
            tab = open_tab("healthz", expect_errors=True)
            tab.page.goto(elsewhere)

            seen = tab.page.evaluate(body, {"hub": hub.url, "token": token})

    assert seen == ([7, 7, 7, 7] if is_allowed else [None] * 4)


def test_page_of_another_origin_where_somebody_is_signed_in(
    open_tab: OpenTab, tmp_path_factory: pytest.TempPathFactory, elsewhere: str
) -> None:
    """A development server beside the hub: its WebSocket has the session's cookie, its requests have none."""
    body = """
      async (hub) => {
        const { watch } = await import(`${hub}/client/v1/hub-client.js`);
        const signal = AbortSignal.timeout(10_000);
        for await (const { value } of watch(undefined, { since: 'last', transports: ['ws'], signal })) return value;
        return null;
      }
    """
    with HubProcess(tmp_path_factory.mktemp("hub") / "data", "--allow-origin", elsewhere) as hub:
        identities = Identities(hub.data / "identities.sqlite3")
        device = identities.add_device("pump-1")
        session = identities.add_session(Role.WATCHER, 3600)
        identities.close()
        with Device("pump-1", hub.ws_url, token=device, spool=tmp_path_factory.mktemp("spool")) as pump:
            pump.record({"level": 7})
            pump.flush(20)
            tab = open_tab("healthz", expect_errors=True)
            tab.page.context.add_cookies(
                [{"name": "hub_session", "value": session, "domain": "127.0.0.1", "path": "/", "sameSite": "Strict"}]
            )
            tab.page.goto(elsewhere)

            assert tab.page.evaluate(body, hub.url) == 7


@pytest.mark.parametrize("transport", ["ws", "sse", "poll"])
def test_restart_of_the_hub_costs_nothing(open_tab: OpenTab, own_world: World, transport: str) -> None:
    """A killed hub is found again within seconds, and what devices recorded meanwhile comes once, in order."""
    tab = open_tab("healthz", bypass_csp=True, expect_errors=True)
    tab.page.goto(f"{own_world.hub.url}/healthz")
    call(tab, COLLECT, {"match": "pump-1/temperature", "transports": [transport]})
    tab.page.wait_for_function("() => watched.isLive && seen.length > 20")

    own_world.hub.kill()
    tab.page.wait_for_function("() => states.at(-1) === 'reconnecting'")
    killed_ns = time.time_ns()
    own_world.hub.start()
    tab.page.wait_for_function("(ns) => seen.length && BigInt(seen.at(-1)[0]) > BigInt(ns)", arg=str(killed_ns + 2 * S))

    kept = stored(own_world, tab, "pump-1/temperature")
    tab.page.wait_for_function("(most) => new Set(seen.map(([time]) => time)).size >= most", arg=len(kept))
    seen = tab.page.evaluate("() => (watched.close(), seen)")
    live = seen[tab.page.evaluate("() => window.liveFrom") :]
    # What the device kept back comes behind its first live readings: each once, though not in order of time.
    assert len(by_time(live)) == len(live)
    assert by_time(seen)[: len(kept)] == kept
