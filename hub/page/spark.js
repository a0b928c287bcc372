/**
 * Sparklines: the last five minutes of one channel in a hundred pixels, true to time.
 *
 * Owns: a small ring of slots per device and how it is drawn. A device that fell silent has a line
 * that ends where its readings end; the rest is hatched.
 */

import { SECOND } from "./clock.js";

export const SLOT = 5 * SECOND;
export const SLOTS = 60;
export const SPAN = SLOT * SLOTS;
const RING = SLOTS + 2;

export class Spark {
  constructor() {
    this._values = new Float64Array(RING);
    this._slots = new Float64Array(RING).fill(-Infinity);
    /** Grows when a picture of it would change. */
    this.revision = 0;
  }

  /**
   * Take a reading: the newest value of a slot stands for it.
   *
   * @param {number} time relative ns
   * @param {number} value
   */
  put(time, value) {
    const slot = Math.floor(time / SLOT);
    const at = ((slot % RING) + RING) % RING;
    if (slot < this._slots[at]) return;
    this._slots[at] = slot;
    this._values[at] = value;
    this.revision++;
  }

  /**
   * @param {number} now relative ns
   * @returns {{slot: number, value: number}[]} filled slots of the span, in order
   */
  points(now) {
    const newest = Math.floor(now / SLOT);
    const found = [];
    for (let slot = newest - SLOTS; slot <= newest + 1; slot++) {
      const at = ((slot % RING) + RING) % RING;
      if (this._slots[at] === slot) found.push({ slot, value: this._values[at] });
    }
    return found;
  }
}

/**
 * @typedef {object} SparkStyle
 * @property {string} line
 * @property {string} fill
 * @property {string} hatch
 */

/**
 * Draw into a canvas whose backing store is `width × height` CSS pixels times `ratio`.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {{width: number, height: number, ratio: number}} size
 * @param {Spark} spark
 * @param {number} now relative ns
 * @param {{style: SparkStyle, gapNs: number, minimumSpan: number}} options
 */
export function drawSpark(context, { width, height, ratio }, spark, now, { style, gapNs, minimumSpan }) {
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const points = spark.points(now);
  const right = width - 3;
  const x = (/** @type {number} */ slot) => right - ((now - (slot + 0.5) * SLOT) / SPAN) * right;
  const last = points.at(-1);
  const silent = last ? now - (last.slot + 1) * SLOT : Infinity;
  if (silent > gapNs) hatch(context, last ? Math.max(0, x(last.slot)) : 0, width, height, style.hatch);
  if (!last) return;
  const y = scale(points, height, minimumSpan);
  context.lineWidth = 1.25;
  context.lineJoin = "round";
  context.strokeStyle = context.fillStyle = style.line;
  for (const run of runs(points, gapNs)) drawRun(context, run, x, y, height, style);
  context.beginPath();
  context.arc(Math.min(right, x(last.slot)), y(last.value), 1.9, 0, 7);
  context.fillStyle = style.line;
  context.fill();
}

/** @param {{slot: number, value: number}[]} points @param {number} height @param {number} minimumSpan */
function scale(points, height, minimumSpan) {
  let [low, high] = [Infinity, -Infinity];
  for (const { value } of points) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const span = Math.max(high - low, minimumSpan, Math.abs(high) * 1e-4) || 1;
  const bottom = (low + high - span) / 2;
  return (/** @type {number} */ value) => height - 4 - ((value - bottom) / span) * (height - 8);
}

/** @param {{slot: number, value: number}[]} points @param {number} gapNs */
function runs(points, gapNs) {
  const gap = Math.max(1, gapNs / SLOT);
  /** @type {{slot: number, value: number}[][]} */
  const found = [];
  for (const point of points) {
    const run = found.at(-1);
    const before = run?.at(-1);
    if (run && before && point.slot - before.slot <= gap) run.push(point);
    else found.push([point]);
  }
  return found;
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {{slot: number, value: number}[]} run
 * @param {(slot: number) => number} x
 * @param {(value: number) => number} y
 * @param {number} height
 * @param {SparkStyle} style
 */
function drawRun(context, run, x, y, height, style) {
  context.beginPath();
  run.forEach((point, i) => (i ? context.lineTo(x(point.slot), y(point.value)) : context.moveTo(x(point.slot), y(point.value))));
  context.strokeStyle = style.line;
  context.stroke();
  context.lineTo(x(run[run.length - 1].slot), height);
  context.lineTo(x(run[0].slot), height);
  context.fillStyle = style.fill;
  context.fill();
}

/** @param {CanvasRenderingContext2D} context @param {number} from @param {number} to @param {number} height @param {string} color */
function hatch(context, from, to, height, color) {
  context.save();
  context.beginPath();
  context.rect(from, 4, to - from, height - 4);
  context.clip();
  context.strokeStyle = color;
  context.lineWidth = 1;
  context.beginPath();
  for (let x = from - height; x < to; x += 5) {
    context.moveTo(x, height);
    context.lineTo(x + height, 0);
  }
  context.stroke();
  context.restore();
}
