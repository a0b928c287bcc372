/**
 * One link to a hub, opened again whenever it drops. The shell around `Session`.
 *
 * Owns: the link, the retry timer, which transport is tried, and the connection's state. A dropped link is tried again
 * with full jitter, at once when the browser says it is online again or the tab becomes visible.
 */

import { Renewal } from "./renewal.js";
import { groupOf } from "./share.js";
import { TRANSPORTS } from "./transport.js";

/** First retry within half a second; people watch, so never more than five seconds apart. A hidden tab may wait longer. */
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 5000;
const HIDDEN_RETRY_MS = 30000;
/** The hub answers within this, or the attempt is given up; a proxy that holds answers back is found out by it. */
const OPEN_TIMEOUT_MS = 8000;
/** For a function that gives tokens: somebody may have to sign in. */
const TOKEN_TIMEOUT_MS = 60_000;
/** A line that said nothing for this long is asked whether it lives; event streams bring a ping within 30 s anyway. */
const QUIET_MS = 25000;
const ANSWER_MS = 10000;
const WATCHDOG_MS = 5000;
/** Networks change: the transport that worked is tried first for so long. */
const REMEMBER_MS = 3600_000;

/** @param {number} code of a closed connection @returns {boolean} whether it says not to come back */
export function isFinal(code) {
  return code >= 4400 && code < 4500;
}

/** How long to wait before the next attempt: full jitter, so that a restarted hub does not meet all at one instant. */
export class Backoff {
  /** @param {() => number} [random] in [0, 1) */
  constructor(random = Math.random) {
    this._random = random;
    this._attempts = 0;
  }

  /** @param {boolean} isHidden whether nobody looks @returns {number} ms */
  next(isHidden) {
    const ceiling = isHidden ? HIDDEN_RETRY_MS : LONGEST_RETRY_MS;
    return this._random() * Math.min(ceiling, FIRST_RETRY_MS * 2 ** Math.min(this._attempts++, 16));
  }

  reset() {
    this._attempts = 0;
  }
}

/** Close codes 40xx and 41xx mean "come back", 44xx "don't". */
export class Connection {
  /**
   * @param {import("./session.js").Session} session
   * @param {object} options
   * @param {string | URL} options.url of the hub; its path is kept, for a hub behind a prefix
   * @param {string | (() => string | Promise<string>)} [options.token] a function is asked before each attempt, and before
   *   the token of a WebSocket ends
   * @param {boolean | string} [options.share] whether tabs of the same user share one WebSocket; a text: who say the same do
   * @param {string[]} [options.transports]
   * @param {(state: any, why: string, code: number) => void} [options.changed]
   */
  constructor(session, { url, token = "", share = false, transports = Object.keys(TRANSPORTS), changed = () => {} }) {
    this._session = session;
    this._base = baseOf(url);
    this._token = typeof token === "function" ? async () => trimmed(await token()) : trimmed(token);
    this._share = share;
    /** In the next attempt, after one in which the other tabs gave no answer. */
    this._goesAlone = false;
    this._renewal = typeof this._token === "function" ? new Renewal(this._token, (text) => (this._authId = session.authorize(text)), () => this._renewed()) : null;
    /** Of the last `auth`; 0: none on this link. */
    this._authId = 0;
    this._transports = transports;
    this._changed = changed;
    /** @type {"connecting" | "live" | "reconnecting" | "refused" | "closed"} */
    this.state = "connecting";
    /** The transport in use, or tried. */
    this.transport = "";
    /** `performance.now()` when the hub last said something. */
    this.heardMs = 0;
    this._askedMs = 0;
    this._sinceMs = 0;
    this._wasLive = false;
    this._isRenewed = false;
    /** Transports that were live on this page. @type {Set<string>} */
    this._passed = new Set();
    this._backoff = new Backoff();
    /** @type {(() => void) | null} closes the link that is open or opening */
    this._close = null;
    /** @type {string[]} transports not yet tried in this attempt */
    this._left = [];
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this._timer = undefined;
    /** Wait that a departing hub asked for. @type {number | undefined} */
    this._byeMs = undefined;
    this._ends = new AbortController();
    const { signal } = this._ends;
    globalThis.addEventListener?.("online", () => this.retryNow(), { signal });
    globalThis.addEventListener?.("offline", () => this.drop("offline"), { signal });
    globalThis.document?.addEventListener("visibilitychange", () => document.hidden || this._look(), { signal });
    const watchdog = setInterval(() => this._check(), WATCHDOG_MS);
    signal.addEventListener("abort", () => clearInterval(watchdog));
  }

  /** Open the link; does nothing while one is open or opening, or when the hub will not have us. */
  open() {
    if (this._close || this.state === "refused" || this.state === "closed") return;
    clearTimeout(this._timer);
    if (!this._left.length) this._left = this._order();
    this._try(/** @type {string} */ (this._left.shift()));
  }

  /** Try at once instead of waiting for the timer. */
  retryNow() {
    if (this._close) return;
    this._backoff.reset();
    this.open();
  }

  /** Give up the present link, e.g. because nothing came for too long. @param {string} why */
  drop(why) {
    if (!this._close) return;
    this._close();
    this._closed(1006, why);
  }

  /** Stop for good: the hub will not have us. @param {string} why @param {number} [code] */
  refuse(why, code = 0) {
    this._set("refused", why, code);
    this.drop(why);
    clearTimeout(this._timer);
  }

  /** Stop for good: nobody wants anything any more. */
  close() {
    this._set("closed", "", 0);
    this._ends.abort();
    this.drop("closed");
    clearTimeout(this._timer);
  }

  /** @returns {string[]} transports, the one that worked last first */
  _order() {
    const known = this._remembered();
    return this._transports.includes(known) ? [known, ...this._transports.filter((name) => name !== known)] : [...this._transports];
  }

  /** @param {string} transport */
  async _try(transport) {
    this.transport = transport;
    let isOver = false;
    let close = () => {};
    this._close = () => {
      isOver = true;
      close();
    };
    let isShared = transport === "ws" && !!this._share && !this._goesAlone;
    let isAsking = false;
    this._goesAlone = false;
    const limit = (/** @type {number} */ ms) => {
      clearTimeout(this._timer);
      this._timer = setTimeout(() => {
        // Tabs that are slow say nothing of this way, nor does who gives tokens.
        if (isShared || isAsking) this._left = [];
        this._goesAlone = isShared;
        this.drop("no answer");
      }, ms);
    };
    limit(OPEN_TIMEOUT_MS);
    try {
      const group = isShared ? await groupOf(this._base, this._token, this._share) : null;
      if (isOver) return;
      // Who goes alone has the whole time for it.
      if (isShared && !group) limit(OPEN_TIMEOUT_MS);
      isShared = group !== null;
      let token = typeof this._token === "function" ? "" : this._token;
      // With a group, the tab that opens the connection asks for it.
      if (!group && typeof this._token === "function") {
        isAsking = true;
        limit(TOKEN_TIMEOUT_MS);
        token = await this._token();
        if (isOver) return;
        isAsking = false;
        limit(OPEN_TIMEOUT_MS);
      }
      /** @type {import("./transport.js").LinkEvents} */
      const on = {
        open: (send) => isOver || this._session.opened(send),
        message: (message) => isOver || this._receive(message),
        heard: () => (this.heardMs = performance.now()),
        close: (code, reason, then = "") => {
          if (isOver) return;
          if (then === "alone") this._share = false;
          // What happened among tabs says nothing of this way: no other is tried, nor remembered, for it.
          if (then) this._left = [];
          this._closed(code, reason);
        },
      };
      close = group ? group.open(on) : TRANSPORTS[transport](this._base, token, on);
    } catch (error) {
      if (isOver) return;
      if (isAsking) this._left = [];
      this._closed(1006, String(error));
    }
  }

  /** @param {any} message */
  _receive(message) {
    this.heardMs = performance.now();
    if (this._authId && message.id === this._authId && message.op === "error") this._renewal?.refused(message.reason);
    else if ("ttl" in message) this._renewal?.told(message.ttl);
    if (message.op === "bye") this._byeMs = message.retry_ms ?? undefined;
    if (message.op === "welcome") {
      clearTimeout(this._timer);
      this._left = [];
      this._askedMs = 0;
      this._sinceMs = this.heardMs;
      this._wasLive = true;
      this._isRenewed = false;
      this._remember(this.transport);
    }
    try {
      this._session.receive(message);
    } catch (error) {
      // What was not applied has no cursor: a new link brings it again.
      this.drop("a message could not be applied");
      reportError(error);
    }
    if (message.op === "welcome" && this._close) this._set("live", "", 0);
  }

  /** @param {number} code @param {string} reason */
  _closed(code, reason) {
    const wasWelcomed = this._session.welcomed;
    this._close = null;
    clearTimeout(this._timer);
    this._renewal?.end();
    this._authId = 0;
    this._session.closed();
    this._askedMs = 0;
    // A hub that takes us and sends us away at once is not asked ever faster.
    if (wasWelcomed && performance.now() - this._sinceMs > LONGEST_RETRY_MS) this._backoff.reset();
    if (this.state === "refused" || this.state === "closed") return;
    if (isFinal(code)) {
      if (!this._mayRenew(code)) {
        this._set("refused", reason || `closed with ${code}`, code);
        return;
      }
      // The hub itself has answered, and the old token opened no way: with the next one all are tried again.
      this._left = [];
    }
    this._set(this._wasLive ? "reconnecting" : "connecting", reason, code);
    // What did not get through may by another way, at once; when no way is left the hub is away.
    if (!wasWelcomed && this._left.length && this._byeMs === undefined) {
      this._timer = setTimeout(() => this.open());
      return;
    }
    this._left = [];
    const wait = this._byeMs ?? this._backoff.next(globalThis.document?.hidden ?? false);
    this._byeMs = undefined;
    this._timer = setTimeout(() => this.open(), wait);
  }

  /** A token that ended is no end where a new one can be had; once. @param {number} code */
  _mayRenew(code) {
    if (code !== 4401 || typeof this._token !== "function" || this._isRenewed) return false;
    return (this._isRenewed = true);
  }

  /** The hub takes another token on a new connection only: hooks decide what each sees. */
  _renewed() {
    this.drop("a new token");
    this.retryNow();
  }

  /** Somebody looks again: a link that died meanwhile must not be waited for. */
  _look() {
    this.retryNow();
    this._check();
  }

  /** A dead line says nothing of itself: ask it when it was quiet for long, and leave it without an answer. */
  _check() {
    if (!this._close || !this._session.welcomed) return;
    const now = performance.now();
    if (this._askedMs && this.heardMs > this._askedMs) this._askedMs = 0;
    if (this._askedMs && now - this._askedMs > ANSWER_MS) this.drop("the hub is silent");
    else if (!this._askedMs && now - this.heardMs > QUIET_MS) {
      this._askedMs = now;
      this._session.greet();
    }
  }

  get _key() {
    return `hub-client ${this._base.host}`;
  }

  _remembered() {
    try {
      const { transport, until } = JSON.parse(localStorage.getItem(this._key) ?? "{}");
      return until > Date.now() ? transport : "";
    } catch {
      return "";
    }
  }

  /** @param {string} transport */
  _remember(transport) {
    try {
      this._passed.add(transport);
      const better = this._transports.slice(0, this._transports.indexOf(transport));
      if (!better.length) localStorage.removeItem(this._key);
      // A better one that passed here failed for once: the hub came back, or the network did, between two tries. And an
      // hour is not made longer by who comes back meanwhile.
      else if (!better.some((name) => this._passed.has(name)) && this._remembered() !== transport)
        localStorage.setItem(this._key, JSON.stringify({ transport, until: Date.now() + REMEMBER_MS }));
    } catch {
      // Without storage each page finds out anew.
    }
  }

  /** @param {Connection["state"]} state @param {string} why @param {number} code */
  _set(state, why, code) {
    if (state === this.state) return;
    this.state = state;
    try {
      this._changed(state, why, code);
    } catch (error) {
      // The page's: the connection goes on, and so do other tabs that have theirs over this one.
      reportError(error);
    }
  }
}

/** Files and answers end with a line break, and a WebSocket that is to offer one cannot be made. @param {string} token */
function trimmed(token) {
  return typeof token === "string" ? token.trim() : token;
}

/** @param {string | URL} url of a hub @returns {URL} with http(s) and a path that ends with a slash */
export function baseOf(url) {
  const base = new URL(url, globalThis.location?.href);
  base.protocol = base.protocol.replace("ws", "http");
  base.search = base.hash = "";
  if (!base.pathname.endsWith("/")) base.pathname += "/";
  return base;
}
