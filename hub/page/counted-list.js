/**
 * A list of devices by state that stays small: a count for each state, the first rows, and how many more there are.
 *
 * Owns: its rows and which state is shown alone. Used for the results of a command and for drift.
 */

import { element, setAttribute, setText } from "./dom.js";

/** Rows in the document, of however many devices; a count, or the command line, finds the others. */
const MOST_ROWS = 100;

/** @typedef {{device: string, state: string, text: () => string}} Entry */

export class CountedList {
  /**
   * @param {HTMLElement} root
   * @param {(state: string) => {glyph: string, word: string, tone: string}} wordsOf
   * @param {(device: string) => void} choose
   * @param {(key: string) => string} command what shows all of it in a terminal
   * @param {string} [quiet] a state that is listed only when its count is pressed
   */
  constructor(root, wordsOf, choose, command, quiet = "") {
    this._quiet = quiet;
    this._wordsOf = wordsOf;
    this._choose = choose;
    this._command = command;
    this._counts = element("div", { class: "counts", role: "group", "aria-label": "Show only" });
    this._rows = element("ul");
    this._more = element("p", { class: "why" });
    root.append(this._counts, this._rows, this._more);
    this._only = "";
    this._key = "";
    this._told = "";
    /** @type {Entry[]} */
    this._entries = [];
    /** @type {Map<string, HTMLElement>} */
    this._buttons = new Map();
  }

  /** @param {string} key what is shown: another one begins with all states @param {Entry[]} entries */
  show(key, entries) {
    if (key !== this._key) this._only = "";
    this._key = key;
    this._entries = entries;
    this._render();
  }

  _render() {
    /** @type {Map<string, number>} */
    const counts = new Map();
    for (const { state } of this._entries) counts.set(state, (counts.get(state) ?? 0) + 1);
    for (const state of counts.keys()) if (!this._buttons.has(state)) this._add(state);
    for (const [state, button] of this._buttons) {
      const { glyph, word } = this._wordsOf(state);
      setText(button, `${glyph} ${word} ${(counts.get(state) ?? 0).toLocaleString()}`);
      // One that is pressed stays, so that it can be released.
      button.hidden = !counts.has(state) && state !== this._only;
      setAttribute(button, "aria-pressed", String(state === this._only));
    }
    const chosen = this._entries.filter(({ state }) => (this._only ? state === this._only : state !== this._quiet));
    const rows = chosen.slice(0, MOST_ROWS).map(({ device, state, text }) => ({ device, state, text: text() }));
    const left = chosen.length - rows.length;
    setText(this._more, left > 0 ? `${left.toLocaleString()} more; press a count above, or: ${this._command(this._key)}` : "");
    const told = JSON.stringify(rows);
    if (told === this._told) return;
    this._told = told;
    const focused = this._rows.contains(document.activeElement) ? document.activeElement?.textContent : "";
    this._rows.replaceChildren(...rows.map((row) => this._rowOf(row)));
    const at = rows.findIndex(({ device }) => device === focused);
    if (at >= 0) this._rows.children[at].querySelector("button")?.focus();
  }

  /** @param {string} state */
  _add(state) {
    const button = element("button", { type: "button", class: "small", "data-tone": this._wordsOf(state).tone });
    button.addEventListener("click", () => {
      this._only = this._only === state ? "" : state;
      this._render();
    });
    this._buttons.set(state, button);
    this._counts.append(button);
  }

  /** @param {{device: string, state: string, text: string}} row */
  _rowOf({ device, state, text }) {
    const { glyph, word, tone } = this._wordsOf(state);
    const name = element("button", { type: "button", class: "link", title: "Watch this device" }, device);
    name.addEventListener("click", () => this._choose(device));
    return element("li", { "data-tone": tone }, name, element("span", { class: "outcome" }, `${glyph} ${word}`), element("span", { class: "why" }, text));
  }
}
