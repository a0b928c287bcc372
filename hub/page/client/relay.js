/**
 * One WebSocket to a hub for the tabs of a browser: the side of the tab that holds it.
 *
 * Owns: the socket, who shares it, and how far behind each is. It computes nothing of what it carries: a message goes as the
 * text it is to the tab whose subscription it names. On the socket they are numbered, so that one tab alone has the names that
 * every client has: the hub writes for all of them at once. Where a tab stands, only that tab knows; so whatever ends
 * here (the socket, this tab, one that reads too slowly), each goes on elsewhere by its own cursor.
 */

import { Renewal } from "./renewal.js";

/** What a tab may owe: characters it was sent and has not read. Beyond it the tab is left, and comes back by its cursor. */
export const MOST_OWED = 8 * 1024 * 1024;
/** As the hub says in `welcome`; until then. */
const MOST_SUBS = 64;
/** A tab says something every few seconds, a hidden one once a minute. */
const SILENT_MS = 150_000;
const CHECK_MS = 5000;
const ANSWER_MS = 10_000;
/** Of the messages of subscriptions that are sent often; others are parsed. */
const ROUTE = /^\{"op":"\w+","sub":"(\w+)"/;
const HELLO_ID = "hello";
const AUTH_ID = "auth";

/**
 * @typedef {{what: "joined" | "open" | "pong"} | {what: "text", text: string, sub?: string}
 *   | {what: "end", code: number, reason: string, then: import("./transport.js").Then}} Told what a tab is told
 * @typedef {{what: "join" | "ping" | "leave"} | {what: "say", message: any} | {what: "read", size: number}} Said what it says
 * @typedef {{post: (told: Told) => void, close: () => void, isLocal: boolean}} Port
 * @typedef {{port: Port, subs: Map<string, string>, owed: number, next: number, heardMs: number, asksHello: boolean}} Member
 * @typedef {{open: (send: (message: any) => void) => void, text: (text: string) => void,
 *   close: (code: number, reason: string) => void}} SocketEvents
 */

export class Relay {
  /**
   * @param {object} options
   * @param {(token: string, on: SocketEvents) => () => void} options.open opens the socket; returns what closes it
   * @param {string | (() => string | Promise<string>)} options.token
   * @param {string | null} options.credential who the hub must say we are; null: the token says it
   * @param {() => void} options.emptied nobody is left
   */
  constructor({ open, token, credential, emptied }) {
    this._openSocket = open;
    this._token = token;
    this._credential = credential;
    this._emptied = emptied;
    /** @type {Map<string, Member>} by link */
    this._members = new Map();
    /** @type {(() => void) | null} closes the socket that is open or opening */
    this._close = null;
    /** @type {((message: any) => void) | null} */
    this._send = null;
    /** By the name on the socket; none is used twice, for frames of one that ended may be on their way. @type {Map<string, {link: string, sub: string}>} */
    this._subs = new Map();
    this._count = 0;
    this._mostSubs = MOST_SUBS;
    this._helloMs = 0;
    /** When the hub last said something. */
    this._heardMs = 0;
    /** The hub has answered on this socket. */
    this._isWelcomed = false;
    /** @type {Renewal | null} */
    this._renewal = null;
    this._timer = setInterval(() => this._check(), CHECK_MS);
  }

  get isEmpty() {
    return !this._members.size;
  }

  /** A tab said something. @param {string} link @param {number} number of what it says @param {Said} said @param {() => Port} port of a tab that joins */
  hear(link, number, said, port) {
    if (said.what === "join") return this._join(link, number, port);
    const member = this._members.get(link);
    if (!member) return;
    if (number !== member.next++) return this._cut(link, member, 1006, "a message between tabs was lost");
    member.heardMs = performance.now();
    if (said.what === "read") member.owed -= said.size;
    else if (said.what === "ping") member.port.post({ what: "pong" });
    else if (said.what === "say") this._forward(link, member, said.message);
    else if (said.what === "leave") {
      member.port.close();
      this._leave(link, member);
    }
  }

  /** End it for all. @param {string} reason */
  close(reason) {
    clearInterval(this._timer);
    this._end(1006, reason, "again");
  }

  // --- tabs ---

  /** @param {string} link @param {number} number of its message @param {() => Port} portOf it */
  _join(link, number, portOf) {
    const [next, heardMs] = [number + 1, performance.now()];
    const known = this._members.get(link);
    if (known) return void Object.assign(known, { next, heardMs });
    const port = portOf();
    // Whole before it is told: a link of this tab says its first things within these calls.
    this._members.set(link, { port, subs: new Map(), owed: 0, next, heardMs, asksHello: false });
    port.post({ what: "joined" });
    if (this._send) port.post({ what: "open" });
    else if (!this._close) this._connect();
  }

  /** @param {string} link @param {Member} member */
  _leave(link, member) {
    this._members.delete(link);
    for (const sub of [...member.subs.keys()]) this._unsubscribe(member, sub);
    if (this._members.size) return;
    this._disconnect();
    this._emptied();
  }

  /** Let a tab come back by its cursor. @param {string} link @param {Member} member @param {number} code @param {string} reason @param {import("./transport.js").Then} then */
  _cut(link, member, code, reason, then = "again") {
    // First, so that nothing more is given to it; it may be the last.
    this._leave(link, member);
    member.port.post({ what: "end", code, reason, then });
    member.port.close();
  }

  /** @param {string} link @param {Member} member @param {any} message */
  _forward(link, member, message) {
    switch (message.op) {
      case "hello":
        member.asksHello = true;
        this._greet();
        break;
      case "sub":
        this._subscribe(link, member, message);
        break;
      case "unsub":
        this._unsubscribe(member, message.sub);
        break;
    }
  }

  /** @param {string} link @param {Member} member @param {any} message */
  _subscribe(link, member, message) {
    if (this._subs.size >= this._mostSubs) {
      return this._cut(link, member, 1006, "the shared connection has as many subscriptions as it may have", "alone");
    }
    const name = `s${++this._count}`;
    this._subs.set(name, { link, sub: message.sub });
    member.subs.set(message.sub, name);
    this._send?.({ ...message, sub: name });
  }

  /** @param {Member} member @param {string} sub */
  _unsubscribe(member, sub) {
    const name = member.subs.get(sub);
    if (name === undefined) return;
    member.subs.delete(sub);
    this._subs.delete(name);
    this._send?.({ op: "unsub", sub: name });
  }

  /** @param {string} name of a subscription on the socket @param {string} text */
  _route(name, text) {
    const to = this._subs.get(name);
    if (to) this._give(to.link, text, to.sub);
  }

  /** @param {string} link @param {string} text @param {string} [sub] the tab's own name of the subscription */
  _give(link, text, sub) {
    const member = this._members.get(link);
    if (!member) return;
    if (member.owed > MOST_OWED) this._cut(link, member, 4008, "this tab reads too slowly");
    else {
      member.owed += text.length;
      member.port.post({ what: "text", text, sub });
    }
  }

  // --- the socket ---

  async _connect() {
    let isOver = false;
    let close = () => {};
    const end = (/** @type {number} */ code, /** @type {string} */ reason) => isOver || this._end(code, reason);
    this._close = () => {
      isOver = true;
      close();
    };
    // A token that cannot be had says nothing of this way; a socket that cannot be made does.
    /** @type {import("./transport.js").Then} */
    let then = "again";
    try {
      const token = typeof this._token === "function" ? await this._token() : this._token;
      if (isOver) return;
      then = "";
      close = this._openSocket(token, { open: (send) => isOver || this._opened(send), text: (text) => isOver || this._text(text), close: end });
    } catch (error) {
      if (!isOver) this._end(1006, String(error), then);
    }
  }

  /** @param {(message: any) => void} send */
  _opened(send) {
    this._send = send;
    if (typeof this._token === "function") {
      const say = (/** @type {string} */ token) => this._send?.({ op: "auth", id: AUTH_ID, token });
      this._renewal = new Renewal(this._token, say, () => this._end(1006, "the new token needs another connection", "again"));
    }
    for (const { port } of [...this._members.values()]) port.post({ what: "open" });
  }

  _disconnect() {
    this._renewal?.end();
    this._close?.();
    this._renewal = this._close = this._send = null;
    this._subs.clear();
    this._count = this._helloMs = 0;
    this._isWelcomed = false;
    this._mostSubs = MOST_SUBS;
  }

  /** What was open says nothing of the way, also to who has joined in its last moment. @param {number} code @param {string} reason @param {import("./transport.js").Then} then */
  _end(code, reason, then = this._isWelcomed ? "again" : "") {
    const members = [...this._members.values()];
    this._members.clear();
    this._disconnect();
    for (const { port } of members) {
      port.post({ what: "end", code, reason, then });
      port.close();
    }
    if (!this._members.size) this._emptied();
  }

  _greet() {
    if (this._helloMs || !this._send) return;
    this._helloMs = performance.now();
    this._send({ op: "hello", id: HELLO_ID, client: "hub-client" });
  }

  /** @param {string} text */
  _text(text) {
    this._heardMs = performance.now();
    const name = ROUTE.exec(text)?.[1];
    if (name) return this._route(name, text);
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      // Whose it was is not known, nor what is lost with it.
      return this._end(1006, "a message broke on its way", "again");
    }
    if (message.id === AUTH_ID) return this._authAnswered(message);
    if (message.op === "welcome") return this._welcomed(message);
    if (message.sub !== undefined) return this._route(message.sub, text);
    for (const link of [...this._members.keys()]) this._give(link, text);
  }

  /** @param {any} message */
  _welcomed(message) {
    this._helloMs = 0;
    this._mostSubs = message.limits?.subs ?? MOST_SUBS;
    // Somebody else has signed in between the question and the upgrade, or the browser gives a WebSocket the cookie that it does
    // not give a page of another origin: asked again, the same may come for ever. Whoever it is, each tab may be that for itself.
    if (this._credential !== null && message.credential !== this._credential) return this._end(1006, "another credential", "alone");
    this._isWelcomed = true;
    this._renewal?.told(message.ttl);
    // The renewals are ours.
    const text = JSON.stringify({ ...message, ttl: null });
    for (const [link, member] of [...this._members]) {
      if (!member.asksHello) continue;
      member.asksHello = false;
      this._give(link, text);
    }
  }

  /** @param {any} message */
  _authAnswered(message) {
    if (message.op === "error") return this._renewal?.refused(message.reason);
    this._renewal?.told(message.ttl);
    const words = "the new token may see nothing of it";
    for (const name of message.ended ?? []) this._route(name, JSON.stringify({ op: "error", sub: name, reason: "forbidden", message: words }));
  }

  /** A dead line says nothing of itself, nor does a tab that was frozen or has crashed. */
  _check() {
    const now = performance.now();
    // While hooks are asked for the subscriptions of one tab, the hello of another waits; what is said meanwhile is life.
    if (this._helloMs && now - Math.max(this._helloMs, this._heardMs) > ANSWER_MS) return this._end(1006, "the hub is silent");
    for (const [link, member] of [...this._members]) {
      if (!member.port.isLocal && now - member.heardMs > SILENT_MS) this._cut(link, member, 1006, "this tab was silent");
    }
  }
}
