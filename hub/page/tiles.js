/** The tiles above the charts: the live value of up to four channels and where it lies in the range shown. */

import { element, setAttribute, setText } from "./dom.js";
import { alertText, isNumeric } from "./fleet.js";
import { decimalsFor, numberText, unitText, valueText } from "./format.js";

export const MOST_TILES = 4;

class Tile {
  /** @param {import("./fleet.js").Channel} channel @param {number} index */
  constructor(channel, index) {
    this.channel = channel;
    this._change = element("span", { class: "change" });
    this._range = element("span", { class: "range" });
    this._value = element("span", { class: "number" });
    this._unit = element("span", { class: "unit" });
    this._marker = element("i", { class: "marker" });
    this._fill = element("i", { class: "fill" });
    this._track = element("div", { class: "track", "aria-hidden": "true" }, this._fill, this._marker);
    this._low = element("span");
    this._high = element("span");
    this.root = element(
      "article",
      { class: `tile series${(index % 6) + 1}` },
      element("header", {}, element("i", { class: "swatch", "aria-hidden": "true" }), element("h3", {}, channel.label), this._change, this._range),
      element("p", { class: "value" }, this._value, this._unit),
      this._track,
      element("p", { class: "limits" }, this._low, this._high),
    );
  }

  /** @param {import("./view.js").Summary | null} summary @param {string} range */
  render(summary, range) {
    const { channel } = this;
    const { text, unit } = valueText(channel.value, channel);
    setText(this._value, text);
    setText(this._unit, unit);
    setAttribute(this.root, "data-alert", alertText(channel) ? "" : null);
    const drawn = summary && isNumeric(channel) ? summary : null;
    setAttribute(this._track, "data-empty", drawn ? null : "");
    if (!drawn) {
      for (const part of [this._change, this._range, this._high]) setText(part, "");
      const isSwitch = summary && channel.type === "bool";
      setText(this._low, isSwitch ? `on ${numberText(summary.avg * 100, 0)} % of ${range || "this window"}` : "");
      return;
    }
    const decimals = decimalsFor(Math.max(Math.abs(drawn.max), Math.abs(drawn.min)), channel, 1);
    const show = (/** @type {number} */ value) => (unitText(channel) === "B" ? wide(value, channel) : numberText(value, decimals));
    this._renderChange(drawn, decimals, range, show);
    setText(this._low, `${show(drawn.min)} min`);
    setText(this._high, `${show(drawn.max)} max`);
    const value = typeof channel.value === "number" ? channel.value : drawn.last;
    const part = drawn.max > drawn.min ? Math.min(1, Math.max(0, (value - drawn.min) / (drawn.max - drawn.min))) : 0.5;
    this._fill.style.width = this._marker.style.left = `${(part * 100).toFixed(1)}%`;
  }

  /** @param {import("./view.js").Summary} summary @param {number} decimals @param {string} range @param {(value: number) => string} show */
  _renderChange({ first, last }, decimals, range, show) {
    const change = last - first;
    const still = Math.abs(change) < 0.5 * 10 ** -decimals;
    const glyph = still ? "■" : change > 0 ? "▲" : "▼";
    const text = still ? "steady" : `${change > 0 ? "+" : "−"}${show(Math.abs(change))}`;
    setAttribute(this._change, "data-glyph", glyph);
    setText(this._change, text);
    setText(this._range, range ? `in ${range}` : "");
  }
}

export class Tiles {
  /** @param {HTMLElement} root */
  constructor(root) {
    this._root = root;
    /** @type {Tile[]} */
    this._tiles = [];
  }

  /** @param {import("./fleet.js").Channel[]} channels */
  build(channels) {
    this._tiles = channels.slice(0, MOST_TILES).map((channel, i) => new Tile(channel, i));
    this._root.replaceChildren(...this._tiles.map((tile) => tile.root));
    this._root.dataset.count = String(this._tiles.length);
  }

  /** @param {(import("./view.js").Summary | null)[]} summaries @param {string} range "" while zoomed */
  render(summaries, range) {
    this._tiles.forEach((tile, i) => tile.render(summaries[i] ?? null, range));
  }
}

/** @param {number} value @param {import("./fleet.js").Channel} channel */
function wide(value, channel) {
  const { text, unit } = valueText(value, channel, 1);
  return `${text} ${unit}`;
}
