/** The top bar: rate, connection pill with data latency, theme, help; and what is said when the hub refuses. */

import { byId, closeDialogs, setAttribute, setText } from "./dom.js";
import { clockText } from "./format.js";

/** @type {Record<import("./client/hub-client.d.ts").State, string>} */
const WORDS = { connecting: "Connecting…", live: "Live", reconnecting: "Reconnecting…", refused: "Not connected", closed: "Not connected" };

export class TopBar {
  /** @param {{toggleTheme: () => void, back: () => void}} actions */
  constructor({ toggleTheme, back }) {
    this._help = /** @type {HTMLDialogElement} */ (byId("help"));
    byId("theme").addEventListener("click", toggleTheme);
    byId("back").addEventListener("click", back);
    byId("open-help").addEventListener("click", () => this.openHelp());
    byId("close-help").addEventListener("click", () => this._help.close());
    this._help.addEventListener("click", (event) => event.target === this._help && this._help.close());
  }

  openHelp() {
    if (!this._help.open) this._help.showModal();
  }

  /** @param {string} why */
  showRefusal(why) {
    setText(byId("refusal-why"), why);
    if (byId("refusal").hidden) closeDialogs();
    byId("refusal").hidden = false;
  }

  /** @param {{connection: import("./client/hub-client.d.ts").State, rate: number, latencyMs: number, now: number}} status */
  render({ connection, rate, latencyMs, now }) {
    setText(byId("rate"), rate < 10 && rate > 0 ? rate.toFixed(1) : Math.round(rate).toLocaleString());
    setText(byId("connection-word"), WORDS[connection]);
    setAttribute(byId("connection"), "data-state", connection);
    setText(byId("connection-detail"), connection === "live" ? latencyText(latencyMs) : connection === "reconnecting" ? `as of ${clockText(now)}` : "");
  }
}

/** @param {number} ms @returns {string} */
function latencyText(ms) {
  if (Number.isNaN(ms)) return "";
  if (ms < 1) return "<1 ms";
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
