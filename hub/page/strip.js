/**
 * The strip below the charts: the last 24 hours of one channel as a min–max envelope, and on it the
 * window that the charts show. Drag it, draw a new one, or use the arrow keys.
 */

import { tickTexts, timeTicks } from "./axis.js";
import { HOUR, MINUTE, SECOND } from "./clock.js";
import { setAttribute, setText, sizeCanvas } from "./dom.js";
import { windowText, ZONE } from "./format.js";
import { font } from "./paint.js";
import { withAlpha } from "./palette.js";

export const STRIP_SPAN = 24 * HOUR;
const HEIGHT = 54;
const AXIS = 18;
const LEAST_DRAG_PX = 4;
const LEAST_WINDOW = 5 * SECOND;

export class Strip {
  /**
   * @param {{root: HTMLElement, canvas: HTMLCanvasElement, title: HTMLElement, window: HTMLElement}} parts
   * @param {(from: number, to: number) => void} onSelect
   */
  constructor({ root, canvas, title, window }, onSelect) {
    this._root = root;
    this._canvas = canvas;
    this._title = title;
    this._label = window;
    this._onSelect = onSelect;
    this._width = 0;
    this._end = NaN;
    this._drawnAt = -Infinity;
    /** @type {[number, number]} */
    this._window = [0, 0];
    /** @type {{x: number, isMove: boolean, window: [number, number]} | null} */
    this._drag = null;
    new ResizeObserver(([entry]) => {
      this._width = Math.floor(entry.contentRect.width);
      this._drawnAt = -Infinity;
    }).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => this._down(event));
    canvas.addEventListener("pointermove", (event) => this._drag && this._move(event));
    canvas.addEventListener("pointerup", (event) => this._up(event));
    canvas.addEventListener("pointercancel", () => (this._drag = null));
    canvas.addEventListener("keydown", (event) => this._key(event));
  }

  invalidate() {
    this._drawnAt = -Infinity;
  }

  /**
   * @param {import("./card.js").Scene} scene
   * @param {import("./fleet.js").Channel} channel
   * @param {number} index colour of the channel
   * @param {[number, number]} window
   */
  render({ feed, now, palette }, channel, index, window) {
    const moved = window[0] !== this._window[0] || window[1] !== this._window[1];
    if (this._drag || !this._width || now - this._drawnAt < (moved ? SECOND / 4 : 5 * SECOND)) return;
    const envelope = feed.liveEnvelope(STRIP_SPAN);
    // The strip asks again soon while it waits for its data.
    this._drawnAt = envelope ? now : now - 4.8 * SECOND;
    this._end = now;
    this._window = window;
    setText(this._title, `Last 24 h · ${channel.label} · min–max envelope`);
    setText(this._label, `${windowText(window[0], window[1])} · ${ZONE}`);
    setAttribute(this._canvas, "aria-valuetext", windowText(window[0], window[1]));
    setAttribute(this._canvas, "aria-valuenow", String(Math.round(((window[1] - now) / STRIP_SPAN + 1) * 100)));
    const { buffer } = feed.track(channel.channel);
    const interval = channel.every_s ? channel.every_s * SECOND : buffer.interval();
    this._view = envelope?.view(channel.channel, buffer, interval) ?? null;
    this._color = palette.series[index % palette.series.length];
    this._palette = palette;
    this._draw();
  }

  _draw() {
    if (!this._palette) return;
    const context = sizeCanvas(this._canvas, this._width, HEIGHT);
    context.clearRect(0, 0, this._width, HEIGHT);
    const height = HEIGHT - AXIS;
    context.fillStyle = withAlpha(this._palette.text, 0.03);
    context.beginPath();
    context.roundRect(0, 0, this._width, height, 4);
    context.fill();
    if (this._view?.times.length) this._drawEnvelope(context, this._view, height);
    this._drawAxis(context);
    this._drawWindow(context, height);
  }

  /** @param {CanvasRenderingContext2D} context @param {import("./view.js").View} view @param {number} height */
  _drawEnvelope(context, { times, values, min = values, max = values, gap }, height) {
    let [low, high] = [Infinity, -Infinity];
    for (let i = 0; i < times.length; i++) {
      if (min[i] < low) low = min[i];
      if (max[i] > high) high = max[i];
    }
    const span = high - low || 1;
    const y = (/** @type {number} */ value) => height - 5 - ((value - low) / span) * (height - 10);
    const color = this._color ?? "";
    for (let start = 0; start < times.length; ) {
      let end = start + 1;
      while (end < times.length && times[end] - times[end - 1] <= gap) end++;
      const band = new Path2D();
      const line = new Path2D();
      for (let i = start; i < end; i++) {
        const x = this._x(times[i]);
        if (i === start) [band.moveTo(x, y(max[i])), line.moveTo(x, y(values[i]))];
        else [band.lineTo(x, y(max[i])), line.lineTo(x, y(values[i]))];
      }
      for (let i = end - 1; i >= start; i--) band.lineTo(this._x(times[i]), y(min[i]));
      context.fillStyle = withAlpha(color, 0.25);
      context.fill(band);
      context.strokeStyle = withAlpha(color, 0.85);
      context.lineWidth = 1;
      context.stroke(line);
      start = end;
    }
  }

  /** @param {CanvasRenderingContext2D} context */
  _drawAxis(context) {
    const { step, ticks } = timeTicks(this._end - STRIP_SPAN, this._end, this._width, 92);
    context.font = font(1, 450);
    context.fillStyle = this._palette?.text3 ?? "";
    context.textAlign = "center";
    context.textBaseline = "bottom";
    tickTexts(ticks, step, true).forEach((text, i) => {
      const words = text.split("\n").reverse().join(", ");
      const half = context.measureText(words).width / 2;
      // Labels at the ends move inwards rather than being cut.
      const x = Math.min(this._width - half, Math.max(half, this._x(ticks[i])));
      context.fillText(words, x, HEIGHT);
    });
  }

  /** @param {CanvasRenderingContext2D} context @param {number} height */
  _drawWindow(context, height) {
    if (!this._palette) return;
    const left = Math.max(1, this._x(this._window[0]));
    const right = Math.min(this._width - 1, this._x(this._window[1]));
    if (right < 0 || left > this._width) return;
    const width = Math.max(3, right - left);
    const x = Math.min(left, this._width - 1 - width);
    context.fillStyle = withAlpha(this._palette.accent, 0.1);
    context.fillRect(x, 1, width, height - 2);
    context.strokeStyle = this._palette.accent;
    context.lineWidth = 1.5;
    context.beginPath();
    context.roundRect(x, 1, width, height - 2, 3);
    context.stroke();
  }

  /** @param {number} time */
  _x(time) {
    return (1 - (this._end - time) / STRIP_SPAN) * this._width;
  }

  /** @param {number} x @returns {number} */
  _time(x) {
    return this._end - (1 - Math.min(1, Math.max(0, x / this._width))) * STRIP_SPAN;
  }

  /** @param {PointerEvent} event */
  _down(event) {
    const [left, right] = this._window.map((time) => this._x(time));
    const isMove = right - left > 2 * LEAST_DRAG_PX && event.offsetX >= left && event.offsetX <= right;
    this._drag = { x: event.offsetX, isMove, window: this._window };
    this._canvas.setPointerCapture(event.pointerId);
  }

  /** @param {PointerEvent} event */
  _move(event) {
    if (!this._drag) return;
    const { x, isMove, window } = this._drag;
    if (isMove) this._window = this._kept(window, this._time(event.offsetX) - this._time(x));
    else {
      const [a, b] = [this._time(Math.min(x, event.offsetX)), this._time(Math.max(x, event.offsetX))];
      this._window = [a, Math.max(b, a + LEAST_WINDOW)];
    }
    this._draw();
  }

  /** @param {PointerEvent} event */
  _up(event) {
    const drag = this._drag;
    this._drag = null;
    if (!drag) return;
    if (Math.abs(event.offsetX - drag.x) < LEAST_DRAG_PX) {
      if (drag.isMove) return;
      const middle = (drag.window[0] + drag.window[1]) / 2;
      this._window = this._kept(drag.window, this._time(drag.x) - middle);
    }
    this._onSelect(this._window[0], this._window[1]);
  }

  /** @param {KeyboardEvent} event */
  _key(event) {
    const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!direction) return;
    event.preventDefault();
    event.stopPropagation();
    const step = Math.max(MINUTE / 2, (this._window[1] - this._window[0]) / 4);
    this._window = this._kept(this._window, direction * step);
    this._onSelect(this._window[0], this._window[1]);
    this._draw();
  }

  /** Move a window, but keep it on the strip. @param {[number, number]} window @param {number} by @returns {[number, number]} */
  _kept([from, to], by) {
    const most = this._end - to;
    const least = this._end - STRIP_SPAN - from;
    const moved = Math.min(most, Math.max(Math.min(least, 0), by));
    return [from + moved, to + moved];
  }
}
