/**
 * The card of one channel: title, summary or the value under the crosshair, and its chart.
 *
 * Owns: when a chart is drawn. A live chart is drawn when its window has moved by a pixel or, at most
 * once a second, when data changed: the work follows the screen, not the data rate.
 */

import { SECOND } from "./clock.js";
import { element, setAttribute, setText } from "./dom.js";
import { isNumeric } from "./fleet.js";
import { clockText, dayText, decimalsFor, numberText, unitText, valueText } from "./format.js";
import { namesDays, Plot } from "./plot.js";
import { frozenView, summarize } from "./view.js";

const REDRAW = SECOND;
/** While history is still arriving it is shown as it comes. */
const REDRAW_JOINING = SECOND / 8;

/**
 * @typedef {object} Scene what all cards are drawn from
 * @property {import("./feed.js").Feed} feed
 * @property {import("./viewport.js").Viewport} viewport
 * @property {number} now relative ns
 * @property {boolean} isConnected
 * @property {import("./palette.js").Palette} palette
 */

export class Card {
  /**
   * @param {import("./fleet.js").Channel} channel
   * @param {number} index position, which chooses the colour
   * @param {{onSelect: (from: number, to: number) => void, onReset: () => void}} actions
   */
  constructor(channel, index, actions) {
    this.channel = channel;
    this._index = index;
    this._actions = actions;
    this._stats = element("p", { class: "stats" });
    this._body = element("div", { class: "plot", role: "img" });
    this._empty = element("p", { class: "empty" });
    this._empty.hidden = true;
    const title = element("h3", {}, channel.label);
    if (unitText(channel)) title.append(element("span", { class: "unit" }, unitText(channel)));
    this.root = element("article", { class: "card" }, element("header", {}, title, this._stats), this._body);
    this._body.append(this._empty);
    /** @type {Plot | null} */
    this._plot = null;
    this._mode = "";
    /** @type {import("./view.js").View | null} */
    this._view = null;
    /** @type {import("./view.js").View | null} */
    this._frozen = null;
    this._frozenKey = "";
    this._drawnEnd = NaN;
    this._drawnAt = -Infinity;
    this._drawnRevision = -1;
    this._wasLive = false;
    this._size = { width: 0, height: 0 };
    this._told = "";
    /** @type {number | null} */
    this._cursor = null;
    /** @type {import("./view.js").Summary | null} */
    this.summary = null;
    this._observer = new ResizeObserver((entries) => this._resized(entries[0].contentRect));
    this._observer.observe(this._body);
  }

  destroy() {
    this._observer.disconnect();
    this._plot?.destroy();
    this.root.remove();
  }

  /** Draw anew at the next chance, e.g. because colours changed. */
  invalidate() {
    this._plot?.destroy();
    this._plot = null;
    this._mode = "";
    this._drawnEnd = NaN;
  }

  /** Draw the same again at the next chance, e.g. without the live dot. */
  redraw() {
    this._drawnEnd = NaN;
  }

  /** @param {Scene} scene */
  render(scene) {
    if (!isNumeric(this.channel) && this.channel.type !== "bool") return this._renderTexts(scene);
    const { viewport, feed, now } = scene;
    if (!this._size.width) return;
    const window = viewport.window(now, this._plot?.width ?? this._size.width);
    if (!this._isDue(scene, window)) return;
    const view = this._viewOf(scene, window);
    this._drawnAt = now;
    this._drawnRevision = this._revision(feed);
    this._wasLive = feed.isLive;
    if (!view) return this._wait();
    this._drawnEnd = window[1] + window[0];
    this._view = view;
    this.summary = summarize(view, window[0], window[1]);
    this._prepare(scene, view, window);
    this._plot?.draw(view, window, !viewport.isPaused && scene.isConnected && view.kind === "raw");
    this._tell(window);
  }

  /** @param {Scene} scene @param {[number, number]} window */
  _isDue({ feed, viewport, now }, window) {
    if (window[0] + window[1] !== this._drawnEnd) return true;
    if (viewport.isPaused && this._frozenKey === window.join(" ")) return false;
    if (this._revision(feed) === this._drawnRevision) return false;
    // The end of history is drawn at once: what was drawn before it may lack the newest minutes.
    if (feed.isLive !== this._wasLive) return true;
    return now - this._drawnAt > (feed.isLive ? REDRAW : REDRAW_JOINING);
  }

  /** @param {import("./feed.js").Feed} feed */
  _revision(feed) {
    return feed.track(this.channel.channel).buffer.revision + feed.revision * 1e9 + (feed.isLive ? 0.5 : 0);
  }

  /** @param {Scene} scene @param {[number, number]} window @returns {import("./view.js").View | null} */
  _viewOf({ feed, viewport }, window) {
    if (!viewport.isPaused) {
      this._frozenKey = "";
      return feed.view(this.channel, window[0], window[1], true);
    }
    // A paused window shows the same readings for ever, also when the live buffer has moved on.
    const key = window.join(" ");
    if (key !== this._frozenKey) {
      const view = feed.view(this.channel, window[0], window[1], false);
      // History that is still arriving is shown, but not yet kept.
      if (!view || (view.kind === "raw" && !feed.isLive)) return view;
      [this._frozen, this._frozenKey] = [frozenView(view), key];
    }
    return this._frozen;
  }

  /** @param {Scene} scene @param {import("./view.js").View} view @param {[number, number]} window */
  _prepare({ palette }, view, window) {
    const mode = `${view.kind} ${namesDays(window)} ${this.channel.unit} ${this.channel.type}`;
    if (mode === this._mode && this._plot) return;
    this._plot?.destroy();
    this._mode = mode;
    this._plot = new Plot(this._body, this._size, {
      channel: this.channel,
      color: palette.series[this._index % palette.series.length],
      palette,
      isEnvelope: view.kind === "envelope",
      hasDays: namesDays(window),
      onSelect: this._actions.onSelect,
      onReset: this._actions.onReset,
      onCursor: (index) => {
        this._cursor = index;
        this._tellStats();
      },
    });
  }

  _wait() {
    this._drawnEnd = NaN;
    setAttribute(this._body, "data-waiting", "");
  }

  /** @param {[number, number]} window */
  _tell(window) {
    setAttribute(this._body, "data-waiting", null);
    this._empty.hidden = this.summary !== null;
    if (!this.summary) setText(this._empty, this._emptyText());
    this._tellStats();
    setAttribute(this._body, "aria-label", this._description(window));
  }

  _emptyText() {
    const { value, time } = this.channel;
    if (value == null) return "No readings yet";
    const { text, unit } = valueText(value, this.channel);
    return `No readings in this range. Last: ${text}${unit ? ` ${unit}` : ""} on ${dayText(time)} at ${clockText(time)}`;
  }

  _tellStats() {
    const parts = this._statParts();
    // Most draws change no digit; then the document is left alone.
    if (parts.join("|") === this._told) return;
    this._told = parts.join("|");
    this._stats.replaceChildren(...parts.map((part, i) => (i % 2 ? element("b", {}, part) : part)));
  }

  /** @returns {string[]} plain and bold text in turn */
  _statParts() {
    const view = this._view;
    const at = this._cursor;
    if (view && at !== null && at < view.times.length) {
      const isLong = namesDays([view.times[0], view.times[view.times.length - 1]]);
      const { text, unit } = valueText(view.values[at], this.channel);
      const spread = view.min && view.max ? ` (${this._number(view.min[at])} – ${this._number(view.max[at])})` : "";
      const time = `${isLong ? `${dayText(view.times[at])}, ` : ""}${clockText(view.times[at])} `;
      return [time, `${text}${unit ? ` ${unit}` : ""}`, spread];
    }
    const summary = this.summary;
    if (!summary || this.channel.type === "bool") return [];
    return ["min ", this._number(summary.min), " · avg ", this._number(summary.avg), " · max ", this._number(summary.max)];
  }

  /** @param {number} value */
  _number(value) {
    const size = Math.max(Math.abs(value), Math.abs(this.summary?.max ?? 0));
    if (unitText(this.channel) === "B") {
      const { text, unit } = valueText(value, this.channel, 1);
      return `${text} ${unit}`;
    }
    return numberText(value, decimalsFor(size, { ...this.channel, type: null }, 1));
  }

  /** @param {[number, number]} window */
  _description(window) {
    const name = `${this.channel.label} from ${clockText(window[0], false)} to ${clockText(window[1], false)}`;
    if (!this.summary) return `${name}: no readings`;
    const { min, avg, max } = this.summary;
    const unit = unitText(this.channel);
    return `${name}: minimum ${this._number(min)}, average ${this._number(avg)}, maximum ${this._number(max)}${unit ? ` ${unit}` : ""}`;
  }

  /** A channel of words has no line; its newest changes are listed. @param {Scene} scene */
  _renderTexts({ feed, now }) {
    const { texts } = feed.track(this.channel.channel);
    if (texts.length === this._drawnRevision || now - this._drawnAt < REDRAW) return;
    this._drawnRevision = texts.length;
    this._drawnAt = now;
    const changes = texts.filter(({ text }, i) => i === 0 || text !== texts[i - 1].text).slice(-12).reverse();
    const list = element("ol", { class: "changes" });
    for (const { time, text } of changes) list.append(element("li", {}, element("time", {}, clockText(time)), text));
    this._body.replaceChildren(list);
  }

  /** @param {DOMRectReadOnly} rect */
  _resized({ width, height }) {
    this._size = { width: Math.floor(width), height: Math.floor(height) };
    if (this._size.width && this._size.height) this._plot?.resize(this._size);
    this._drawnEnd = NaN;
  }
}
