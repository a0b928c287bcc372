"""`hub-client.js` and what stands between it and a hub: proxies, sign-in pages, cuts anywhere, slow lines."""

import json
from collections.abc import Iterable
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.bad_server import SERIES, BadServer, answer, event, reading
from tests.support.hub_process import ROOT
from tests.support.node import find

pytestmark = pytest.mark.skipif(find("node") is None, reason="needs node")

STREAM = answer("200 OK", "text/event-stream")
JSON = answer("200 OK", "application/json")
PAGE = b"<!doctype html><title>Welcome to our network</title><p>Sign in, please."

# Watches `d` and returns what came, once so many readings did or `limit` ms passed.
WATCH = """
  const seen = [], states = [];
  let failed = null;
  const hub = m.connect(url, { transports: a.transports, onState: (state) => states.push(state) });
  const watched = hub.watch({ match: 'd', since: 'r.0', onReading: ({ value }) => seen.push(value),
    onError: (error) => (failed = error.reason) });
  for (let left = a.limit ?? 8000; left > 0 && seen.length < a.count && !failed; left -= 10) await pause(10);
  const end = { seen, states, failed, transport: hub.transport };
  watched.close();
  return end;
"""


def since_of(path: str) -> int:
    """Return the number of the reading that a request stands behind."""
    return int(parse_qs(urlsplit(path).query)["since"][0].removeprefix("r."))


def poll_answer(first: int, last: int) -> bytes:
    """Return the body of a long poll with these readings."""
    rows = [{"op": "data", **reading(number)} for number in range(first, last + 1)]
    position = f"r.{last}"
    return json.dumps(
        {"o": position, "messages": [{"op": "series", **SERIES}, *rows, {"op": "live", "o": position}]}
    ).encode()


def stream_of(first: int, last: int) -> bytes:
    """Return the events of a stream with these readings."""
    rows = b"".join(event("data", **reading(number)) for number in range(first, last + 1))
    return b"retry: 2000\n\n" + event("series", **SERIES) + rows + event("live", o=f"r.{last}")


# --- cuts --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("way", ["sse", "poll"])
def test_an_answer_cut_at_every_byte_costs_nothing(way: str) -> None:
    """Each of some 500 pages with its first answer cut at another byte: every reading once, in order."""
    whole = STREAM + stream_of(1, 3) if way == "sse" else JSON + poll_answer(1, 3)

    def script(path: str, number: int) -> Iterable[bytes | float]:
        cut = int(path.split("/")[1])
        is_first = cut not in asked
        asked.add(cut)
        if is_first:
            yield whole[:cut]
            return
        behind = since_of(path)
        if behind == 3:
            yield 1.0
        yield STREAM + stream_of(behind + 1, 3) if way == "sse" else JSON + poll_answer(behind + 1, 3)
        if way == "sse":
            yield 5.0

    asked: set[int] = set()
    body = """
      const wrong = [];
      const one = async (cut) => {
        const seen = [];
        const watched = m.watch(`${url}/${cut}/`, { match: 'd', since: 'r.0', transports: [a.way],
          onReading: ({ value }) => seen.push(value) });
        for (let left = 500; left && seen.length < 3; left--) await pause(5);
        watched.close();
        if (String(seen) !== '1,2,3') wrong.push([cut, seen]);
      };
      for (let cut = 0; cut < a.size; cut += 16)
        await Promise.all([...Array(Math.min(16, a.size - cut))].map((_, at) => one(cut + at)));
      return wrong;
    """

    with BadServer(script) as server:
        assert server.run(body, {"way": way, "size": len(whole)}, speed=20) == []


# --- who answers in the hub's place -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [answer("200 OK", "text/html"), answer("403 Forbidden", "text/html"), answer("401 Unauthorized", "text/html"),
     answer("400 Bad Request", "text/html"), answer("407 Proxy Authentication Required", "text/html"),
     answer("404 Not Found", "text/html"), answer("502 Bad Gateway", "text/html")],
    ids=["200", "403", "401", "400", "407", "404", "502"],
)  # fmt: skip
def test_a_proxy_that_answers_itself_is_gone_round(head: bytes) -> None:
    """A page in the place of events is neither the hub nor its last word: the next way is tried."""

    def script(path: str, number: int) -> Iterable[bytes | float]:
        if "wait=" not in path:
            yield head + PAGE
        else:
            yield JSON + poll_answer(since_of(path) + 1, 3)

    with BadServer(script) as server:
        told = server.run(WATCH, {"transports": ["sse", "poll"], "count": 3, "limit": 3000}, speed=10)

    assert (told["seen"], told["failed"], told["transport"]) == ([1, 2, 3], None, "poll")
    assert told["states"] == ["live"]


@pytest.mark.parametrize("transport", ["sse", "poll"])
def test_a_network_that_wants_a_sign_in_is_waited_for(transport: str) -> None:
    """While its page answers everything nothing is live; afterwards readings come as if nothing had been."""

    def script(path: str, number: int) -> Iterable[bytes | float]:
        if number <= 4:
            yield answer("200 OK", "text/html; charset=utf-8") + PAGE
        elif transport == "sse":
            yield STREAM + stream_of(since_of(path) + 1, 3)
            yield 5.0
        else:
            yield JSON + poll_answer(since_of(path) + 1, 3)

    with BadServer(script) as server:
        told = server.run(WATCH, {"transports": [transport], "count": 3}, speed=20)

    assert (told["seen"], told["failed"], told["states"]) == ([1, 2, 3], None, ["live"])


def chunks(*parts: bytes) -> bytes:
    """Return the parts as chunks of an answer, with its head."""
    head = answer("200 OK", "text/event-stream", "Transfer-Encoding: chunked")
    return head + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


ODD: dict[str, list[bytes]] = {
    "redirect": [answer("302 Found", "text/html", "Location: /sign-in?since=r.0")],
    "circle": [answer("302 Found", "text/html", "Location: /v1/watch?since=r.0")],
    "empty": [b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"],
    "nothing": [b""],
    "noise": [b"\x16\x03\x01\x00\x00"],
    "chunk": [chunks(stream_of(1, 3)[:60]) + b"zz\r\nrubbish"],
    "short": [chunks(stream_of(1, 3)[:100]) + b"ffff\r\n" + stream_of(1, 3)[100:140]],
    "failed": [answer("500 Internal Server Error", "application/json") + b'{"error":{"reason":"internal"}}'],
    "null": [JSON + b"null"],
    "object": [JSON + b"{}"],
    "no position": [JSON + b'{"messages":[]}'],
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize("transport", ["sse", "poll"])
def test_whatever_is_answered_first_costs_nothing(transport: str, odd: list[bytes]) -> None:
    """Three times something that is not what was asked for, then the hub: every reading once, in order."""

    def script(path: str, number: int) -> Iterable[bytes | float]:
        if number <= 3:
            yield from odd
        elif transport == "poll":
            yield JSON + poll_answer(since_of(path) + 1, 3)
        else:
            # As some write it: a mark of the byte order, other line ends, each byte a chunk.
            text = b"\xef\xbb\xbf" + stream_of(since_of(path) + 1, 3).replace(b"\n", b"\r\n")
            yield chunks(*(text[at : at + 1] for at in range(len(text))))
            yield 5.0

    with BadServer(script) as server:
        told = server.run(WATCH, {"transports": [transport], "count": 3, "limit": 3000}, speed=20)

    assert (told["seen"], told["failed"]) == ([1, 2, 3], None)
    assert [path for path in server.paths if "since=" not in path] == [], "the position is never forgotten"


@pytest.mark.parametrize(
    ("status", "reason", "ends"),
    [("401 Unauthorized", "unauthenticated", "refused"), ("403 Forbidden", "forbidden", "forbidden"),
     ("400 Bad Request", "bad_request", "bad_request")],
)  # fmt: skip
@pytest.mark.parametrize("transport", ["sse", "poll"])
def test_the_hubs_own_refusal_is_final(transport: str, status: str, reason: str, ends: str) -> None:
    """What the hub says in its own words ends the watch, and nobody asks again."""
    words = json.dumps({"error": {"reason": reason, "message": "no"}}).encode()

    with BadServer(lambda path, number: [answer(status, "application/json") + words]) as server:
        told = server.run(WATCH, {"transports": [transport], "count": 1}, speed=20)

    assert told["failed"] == ends
    assert len(server.paths) == 1


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_who_says_when_to_come_back_is_heeded(status: str) -> None:
    """`Retry-After`: nobody asks before, by no other way either."""

    def script(path: str, number: int) -> Iterable[bytes | float]:
        if number == 1:
            yield answer(status, "text/html", "Retry-After: 20") + PAGE
        else:
            yield STREAM + stream_of(since_of(path) + 1, 3)
            yield 5.0

    body = f"const begun = now(); const told = await (async () => {{ {WATCH} }})(); return [now() - begun, told];"
    with BadServer(script) as server:
        took_ms, told = server.run(body, {"transports": ["sse", "poll"], "count": 3}, speed=20)

    assert (told["seen"], told["transport"]) == ([1, 2, 3], "sse")
    assert took_ms >= 1000, "20 s, 20 times faster"


# --- slow lines, quiet links ---------------------------------------------------------------------------------------


def test_a_large_answer_on_a_slow_line_arrives() -> None:
    """The first answer of a long poll takes 16 s where an attempt has 8: it is read to its end, and once."""
    whole = poll_answer(1, 400)

    def script(path: str, number: int) -> Iterable[bytes | float]:
        yield JSON
        if since_of(path):
            yield 5.0
            return
        for at in range(0, len(whole), len(whole) // 16):
            yield whole[at : at + len(whole) // 16]
            yield 0.05

    with BadServer(script) as server:
        told = server.run(WATCH, {"transports": ["poll"], "count": 400}, speed=20)

    assert told["seen"] == list(range(1, 401))
    assert told["states"] == ["live"]


@pytest.mark.parametrize("transport", ["sse", "poll"])
def test_a_line_that_is_half_open_is_left(transport: str) -> None:
    """One that was live and says nothing more, not even a ping, is given up within 45 s; nothing is missed."""

    def script(path: str, number: int) -> Iterable[bytes | float]:
        behind, most = since_of(path), 1 if number == 1 else 3
        if transport == "sse":
            yield STREAM + stream_of(behind + 1, most)
            yield 30.0
        elif number == 2:
            yield 30.0
        else:
            yield 0.1 if behind == 3 else 0.0
            yield JSON + poll_answer(behind + 1, most)

    with BadServer(script) as server:
        told = server.run(WATCH, {"transports": [transport], "count": 3, "limit": 5000}, speed=20)

    assert (told["seen"], told["states"]) == ([1, 2, 3], ["live", "reconnecting", "live"])


@pytest.mark.parametrize("transport", ["sse", "poll"])
def test_a_connection_without_subscriptions_rests(transport: str) -> None:
    """Nobody watches anything for two minutes, e.g. because a slow loop is waited for: nothing is wrong."""

    def script(path: str, number: int) -> Iterable[bytes | float]:
        if transport == "sse":
            yield STREAM + stream_of(since_of(path) + 1, 1)
            yield 5.0
        else:
            yield JSON + poll_answer(since_of(path) + 1, 1)

    body = """
      const states = [];
      const hub = m.connect(url, { transports: [a], onState: (state) => states.push(state) });
      const watched = hub.watch({ match: 'd', since: 'r.0' });
      for await (const _ of watched) break;
      await pause(1200);
      return states;
    """
    with BadServer(script) as server:
        assert server.run(body, transport, speed=100) == ["live"]


def test_a_cache_that_answers_polls_is_not_asked_in_a_circle() -> None:
    """The same answer at once, again and again, is asked for once a second."""
    with BadServer(lambda path, number: [JSON + poll_answer(1, 1)]) as server:
        server.run(WATCH, {"transports": ["poll"], "count": 10**9, "limit": 1500})
        assert len(server.paths) <= 4


@pytest.mark.parametrize("transport", ["sse", "poll"])
def test_many_subscriptions_leave_connections_for_others(transport: str) -> None:
    """Of a browser's six to a server four wait for readings; whatever more is watched takes turns on a fifth."""
    waiting: list[int] = [0, 0]

    def script(path: str, number: int) -> Iterable[bytes | float]:
        behind = since_of(path)
        is_held = "wait=0s" not in path
        waiting[0] += 1
        waiting[1] = max(waiting)
        if "wait=" not in path:
            yield STREAM + stream_of(behind + 1, 2)
            yield 1.5
        else:
            yield 1.5 if is_held and behind == 2 else 0.0
            yield JSON + poll_answer(behind + 1, 2)
        waiting[0] -= 1

    body = """
      const hub = m.connect(url, { transports: [a] }), seen = [...Array(9)].map(() => []);
      for (const values of seen) hub.watch({ match: 'd', since: 'r.0', onReading: ({ value }) => values.push(value) });
      for (let left = 100; left && seen.some((values) => values.length < 2); left--) await pause(10);
      await pause(100);
      return seen;
    """
    with BadServer(script) as server:
        assert server.run(body, transport) == [[1, 2]] * 9

    assert waiting[1] <= 5


# --- which way ------------------------------------------------------------------------------------------------------

# The first `opens` WebSockets get through; of the messages after the welcome each plays one.
SOCKET = """
  const asked = [];
  let opened = 0;
  globalThis.WebSocket = class {
    static OPEN = 1;
    readyState = 1;
    constructor() {
      const isOpen = opened++ < a.opens;
      after(() => (isOpen ? this.onopen?.() : this.onclose?.({ code: 1006, reason: '' })), 1);
      this.texts = isOpen ? ['{"op":"welcome"}', ...a.messages] : [];
    }
    send(text) {
      const message = JSON.parse(text);
      if (message.op === 'sub') asked.push(message.since);
      if (message.op === 'sub') after(() => { for (const text of this.texts) this.onmessage?.({ data: text }); }, 1);
    }
    close() {}
  };
"""


def test_a_way_that_worked_is_remembered_for_an_hour_and_no_longer() -> None:
    """Each page that comes back meanwhile does not make it longer: a network that changed is found out."""

    def script(path: str, number: int) -> Iterable[bytes | float]:
        yield STREAM + stream_of(since_of(path) + 1, 1)
        yield 5.0

    body = """
      const key = `hub-client ${new URL(url).host}`, until = Date.now() + 60_000;
      localStorage.setItem(key, JSON.stringify({ transport: 'sse', until }));
      const watched = m.watch(url, { match: 'd', since: 'r.0' });
      for await (const _ of watched) break;
      return [JSON.parse(localStorage.getItem(key)).until - until, opened];
    """
    with BadServer(script) as server:
        assert server.run(SOCKET + body, {"opens": 0, "messages": []}) == [0, 0]


# As `WATCH`, with a function for tokens that takes its time and fails at first.
ASKED = """
  const seen = [];
  let asked = 0;
  const token = async () => {
    asked++;
    await new Promise((done) => setTimeout(done, a.takes));
    if (asked <= a.fails) throw new Error('away');
    return 't';
  };
  const hub = m.connect(url, { transports: ['sse', 'poll'], token });
  const watched = hub.watch({ match: 'd', since: 'r.0', onReading: ({ value }) => seen.push(value) });
  for (let left = 3000; left > 0 && seen.length < 3; left -= 10) await pause(10);
  const end = { seen, transport: hub.transport, remembered: stored.size };
  watched.close();
  return end;
"""


@pytest.mark.parametrize(
    ("refused", "fails", "takes"), [(1, 0, 0), (0, 1, 0), (0, 0, 10_000)], ids=["ended", "not had", "slow"]
)
def test_a_token_says_nothing_of_the_way(refused: int, fails: int, takes: int) -> None:
    """One that has ended, that cannot be had, or that takes longer than a way may: the first way is tried again."""

    def script(path: str, number: int) -> Iterable[bytes | float]:
        if number <= refused:
            words = {"error": {"reason": "unauthenticated", "message": "it has ended"}}
            yield answer("401 Unauthorized", "application/json") + json.dumps(words).encode()
        elif "wait=" in path:
            yield JSON + poll_answer(since_of(path) + 1, 3)
        else:
            yield STREAM + stream_of(since_of(path) + 1, 3)
            yield 5.0

    with BadServer(script) as server:
        told = server.run(ASKED, {"fails": fails, "takes": takes}, speed=20)

    assert told == {"seen": [1, 2, 3], "transport": "sse", "remembered": 0}


def test_a_socket_that_never_opens_is_waited_for_once() -> None:
    """Where tabs cannot share (here, and on a page without https) the next way is tried after 8 s."""

    def script(path: str, number: int) -> Iterable[bytes | float]:
        yield STREAM + stream_of(since_of(path) + 1, 1)
        yield 5.0

    body = """
      globalThis.WebSocket = class { static OPEN = 1; close() {} };
      const begun = performance.now(), seen = [];
      const watched = m.watch(url, { match: 'd', since: 'r.0', onReading: ({ value }) => seen.push(value) });
      for (let left = 3000; left > 0 && !seen.length; left -= 10) await pause(10);
      watched.close();
      return performance.now() - begun;
    """
    with BadServer(script) as server:
        assert 8000 <= server.run(body, speed=20) < 14_000


def test_a_way_that_failed_once_is_not_given_up() -> None:
    """Where WebSockets passed on this page, one that failed (a hub restarts) is no reason to do without for an hour."""

    def script(path: str, number: int) -> Iterable[bytes | float]:
        yield STREAM + stream_of(since_of(path) + 1, 2)

    body = """
      const seen = [];
      const watched = m.watch(url, { match: 'd', since: 'r.0', onReading: ({ value }) => seen.push(value) });
      for (let left = 300; left && seen.length < 1; left--) await pause(10);
      dispatchEvent(new Event('offline')); dispatchEvent(new Event('online'));
      for (let left = 300; left && (seen.length < 2 || opened < 3); left--) await pause(10);
      watched.close();
      return { seen, opened, stored: [...stored.values()] };
    """
    # Node has no window that events of the network are sent to.
    window = """
      const target = new EventTarget();
      for (const name of ['addEventListener', 'dispatchEvent']) globalThis[name] = target[name].bind(target);
    """
    messages = [
        json.dumps({"op": "series", "sub": "s1", **SERIES}),
        json.dumps({"op": "data", "sub": "s1", **reading(1)}),
    ]
    with BadServer(script) as server:
        told = server.run(window + SOCKET + body, {"opens": 1, "messages": messages}, speed=20)

    assert told["seen"] == [1, 2]
    assert told["opened"] >= 3, "the stream has ended: the better way is tried first again"
    assert told["stored"] == []


def test_a_message_that_broke_on_its_way_is_asked_for_again() -> None:
    """Whoever changes what passes through him loses no reading: the next link goes on behind the last whole message."""
    good = [{"op": "series", **SERIES}, {"op": "data", **reading(1)}]
    messages = [json.dumps({"sub": "s1", **message}) for message in good]
    messages += ['{"op":"data","sub":"s1","o":"r.2"', json.dumps({"op": "data", "sub": "s1", **reading(3)})]
    body = """
      const seen = [];
      const watched = m.watch(url, { match: 'd', since: 'r.0', transports: ['ws'],
        onReading: ({ value }) => seen.push(value) });
      for (let left = 300; left && asked.length < 2; left--) await pause(10);
      return [seen.includes(3), asked.slice(0, 2)];
    """
    with BadServer(lambda path, number: []) as server:
        told = server.run(SOCKET + body, {"opens": 2, "messages": messages}, speed=20)

    assert told == [False, ["r.0", "r.1"]]


# --- what the page does ----------------------------------------------------------------------------------------------


def test_who_fails_when_told_the_state_stops_nothing() -> None:
    """What `onState` throws is the page's error: the stream is read, and opened again when it ends."""

    def script(path: str, number: int) -> Iterable[bytes | float]:
        behind = since_of(path)
        yield STREAM + stream_of(behind + 1, 1 if behind == 0 else 3)
        yield 0.0 if behind == 0 else 5.0

    body = """
      const seen = [], reported = [];
      globalThis.reportError = ({ message }) => reported.push(message);
      const onState = (state) => { throw new Error(state); };
      const watched = m.watch(url, { match: 'd', since: 'r.0', transports: ['sse'], onState,
        onReading: ({ value }) => seen.push(value) });
      for (let left = 3000; left > 0 && seen.length < 3; left -= 10) await pause(10);
      watched.close();
      return [seen, reported];
    """
    with BadServer(script) as server:
        assert server.run(body, speed=20) == [[1, 2, 3], ["live", "reconnecting", "live", "closed"]]


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_a_hello_in_between_puts_no_renewal_off() -> None:
    """Where nothing happens each tab asks now and then whether the line lives, and is told the same end again."""
    body = """
      const { Renewal } = await import(a);
      const begun = performance.now(), said = [];
      const passed = () => (performance.now() - begun) / 1000;
      const ask = () => new Promise((done) => setTimeout(() => done('t'), 500));
      const renewal = new Renewal(ask, () => said.push(passed()), () => {});
      while (passed() < 20 && !said.length) {
        renewal.told(20 - passed());
        await pause(10);
      }
      renewal.end();
      return said;
    """
    with BadServer(lambda path, number: []) as server:
        (said,) = server.run(body, (ROOT / "hub" / "page" / "client" / "renewal.js").as_uri(), speed=20)

    assert 14 <= said < 20
