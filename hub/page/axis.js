/** Where the time axis has its ticks and what they say. Pure. Times are relative ns, ticks follow local time. */

import { fromMs, HOUR, MINUTE, SECOND, toMs } from "./clock.js";
import { clockText, dayText } from "./format.js";

const STEPS = [
  ...[0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30].map((n) => n * SECOND),
  ...[1, 2, 5, 10, 15, 30].map((n) => n * MINUTE),
  ...[1, 2, 3, 4, 6, 12, 24].map((n) => n * HOUR),
];

/**
 * @param {number} from
 * @param {number} to
 * @param {number} width of the axis in CSS px
 * @param {number} [space] least distance between labels in CSS px
 * @returns {{step: number, ticks: number[]}}
 */
export function timeTicks(from, to, width, space) {
  const most = (/** @type {number} */ step) => Math.max(1, Math.floor(width / (space ?? (step < MINUTE ? 78 : 62))));
  const step = STEPS.find((s) => (to - from) / s <= most(s)) ?? STEPS[STEPS.length - 1];
  const ticks = [];
  for (let tick = firstTick(from, step); tick <= to; tick = nextTick(tick, step)) if (tick >= from) ticks.push(tick);
  return { step, ticks };
}

/**
 * Two lines where the window holds more than one day: the day stands under the first tick and under midnight.
 *
 * @param {number[]} ticks
 * @param {number} step
 * @param {boolean} days whether to name days
 * @returns {string[]}
 */
export function tickTexts(ticks, step, days) {
  return ticks.map((tick, i) => {
    const text = step < SECOND ? `${clockText(tick)}.${Math.floor((((toMs(tick) % 1000) + 1000) % 1000) / 100)}` : clockText(tick, step < MINUTE);
    if (!days) return text;
    const isNewDay = i === 0 || dayText(tick) !== dayText(ticks[i - 1]);
    return isNewDay ? `${text}\n${dayText(tick)}` : text;
  });
}

/** @param {number} from @param {number} step @returns {number} */
function firstTick(from, step) {
  const date = new Date(toMs(from));
  if (step >= HOUR) {
    const hours = step / HOUR;
    date.setHours(Math.floor(date.getHours() / hours) * hours, 0, 0, 0);
    return fromMs(date.getTime());
  }
  // Zones differ from UTC by whole quarters of an hour; below that, ticks align to the minute itself.
  const midnight = new Date(date).setHours(0, 0, 0, 0);
  const since = (toMs(from) - midnight) * 1e6;
  return fromMs(midnight + (Math.floor(since / step) * step) / 1e6);
}

/** @param {number} tick @param {number} step @returns {number} steps of hours follow the wall clock through DST */
function nextTick(tick, step) {
  if (step < HOUR) return tick + step;
  const date = new Date(toMs(tick));
  const before = date.getTime();
  date.setHours(date.getHours() + step / HOUR);
  if (date.getTime() <= before) return tick + step;
  return fromMs(date.getTime());
}
