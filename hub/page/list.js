/**
 * The rail's list of devices: only the rows in sight exist, so five thousand devices cost as much as fifty.
 *
 * Owns: rows, their recycling, and the choice by pointer and keyboard.
 */

import { SECOND } from "./clock.js";
import { element, pixelRatio, setAttribute, setText, sizeCanvas } from "./dom.js";
import { staleAfter, STATES } from "./fleet.js";
import { durationText, minimumSpan, rateText, valueText } from "./format.js";
import { withAlpha } from "./palette.js";
import { drawSpark, SLOT } from "./spark.js";

/** Rows kept beyond each edge of the view, so that a quick scroll meets no blank. */
const SPARE = 4;
const SPARK = { width: 104, height: 32 };
/** A sparkline moves one pixel in three seconds. */
const SPARK_EVERY = 1 * SECOND;

class Row {
  constructor() {
    this._glyph = element("span", { class: "glyph", "aria-hidden": "true" });
    this._name = element("span", { class: "name" });
    this._sub = element("span", { class: "sub" });
    this._canvas = element("canvas", { class: "spark", "aria-hidden": "true" });
    this._value = element("span", { class: "number" });
    this._unit = element("span", { class: "unit" });
    this.root = element(
      "li",
      { class: "row", role: "option" },
      this._glyph,
      element("span", { class: "who" }, this._name, this._sub),
      this._canvas,
      element("span", { class: "reading" }, this._value, this._unit),
    );
    /** @type {import("./fleet.js").Device | null} */
    this.device = null;
    this._drawnAt = -Infinity;
    this._drawnKey = "";
  }

  /** @param {import("./fleet.js").Device} device @param {number} index @param {number} total @param {boolean} isChosen @param {number} now */
  update(device, index, total, isChosen, now) {
    if (device !== this.device) this._drawnAt = -Infinity;
    this.device = device;
    const { glyph, word } = STATES[device.state];
    this.root.id = `device-${device.name}`;
    setAttribute(this.root, "data-state", device.state);
    setAttribute(this.root, "aria-selected", String(isChosen));
    setAttribute(this.root, "aria-posinset", String(index + 1));
    setAttribute(this.root, "aria-setsize", String(total));
    setText(this._glyph, glyph);
    setText(this._name, device.label);
    setText(this._sub, subText(device, now));
    const { text, unit } = device.lead ? valueText(device.lead.value, device.lead, 1) : { text: "–", unit: "" };
    setText(this._value, text);
    setText(this._unit, unit);
    setAttribute(this.root, "aria-label", `${device.label}, ${word}, ${device.lead?.label ?? ""} ${text} ${unit}`);
  }

  /** @param {number} now @param {import("./palette.js").Palette} palette @param {boolean} isKnown whether history was loaded: else empty means "not yet" */
  draw(now, palette, isKnown) {
    const device = this.device;
    if (!device) return;
    const key = `${device.name} ${device.state} ${palette.isDark} ${isKnown}`;
    if (key === this._drawnKey && now >= this._drawnAt && now - this._drawnAt < SPARK_EVERY) return;
    this._drawnAt = now;
    this._drawnKey = key;
    const line = palette[{ online: "accent", alert: "crit", stale: "warn", offline: "off" }[device.state]];
    const style = { line, fill: withAlpha(line, 0.14), hatch: withAlpha(device.state === "stale" ? palette.warn : palette.off, 0.35) };
    drawSpark(sizeCanvas(this._canvas, SPARK.width, SPARK.height), { ...SPARK, ratio: pixelRatio() }, device.spark, now, {
      style,
      gapNs: isKnown ? Math.max(staleAfter(device), 2 * SLOT) : Infinity,
      minimumSpan: minimumSpan(device.lead?.unit) / 2,
    });
  }
}

/** @param {import("./fleet.js").Device} device @param {number} now @returns {string} */
function subText(device, now) {
  if (device.state === "alert") return device.alert.replace(`${device.lead?.label} `, "");
  if (device.state !== "online") {
    return Number.isNaN(device.heard) ? "no readings yet" : `seen ${durationText((now - device.heard) / SECOND)} ago`;
  }
  const rate = rateText(device.rate).replace("readings", "").replace(" /", "/");
  return [device.site, device.lead?.label ?? "", rate].filter(Boolean).join(" · ");
}

export class DeviceList {
  /**
   * @param {HTMLElement} root scrolling list box
   * @param {(name: string) => void} choose
   */
  constructor(root, choose) {
    this._root = root;
    this._choose = choose;
    this._space = element("ul", { class: "space", role: "presentation" });
    root.append(this._space);
    /** @type {Row[]} */
    this._rows = [];
    /** @type {import("./fleet.js").Device[]} */
    this.devices = [];
    this.chosen = "";
    /** Whether the sparklines' past has been loaded. */
    this.areSparksKnown = false;
    this._rowHeight = 48;
    this._height = 0;
    this._isStale = true;
    this._mustReveal = false;
    new ResizeObserver(() => this._measure()).observe(root);
    root.addEventListener("scroll", () => (this._isStale = true), { passive: true });
    root.addEventListener("click", (event) => this._clicked(event));
    root.addEventListener("keydown", (event) => this._key(event));
  }

  /** Show these devices, in this order. @param {import("./fleet.js").Device[]} devices */
  show(devices) {
    const before = this._position();
    this.devices = devices;
    this._space.style.height = `${devices.length * this._rowHeight}px`;
    this._isStale = true;
    const after = this._position();
    // Rows that come or go above must not push the chosen one out of sight.
    const isSeen = before >= this._root.scrollTop && before < this._root.scrollTop + this._height;
    if (isSeen && after >= 0) this._root.scrollTop += after - before;
  }

  /** @returns {number} top of the chosen row in px, -1 when it is not in the list */
  _position() {
    const at = this.devices.findIndex((device) => device.name === this.chosen);
    return at < 0 ? -1 : at * this._rowHeight;
  }

  /** @param {string} name @param {boolean} [scroll] bring it into view */
  select(name, scroll = false) {
    this.chosen = name;
    this._isStale = true;
    this._mustReveal = scroll;
  }

  /** Move the choice by some rows. @param {number} by */
  move(by) {
    if (!this.devices.length) return;
    const at = this.devices.findIndex((device) => device.name === this.chosen);
    const next = at < 0 ? 0 : Math.min(this.devices.length - 1, Math.max(0, at + by));
    this._choose(this.devices[next].name);
    this._reveal();
  }

  /**
   * @param {number} now relative ns
   * @param {import("./palette.js").Palette} palette
   * @param {boolean} isChanged whether texts may have changed
   */
  render(now, palette, isChanged) {
    if (!this._height) return;
    if (isChanged || this._isStale) this._place(now);
    this._isStale = false;
    for (const row of this._rows) if (!row.root.hidden) row.draw(now, palette, this.areSparksKnown);
  }

  /** @param {number} now */
  _place(now) {
    if (this._mustReveal && this.devices.some((device) => device.name === this.chosen)) {
      this._mustReveal = false;
      this._reveal();
    }
    const first = Math.max(0, Math.floor(this._root.scrollTop / this._rowHeight) - SPARE);
    const most = Math.ceil(this._height / this._rowHeight) + 2 * SPARE;
    while (this._rows.length < most) {
      const row = new Row();
      this._rows.push(row);
      this._space.append(row.root);
    }
    this._rows.forEach((row, i) => {
      // Row i always shows a device whose index is i modulo the number of rows: scrolling moves few rows.
      const index = first + ((((i - first) % this._rows.length) + this._rows.length) % this._rows.length);
      const device = this.devices[index];
      row.root.hidden = !device;
      if (!device) return;
      row.root.style.transform = `translateY(${index * this._rowHeight}px)`;
      row.update(device, index, this.devices.length, device.name === this.chosen, now);
    });
    const chosen = this.devices.some((device) => device.name === this.chosen) ? `device-${this.chosen}` : null;
    setAttribute(this._root, "aria-activedescendant", chosen);
  }

  _measure() {
    this._height = this._root.clientHeight;
    this._rowHeight = parseFloat(getComputedStyle(this._root).getPropertyValue("--row")) || 48;
    this.show(this.devices);
  }

  _reveal() {
    const at = this.devices.findIndex((device) => device.name === this.chosen);
    if (at < 0 || !this._height) return;
    const top = at * this._rowHeight;
    const hidden = top - this._root.scrollTop;
    if (hidden >= 0 && hidden <= this._height - this._rowHeight) return;
    // A step beyond the edge scrolls by that step; a far jump ends in the middle.
    const isNear = hidden > -2 * this._rowHeight && hidden < this._height + this._rowHeight;
    const edge = hidden < 0 ? top : top + this._rowHeight - this._height;
    this._root.scrollTop = isNear ? edge : top - (this._height - this._rowHeight) / 2;
  }

  /** @param {Event} event */
  _clicked(event) {
    const row = event.target instanceof Element ? event.target.closest(".row") : null;
    const found = this._rows.find(({ root }) => root === row);
    if (found?.device) this._choose(found.device.name);
  }

  /** @param {KeyboardEvent} event */
  _key(event) {
    const page = Math.max(1, Math.floor(this._height / this._rowHeight) - 1);
    /** @type {Record<string, number>} */
    const moves = { PageUp: -page, PageDown: page, Home: -Infinity, End: Infinity };
    const by = moves[event.key];
    if (by === undefined) return;
    event.preventDefault();
    this.move(Number.isFinite(by) ? by : Math.sign(by) * this.devices.length);
  }
}
