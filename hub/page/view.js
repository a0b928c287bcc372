/**
 * What a chart draws: a stretch of one channel, raw or as an envelope, its gaps and its summary. Pure.
 */

import { SECOND } from "./clock.js";
import { lowerBound } from "./buffer.js";

/** A reading needs a moment to travel; a device is silent only after its interval and this. */
const GRACE = 1.5 * SECOND;
/** More than this many intervals between two readings is a gap. */
export const GAP_INTERVALS = 3;

/**
 * @typedef {object} View
 * @property {"raw" | "envelope"} kind
 * @property {Float64Array} times ascending, relative ns
 * @property {Float64Array} values readings, or averages of buckets
 * @property {Float64Array} [min] of buckets
 * @property {Float64Array} [max] of buckets
 * @property {Float64Array} [counts] readings in buckets
 * @property {number} gap distance in ns from which two neighbours are not joined
 *
 * @typedef {{from: number, to: number, kind: "gap" | "before"}} Gap
 * @typedef {{min: number, max: number, avg: number, first: number, last: number, count: number}} Summary
 */

/**
 * @param {import("./buffer.js").SeriesBuffer} buffer
 * @param {number} from
 * @param {number} to
 * @param {number} gap
 * @returns {View} shares memory with the buffer: use it before the next reading
 */
export function rawView(buffer, from, to, gap) {
  const [first, last] = buffer.range(from, to);
  return { kind: "raw", times: buffer.times.subarray(first, last), values: buffer.values.subarray(first, last), gap };
}

/** @param {View} view @returns {View} one that later readings cannot change */
export function frozenView(view) {
  return {
    ...view,
    times: view.times.slice(),
    values: view.values.slice(),
    min: view.min?.slice(),
    max: view.max?.slice(),
    counts: view.counts?.slice(),
  };
}

/**
 * @param {View} view
 * @param {number} from
 * @param {number} to
 * @returns {Summary | null} null when no reading lies in [from, to]
 */
export function summarize(view, from, to) {
  const { times, values, min, max, counts } = view;
  const start = lowerBound(times, 0, times.length, from);
  let end = lowerBound(times, start, times.length, to);
  if (end < times.length && times[end] === to) end++;
  if (start >= end) return null;
  const found = { min: Infinity, max: -Infinity, avg: 0, first: values[start], last: values[end - 1], count: 0 };
  let sum = 0;
  for (let i = start; i < end; i++) {
    const weight = counts ? counts[i] : 1;
    const low = min ? min[i] : values[i];
    const high = max ? max[i] : values[i];
    if (low < found.min) found.min = low;
    if (high > found.max) found.max = high;
    sum += values[i] * weight;
    found.count += weight;
  }
  found.avg = sum / found.count;
  return found;
}

/**
 * Where no line may be drawn. "before" is the time before the first reading known, "gap" is missing data.
 *
 * @param {View} view
 * @param {number} from
 * @param {number} to
 * @returns {Gap[]} inside [from, to], ascending
 */
export function gapsOf({ times, gap }, from, to) {
  /** @type {Gap[]} */
  const gaps = [];
  if (!times.length) return [{ from, to, kind: "gap" }];
  if (times[0] - from > gap) gaps.push({ from, to: Math.min(times[0], to), kind: "before" });
  for (let i = 1; i < times.length; i++) {
    if (times[i] - times[i - 1] > gap) gaps.push({ from: Math.max(from, times[i - 1]), to: Math.min(to, times[i]), kind: "gap" });
  }
  const last = times[times.length - 1];
  if (to - last > gap + GRACE) gaps.push({ from: Math.max(from, last), to, kind: "gap" });
  return gaps.filter((g) => g.to > g.from);
}

/**
 * @param {View} view
 * @returns {number[]} indices of readings that no line reaches: they are drawn as dots
 */
export function isolated({ times, gap }) {
  const found = [];
  for (let i = 0; i < times.length; i++) {
    const left = i === 0 || times[i] - times[i - 1] > gap;
    const right = i === times.length - 1 || times[i + 1] - times[i] > gap;
    if (left && right) found.push(i);
  }
  return found;
}
