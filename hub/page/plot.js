/**
 * One uPlot chart of one channel: scales, axes, gaps, cursor. Knows views, not where they come from.
 */

import uPlotModule from "./vendor/uPlot.esm.js";
import { tickTexts, timeTicks } from "./axis.js";
import { HOUR } from "./clock.js";
import { limitText, minimumSpan, numberText } from "./format.js";
import { withAlpha } from "./palette.js";
import { font, paintAlertZone, paintDots, paintGap, paintLiveDot } from "./paint.js";
import { gapsOf, isolated } from "./view.js";

/** The module has no types of its own. @type {any} */
const uPlot = uPlotModule;

/** The y axis changes only when data leaves it or fills less than this part of it: it must not breathe. */
const LOOSE = 0.45;
const PADDING = 0.12;
const RIGHT = 16;
const X_HEIGHT = 28;
const X_HEIGHT_DAYS = 42;
const Y_WIDTH = 46;
/** A drag shorter than this is a click. */
const LEAST_DRAG_PX = 6;

/**
 * @typedef {object} PlotOptions
 * @property {import("./fleet.js").Channel} channel
 * @property {string} color
 * @property {import("./palette.js").Palette} palette
 * @property {boolean} isEnvelope
 * @property {boolean} hasDays whether the time axis names days
 * @property {(from: number, to: number) => void} onSelect
 * @property {() => void} onReset
 * @property {(index: number | null) => void} onCursor
 */

export class Plot {
  /**
   * @param {HTMLElement} parent
   * @param {{width: number, height: number}} size
   * @param {PlotOptions} options
   */
  constructor(parent, size, options) {
    this._options = options;
    /** @type {[number, number]} */
    this._window = [0, 1];
    /** @type {import("./view.js").Gap[]} */
    this._gaps = [];
    /** @type {import("./view.js").View | null} */
    this._view = null;
    this._isLive = false;
    /** @type {[number, number] | null} */
    this._span = null;
    this._plot = new uPlot(this._settings(size), this._data(null), parent);
  }

  /** @returns {number} width of the plotting area in CSS px */
  get width() {
    return this._plot.over.clientWidth || this._plot.width - Y_WIDTH - RIGHT;
  }

  /** @param {{width: number, height: number}} size */
  resize(size) {
    if (size.width !== this._plot.width || size.height !== this._plot.height) this._plot.setSize(size);
  }

  /**
   * @param {import("./view.js").View} view
   * @param {[number, number]} window
   * @param {boolean} isLive draw the live dot
   */
  draw(view, window, isLive) {
    [this._view, this._window, this._isLive] = [view, window, isLive];
    this._gaps = gapsOf(view, window[0], window[1]);
    const plot = this._plot;
    plot.batch(() => {
      plot.setData(this._data(view), false);
      plot.setScale("x", { min: window[0], max: window[1] });
    });
  }

  destroy() {
    this._plot.destroy();
  }

  /** @param {import("./view.js").View | null} view */
  _data(view) {
    const { isEnvelope } = this._options;
    const none = new Float64Array(0);
    if (!view) return isEnvelope ? [none, none, none, none] : [none, none];
    return isEnvelope ? [view.times, view.values, view.min, view.max] : [view.times, view.values];
  }

  /** @param {{width: number, height: number}} size */
  _settings({ width, height }) {
    const { palette, hasDays } = this._options;
    return {
      width,
      height,
      padding: [10, RIGHT, 0, 0],
      legend: { show: false },
      cursor: this._cursor(),
      scales: {
        x: { time: false, auto: false, range: () => this._window },
        y: { range: (/** @type {any} */ _, /** @type {number} */ low, /** @type {number} */ high) => this._range(low, high) },
      },
      axes: [
        {
          ...axisStyle(palette),
          size: hasDays ? X_HEIGHT_DAYS : X_HEIGHT,
          grid: { show: false },
          incrs: (/** @type {any} */ _, /** @type {number} */ __, /** @type {number} */ low, /** @type {number} */ high) => [(high - low) / 4],
          splits: () => this._ticks().ticks,
          values: (/** @type {any} */ _, /** @type {number[]} */ ticks) => tickTexts(ticks, this._ticks().step, hasDays),
        },
        {
          ...axisStyle(palette),
          size: Y_WIDTH,
          space: 34,
          grid: { stroke: palette.grid, width: 1 },
          values: (/** @type {any} */ _, /** @type {number[]} */ ticks) => yTexts(ticks, this._options.channel.type),
        },
      ],
      series: [{}, ...this._series()],
      bands: this._options.isEnvelope ? [{ series: [3, 2], fill: withAlpha(this._options.color, 0.25) }] : [],
      hooks: {
        drawAxes: [() => this._drawBehind()],
        draw: [() => this._drawInFront()],
        setSelect: [() => this._selected()],
        setCursor: [() => this._moved()],
      },
    };
  }

  _series() {
    const { color, isEnvelope, channel } = this._options;
    const common = { points: { show: false }, gaps: () => this._pixelGaps(), scale: "y" };
    const line = { ...common, stroke: color, width: 1.5, paths: channel.type === "bool" ? uPlot.paths.stepped?.({ align: 1 }) : undefined };
    if (!isEnvelope) return [{ ...line, fill: gradient(color), fillTo: (/** @type {any} */ plot) => plot.scales.y.min }];
    const edge = { ...common, stroke: "transparent", width: 0 };
    return [line, edge, edge];
  }

  _cursor() {
    const { color, palette, onReset } = this._options;
    return {
      x: true,
      y: false,
      drag: { x: true, y: false, setScale: false, dist: LEAST_DRAG_PX },
      // Only the line has a dot under the crosshair, the edges of an envelope have none.
      points: {
        size: (/** @type {any} */ _, /** @type {number} */ i) => (i === 1 ? 9 : 0),
        width: (/** @type {any} */ _, /** @type {number} */ i) => (i === 1 ? 2 : 0),
        stroke: palette.surface,
        fill: color,
      },
      bind: {
        dblclick: () => () => {
          onReset();
          return null;
        },
      },
      // Only the crosshair is shared; a selection belongs to the chart it was drawn in.
      sync: { key: "watch", scales: ["x", null], filters: { pub: (/** @type {string} */ type) => type === "mousemove" || type === "mouseleave" } },
    };
  }

  _ticks() {
    const [from, to] = this._window;
    const { step, ticks } = timeTicks(from, to, this.width);
    // A label is centred on its tick: near the right edge it would be cut off.
    const room = ((to - from) / this.width) * Math.max(0, (step < 60e9 ? 26 : 18) - RIGHT);
    return { step, ticks: ticks.filter((tick) => tick <= to - room) };
  }

  /** @param {number | null} low @param {number | null} high @returns {[number, number]} */
  _range(low, high) {
    const { unit, type, range } = this._options.channel;
    if (type === "bool") return [-0.15, 1.15];
    if (low == null || high == null || !Number.isFinite(low)) return this._span ?? [0, 1];
    let [bottom, top] = [low, high];
    const near = Math.max(top - bottom, minimumSpan(unit));
    // Show the limit once the data comes near it.
    if (range && range[1] > top && range[1] - top < 0.35 * near) top = range[1];
    if (range && range[0] < bottom && bottom - range[0] < 0.35 * near) bottom = range[0];
    const least = Math.max(minimumSpan(unit), Math.abs(top) * 1e-3) || 1;
    const span = Math.max(top - bottom, least);
    const kept = this._span;
    if (kept && kept[0] <= bottom && kept[1] >= top && span > LOOSE * (kept[1] - kept[0])) return kept;
    const middle = (bottom + top) / 2;
    const half = (span / 2) * (1 + 2 * PADDING);
    // Where nothing is negative, the axis does not pretend it could be.
    const floor = low >= 0 && middle - half < 0 ? 0 : middle - half;
    const isShare = unit === "%" || unit === "%RH";
    this._span = [floor, isShare && high <= 100 ? Math.min(100, middle + half) : middle + half];
    return this._span;
  }

  _pixelGaps() {
    return this._gaps.map(({ from, to }) => [this._x(from), this._x(to)]);
  }

  /** @param {number} time @returns {number} canvas px */
  _x(time) {
    return this._plot.valToPos(time, "x", true);
  }

  _drawBehind() {
    const { ctx, bbox } = this._plot;
    const { channel, palette } = this._options;
    const ratio = uPlot.pxRatio;
    if (!this._view) return;
    if (channel.range && channel.type !== "bool") {
      const [low, high] = channel.range;
      for (const [limit, isAbove] of /** @type {[number, boolean][]} */ ([[low, false], [high, true]])) {
        const text = `alert ${isAbove ? "above" : "below"} ${limitText(limit, channel)}`;
        paintAlertZone(ctx, bbox, { y: this._plot.valToPos(limit, "y", true), isAbove, text, palette, ratio });
      }
    }
    for (const gap of this._gaps) {
      const left = this._x(gap.from);
      paintGap(ctx, { left, top: bbox.top, width: this._x(gap.to) - left, height: bbox.height }, { palette, ratio, isMissing: gap.kind === "gap" });
    }
  }

  _drawInFront() {
    const view = this._view;
    if (!view?.times.length) return;
    const { color } = this._options;
    const ratio = uPlot.pxRatio;
    const point = (/** @type {number} */ i) => /** @type {[number, number]} */ ([this._x(view.times[i]), this._plot.valToPos(view.values[i], "y", true)]);
    const inside = (/** @type {number} */ i) => view.times[i] >= this._window[0] && view.times[i] <= this._window[1];
    const lone = isolated(view).filter(inside);
    if (lone.length) paintDots(this._plot.ctx, lone.map(point), { color, ratio });
    const last = view.times.length - 1;
    if (!this._isLive || view.times[last] < this._window[0]) return;
    const [x, y] = point(last);
    paintLiveDot(this._plot.ctx, Math.min(x, this._plot.bbox.left + this._plot.bbox.width), y, { color, ratio });
  }

  _selected() {
    const { left, width } = this._plot.select;
    if (width < LEAST_DRAG_PX) return;
    const [from, to] = [left, left + width].map((px) => this._plot.posToVal(px, "x"));
    this._plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this._options.onSelect(from, to);
  }

  _moved() {
    const { left, idx } = this._plot.cursor;
    this._options.onCursor(left == null || left < 0 || idx == null ? null : idx);
  }
}

/** @param {import("./palette.js").Palette} palette */
function axisStyle(palette) {
  return { stroke: palette.text3, font: font(1, 450), gap: 8, ticks: { show: false }, border: { show: false } };
}

/** @param {string} color */
function gradient(color) {
  return (/** @type {any} */ plot) => {
    const { top, height } = plot.bbox;
    const fill = plot.ctx.createLinearGradient(0, top, 0, top + height);
    fill.addColorStop(0, withAlpha(color, 0.22));
    fill.addColorStop(1, withAlpha(color, 0));
    return fill;
  };
}

/** @param {number[]} ticks @param {string | null} type @returns {string[]} */
function yTexts(ticks, type) {
  if (type === "bool") return ticks.map((tick) => (tick === 0 ? "off" : tick === 1 ? "on" : ""));
  const step = ticks.length > 1 ? Math.abs(ticks[1] - ticks[0]) : 1;
  let decimals = 0;
  // A step of 0.25 needs two decimals, one of 0.5 or 20 fewer.
  while (decimals < 6 && Math.abs(step * 10 ** decimals - Math.round(step * 10 ** decimals)) > 1e-6 * step * 10 ** decimals) decimals++;
  const most = Math.max(...ticks.map(Math.abs));
  if (most >= 1e6) return ticks.map((tick) => tick.toExponential(1).replace("e+", "e"));
  return ticks.map((tick) => numberText(tick, decimals));
}

/** Whether a window is long enough for its axis to name days. @param {[number, number]} window @returns {boolean} */
export function namesDays([from, to]) {
  return to - from > 12 * HOUR;
}
