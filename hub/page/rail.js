/** The left rail: count chips, the filter field, the list and its footer. */

import { byId, setAttribute, setText } from "./dom.js";
import { matches, parseFilter, toggleState, toggleWord } from "./filter.js";
import { clockText } from "./format.js";
import { DeviceList } from "./list.js";

/** @type {import("./fleet.js").State[]} */
const STATES = ["online", "alert", "stale", "offline"];

export class Rail {
  /**
   * @param {(name: string) => void} choose
   * @param {() => void} changed the filter changed
   */
  constructor(choose, changed) {
    this._changed = changed;
    this.filterText = "";
    this._filter = parseFilter("");
    /** Names in the list, null when it must be made anew. @type {string | null} */
    this._key = null;
    this.list = new DeviceList(byId("devices"), choose);
    this._field = /** @type {HTMLInputElement} */ (byId("filter"));
    this._field.addEventListener("input", () => this._edited(this._field.value));
    this._field.addEventListener("keydown", (event) => event.key === "Enter" && !this.list.chosen && this.list.move(0));
    for (const state of STATES) byId(`chip-${state}`).addEventListener("click", () => this._edited(toggleState(this.filterText, state)));
  }

  focusSearch() {
    this._field.focus();
    this._field.select();
  }

  /** Switch a word such as `site:north` on or off. @param {string} word */
  toggle(word) {
    this._edited(toggleWord(this.filterText, word));
  }

  /** @param {string} text */
  setFilter(text) {
    this.filterText = text;
    if (this._field.value !== text) this._field.value = text;
    this._filter = parseFilter(text);
    this._key = null;
    const { problem } = this._filter;
    setAttribute(this._field, "aria-invalid", problem ? "true" : null);
  }

  /**
   * @param {import("./fleet.js").Fleet} fleet
   * @param {number} now relative ns
   * @param {boolean} isLive
   */
  render(fleet, now, isLive) {
    for (const state of STATES) {
      setText(byId(`count-${state}`), String(fleet.counts[state]));
      setAttribute(byId(`chip-${state}`), "aria-pressed", String(this.filterText.split(/\s+/).includes(`state:${state}`)));
    }
    const shown = fleet.ordered.filter((device) => matches(this._filter, device));
    const key = shown.map((device) => device.name).join("\n");
    if (key !== this._key) {
      this._key = key;
      this.list.show(shown);
    }
    const { problem } = this._filter;
    const total = fleet.ordered.length;
    setText(byId("shown"), problem ?? `${shown.length.toLocaleString()} of ${total.toLocaleString()} ${total === 1 ? "device" : "devices"}`);
    setText(byId("as-of"), isLive ? "last 5 min" : `as of ${clockText(now)}`);
    byId("none-found").hidden = shown.length > 0 || total === 0;
  }

  /** @param {string} text */
  _edited(text) {
    this.setFilter(text);
    this._changed();
  }
}
