/**
 * Ways to a hub: each opens one link, carries messages of `watch.v1` over it, and says when it ended.
 *
 * Owns: how messages travel, and where the token goes. Nothing here tries again: that is the connection's.
 */

/** Proxies give up on a request that is silent for half a minute or more. */
const POLL_WAIT = "20s";
const LAG_PAUSE_MS = 1000;

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
 * @property {(code: number, reason: string) => void} close
 */

/** @param {URL} base @param {string} token @param {LinkEvents} on @returns {() => void} closes it */
function openSocket(base, token, on) {
  const url = new URL("v1/watch", base);
  url.protocol = url.protocol.replace("http", "ws");
  // A browser gives a WebSocket no headers; an address would be logged by every proxy, the offered protocols are not.
  const socket = new WebSocket(url, token ? ["watch.v1", `bearer.${token}`] : ["watch.v1"]);
  socket.onopen = () => on.open((message) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(message)));
  socket.onmessage = (event) => on.message(JSON.parse(String(event.data)));
  socket.onclose = (event) => on.close(event.code, event.reason);
  return () => {
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  };
}

/** @typedef {(base: URL, token: string, sub: any, signal: AbortSignal, on: LinkEvents, end: (code: number, reason: string) => void) => Promise<void>} Reader */

/**
 * One event stream or poll per subscription; when one ends, all do.
 *
 * @param {Reader} read @param {URL} base @param {string} token @param {LinkEvents} on @returns {() => void} closes it
 */
function openRequests(read, base, token, on) {
  /** @type {Map<string, AbortController>} */
  const streams = new Map();
  let hasEnded = false;
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
    if (message.op !== "sub") return;
    const stream = new AbortController();
    streams.set(message.sub, stream);
    read(base, token, message, stream.signal, on, end).catch(() => stream.signal.aborted || end(1006, "the answer broke off"));
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

/** Each answer is a page and the cursor behind it. @type {Reader} */
async function readPolls(base, token, sub, signal, on, end) {
  let { since } = sub;
  for (let isFirst = true; ; isFirst = false) {
    // The first does not wait: only its answer shows that this way is open.
    const asked = { ...sub, since, wait: isFirst ? "0s" : POLL_WAIT };
    const answer = await ask(base, token, asked, "application/json", signal, on, end);
    if (!answer) return;
    if (!answer.headers.get("content-type")?.startsWith("application/json")) return end(1006, "this hub knows no long poll");
    const { o, messages } = await answer.json();
    if (signal.aborted) return;
    if (isFirst) on.message({ op: "welcome" });
    on.heard();
    for (const message of messages) {
      on.message({ ...message, sub: sub.sub });
      if (signal.aborted) return;
      if (message.op === "bye") return end(message.code ?? 4000, message.reason ?? "");
    }
    since = o;
    // The hub cannot read history yet: it says so at once, however often it is asked.
    if (messages.some((/** @type {{op: string}} */ { op }) => op === "lag")) await new Promise((done) => setTimeout(done, LAG_PAUSE_MS));
  }
}

/**
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
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({}));
  const words = error?.message ?? `the hub answered with ${answer.status}`;
  if (answer.status === 401) end(4401, words);
  else if (answer.status !== 400 && answer.status !== 403) end(1006, words);
  else {
    on.message({ op: "welcome" });
    on.message({ op: "error", sub, reason: error?.reason ?? "refused", message: words });
  }
  return null;
}

/** In the order they are tried. @type {Record<string, (base: URL, token: string, on: LinkEvents) => () => void>} */
export const TRANSPORTS = {
  ws: openSocket,
  sse: (base, token, on) => openRequests(readStream, base, token, on),
  poll: (base, token, on) => openRequests(readPolls, base, token, on),
};
