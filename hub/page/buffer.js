/**
 * The newest readings of one series, ordered by time, in bounded memory.
 *
 * Owns: upsert by time (the same instant twice is one reading, the later wins) and the limit.
 * Times and values lie side by side in typed arrays without wrap-around, so a chart draws
 * straight from a view of them.
 */

const FIRST_CAPACITY = 1024;

/**
 * @param {Float64Array} times ascending
 * @param {number} start
 * @param {number} end
 * @param {number} instant
 * @returns {number} first index in [start, end) whose time is not before `instant`
 */
export function lowerBound(times, start, end, instant) {
  let [low, high] = [start, end];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (times[middle] < instant) low = middle + 1;
    else high = middle;
  }
  return low;
}

export class SeriesBuffer {
  /** @param {number} limit most readings kept */
  constructor(limit) {
    this.limit = limit;
    this.times = new Float64Array(Math.min(FIRST_CAPACITY, limit * 2));
    this.values = new Float64Array(this.times.length);
    this.start = 0;
    this.end = 0;
    /** Grows with every change; a chart compares it to know whether to draw. */
    this.revision = 0;
    /** Readings before this instant were forgotten. */
    this.forgotten = -Infinity;
  }

  get length() {
    return this.end - this.start;
  }

  /** @returns {number} time of the newest reading, NaN when empty */
  get lastTime() {
    return this.end > this.start ? this.times[this.end - 1] : NaN;
  }

  /** @returns {number} newest reading, NaN when empty */
  get lastValue() {
    return this.end > this.start ? this.values[this.end - 1] : NaN;
  }

  /**
   * Insert or replace the reading at `time`.
   *
   * @param {number} time relative ns
   * @param {number} value
   * @returns {boolean} whether there was no reading at that instant yet
   */
  upsert(time, value) {
    this.revision++;
    if (this.end === this.start || time > this.times[this.end - 1]) {
      if (this.end === this.times.length) this._makeRoom();
      this.times[this.end] = time;
      this.values[this.end++] = value;
      return true;
    }
    const at = lowerBound(this.times, this.start, this.end, time);
    if (this.times[at] === time) {
      this.values[at] = value;
      return false;
    }
    if (time <= this.forgotten) return false;
    return this._insert(time, value);
  }

  /** Forget everything before `time`. @param {number} time relative ns */
  trim(time) {
    const at = lowerBound(this.times, this.start, this.end, time);
    if (at === this.start) return;
    this.start = at;
    this.forgotten = Math.max(this.forgotten, time);
  }

  clear() {
    this.start = this.end = 0;
    this.forgotten = -Infinity;
    this.revision++;
  }

  /**
   * Index range that draws [from, to]: one reading more on each side, so that lines reach the edges.
   *
   * @param {number} from relative ns
   * @param {number} to relative ns
   * @returns {[number, number]}
   */
  range(from, to) {
    const first = Math.max(this.start, lowerBound(this.times, this.start, this.end, from) - 1);
    return [first, Math.min(this.end, lowerBound(this.times, first, this.end, to) + 1)];
  }

  /**
   * The usual distance between readings.
   *
   * @returns {number} median of the newest steps in ns, NaN with fewer than three readings
   */
  interval() {
    if (this.length < 3) return NaN;
    const first = Math.max(this.start + 1, this.end - 64);
    const steps = [];
    for (let i = first; i < this.end; i++) steps.push(this.times[i] - this.times[i - 1]);
    steps.sort((a, b) => a - b);
    return steps[steps.length >> 1];
  }

  /** @param {number} time @param {number} value */
  _insert(time, value) {
    if (this.end === this.times.length) this._makeRoom();
    const at = lowerBound(this.times, this.start, this.end, time);
    this.times.copyWithin(at + 1, at, this.end);
    this.values.copyWithin(at + 1, at, this.end);
    this.times[at] = time;
    this.values[at] = value;
    this.end++;
    return true;
  }

  /** Grow, or move to the front; drops the oldest beyond the limit. Amortised O(1) per reading. */
  _makeRoom() {
    if (this.length >= this.limit) {
      this.start = this.end - Math.floor(this.limit * 0.9);
      this.forgotten = this.times[this.start - 1];
    }
    const capacity = this.length * 2 > this.times.length ? Math.min(this.times.length * 2, this.limit * 2) : this.times.length;
    const [times, values] = capacity > this.times.length ? [new Float64Array(capacity), new Float64Array(capacity)] : [this.times, this.values];
    times.set(this.times.subarray(this.start, this.end));
    values.set(this.values.subarray(this.start, this.end));
    [this.times, this.values, this.end, this.start] = [times, values, this.length, 0];
  }
}
