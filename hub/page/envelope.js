/**
 * Ranges too long for raw readings: average, minimum and maximum per bucket, so that a spike of one
 * reading is still seen in 24 hours.
 *
 * Closed buckets come from the hub; the newest are made here from the raw readings of the live
 * subscription, by the same rule and on the same grid. So nothing is counted twice and nothing is
 * missing between the two.
 */

import { fetchBuckets } from "./api.js";
import { lowerBound } from "./buffer.js";
import { fromEpoch, HOUR, MINUTE, toEpoch } from "./clock.js";

/** About as many buckets as a chart has pixels. */
const BUCKETS = 720;
/** Buckets this recent may still have been filling in the hub's store when it was asked. */
const UNSETTLED = MINUTE;
/** Raw readings cover 15 minutes; asking again before that keeps the two ends overlapping. */
export const REFRESH = 5 * MINUTE;

const STEPS_MS = [
  1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 30000, 60000, 120000, 300000, 600000, 1800000, 3600000,
];

/**
 * @typedef {object} Buckets
 * @property {Float64Array} starts ascending, relative ns
 * @property {Float64Array} avg
 * @property {Float64Array} min
 * @property {Float64Array} max
 * @property {Float64Array} counts
 */

/** @param {number} span ns @returns {number} bucket width in ms */
export function bucketFor(span) {
  return STEPS_MS.find((ms) => (span / 1e6 / ms) <= BUCKETS) ?? STEPS_MS[STEPS_MS.length - 1];
}

export class Envelope {
  /**
   * @param {string} device
   * @param {number} from relative ns
   * @param {number | null} to null: up to now, and live from there
   * @param {number} [stepMs]
   */
  constructor(device, from, to, stepMs) {
    this.device = device;
    this.from = from;
    this.to = to;
    this.stepMs = stepMs ?? bucketFor((to ?? from + 24 * HOUR) - from);
    this.step = this.stepMs * 1e6;
    /** @type {Map<string, Buckets>} */
    this._channels = new Map();
    this.loadedAt = NaN;
    this.failed = "";
  }

  get isLoaded() {
    return !Number.isNaN(this.loadedAt);
  }

  /**
   * @param {number} now relative ns
   * @param {AbortSignal} signal
   */
  async load(now, signal) {
    const answer = await fetchBuckets(
      [`${this.device}/**`],
      { from: toEpoch(this.from - this.step), to: this.to === null ? undefined : toEpoch(this.to + this.step), stepMs: this.stepMs, functions: "avg,min,max,count" },
      signal,
    );
    /** @type {number[][][]} */
    const rows = answer.series.map(() => []);
    for (const [time, series, avg, min, max, count] of answer.rows) {
      if (typeof avg === "number") rows[series].push([fromEpoch(time), avg, Number(min), Number(max), count]);
    }
    answer.series.forEach(({ channel }, i) => this._channels.set(channel, columns(rows[i])));
    this.loadedAt = now;
  }

  /**
   * @param {string} channel
   * @param {import("./buffer.js").SeriesBuffer | null} raw live readings that continue the closed buckets
   * @param {number} interval usual distance between readings in ns
   * @returns {import("./view.js").View} with times in the middle of the buckets
   */
  view(channel, raw, interval) {
    const closed = this._channels.get(channel) ?? columns([]);
    const parts = raw && this.to === null ? this._continued(closed, raw) : closed;
    const times = parts.starts.map((start) => start + this.step / 2);
    const gap = Math.max(3 * (interval || 0), 2.5 * this.step);
    return { kind: "envelope", times, values: parts.avg, min: parts.min, max: parts.max, counts: parts.counts, gap };
  }

  /** @param {Buckets} closed @param {import("./buffer.js").SeriesBuffer} raw @returns {Buckets} */
  _continued(closed, raw) {
    // While history is on its way, the hub's buckets reach further than the raw readings: nothing to continue yet.
    if (!raw.length || this._grid(raw.lastTime) < closed.starts[closed.starts.length - 1]) return closed;
    const settled = this._grid(this.loadedAt - UNSETTLED);
    // The first raw bucket is whole only if the raw readings begin before it does.
    const whole = this._grid(raw.times[raw.start] + this.step - 1);
    const edge = Math.max(settled, whole);
    const cut = lowerBound(closed.starts, 0, closed.starts.length, edge);
    const tail = this._fold(raw, edge);
    return {
      starts: joined(closed.starts, cut, tail.starts),
      avg: joined(closed.avg, cut, tail.avg),
      min: joined(closed.min, cut, tail.min),
      max: joined(closed.max, cut, tail.max),
      counts: joined(closed.counts, cut, tail.counts),
    };
  }

  /** @param {import("./buffer.js").SeriesBuffer} raw @param {number} edge @returns {Buckets} */
  _fold(raw, edge) {
    const rows = [];
    let row = [NaN, 0, 0, 0, 0];
    for (let i = lowerBound(raw.times, raw.start, raw.end, edge); i < raw.end; i++) {
      const start = this._grid(raw.times[i]);
      const value = raw.values[i];
      if (start !== row[0]) rows.push((row = [start, value, value, value, 1]));
      else {
        row[4]++;
        row[1] += (value - row[1]) / row[4];
        if (value < row[2]) row[2] = value;
        if (value > row[3]) row[3] = value;
      }
    }
    return columns(rows);
  }

  /** @param {number} instant @returns {number} start of its bucket: the hub's grid is aligned to the epoch */
  _grid(instant) {
    const phase = Number(BigInt(toEpoch(0)) % BigInt(this.step));
    return Math.floor((instant + phase) / this.step) * this.step - phase;
  }
}

/** @param {number[][]} rows @returns {Buckets} */
function columns(rows) {
  const column = (/** @type {number} */ i) => Float64Array.from(rows, (row) => row[i]);
  return { starts: column(0), avg: column(1), min: column(2), max: column(3), counts: column(4) };
}

/** @param {Float64Array} head @param {number} cut @param {Float64Array} tail */
function joined(head, cut, tail) {
  const whole = new Float64Array(cut + tail.length);
  whole.set(head.subarray(0, cut));
  whole.set(tail, cut);
  return whole;
}

