/**
 * The watcher's half of `watch.v1`: messages in, readings and cursors out. Pure: no socket, no clock.
 *
 * A watcher is a cursor. Each subscription remembers the cursor of the last frame it applied and asks for "everything
 * after it" on the next connection, so a drop loses nothing and doubles nothing. Recovery is never silent: the hub goes
 * on from the cursor or says `reset`.
 */

export const VERSION = "1.0.0";

/**
 * @typedef {import("./hub-client.d.ts").Series} Series
 * @typedef {object} Sink what a subscription does with what arrives
 * @property {(id: number, series: Series) => void} series a series joined the subscription, or what is said of it changed
 * @property {(id: number, time: any, value: unknown, isLate: boolean) => void} reading time: epoch ns as bigint, or a number
 *   of ns since the session's origin; late: older than what the hub had of its series when it came
 * @property {() => void} [frame] a frame was applied
 * @property {(isLive: boolean) => void} [live] history ended, live begins
 * @property {(why: string) => void} [reset] the hub cannot go on from the cursor
 * @property {(behind: number) => void} [lag] so many frames are still owed to this watcher
 * @property {(message: string, reason: string) => void} [refused] the subscription was refused
 *
 * @typedef {object} Request
 * @property {string[]} match patterns over device/channel
 * @property {string[]} [not] patterns that take series out again
 * @property {"lossless" | "latest"} [mode]
 * @property {string} [since] where to start without a cursor: "-15m", "last", a time, a cursor; absent: from now on
 * @property {number} [max_hz] frames per second in `latest`
 *
 * @typedef {{request: Request, sink: Sink, cursor: string | null, isLive: boolean}} Subscription
 */

/** What went wrong for good: `reason` is the hub's word, `code` its close code (0: none). */
export class WatchError extends Error {
  /** @param {string} reason @param {string} message @param {number} [code] */
  constructor(reason, message, code = 0) {
    super(message);
    this.name = "WatchError";
    this.reason = reason;
    this.code = code;
  }
}

/** @param {unknown} value @param {string | null} type @returns {any} whole numbers beyond 2**53 come as text */
export function exactValue(value, type) {
  return type === "int" && typeof value === "string" ? BigInt(value) : value;
}

/** All subscriptions of one watcher, over any number of links. */
export class Session {
  /**
   * @param {object} [options]
   * @param {string} [options.client] told to the hub
   * @param {bigint | null} [options.origin] epoch ns; then times are numbers of ns since it (exact for ±104 days)
   * @param {boolean} [options.startsOver] after a reset ask again for what was first asked for, instead of going on
   */
  constructor({ client = `hub-client/${VERSION}`, origin = null, startsOver = false } = {}) {
    /** @type {Map<string, Subscription>} by name on the wire */
    this.subscriptions = new Map();
    this.welcomed = false;
    this._client = client;
    this._origin = origin;
    this._startsOver = startsOver;
    /** @type {((message: object) => void) | null} */
    this._send = null;
    this._id = 0;
    this._names = 0;
  }

  /** A link opened: greet, and subscribe again from the stored cursors. @param {(message: object) => void} send */
  opened(send) {
    this._send = send;
    this.welcomed = false;
    this.greet();
    for (const [name, subscription] of this.subscriptions) this._subscribe(name, subscription);
  }

  /** Say hello; the hub answers with `welcome`, also in between: that is how a quiet line is asked whether it lives. */
  greet() {
    this._say({ op: "hello", client: this._client });
  }

  /** Go on with another token. @param {string} token @returns {number} the id that the hub's answer has */
  authorize(token) {
    this._say({ op: "auth", token });
    return this._id;
  }

  /** The link closed. Cursors stay. */
  closed() {
    this._send = null;
    this.welcomed = false;
    for (const subscription of this.subscriptions.values()) subscription.isLive = false;
  }

  /** @param {Request} request @param {Sink} sink @returns {Subscription} for the other calls */
  subscribe(request, sink) {
    const subscription = { request, sink, cursor: null, isLive: false };
    this.resume(subscription);
    return subscription;
  }

  /** End it; with `resume` it goes on behind its cursor. @param {Subscription} subscription */
  unsubscribe(subscription) {
    for (const [name, known] of this.subscriptions) {
      if (known !== subscription) continue;
      this.subscriptions.delete(name);
      this._say({ op: "unsub", sub: name });
    }
  }

  /** @param {Subscription} subscription that is not running */
  resume(subscription) {
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
    this.resume(subscription);
  }

  /** Apply one message of the hub. @param {any} message */
  receive(message) {
    if (message.op === "welcome") this.welcomed = true;
    // By another token, of which this is the answer.
    for (const name of message.ended ?? []) {
      this.subscriptions.get(name)?.sink.refused?.("the new token may see nothing of it", "forbidden");
    }
    const subscription = this.subscriptions.get(message.sub);
    if (!subscription) return;
    const { sink } = subscription;
    switch (message.op) {
      case "ok":
        // From now on is a place too: a drop before the first frame must not skip what comes meanwhile.
        if (message.from && !subscription.request.since) subscription.cursor ??= message.from;
        break;
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
        if (this._startsOver) this.startOver(subscription, message.why);
        else {
          subscription.cursor = message.head ?? null;
          sink.reset?.(message.why);
        }
        break;
      case "error":
        sink.refused?.(message.message ?? message.reason ?? "refused", message.reason ?? "refused");
        break;
    }
  }

  /** @param {Subscription} subscription @param {any} message */
  _data(subscription, message) {
    const { sink } = subscription;
    const timeOf = this._times(message);
    const late = new Set();
    for (const [begin, end] of message.late ?? []) for (let row = begin; row < end; row++) late.add(row);
    (message.u ?? []).forEach((/** @type {[number, number | string, unknown]} */ [id, dt, value], /** @type {number} */ row) =>
      sink.reading(id, timeOf(dt), value, late.has(row)),
    );
    // Only now: a cursor names what was applied, never what merely arrived.
    subscription.cursor = message.o ?? subscription.cursor;
    sink.frame?.();
  }

  /** @param {any} message @returns {(dt: number | string) => any} the time of a row */
  _times({ t0, tick = 1 }) {
    const start = BigInt(t0 ?? this._origin ?? 0);
    if (this._origin === null) return (dt) => start + BigInt(dt) * BigInt(tick);
    const relative = Number(start - this._origin);
    return (dt) => relative + Number(dt) * tick;
  }

  /** @param {string} name @param {Subscription} subscription */
  _subscribe(name, { request, cursor }) {
    // `latest` shows what is, so it starts from the newest values; only `lossless` has a past to resume.
    const since = request.mode !== "latest" && cursor ? cursor : request.since;
    this._say({ op: "sub", sub: name, ...request, since });
  }

  /** @param {Record<string, unknown>} message */
  _say(message) {
    this._send?.({ id: ++this._id, ...message });
  }
}
