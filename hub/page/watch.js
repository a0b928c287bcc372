/**
 * The watch view: one device with its tiles, charts and day strip.
 *
 * Owns: which device is fed, the cards, pause and zoom. Pausing freezes what the charts show; the
 * tiles always show the live value, and what arrives meanwhile is counted, never lost.
 */

import { exportAddress } from "./api.js";
import { Card } from "./card.js";
import { SECOND, toEpoch } from "./clock.js";
import { byId, element, setAttribute, setText } from "./dom.js";
import { Feed } from "./feed.js";
import { isNumeric, STATES } from "./fleet.js";
import { clockText, dayText, durationText, rateText, skewText } from "./format.js";
import { Strip } from "./strip.js";
import { MOST_TILES, Tiles } from "./tiles.js";
import { RANGES, Viewport } from "./viewport.js";

/** Texts are brought up to date this often, also while the hub's clock stands still. */
const TEXTS_EVERY_MS = 250;

export class Watch {
  /**
   * @param {import("./client/session.js").Session} session
   * @param {import("./clock.js").HubClock} clock
   * @param {() => void} changed called when something the address keeps has changed
   * @param {(word: string) => void} choose switches a word of the filter on or off
   */
  constructor(session, clock, changed, choose) {
    this._choose = choose;
    this._marks = "";
    this._session = session;
    this._clock = clock;
    this._changed = changed;
    this.viewport = new Viewport();
    /** @type {Feed | null} */
    this.feed = null;
    /** @type {import("./fleet.js").Device | null} */
    this.device = null;
    /** @type {Card[]} */
    this.cards = [];
    this._signature = "";
    this._pausedAt = 0;
    this._textsAt = -Infinity;
    this._tiles = new Tiles(byId("tiles"));
    this._charts = byId("charts");
    this._strip = new Strip(
      { root: byId("strip"), canvas: /** @type {HTMLCanvasElement} */ (byId("day")), title: byId("strip-title"), window: byId("strip-window") },
      (from, to) => this.zoom(from, to),
    );
    this._buildRanges();
    byId("pause").addEventListener("click", () => this.togglePause());
  }

  /** @param {import("./fleet.js").Device | null} device */
  show(device) {
    if (device === this.device) return;
    this.feed?.close();
    this.device = device;
    this.feed = device ? new Feed(this._session, device, this._clock) : null;
    this._signature = "";
    this._textsAt = -Infinity;
    for (const card of this.cards) card.destroy();
    this.cards = [];
    this._strip.invalidate();
    this._pausedAt = 0;
  }

  /** @param {string} range */
  setRange(range) {
    this.viewport.setRange(range);
    this._refresh();
  }

  togglePause() {
    if (this.viewport.isPaused) this.viewport.thaw();
    else this._freeze(...this.viewport.window(this._clock.now(), this._plotWidth()));
    this._refresh();
  }

  /** Show [from, to] and stay there. @param {number} from @param {number} to */
  zoom(from, to) {
    this._freeze(from, to);
    this._refresh();
  }

  /** The connection came or went. */
  redraw() {
    for (const card of this.cards) card.redraw();
  }

  /** Colours changed. */
  repaint() {
    for (const card of this.cards) card.invalidate();
    this._strip.invalidate();
  }

  /**
   * @param {number} now relative ns
   * @param {import("./palette.js").Palette} palette
   * @param {boolean} isConnected
   */
  render(now, palette, isConnected) {
    const { device, feed } = this;
    if (!device || !feed) return;
    this._build(device);
    const scene = { feed, viewport: this.viewport, now, isConnected, palette };
    for (const card of this.cards) card.render(scene);
    const lead = Math.max(0, device.channels.findIndex(isNumeric));
    if (device.channels.length) {
      this._strip.render(scene, device.channels[lead], lead, this.viewport.window(now, this._plotWidth()));
    }
    if (performance.now() - this._textsAt >= TEXTS_EVERY_MS) {
      this._textsAt = performance.now();
      this._renderTexts(device, feed, now, isConnected);
    }
  }

  /** @param {number} from @param {number} to */
  _freeze(from, to) {
    if (!this.viewport.isPaused) this._pausedAt = this.feed?.received ?? 0;
    this.viewport.freeze(from, to);
  }

  _refresh() {
    this._textsAt = -Infinity;
    this._strip.invalidate();
    this._changed();
  }

  _plotWidth() {
    const root = this.cards[0]?.root;
    return root ? Math.max(1, root.clientWidth - 80) : 600;
  }

  /** Make tiles and cards anew when the channels or what is said of them changed. @param {import("./fleet.js").Device} device */
  _build(device) {
    const signature = JSON.stringify(device.channels.map((c) => [c.channel, c.label, c.unit, c.unit_shown, c.type, c.range, c.decimals, c.scale, c.offset]));
    if (signature === this._signature) return;
    this._signature = signature;
    for (const card of this.cards) card.destroy();
    const actions = { onSelect: (/** @type {number} */ from, /** @type {number} */ to) => this.zoom(from, to), onReset: () => this._resume() };
    this.cards = device.channels.map((channel, i) => new Card(channel, i, actions));
    this._tiles.build(device.channels);
    this._charts.replaceChildren(...this.cards.map((card) => card.root));
    this._charts.dataset.count = String(Math.min(this.cards.length, MOST_TILES + 1));
  }

  _resume() {
    if (this.viewport.isPaused) this.togglePause();
  }

  /** @param {import("./fleet.js").Device} device @param {Feed} feed @param {number} now @param {boolean} isConnected */
  _renderTexts(device, feed, now, isConnected) {
    const { viewport } = this;
    setText(byId("device"), device.label);
    this._renderMarks(device);
    this._renderBadge(device, now, isConnected);
    setText(byId("facts"), factText(device, feed, now));
    this._tiles.render(this.cards.slice(0, MOST_TILES).map((card) => card.summary), viewport.isZoomed ? "" : viewport.range);
    for (const button of byId("ranges").children) {
      setAttribute(button, "aria-pressed", String(!viewport.isZoomed && button.getAttribute("data-range") === viewport.range));
    }
    const paused = viewport.isPaused;
    const fresh = feed.received - this._pausedAt;
    setAttribute(byId("pause"), "data-paused", paused ? "" : null);
    setAttribute(byId("pause"), "aria-pressed", String(paused));
    setText(byId("pause-text"), paused ? `Resume · ${fresh.toLocaleString()} new` : "Pause");
    const [from, to] = viewport.window(now, this._plotWidth());
    setAttribute(byId("export"), "href", exportAddress(device.name, toEpoch(from), toEpoch(to)));
  }

  /** Site and tags, each a switch of the filter. @param {import("./fleet.js").Device} device */
  _renderMarks({ site, tags }) {
    const words = [...(site ? [`site:${site}`] : []), ...tags.map((tag) => `tag:${tag}`)];
    if (words.join(" ") === this._marks) return;
    this._marks = words.join(" ");
    const buttons = words.map((word) => {
      const button = element("button", { type: "button", class: "mark", title: `Filter by ${word}` }, word.slice(word.indexOf(":") + 1));
      button.addEventListener("click", () => this._choose(word));
      return button;
    });
    byId("marks").replaceChildren(...buttons);
  }

  /** @param {import("./fleet.js").Device} device @param {number} now @param {boolean} isConnected */
  _renderBadge(device, now, isConnected) {
    const { glyph, word } = STATES[device.state];
    const badge = byId("badge");
    setAttribute(badge, "data-state", device.state);
    setAttribute(byId("watch"), "data-state", device.state);
    setText(byId("badge-glyph"), glyph);
    setText(byId("badge-text"), isConnected ? word : `${word} as of ${clockText(now)}`);
    byId("skew").hidden = device.skew === null;
    setText(byId("skew"), device.skew === null ? "" : skewText(device.skew));
  }

  _buildRanges() {
    const group = byId("ranges");
    for (const range of Object.keys(RANGES)) {
      const button = element("button", { type: "button", "data-range": range, "aria-pressed": "false" }, range);
      button.addEventListener("click", () => this.setRange(range));
      group.append(button);
    }
  }
}

/** @param {import("./fleet.js").Device} device @param {Feed} feed @param {number} now @returns {string} */
function factText(device, feed, now) {
  const count = device.channels.length;
  const facts = [`${count} ${count === 1 ? "channel" : "channels"}`];
  if (device.label !== device.name) facts.unshift(device.name);
  if (device.alert) facts.unshift(device.alert);
  if (device.presence === "online") facts.push(rateText(device.rate) || "waiting for readings");
  else if (Number.isNaN(device.heard)) facts.push("no readings yet");
  else {
    const silent = (now - device.heard) / SECOND;
    const day = silent > 86400 ? `${dayText(device.heard)}, ` : "";
    facts.push(`last seen ${durationText(silent)} ago (${day}${clockText(device.heard)})`);
  }
  if (feed.refused) facts.push(feed.refused);
  return facts.join("  ·  ");
}
