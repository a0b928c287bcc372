/** Values, units, times and ages as words for people. Pure. */

import { toMs } from "./clock.js";

/** Decimals that make sense for a unit; others follow the size of the number. */
const DECIMALS = new Map(
  Object.entries({ Cel: 2, "%RH": 1, "%": 1, ppm: 0, "[ppm]": 0, ppb: 0, lx: 0, hPa: 1, W: 1, V: 2, A: 2, dB: 1, By: 0 }),
);

/** Smallest span an axis shows, so that noise of ±0.05 °C is not drawn full height. */
const MIN_SPAN = new Map(
  Object.entries({ Cel: 0.5, "[degF]": 1, K: 0.5, "%RH": 2, "%": 2, ppm: 20, "[ppm]": 20, hPa: 1, lx: 5, V: 0.05, W: 2 }),
);

const BINARY = ["B", "KiB", "MiB", "GiB", "TiB"];

/** @type {Map<number, Intl.NumberFormat>} */
const FORMATS = new Map();

/**
 * @typedef {{unit?: string | null, unit_shown?: string | null, type?: string | null, decimals?: number | null}} Shown
 */

/**
 * @param {Shown} channel
 * @returns {string} the unit as people write it (the hub has the table), "" when there is none
 */
export function unitText(channel) {
  return channel.unit_shown ?? channel.unit ?? "";
}

/**
 * @param {{channel: string, label?: string | null}} channel
 * @returns {string} the name for people
 */
export function channelLabel(channel) {
  if (channel.label) return channel.label;
  const words = channel.channel.replace(/[_-]+/g, " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/**
 * @param {string | null | undefined} unit
 * @returns {number} the smallest span an axis of this unit shows; 0 when the unit says nothing
 */
export function minimumSpan(unit) {
  return (unit != null && MIN_SPAN.get(unit)) || 0;
}

/**
 * @param {number} value
 * @param {number} decimals
 * @returns {string} locale's digits, a real minus sign, never "−0.0"
 */
export function numberText(value, decimals) {
  let format = FORMATS.get(decimals);
  if (!format) {
    format = new Intl.NumberFormat(undefined, { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
    FORMATS.set(decimals, format);
  }
  const zeroed = Math.abs(value) < 0.5 * 10 ** -decimals ? 0 : value;
  return format.format(zeroed).replace("-", "−");
}

/**
 * @param {number} value
 * @param {Shown} channel
 * @param {number} [fewer] decimals to leave out, for narrow places; one always stays if there was one
 * @returns {number} decimals to show
 */
export function decimalsFor(value, channel, fewer = 0) {
  if (channel.decimals != null) return channel.decimals;
  if (channel.type === "int") return 0;
  const size = Math.abs(value);
  const known = channel.unit == null ? undefined : DECIMALS.get(channel.unit);
  const bySize = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 1 || size === 0 ? 2 : Math.min(6, 1 - Math.floor(Math.log10(size)));
  const most = Math.min(known ?? bySize, size >= 10000 ? 0 : 9);
  return Math.max(Math.min(most, 1), most - fewer);
}

/**
 * @param {unknown} value
 * @param {Shown} channel
 * @param {number} [fewer] decimals to leave out
 * @returns {{text: string, unit: string}}
 */
export function valueText(value, channel, fewer = 0) {
  const unit = unitText(channel);
  if (value == null) return { text: "–", unit: "" };
  if (typeof value === "boolean" || channel.type === "bool") return { text: value ? "on" : "off", unit: "" };
  if (typeof value !== "number") return { text: String(value), unit };
  if (unit === "B" && Math.abs(value) >= 1024) {
    const power = Math.min(4, Math.floor(Math.log2(Math.abs(value)) / 10));
    return { text: numberText(value / 1024 ** power, fewer ? 1 : 2), unit: BINARY[power] };
  }
  return { text: numberText(value, decimalsFor(value, channel, fewer)), unit };
}

/**
 * @param {number} limit of a normal range
 * @param {Shown} channel
 * @returns {string} with its unit and no more digits than were given: "900 W", "27.5 °C"
 */
export function limitText(limit, channel) {
  const unit = unitText(channel);
  if (unit === "B") return valueText(limit, channel, 1).text + ` ${valueText(limit, channel, 1).unit}`;
  const decimals = Math.min(6, String(limit).split(".")[1]?.length ?? 0);
  return `${numberText(limit, decimals)}${unit ? ` ${unit}` : ""}`;
}

/**
 * @param {number} seconds
 * @returns {string} "5 s", "3 min", "1 h 41 min", "2 d"
 */
export function durationText(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 90) return `${s} s`;
  const minutes = Math.round(s / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} d`;
}

/**
 * @param {number} seconds a clock is ahead of the hub's, or behind when negative
 * @returns {string} "clock +3.2 s", "clock −2 h"
 */
export function skewText(seconds) {
  const size = Math.abs(seconds);
  return `clock ${seconds < 0 ? "−" : "+"}${size < 60 ? `${numberText(size, 1)} s` : durationText(size)}`;
}

/**
 * @param {number} rate readings per second
 * @returns {string} "10 readings/s", "6 readings/min"
 */
export function rateText(rate) {
  if (rate >= 0.95) return `${numberText(rate, 0)} readings/s`;
  if (rate * 60 >= 0.95) return `${numberText(rate * 60, 0)} readings/min`;
  return rate > 0 ? `${numberText(rate * 3600, 0)} readings/h` : "";
}

const pad = (/** @type {number} */ n) => String(n).padStart(2, "0");

/**
 * @param {number} instant relative ns
 * @param {boolean} [seconds]
 * @returns {string} local time of day, "20:34:27"
 */
export function clockText(instant, seconds = true) {
  const date = new Date(toMs(instant));
  return `${pad(date.getHours())}:${pad(date.getMinutes())}${seconds ? `:${pad(date.getSeconds())}` : ""}`;
}

const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

/**
 * @param {number} instant relative ns
 * @returns {string} local day, "21 Nov"
 */
export function dayText(instant) {
  return DAY.format(new Date(toMs(instant)));
}

/**
 * @param {number} from relative ns
 * @param {number} to relative ns
 * @returns {string} "20:20:21 – 20:35:21", with days where they are not today
 */
export function windowText(from, to) {
  const days = [from, to].map((instant) => new Date(toMs(instant)).toDateString());
  const today = days[1] === new Date().toDateString();
  const first = days[0] === days[1] ? "" : `${dayText(from)}, `;
  const second = days[0] === days[1] && today ? "" : `${dayText(to)}, `;
  return days[0] === days[1]
    ? `${second}${clockText(from)} – ${clockText(to)}`
    : `${first}${clockText(from)} – ${second}${clockText(to)}`;
}

/** @type {string} the zone in which the page shows times */
export const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

const DIGITS = /(\d+)/;

/**
 * @param {string} a
 * @param {string} b
 * @returns {number} order that puts `pump-2` before `pump-10`
 */
export function naturalOrder(a, b) {
  const left = a.split(DIGITS);
  const right = b.split(DIGITS);
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    if (left[i] === right[i]) continue;
    if (i % 2) return Number(left[i]) - Number(right[i]) || (left[i] < right[i] ? -1 : 1);
    return left[i] < right[i] ? -1 : 1;
  }
  return left.length - right.length;
}
