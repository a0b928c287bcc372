/**
 * Time on the page: instants as exact numbers, and the hub's clock.
 *
 * An instant is a number of nanoseconds since the page was loaded ("relative ns", negative in the
 * past): a double holds those exactly for ±104 days, while epoch nanoseconds do not fit one.
 * Everything drawn follows the hub's clock, never the last sample and never this computer's clock.
 */

export const SECOND = 1e9;
export const MINUTE = 60 * SECOND;
export const HOUR = 60 * MINUTE;

const BASE_MS = Date.now();
export const BASE_NS = BigInt(BASE_MS) * 1_000_000n;

/**
 * @param {string} text epoch nanoseconds, decimal
 * @returns {number} relative ns
 */
export function fromEpoch(text) {
  return Number(BigInt(text) - BASE_NS);
}

/**
 * @param {number} instant relative ns
 * @returns {string} epoch nanoseconds, decimal
 */
export function toEpoch(instant) {
  return String(BigInt(Math.round(instant)) + BASE_NS);
}

/**
 * @param {number} instant relative ns
 * @returns {number} epoch milliseconds, for `Date`
 */
export function toMs(instant) {
  return BASE_MS + instant / 1e6;
}

/**
 * @param {number} ms epoch milliseconds
 * @returns {number} relative ns
 */
export function fromMs(ms) {
  return (ms - BASE_MS) * 1e6;
}

/** Samples kept: the quickest of the last eight answers has the smallest error. */
const SAMPLES = 8;

/** The hub's clock, estimated from answers that carry `time_ns`. */
export class HubClock {
  constructor() {
    /** @type {{offset: number, rtt: number}[]} */
    this._samples = [];
    this._offset = -performance.now() * 1e6;
    /** @type {number | null} */
    this._frozen = null;
  }

  /**
   * Take one answer. The hub wrote `hubNow` at some point between the two local times.
   *
   * @param {number} hubNow relative ns
   * @param {number} sentMs `performance.now()` before the request
   * @param {number} receivedMs `performance.now()` after the answer
   */
  sync(hubNow, sentMs, receivedMs) {
    const sample = { offset: hubNow - ((sentMs + receivedMs) / 2) * 1e6, rtt: receivedMs - sentMs };
    const last = this._samples.at(-1);
    // A step of more than a second is a clock that was set, or a computer that slept: start over.
    if (last && Math.abs(last.offset - sample.offset) > SECOND) this._samples = [];
    this._samples.push(sample);
    if (this._samples.length > SAMPLES) this._samples.shift();
    this._offset = this._samples.reduce((best, s) => (s.rtt < best.rtt ? s : best)).offset;
  }

  /** @returns {number} the hub's time now, or when it was last known while disconnected; relative ns */
  now() {
    return this._frozen ?? this.running();
  }

  /** @returns {number} the hub's time now, even while disconnected; relative ns */
  running() {
    return this._offset + performance.now() * 1e6;
  }

  /** Stop at the present: what the page shows is "as of" this instant. */
  freeze() {
    this._frozen ??= this.running();
  }

  /** Run again. */
  thaw() {
    this._frozen = null;
  }

  get isFrozen() {
    return this._frozen !== null;
  }
}
