/**
 * Another token for a live connection, before the one that it began with ends.
 *
 * Owns: when to ask for it, and what becomes of it. The credential's end is known from `ttl` of `welcome`, and of the answer
 * to `auth` from then on. What comes too late (a laptop slept, a hidden tab's clock is slow) costs a new connection, no gap.
 */

/** Of a credential's life, when a new one is asked for: at random between, or all who began together would ask together. */
const EARLIEST = 0.7;
const LATEST = 0.9;
const LEAST_MS = 1000;
/** Nothing is gained by waiting longer; a timer of more than 24 days would end at once. */
const MOST_MS = 86400_000;
/** What the hub says of the same end may differ by this, for it travels. */
const SAME_MS = 1000;
/** The hub has read the token and says that this connection will not do for it; anything else may pass. */
const NEED_CONNECTION = ["bad_request", "forbidden"];

/** @param {number} leftMs of the present token @param {number} portion in [0, 1), at random @returns {number} ms */
export function renewAfter(leftMs, portion) {
  return Math.min(Math.max(leftMs * (EARLIEST + (LATEST - EARLIEST) * portion), LEAST_MS), MOST_MS);
}

/** The renewals of one connection. */
export class Renewal {
  /**
   * @param {() => string | Promise<string>} ask gives a new token
   * @param {(token: string) => void} say sends it to the hub
   * @param {() => void} reconnect a new connection is needed for it
   */
  constructor(ask, say, reconnect) {
    this._ask = ask;
    this._say = say;
    this._reconnect = reconnect;
    this._endsMs = 0;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this._timer = undefined;
    this._turn = 0;
    /** A token will be asked for, or is; not yet sent. */
    this._isPlanned = false;
  }

  /** What the hub says of the credential, in `welcome` or its answer to `auth`. @param {number | null | undefined} ttl seconds; none: it has no end */
  told(ttl) {
    const endsMs = typeof ttl === "number" ? performance.now() + ttl * 1000 : Infinity;
    // A `hello` in between (a quiet line, a tab that joins) must put off nothing, nor drop a token that is on its way.
    if (this._isPlanned && Math.abs(endsMs - this._endsMs) < SAME_MS) return;
    this.end();
    this._endsMs = endsMs;
    if (endsMs !== Infinity) this._plan();
  }

  /** The hub did not take the token. @param {string} reason */
  refused(reason) {
    if (NEED_CONNECTION.includes(reason)) this._reconnect();
    else this._plan();
  }

  /** Ask no more. */
  end() {
    this._turn++;
    this._isPlanned = false;
    clearTimeout(this._timer);
  }

  _plan() {
    clearTimeout(this._timer);
    const left = this._endsMs - performance.now();
    // From then on the hub ends the connection, and the next one asks for a token anyway.
    this._isPlanned = left > 0;
    if (left > 0) this._timer = setTimeout(() => this._renew(), renewAfter(left, Math.random()));
  }

  async _renew() {
    const turn = ++this._turn;
    try {
      const token = await this._ask();
      if (turn !== this._turn) return;
      this._isPlanned = false;
      this._say(token);
    } catch (error) {
      reportError(error);
      if (turn === this._turn) this._plan();
    }
  }
}
