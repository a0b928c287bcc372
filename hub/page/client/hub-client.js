/**
 * Live readings of a telemetry hub in a browser, gapless over lost connections and restarts. No other module is needed.
 *
 *     import { watch } from "HUB/client/v1/hub-client.js";
 *     for await (const { device, channel, value, timeMs } of watch(undefined, { match: "greenhouse-1/temperature" })) …
 *
 * What is where: `Session` computes (no socket, no clock), `Connection` keeps one link to a hub open, by WebSocket (one for all
 * tabs: share.js) or, where that does not pass, by server-sent events or long poll; `connect` and `watch` here are what a page
 * calls. Types: hub-client.d.ts.
 */

import { Connection } from "./connection.js";
import { exactValue, Session, WatchError } from "./session.js";

export { Backoff, Connection, isFinal } from "./connection.js";
export { renewAfter } from "./renewal.js";
export { exactValue, Session, VERSION, WatchError } from "./session.js";
export { EventParser } from "./transport.js";

/** Readings that wait for a slow loop; beyond it the subscription is left, and goes on behind its cursor. */
const MOST_WAITING = 10_000;
/** This file lies at HUB/client/v1/. */
const OWN_HUB = new URL("../../", import.meta.url);

/**
 * @typedef {import("./hub-client.d.ts").Reading} Reading
 * @typedef {import("./hub-client.d.ts").WatchOptions} WatchOptions
 * @typedef {import("./hub-client.d.ts").ConnectOptions} ConnectOptions
 */

/** @param {string | URL} [url] of the hub; by default the one this module came from @param {ConnectOptions} [options] @returns {Hub} */
export function connect(url, options) {
  return new Hub(url ?? OWN_HUB, options);
}

/** One subscription on a connection of its own. @param {string | URL} [url] @param {WatchOptions & ConnectOptions} [options] @returns {Watch} */
export function watch(url, options = {}) {
  const hub = connect(url, options);
  return hub.watch(options, () => hub.close());
}

/** Several subscriptions on one connection; it opens with the first. */
export class Hub {
  /** @param {string | URL} url @param {ConnectOptions} [options] */
  constructor(url, { token, share = true, transports, onState } = {}) {
    this._session = new Session();
    this._watches = new Set();
    this._connection = new Connection(this._session, {
      url,
      token,
      share,
      transports,
      changed: (state, why, code) => {
        onState?.(state, why);
        if (state === "refused") this._end(new WatchError("refused", why, code));
      },
    });
  }

  get state() {
    return this._connection.state;
  }

  /** "ws", "sse" or "poll". */
  get transport() {
    return this._connection.transport;
  }

  /** @param {WatchOptions} [options] @param {() => void} [ended] @returns {Watch} */
  watch(options = {}, ended = () => {}) {
    const watch = new Watch(this._session, options, () => {
      this._watches.delete(watch);
      ended();
    });
    this._watches.add(watch);
    if (options.signal?.aborted) watch.close();
    else if (this.state === "refused") watch.fail(new WatchError("refused", "the hub has refused this connection"));
    else this._connection.open();
    return watch;
  }

  /** End everything. */
  close() {
    this._connection.close();
    this._end(null);
  }

  /** @param {WatchError | null} error */
  _end(error) {
    for (const watch of [...this._watches]) watch.fail(error);
  }
}

/** One subscription: `for await` over it, or give `onReading`. */
export class Watch {
  /** @param {Session} session @param {WatchOptions} options @param {() => void} ended */
  constructor(session, options, ended) {
    this._session = session;
    this._options = options;
    this._ended = ended;
    this.isClosed = false;
    this.isLive = false;
    /** @type {unknown} */
    this._error = null;
    /** @type {Map<number, import("./session.js").Series>} */
    this._series = new Map();
    /** The frame being received. @type {Reading[]} */
    this._frame = [];
    /** Frames that wait for the loop. @type {{readings: Reading[], cursor: string | null}[]} */
    this._frames = [];
    this._row = 0;
    this._waiting = 0;
    this._isPaused = false;
    this._taken = options.since ?? null;
    /** @type {((step: any) => void) | null} */
    this._wake = null;
    this._subscription = session.subscribe(requestOf(options), this._sink());
    options.signal?.addEventListener("abort", () => this.close(), { once: true });
  }

  /** Names what the loop (or `onReading`) was given completely: give it as `since` to go on later. @returns {string | null} */
  get cursor() {
    return this._taken;
  }

  close() {
    this.fail(null);
  }

  /** @param {unknown} error null: nothing is wrong */
  fail(error) {
    if (this.isClosed) return;
    this.isClosed = true;
    this._error = error;
    this._session.unsubscribe(this._subscription);
    // Before `onError`, which may open another one.
    this._ended();
    if (error && this._options.onError) this._options.onError(error);
    else if (error && this._options.onReading) reportError(error);
    this._wake?.(undefined);
  }

  /** @returns {AsyncIterator<Reading>} */
  [Symbol.asyncIterator]() {
    return { next: () => this._next(), return: async () => (this.close(), { done: true, value: undefined }) };
  }

  /** @returns {Promise<IteratorResult<Reading>>} */
  async _next() {
    for (;;) {
      // Whoever closes wants no more; what came before an error is still given.
      if (this.isClosed && !this._error) return { done: true, value: undefined };
      const frame = this._frames[0];
      if (frame && this._row < frame.readings.length) return { done: false, value: frame.readings[this._row++] };
      if (frame) {
        // Only now: whoever comes for more has used the last one.
        this._taken = frame.cursor;
        this._waiting -= frame.readings.length;
        this._row = 0;
        this._frames.shift();
        continue;
      }
      if (this._error) throw this._error;
      if (this._isPaused) {
        this._isPaused = false;
        this._session.resume(this._subscription);
      }
      await new Promise((wake) => (this._wake = wake));
    }
  }

  /** @returns {import("./session.js").Sink} */
  _sink() {
    const { onReading, onLive, onLag, onReset } = this._options;
    return {
      series: (id, info) => this._series.set(id, info),
      reading: (id, time, value, late) => this._frame.push(readingOf(this._series.get(id), time, value, late)),
      frame: () => this._apply(onReading),
      live: () => {
        this.isLive = true;
        if (!this._frames.length) this._taken = this._subscription.cursor;
        onLive?.();
      },
      lag: (behind) => onLag?.(behind),
      reset: (why) => {
        this.isLive = false;
        // Behind what still waits for the loop.
        if (onReading) this._taken = this._subscription.cursor;
        else this._frames.push({ readings: [], cursor: this._subscription.cursor });
        if (onReset) onReset(why);
        else this.fail(new WatchError("reset", `the hub cannot go on from this position (${why})`));
      },
      refused: (message, reason) => this.fail(new WatchError(reason, message)),
    };
  }

  /** @param {((reading: Reading) => void) | undefined} onReading */
  _apply(onReading) {
    const readings = this._frame;
    this._frame = [];
    const { cursor } = this._subscription;
    if (onReading) {
      try {
        for (const reading of readings) if (!this.isClosed) onReading(reading);
        if (!this.isClosed) this._taken = cursor;
      } catch (error) {
        this.fail(error);
      }
      return;
    }
    this._frames.push({ readings, cursor });
    this._waiting += readings.length;
    if (this._waiting >= MOST_WAITING && !this._isPaused) {
      this._isPaused = true;
      this._session.unsubscribe(this._subscription);
    }
    this._wake?.(undefined);
  }
}

/** @param {WatchOptions} options @returns {import("./session.js").Request} */
function requestOf({ match = "**", not, since, mode = "lossless", maxHz }) {
  /** @type {import("./session.js").Request} */
  const request = { match: [match].flat(), mode };
  if (not !== undefined) request.not = [not].flat();
  // `latest` shows what is: without a start that is the newest value of each series.
  if (since !== undefined || mode === "latest") request.since = since ?? "last";
  if (maxHz !== undefined) request.max_hz = maxHz;
  return request;
}

/** @param {import("./session.js").Series | undefined} series @param {bigint} time @param {unknown} value @param {boolean} late @returns {Reading} */
function readingOf(series, time, value, late) {
  if (!series) throw new WatchError("protocol", "the hub sent a reading of a series it had not named");
  const { device, channel, unit, type } = series;
  return { device, channel, value: exactValue(value, type), unit, time, timeMs: Number(time / 1000n) / 1000, late, series };
}
