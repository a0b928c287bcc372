/**
 * The watcher's half of `watch.v1`: subscriptions and their cursors. Pure: no socket, no clock.
 *
 * A watcher is a cursor. Each subscription remembers the cursor of the last frame it applied and asks
 * for "everything after it" on the next connection, so a drop loses nothing and doubles nothing.
 * Recovery is never silent: the hub either goes on from the cursor or says `reset`, and then the
 * subscription starts over from what it was first asked for.
 */

import { fromEpoch } from "./clock.js";

/**
 * @typedef {{device: string, channel: string, unit: string | null, type: string | null, label: string | null,
 *   unit_shown?: string, decimals?: number, scale?: number, offset?: number}} SeriesInfo
 * @typedef {object} Sink what a subscription does with what arrives
 * @property {(id: number, info: SeriesInfo) => void} series a series joined the subscription
 * @property {(id: number, time: number, value: unknown, isLate: boolean) => void} reading time in relative ns; late:
 *   older than what the hub had of its series when it came
 * @property {() => void} [frame] a frame was applied
 * @property {(isLive: boolean) => void} [live] history ended, live begins
 * @property {(why: string) => void} [reset] forget what was received; it is sent again
 * @property {(behind: number) => void} [lag] the hub skipped readings for this watcher
 * @property {(message: string) => void} [refused] the subscription was refused
 *
 * @typedef {object} Request
 * @property {string[]} match patterns over device/channel
 * @property {"lossless" | "latest"} mode
 * @property {string} since where to start without a cursor: "-15m", "last"
 * @property {number} [max_hz] frames per second in `latest`
 *
 * @typedef {{request: Request, sink: Sink, cursor: string | null, isLive: boolean}} Subscription
 */

export class WatchSession {
  constructor() {
    /** @type {Map<string, Subscription>} */
    this.subscriptions = new Map();
    /** @type {((message: object) => void) | null} */
    this._send = null;
    this._id = 0;
    this._names = 0;
    this.welcomed = false;
  }

  /**
   * A socket opened: greet, and subscribe again from the stored cursors.
   *
   * @param {(message: object) => void} send
   */
  opened(send) {
    this._send = send;
    this.welcomed = false;
    this._say({ op: "hello", client: "page/1" });
    for (const [name, subscription] of this.subscriptions) this._subscribe(name, subscription);
  }

  /** The socket closed. Cursors stay. */
  closed() {
    this._send = null;
    this.welcomed = false;
    for (const subscription of this.subscriptions.values()) subscription.isLive = false;
  }

  /**
   * @param {Request} request
   * @param {Sink} sink
   * @returns {Subscription} for `unsubscribe`
   */
  subscribe(request, sink) {
    const subscription = { request, sink, cursor: null, isLive: false };
    this._begin(subscription);
    return subscription;
  }

  /** @param {Subscription} subscription */
  unsubscribe(subscription) {
    for (const [name, known] of this.subscriptions) {
      if (known !== subscription) continue;
      this.subscriptions.delete(name);
      this._say({ op: "unsub", sub: name });
    }
  }

  /**
   * Apply one message of the hub.
   *
   * @param {any} message
   */
  receive(message) {
    if (message.op === "welcome") this.welcomed = true;
    const subscription = this.subscriptions.get(message.sub);
    if (!subscription) return;
    const { sink } = subscription;
    switch (message.op) {
      case "series":
        for (const id in message.s) sink.series(Number(id), message.s[id]);
        break;
      case "data":
        this._data(subscription, message);
        break;
      case "live":
        subscription.cursor = message.o ?? subscription.cursor;
        subscription.isLive = true;
        sink.live?.(true);
        break;
      case "lag":
        sink.lag?.(message.behind ?? 0);
        break;
      case "reset":
        this.startOver(subscription, message.why);
        break;
      case "error":
        sink.refused?.(message.message ?? message.reason ?? "refused");
        break;
    }
  }

  /** @param {Subscription} subscription @param {any} message */
  _data(subscription, message) {
    const { sink } = subscription;
    const start = message.t0 == null ? 0 : fromEpoch(message.t0);
    const tick = message.tick ?? 1;
    const late = new Set();
    for (const [begin, end] of message.late ?? []) for (let row = begin; row < end; row++) late.add(row);
    (message.u ?? []).forEach((/** @type {[number, number, unknown]} */ [id, dt, value], /** @type {number} */ row) =>
      sink.reading(id, start + dt * tick, value, late.has(row)),
    );
    // Only now: a cursor names what was applied, never what merely arrived.
    subscription.cursor = message.o ?? subscription.cursor;
    sink.frame?.();
  }

  /** @param {Subscription} subscription */
  _begin(subscription) {
    // Never reuse a name: frames of a subscription that ended may still be on their way.
    const name = `s${++this._names}`;
    this.subscriptions.set(name, subscription);
    this._subscribe(name, subscription);
  }

  /** Forget what was received and ask for it again. @param {Subscription} subscription @param {string} why */
  startOver(subscription, why) {
    this.unsubscribe(subscription);
    subscription.cursor = null;
    subscription.isLive = false;
    subscription.sink.reset?.(why);
    this._begin(subscription);
  }

  /** @param {string} name @param {Subscription} subscription */
  _subscribe(name, { request, cursor }) {
    // `latest` shows what is, so it starts from the newest values; only `lossless` has a past to resume.
    const since = request.mode === "lossless" && cursor ? cursor : request.since;
    this._say({ op: "sub", sub: name, ...request, since });
  }

  /** @param {Record<string, unknown>} message */
  _say(message) {
    this._send?.({ id: ++this._id, ...message });
  }
}
