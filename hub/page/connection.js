/**
 * One WebSocket to the hub, opened again whenever it drops. The shell around `WatchSession`.
 *
 * Owns: the socket, the retry timer and the connection's state. A dropped link is retried with full
 * jitter (a restarted hub must not meet all its watchers in the same instant), at once when the
 * browser says it is online again or the tab becomes visible. Close codes 44xx mean "don't".
 */

/** First retry within half a second; people watch, so never more than five seconds apart. */
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 5000;
/** A hidden tab may wait longer. */
const HIDDEN_RETRY_MS = 30000;
/** The hub answers a handshake within this, or the attempt is given up. */
const OPEN_TIMEOUT_MS = 8000;

/** @typedef {"connecting" | "live" | "reconnecting" | "refused"} ConnectionState */

export class Connection {
  /**
   * @param {import("./watch-session.js").WatchSession} session
   * @param {(state: ConnectionState, why: string) => void} changed
   */
  constructor(session, changed) {
    this._session = session;
    this._changed = changed;
    /** @type {ConnectionState} */
    this.state = "connecting";
    /** `performance.now()` when the hub last said something. */
    this.heardMs = 0;
    this._attempts = 0;
    this._wasLive = false;
    /** @type {WebSocket | null} */
    this._socket = null;
    this._timer = 0;
    /** Wait that a departing hub asked for. @type {number | undefined} */
    this._byeMs = undefined;
    window.addEventListener("online", () => this.retryNow());
    window.addEventListener("offline", () => this.drop("offline"));
    document.addEventListener("visibilitychange", () => document.hidden || this.retryNow());
  }

  /** Open the socket; does nothing while one is open or opening. */
  open() {
    if (this._socket) return;
    const url = new URL("/v1/watch", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = (this._socket = new WebSocket(url, "watch.v1"));
    this._timer = window.setTimeout(() => this.drop("no answer"), OPEN_TIMEOUT_MS);
    socket.onopen = () => this._session.opened((message) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(message)));
    socket.onmessage = (event) => this._receive(String(event.data));
    socket.onclose = (event) => this._closed(socket, event.code, event.reason);
  }

  /** Try at once instead of waiting for the timer. */
  retryNow() {
    if (this._socket || this.state === "refused") return;
    window.clearTimeout(this._timer);
    this._attempts = 0;
    this.open();
  }

  /** Give up the present socket, e.g. because nothing came for too long. @param {string} why */
  drop(why) {
    const socket = this._socket;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
    this._closed(socket, 1006, why);
  }

  /** Stop for good: the hub will not have us. @param {string} why */
  refuse(why) {
    this._set("refused", why);
    this.drop(why);
    window.clearTimeout(this._timer);
  }

  /** @param {string} text */
  _receive(text) {
    const message = JSON.parse(text);
    this.heardMs = performance.now();
    if (message.op === "bye") this._byeMs = message.retry_ms;
    this._session.receive(message);
    if (message.op === "welcome") {
      window.clearTimeout(this._timer);
      this._attempts = 0;
      this._wasLive = true;
      this._set("live", "");
    }
  }

  /** @param {WebSocket} socket @param {number} code @param {string} reason */
  _closed(socket, code, reason) {
    if (socket !== this._socket) return;
    this._socket = null;
    window.clearTimeout(this._timer);
    this._session.closed();
    if (this.state === "refused") return;
    if (code >= 4400 && code < 4500) {
      this._set("refused", reason || `closed with ${code}`);
      return;
    }
    this._set(this._wasLive ? "reconnecting" : "connecting", reason);
    const ceiling = document.hidden ? HIDDEN_RETRY_MS : LONGEST_RETRY_MS;
    const wait = this._byeMs ?? Math.random() * Math.min(ceiling, FIRST_RETRY_MS * 2 ** this._attempts++);
    this._byeMs = undefined;
    this._timer = window.setTimeout(() => this.open(), wait);
  }

  /** @param {ConnectionState} state @param {string} why */
  _set(state, why) {
    if (state === this.state) return;
    this.state = state;
    this._changed(state, why);
  }
}
