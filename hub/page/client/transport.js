/**
 * Ways to a hub: each opens one link, carries messages of `watch.v1` over it, and says when it ended.
 *
 * Owns: how messages travel, and where the token goes. Nothing here tries again: that is the connection's.
 */

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

/** One event stream per subscription; when one ends, all do. @param {URL} base @param {string} token @param {LinkEvents} on */
function openStreams(base, token, on) {
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
    readStream(base, token, message, stream.signal, on, end).catch(() => stream.signal.aborted || end(1006, "the stream broke"));
  };
  queueMicrotask(() => {
    if (hasEnded) return;
    on.open(send);
    if (!streams.size) on.message({ op: "welcome" });
  });
  return abort;
}

/**
 * @param {URL} base @param {string} token @param {any} sub @param {AbortSignal} signal @param {LinkEvents} on
 * @param {(code: number, reason: string) => void} end
 */
async function readStream(base, token, { sub, match, not, mode, since, max_hz }, signal, on, end) {
  const url = new URL("v1/watch", base);
  for (const pattern of match) url.searchParams.append("match", pattern);
  for (const pattern of not ?? []) url.searchParams.append("not", pattern);
  for (const [name, value] of Object.entries({ mode, since, max_hz })) value !== undefined && url.searchParams.set(name, String(value));
  /** @type {Record<string, string>} */
  const headers = { Accept: "text/event-stream" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(url, { headers, signal, cache: "no-store" });
  if (!answer.ok) {
    const { error } = await answer.json().catch(() => ({}));
    const words = error?.message ?? `the hub answered with ${answer.status}`;
    if (answer.status === 401) end(4401, words);
    else if (answer.status !== 400 && answer.status !== 403) end(1006, words);
    else {
      on.message({ op: "welcome" });
      on.message({ op: "error", sub, reason: error?.reason ?? "refused", message: words });
    }
    return;
  }
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
      const message = { ...JSON.parse(data), op: event, sub };
      on.message(message);
      if (signal.aborted) return;
      if (event === "bye") return end(message.code ?? 4000, message.reason ?? "");
    }
  }
}

/** In the order they are tried. Long poll belongs behind them. @type {Record<string, (base: URL, token: string, on: LinkEvents) => () => void>} */
export const TRANSPORTS = { ws: openSocket, sse: openStreams };
