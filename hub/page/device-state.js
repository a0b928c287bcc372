/**
 * Desired and reported state of the device being watched, key by key, and changing one desired key.
 *
 * Owns: the table, the form below it, and that a change is made only to the version that was looked at when it was
 * begun. Decides nothing: what differs and how the device stands are the hub's words.
 */

import { fetchState, HttpError, patchDesired } from "./api.js";
import { fromEpoch } from "./clock.js";
import { byId, element, setText } from "./dom.js";
import { exactJson, InexactError } from "./exact.js";
import { clockText, dayText } from "./format.js";
import { jsonText } from "./orders.js";

/** A state is at most 32 KiB; a table beyond this is no longer read by a person. */
const MOST_KEYS = 200;
/** @type {Record<import("./api.js").Drift, {glyph: string, word: string, tone: string}>} */
export const DRIFTS = {
  in_sync: { glyph: "●", word: "in sync", tone: "ok" },
  pending: { glyph: "◌", word: "pending", tone: "open" },
  drifted: { glyph: "▲", word: "drifted", tone: "warn" },
  offline: { glyph: "○", word: "offline", tone: "off" },
};

/** @typedef {import("./api.js").StateAnswer} StateAnswer */

export class DeviceState {
  /** @param {() => void} askSoon asks for the panel's contents at once */
  constructor(askSoon) {
    this._askSoon = askSoon;
    this._form = /** @type {HTMLFormElement} */ (byId("desired-form"));
    this._key = /** @type {HTMLInputElement} */ (byId("desired-key"));
    this._value = /** @type {HTMLInputElement} */ (byId("desired-value"));
    for (const input of [this._key, this._value]) input.addEventListener("input", () => this._begin());
    this._form.addEventListener("submit", (event) => {
      event.preventDefault();
      this._set();
    });
    this.clear("");
  }

  /** @param {string} device */
  clear(device) {
    this._device = device;
    /** @type {StateAnswer | null} */
    this._shown = null;
    /** @type {number | null} version that was shown when somebody began to write; null: nobody writes */
    this._base = null;
    /** @type {string[]} the key that is edited, as it is: one with a dot in it cannot be written with dots */
    this._path = [];
    this._told = "";
    this._isBusy = false;
    this._mayChange = false;
    this._form.reset();
    this._form.hidden = true;
    this._say("", "");
    byId("state-rows").replaceChildren();
    for (const id of ["state-drift", "state-versions"]) setText(byId(id), "");
  }

  /** @param {string} device @param {AbortSignal} signal */
  async ask(device, signal) {
    const answer = await fetchState(device, signal);
    if (device !== this._device) return;
    this._shown = answer;
    this._render();
  }

  /** @param {boolean} mayChange */
  allow(mayChange) {
    this._mayChange = mayChange;
    this._form.hidden = !mayChange;
    this._render();
  }

  /** What went wrong while asking. @param {string} why */
  fail(why) {
    if (!this._shown) setText(byId("state-versions"), why);
  }

  _begin() {
    this._base ??= this._shown?.desired.version ?? null;
  }

  _render() {
    const { _shown: shown, _mayChange: mayChange } = this;
    if (!shown) return;
    const told = JSON.stringify([shown, mayChange]);
    if (told === this._told) return;
    this._told = told;
    const { glyph, word, tone } = DRIFTS[shown.drift];
    setText(byId("state-drift"), `${glyph} ${word}`);
    byId("state-drift").dataset.tone = tone;
    setText(byId("state-versions"), versionsText(shown));
    const rows = rowsOf(shown);
    const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset.act : "";
    byId("state-rows").replaceChildren(...rows.slice(0, MOST_KEYS).map((row) => this._rowOf(row)));
    if (focused) /** @type {HTMLElement | null} */ (byId("state-rows").querySelector(`[data-act="${CSS.escape(focused)}"]`))?.focus();
    byId("state-table").hidden = rows.length === 0;
    byId("state-more").hidden = rows.length <= MOST_KEYS;
    setText(byId("state-more"), `${(rows.length - MOST_KEYS).toLocaleString()} more keys: hub state show ${shown.device}`);
  }

  /** @param {Row} row */
  _rowOf({ path, reported, desired, differs }) {
    const name = path.join(".");
    const cell = (/** @type {unknown} */ value) => element("td", value === undefined ? { class: "why" } : {}, value === undefined ? "–" : jsonText(value));
    const acts = element("td", { class: "acts" });
    if (this._mayChange) {
      acts.append(this._button(`Edit ${name}`, "Edit", () => this._edit(path, desired ?? reported)));
      if (desired !== undefined) acts.append(this._button(`Remove ${name} from what is desired`, "Remove", () => this._change(path, null, this._shown?.desired.version ?? 0)));
    }
    const word = element("span", { class: "outcome" }, differs ? "▲ differs" : desired === undefined ? "" : "● as desired");
    return element("tr", { "data-tone": differs ? "warn" : "" }, element("th", { scope: "row" }, name, " ", word), cell(reported), cell(desired), acts);
  }

  /** @param {string} label @param {string} text @param {() => void} act */
  _button(label, text, act) {
    const button = element("button", { type: "button", class: "small", "aria-label": label, "data-act": label }, text);
    button.addEventListener("click", act);
    return button;
  }

  /** @param {string[]} path @param {unknown} value */
  _edit(path, value) {
    this._base = this._shown?.desired.version ?? 0;
    this._path = path;
    this._key.value = path.join(".");
    this._value.value = value === undefined ? "" : writtenText(value);
    this._say("", "");
    this._value.focus();
    this._value.select();
  }

  _set() {
    const key = this._key.value.trim();
    const path = key === this._path.join(".") ? this._path : key.split(".");
    if (path.some((part) => !part)) return this._say("Name the key, such as fan.speed", "crit");
    try {
      this._change(path, readText(this._value.value), this._base ?? this._shown?.desired.version ?? 0);
    } catch (error) {
      this._say(error instanceof Error ? error.message : "wrong", "crit");
    }
  }

  /** @param {string[]} path @param {unknown} value null removes it @param {number} version */
  async _change(path, value, version) {
    if (this._isBusy) return;
    const device = this._device;
    const name = path.join(".");
    this._isBusy = true;
    try {
      const answer = await patchDesired(device, path.reduceRight((inner, key) => ({ [key]: inner }), value), version);
      if (device !== this._device) return;
      this._base = null;
      this._say(answer.changed ? `● Version ${answer.version}: ${name} ${value === null ? "removed" : `= ${jsonText(value)}`}` : `● ${name} was so already`, "ok");
    } catch (error) {
      if (device !== this._device) return;
      await this._explain(error, device);
    } finally {
      if (device === this._device) this._isBusy = false;
    }
    if (device === this._device) this._askSoon();
  }

  /** @param {unknown} error @param {string} device */
  async _explain(error, device) {
    if (!(error instanceof HttpError)) return this._say("The hub does not answer. Look at the desired value before you try again.", "crit");
    if (error.status !== 409) return this._say(`Not changed: ${error.message}`, "crit");
    const now = await fetchState(device).catch(() => null);
    if (device !== this._device) return;
    if (now) this._shown = now;
    this._render();
    // From here on it is this version that was looked at.
    this._base = this._shown?.desired.version ?? null;
    const { who, version } = this._shown?.desired ?? { who: null, version: 0 };
    this._say(`Not changed: ${who ?? "somebody"} made version ${version} meanwhile. Look at the table, then set it again if it is still right.`, "crit");
  }

  /** @param {string} text @param {string} tone */
  _say(text, tone) {
    setText(byId("desired-said"), text);
    byId("desired-said").dataset.tone = tone;
  }
}

/** @param {StateAnswer} shown */
function versionsText({ desired, reported }) {
  const when = (/** @type {string | null} */ ns) => (ns === null ? "" : ` · ${dayText(fromEpoch(ns))} ${clockText(fromEpoch(ns))}`);
  const wanted = desired.version ? `Desired version ${desired.version}${desired.who ? ` by ${desired.who}` : ""}${when(desired.time_ns)}` : "Nothing was ever desired";
  return `${wanted}; ${reported.time_ns === null ? "nothing was reported" : `reported for version ${reported.version}${when(reported.time_ns)}`}`;
}

/** @typedef {{path: string[], reported: unknown, desired: unknown, differs: boolean}} Row */

/** @param {StateAnswer} shown @returns {Row[]} every leaf of both states, those that differ first */
function rowsOf({ desired, reported, differing }) {
  /** @type {Map<string, Row>} */
  const rows = new Map();
  for (const [side, state] of /** @type {["desired" | "reported", object][]} */ ([["desired", desired.state], ["reported", reported.state]])) {
    for (const [path, value] of leavesOf(state, [])) {
      const key = JSON.stringify(path);
      const row = rows.get(key) ?? { path, reported: undefined, desired: undefined, differs: false };
      row[side] = value;
      row.differs = differing.some((name) => name === path.join(".") || path.join(".").startsWith(`${name}.`));
      rows.set(key, row);
    }
  }
  return [...rows.values()].sort((a, b) => Number(b.differs) - Number(a.differs) || (a.path.join(".") < b.path.join(".") ? -1 : 1));
}

/** @param {unknown} value @param {string[]} path @returns {[string[], unknown][]} */
function leavesOf(value, path) {
  const isBranch = typeof value === "object" && value !== null && !Array.isArray(value) && (path.length === 0 || Object.keys(value).length > 0);
  return isBranch ? Object.entries(value).flatMap(([key, inner]) => leavesOf(inner, [...path, key])) : [[path, value]];
}

/** @param {string} text @returns {unknown} JSON where it is some, else the words themselves @throws {InexactError} */
function readText(text) {
  try {
    return exactJson(text);
  } catch (error) {
    if (error instanceof InexactError) throw error;
    return text;
  }
}

/** @param {unknown} value @returns {string} what `readText` reads as this */
function writtenText(value) {
  return typeof value === "string" && isWords(value) ? value : JSON.stringify(value);
}

/** @param {string} text @returns {boolean} whether it is no JSON */
function isWords(text) {
  try {
    JSON.parse(text);
  } catch {
    return true;
  }
  return false;
}
