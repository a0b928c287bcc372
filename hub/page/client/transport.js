/**
 * Ways to a hub: each opens one link, carries messages of `watch.v1` over it, and says when it ended.
 *
 * Owns: how messages travel, and where the token goes. Nothing here tries again: that is the connection's.
 */

/** Proxies give up on a request that is silent for half a minute or more. */
const POLL_WAIT = "20s";
const PAUSE_MS = 1000;
/** A browser opens six connections to a server of HTTP/1.1, and the page needs some: subscriptions beyond these take turns. */
const MOST_HELD = 4;
/** A server that says "come back in an hour" is asked each minute: somebody looks at the page. */
const LONGEST_PAUSE_S = 60;

/** Text of an event stream → events. Pure; bytes may be cut anywhere. */
export class EventParser {
  constructor() {
    this._rest = "";
    this._event = "";
    /** @type {string[]} */
    this._data = [];
  }

  /** @param {string} text @returns {{event: string, data: string}[]} */
  feed(text) {
    const lines = (this._rest + text).split("\n");
    this._rest = lines.pop() ?? "";
    const events = [];
    for (const raw of lines) {
      const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
      if (line === "") {
        if (this._data.length) events.push({ event: this._event || "message", data: this._data.join("\n") });
        [this._event, this._data] = ["", []];
        continue;
      }
      const colon = line.indexOf(":");
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
      if (field === "event") this._event = value;
      else if (field === "data") this._data.push(value);
    }
    return events;
  }
}

/**
 * @typedef {object} LinkEvents
 * @property {(send: (message: any) => void) => void} open
 * @property {(message: any) => void} message
 * @property {() => void} heard something came that is no message
 * @property {(code: number, reason: string, then?: Then) => void} close
 *
 * @typedef {"" | "again" | "alone"} Then what to do when a link that tabs share ends for what happened among them: this way is
 *   open, so it is tried again, or alone
 */

/** @param {URL} base @param {string} token @param {LinkEvents} on @returns {() => void} closes it */
export function openSocket(base, token, on) {
  const text = (/** @type {string} */ data) => {
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      // What follows it must not be applied: its cursor would stand behind what was lost.
      close();
      return on.close(1006, "a message broke on its way");
    }
    on.message(message);
  };
  const close = openText(base, token, { ...on, text });
  return close;
}

/** @param {URL} base @param {string} token @param {import("./relay.js").SocketEvents} on @returns {() => void} closes it */
export function openText(base, token, on) {
  const url = new URL("v1/watch", base);
  url.protocol = url.protocol.replace("http", "ws");
  // A browser gives a WebSocket no headers; an address would be logged by every proxy, the offered protocols are not.
  const socket = new WebSocket(url, token ? ["watch.v1", `bearer.${token}`] : ["watch.v1"]);
  socket.onopen = () => on.open((message) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(message)));
  socket.onmessage = (event) => on.text(String(event.data));
  socket.onclose = (event) => on.close(event.code, event.reason);
  return () => {
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  };
}

/**
 * @typedef {<T>(ask: () => Promise<T>) => Promise<T>} Turns
 * @typedef {(base: URL, token: string, sub: any, signal: AbortSignal, on: LinkEvents, end: (code: number, reason: string) => void, inTurn?: Turns) => Promise<void>} Reader
 */

/**
 * One event stream or poll per subscription; when one ends, all do.
 *
 * @param {Reader} read @param {URL} base @param {string} token @param {LinkEvents} on @returns {() => void} closes it
 */
function openRequests(read, base, token, on) {
  /** @type {Map<string, AbortController>} */
  const streams = new Map();
  let hasEnded = false;
  let isOpen = () => {};
  // Who takes turns begins when a held one has got through: a stream that is held back must not pass for open by a poll.
  /** @type {Promise<any>} */
  let last = new Promise((open) => (isOpen = () => open(null)));
  /** @type {Turns} */
  const inTurn = (ask) => (last = last.then(ask, ask));
  const held = { ...on, message: (/** @type {any} */ message) => (message.op === "welcome" && isOpen(), on.message(message)) };
  const abort = () => {
    hasEnded = true;
    for (const stream of streams.values()) stream.abort();
  };
  const end = (/** @type {number} */ code, /** @type {string} */ reason) => {
    if (hasEnded) return;
    abort();
    on.close(code, reason);
  };
  const send = (/** @type {any} */ message) => {
    if (message.op === "unsub") {
      streams.get(message.sub)?.abort();
      streams.delete(message.sub);
    }
    // Without a stream nothing travels that could show whether the line lives.
    if (message.op === "hello" && !streams.size) on.heard();
    if (message.op !== "sub") return;
    const stream = new AbortController();
    streams.set(message.sub, stream);
    const reading =
      streams.size > MOST_HELD ? readPolls(base, token, message, stream.signal, on, end, inTurn) : read(base, token, message, stream.signal, held, end);
    reading.catch(() => stream.signal.aborted || end(1006, "the answer broke off"));
  };
  queueMicrotask(() => {
    if (hasEnded) return;
    on.open(send);
    if (!streams.size) on.message({ op: "welcome" });
  });
  return abort;
}

/** @type {Reader} */
async function readStream(base, token, sub, signal, on, end) {
  const answer = await ask(base, token, sub, "text/event-stream", signal, on, end);
  if (!answer) return;
  const parser = new EventParser();
  const reader = /** @type {ReadableStream<Uint8Array>} */ (answer.body).getReader();
  const decoder = new TextDecoder();
  for (let isFirst = true; ; isFirst = false) {
    const { done, value } = await reader.read();
    if (signal.aborted) return;
    if (done) return end(1006, "the stream ended");
    // Only now: a proxy that holds everything back has shown nothing before.
    if (isFirst) on.message({ op: "welcome" });
    on.heard();
    for (const { event, data } of parser.feed(decoder.decode(value, { stream: true }))) {
      const message = { ...JSON.parse(data), op: event, sub: sub.sub };
      on.message(message);
      if (signal.aborted) return;
      if (event === "bye") return end(message.code ?? 4000, message.reason ?? "");
    }
  }
}

/** Each answer is a page and the cursor behind it; with `inTurn` each question waits for that of another. @type {Reader} */
async function readPolls(base, token, sub, signal, on, end, inTurn) {
  let { since } = sub;
  for (let isFirst = true; ; isFirst = false) {
    // The first does not wait: only its answer shows that this way is open.
    const asked = { ...sub, since, wait: isFirst || inTurn ? "0s" : POLL_WAIT };
    const begun = performance.now();
    const question = async () => {
      const answer = await ask(base, token, asked, "application/json", signal, on, end);
      // Its head shows it; on a slow line the rest may take longer than an attempt has.
      if (answer && isFirst) on.message({ op: "welcome" });
      if (!answer) return null;
      const told = JSON.parse(await textOf(answer, on));
      // Without a position the next question would begin at the head, and skip what came meanwhile.
      if (typeof told?.o !== "string") throw new Error("not the hub answered");
      return told;
    };
    const answer = await (inTurn ? inTurn(question) : question());
    if (!answer || signal.aborted) return;
    const { o, messages } = answer;
    const ops = new Set();
    for (const message of messages) {
      ops.add(message.op);
      on.message({ ...message, sub: sub.sub });
      if (signal.aborted) return;
      if (message.op === "bye") return end(message.code ?? 4000, message.reason ?? "");
    }
    // The hub cannot read history yet, or a cache on the way answers: at once, however often it is asked.
    const isAsBefore = o === since && !isFirst && performance.now() - begun < PAUSE_MS;
    since = o;
    if (ops.has("lag") || isAsBefore || (inTurn && ops.has("live"))) await new Promise((done) => setTimeout(done, PAUSE_MS));
  }
}

/** @param {Response} answer @param {LinkEvents} on hears each part of it @returns {Promise<string>} */
async function textOf(answer, on) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (answer.body).getReader();
  const decoder = new TextDecoder();
  for (let text = ""; ; ) {
    const { done, value } = await reader.read();
    if (done) return text + decoder.decode();
    on.heard();
    text += decoder.decode(value, { stream: true });
  }
}

/**
 * Only the hub's own words count: a proxy, or a network that wants a sign-in, answers with pages of its own.
 *
 * @param {URL} base @param {string} token @param {any} sub @param {string} kind @param {AbortSignal} signal @param {LinkEvents} on
 * @param {(code: number, reason: string) => void} end
 * @returns {Promise<Response | null>} null: the hub said no, and whom it concerns was told
 */
async function ask(base, token, { sub, match, not, mode, since, max_hz, wait }, kind, signal, on, end) {
  const url = new URL("v1/watch", base);
  for (const pattern of match) url.searchParams.append("match", pattern);
  for (const pattern of not ?? []) url.searchParams.append("not", pattern);
  for (const [name, value] of Object.entries({ mode, since, max_hz, wait })) value !== undefined && url.searchParams.set(name, String(value));
  /** @type {Record<string, string>} */
  const headers = { Accept: kind };
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(url, { headers, signal, cache: "no-store" });
  if (answer.ok) {
    if (answer.headers.get("content-type")?.startsWith(kind)) return answer;
    end(1006, "not the hub answered");
    return null;
  }
  const error = (await answer.json().catch(() => null))?.error;
  const words = error?.message ?? `not the hub answered: ${answer.status}`;
  if (error?.reason && answer.status === 401) end(4401, words);
  else if (error?.reason && (answer.status === 400 || answer.status === 403)) {
    on.message({ op: "welcome" });
    on.message({ op: "error", sub, reason: error.reason, message: words });
  } else {
    const pause = Math.min(Number(answer.headers.get("retry-after")) || 0, LONGEST_PAUSE_S);
    // All who were sent away at once were told the same.
    if (pause > 0) on.message({ op: "bye", retry_ms: pause * 1000 * (1 + Math.random() / 2) });
    end(1006, words);
  }
  return null;
}

/** In the order they are tried. @type {Record<string, (base: URL, token: string, on: LinkEvents) => () => void>} */
export const TRANSPORTS = {
  ws: openSocket,
  sse: (base, token, on) => openRequests(readStream, base, token, on),
  poll: (base, token, on) => openRequests(readPolls, base, token, on),
};
