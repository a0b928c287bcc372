/**
 * Which stretch of time is shown: live (its end follows the hub's clock) or frozen. Pure.
 */

import { HOUR, MINUTE } from "./clock.js";

/** @type {Record<string, number>} */
export const RANGES = { "1m": MINUTE, "5m": 5 * MINUTE, "15m": 15 * MINUTE, "1h": HOUR, "24h": 24 * HOUR };
export const DEFAULT_RANGE = "15m";

export class Viewport {
  constructor() {
    this.range = DEFAULT_RANGE;
    /** @type {[number, number] | null} */
    this.frozen = null;
  }

  get isPaused() {
    return this.frozen !== null;
  }

  /** @returns {number} length in ns */
  get span() {
    return this.frozen ? this.frozen[1] - this.frozen[0] : RANGES[this.range];
  }

  /** @returns {boolean} whether a frozen window is one of the ranges rather than a zoom */
  get isZoomed() {
    return this.frozen !== null && Math.abs(this.span - RANGES[this.range]) > 1e6;
  }

  /**
   * @param {number} now relative ns
   * @param {number} pixels width of a chart; the live window moves in whole pixels, so that lines do not shimmer
   * @returns {[number, number]}
   */
  window(now, pixels) {
    if (this.frozen) return this.frozen;
    const pixel = this.span / Math.max(1, pixels);
    const end = Math.floor(now / pixel) * pixel;
    return [end - this.span, end];
  }

  /** @param {string} range one of RANGES; a frozen window keeps its end */
  setRange(range) {
    this.range = range;
    if (this.frozen) this.frozen = [this.frozen[1] - RANGES[range], this.frozen[1]];
  }

  /** @param {number} from @param {number} to */
  freeze(from, to) {
    this.frozen = [from, to];
  }

  thaw() {
    this.frozen = null;
  }
}
