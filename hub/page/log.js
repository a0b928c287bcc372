/**
 * The log of changes, for admins: who did what, when, from where, with which outcome.
 *
 * Owns: the dialog and its pages. Decides nothing: which entries there are is the hub's answer.
 */

import { fetchLog } from "./api.js";
import { byId, element, setText } from "./dom.js";

export class Log {
  constructor() {
    this._dialog = /** @type {HTMLDialogElement} */ (byId("log"));
    this._more = byId("log-more");
    this._next = 0;
    byId("open-log").addEventListener("click", () => this.open());
    byId("close-log").addEventListener("click", () => this._dialog.close());
    this._more.addEventListener("click", () => this._ask());
  }

  open() {
    if (this._dialog.open) return;
    this._next = 0;
    byId("log-rows").replaceChildren();
    this._dialog.showModal();
    this._ask();
  }

  async _ask() {
    try {
      const answer = await fetchLog(this._next);
      byId("log-rows").append(...answer.entries.map(rowOf));
      this._next = answer.next ?? 0;
      this._more.hidden = answer.next === null;
      const cut = answer.cut ? `${answer.cut.count.toLocaleString()} older entries were cut` : "";
      setText(byId("log-note"), byId("log-rows").childElementCount ? cut : "Nothing was changed yet");
    } catch (error) {
      setText(byId("log-note"), error instanceof Error ? error.message : "no answer");
    }
  }
}

/** @param {import("./api.js").LogEntry} entry */
function rowOf(entry) {
  const time = new Date(Number(BigInt(entry.time_ns) / 1_000_000n));
  const outcome = entry.count > 1 ? `${entry.outcome} × ${entry.count.toLocaleString()}` : entry.outcome;
  const what = [entry.what, entry.target].filter(Boolean).join(" · ");
  const who = [entry.who || "nobody known", entry.role].filter(Boolean).join(", ");
  const cells = [time.toLocaleString(), who, what, entry.peer, outcome];
  return element("tr", { "data-outcome": entry.outcome === "ok" ? "ok" : "refused" }, ...cells.map((text) => element("td", {}, text)));
}
